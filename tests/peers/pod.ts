import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import type { Manifest } from './helm.js';

/** Files by name, as a ConfigMap or Secret holds them. */
export type Files = Record<string, string>;

export interface Cluster {
  /** A folder for everything. */
  dir: string;
  /** Where the image's files are. */
  image: string;
  configMaps: Record<string, Files>;
  secrets: Record<string, Files>;
}

const USER = 65532;
const isRoot = process.getuid?.() === 0;

/**
 * What the Dockerfile's last stage holds, in a folder: production dependencies installed as it says, the build, what it copies. Belongs to somebody else
 * than who will run it.
 */
export function makeImage(dir: string): void {
  const lines = readFileSync('Dockerfile', 'utf8').split('\n');
  const install = lines.find((line) => line.startsWith('RUN npm ci --omit=dev'))?.slice('RUN '.length) as string;
  const last = lines.slice(lines.findLastIndex((line) => line.startsWith('FROM ')));
  mkdirSync(dir, { recursive: true });
  for (const line of last.filter((one) => one.startsWith('COPY '))) {
    const words = line.split(' ').slice(1);
    const to = join(dir, words.at(-1) as string);
    if (words[0] === '--from=dependencies') {
      for (const file of ['package.json', 'package-lock.json', '.npmrc']) cpSync(file, join(dir, file));
      const [command, ...rest] = install.split(' ') as [string, ...string[]];
      const { status, stderr } = spawnSync(command, [...rest, '--prefer-offline'], { cwd: dir, encoding: 'utf8' });
      if (status !== 0) throw new Error(`${install}: ${stderr}`);
    } else if (words[0] === '--from=build') cpSync('dist', to, { recursive: true });
    else {
      for (const source of words.slice(0, -1))
        cpSync(source, words.length > 2 ? join(to, source) : to, { recursive: true });
    }
  }
}

/** One container of a pod as a process, as its kubelet would start it. */
export interface RunningPod {
  child: ChildProcess;
  said(): string;
  urlOf(port: string): string;
  /** Asks one of its probes once, as the kubelet does; true when it passes. */
  probe(kind: 'startupProbe' | 'livenessProbe' | 'readinessProbe'): Promise<boolean>;
  /** SIGTERM, then SIGKILL when its time is over. Returns how it ended. */
  terminate(): Promise<{ code: number | null; signal: NodeJS.Signals | null; tookMs: number }>;
}

/**
 * Runs the rendered command with the rendered arguments and environment and nothing else, as the rendered user where this process may, with every volume
 * laid out as Kubernetes does it (links to links, modes, owner). As there is no namespace of its own, paths and ports are moved: everything that names a
 * place of a mount gets the folder's, and the ports, which the configuration has to have as the container declares them, are replaced by free ones.
 */
export async function runPod(cluster: Cluster, workload: Manifest, name: string): Promise<RunningPod> {
  const { spec } = workload['spec'].template;
  const [container] = spec.containers;
  const root = join(cluster.dir, name);
  const tops = new Set<string>(
    container.volumeMounts.map(({ mountPath }: { mountPath: string }) => mountPath.split('/').slice(0, 3).join('/')),
  );
  const move = (text: string) =>
    [...tops].reduce(
      (whole, top) => whole.replaceAll(new RegExp(`(?<![\\w./-])${top}(?=/|$|[\\s"'])`, 'gm'), join(root, top)),
      text,
    );
  const claims = (workload['spec'].volumeClaimTemplates ?? []).map((claim: Manifest) => claim.metadata.name);
  for (const { name: volume, mountPath } of container.volumeMounts) {
    const at = join(root, mountPath);
    mkdirSync(at, { recursive: true });
    if (claims.includes(volume)) own(at, 0o770);
    else
      fill(
        at,
        spec.volumes.find((one: { name: string }) => one.name === volume),
        cluster,
        move,
      );
  }
  const ports = new Map<string, number>();
  for (const port of container.ports) ports.set(port.name, await freePort());
  const env: Record<string, string> = {
    MAYFLY_OPS_PORT: String(ports.get('ops')),
    MAYFLY_LISTEN_PORT: String(ports.get('http') ?? 0),
  };
  for (const { name: variable, value } of container.env) env[variable] = move(String(value));
  const words = [...container.command, ...container.args].map((word: string) =>
    move(word.replace('/nodejs/bin/node', process.execPath).replace(/^\/app\//, `${cluster.image}/`)),
  );
  const { runAsUser, runAsGroup } = spec.securityContext;
  const child = spawn(words[0] as string, words.slice(1), {
    cwd: cluster.image,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(isRoot && { uid: runAsUser, gid: runAsGroup }),
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const urlOf = (port: string) => `http://127.0.0.1:${ports.get(port)}`;
  return {
    child,
    said: () => said,
    urlOf,
    probe: async (kind) => {
      const { httpGet, timeoutSeconds } = container[kind];
      try {
        const url = `${urlOf(httpGet.port)}${httpGet.path}`;
        const { status } = await fetch(url, {
          signal: AbortSignal.timeout(timeoutSeconds * 1_000),
          redirect: 'manual',
        });
        return status >= 200 && status < 400;
      } catch {
        return false;
      }
    },
    terminate: async () => {
      const startedAtMs = performance.now();
      const kill = setTimeout(() => child.kill('SIGKILL'), spec.terminationGracePeriodSeconds * 1_000);
      if (child.exitCode === null && child.signalCode === null) {
        const gone = once(child, 'exit');
        child.kill('SIGTERM');
        await gone;
      }
      clearTimeout(kill);
      return { code: child.exitCode, signal: child.signalCode, tookMs: performance.now() - startedAtMs };
    },
  };
}

// biome-ignore lint/suspicious/noExplicitAny: a volume is whatever its kind says.
function fill(at: string, volume: any, { configMaps, secrets }: Cluster, move: (text: string) => string): void {
  const { configMap, secret } = volume;
  if (!configMap && !secret) {
    own(at, 0o770);
    return;
  }
  const name = configMap?.name ?? secret.secretName;
  const files = (configMap ? configMaps : secrets)[name];
  if (!files) throw new Error(`there is no ${configMap ? 'ConfigMap' : 'Secret'} ${name}`);
  const items: { key: string; path: string }[] =
    (configMap ?? secret).items ?? Object.keys(files).map((key) => ({ key, path: key }));
  const real = join(at, '..2026_11_28_12_00_00.1');
  for (const { key, path } of items) {
    const content = files[key];
    if (content === undefined) throw new Error(`${name} holds no ${key}`);
    mkdirSync(dirname(join(real, path)), { recursive: true });
    writeFileSync(join(real, path), move(content));
    own(join(real, path), (configMap ?? secret).defaultMode ?? 0o644);
  }
  symlinkSync('..2026_11_28_12_00_00.1', join(at, '..data'));
  for (const entry of readdirSync(real)) symlinkSync(join('..data', entry), join(at, entry));
}

/** As fsGroup does it: the pod's group owns it, root stays its user. */
function own(path: string, mode: number): void {
  chmodSync(path, mode);
  if (isRoot) chownSync(path, 0, USER);
}
