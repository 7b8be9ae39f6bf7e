import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseAllDocuments, stringify } from 'yaml';

const PEERS = process.env['MAYFLY_PEERS_DIR'] ?? join(process.env['HOME'] ?? '', '.cache/mayfly-peers');
const HELM = join(PEERS, 'bin/helm');
const KUBERNETES_VALIDATE = join(PEERS, 'bin/kubernetes-validate');
export const CHART = 'helm/mayfly';

export const haveHelm = existsSync(HELM) && existsSync(KUBERNETES_VALIDATE);

// biome-ignore lint/suspicious/noExplicitAny: a manifest is whatever its kind says.
export type Manifest = { apiVersion: string; kind: string; metadata: any; [member: string]: any };

/** What these kinds look like is not Kubernetes' own to say. */
const CUSTOM = ['ServiceMonitor', 'PrometheusRule', 'HTTPRoute'];

export function lint(valueFiles: readonly string[]): { status: number | null; said: string } {
  return helm(['lint', '--strict', CHART, ...files(valueFiles)]);
}

/** The chart rendered as release `r`; throws what helm said. */
export function template(valueFiles: readonly string[], more: readonly string[] = []): Manifest[] {
  const text = execFileSync(HELM, ['template', 'r', CHART, '--namespace', 'agents', ...files(valueFiles), ...more], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Kubernetes reads YAML 1.1.
  return parseAllDocuments(text, { version: '1.1' })
    .map((document) => document.toJS() as Manifest | null)
    .filter((manifest) => manifest !== null);
}

/** What helm says to values that it should refuse. */
export function refusal(
  valueFiles: readonly string[],
  sets: readonly string[],
): { status: number | null; said: string } {
  return helm(['template', 'r', CHART, ...files(valueFiles), ...sets.flatMap((one) => ['--set', one])]);
}

/** What Kubernetes' own schemas, read strictly, say against manifests. */
export function invalid(manifests: readonly Manifest[]): string[] {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-manifests-'));
  try {
    const path = join(dir, 'all.yaml');
    const own = manifests.filter(({ kind }) => !CUSTOM.includes(kind));
    writeFileSync(path, own.map((manifest) => stringify(manifest, { version: '1.1' })).join('---\n'));
    const { status, stdout, stderr } = spawnSync(KUBERNETES_VALIDATE, ['-k', '1.37', '--strict', '--no-warn', path], {
      encoding: 'utf8',
    });
    const lines = `${stdout}${stderr}`.split('\n').filter((line) => line !== '');
    const passed = lines.filter((line) => line.includes(' passed for resource '));
    const said = lines.filter((line) => !line.includes(' passed for resource '));
    // Nothing said and nothing looked at is no approval.
    if (status === 0 && said.length === 0 && passed.length !== own.length) {
      return [`only ${passed.length} of ${own.length} were looked at`];
    }
    return status === 0 ? said : [`ended with ${status}`, ...said];
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function helm(words: readonly string[]): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync(HELM, words, { encoding: 'utf8' });
  return { status, said: `${stdout}${stderr}` };
}

function files(valueFiles: readonly string[]): string[] {
  return valueFiles.flatMap((file) => ['-f', `tests/peers/chart/${file}.yaml`]);
}
