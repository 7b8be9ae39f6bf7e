import { createHash } from 'node:crypto';
import type { z } from 'zod';
import type { WorkloadDeclaration } from '../../core/agent.js';
import type { Bundle, ContextOrder, Resource, SecretDeclaration, TaskType } from '../../core/bundle.js';
import { crossCheck } from './bundle-names.js';
import { invalid, problemsOf, readYaml } from './bundle-problems.js';
import {
  type contextOrder,
  type Declarations,
  type Folder,
  type orchestrator,
  type resource,
  SHAPES,
  type secret,
  type taskType,
} from './bundle-shapes.js';
import type { BundleFormat } from './contract.js';

/** What a bundle may hold at most; each is refused by name. */
export const BUNDLE_LIMITS = {
  files: 5_000,
  fileBytes: 256 * 1024,
  totalBytes: 8 * 1024 * 1024,
  declarations: 20_000,
} as const;

/** `policies/*.test.yaml` is read by the runner of policy tests, `policies/*.cedar` by the engine. */
const BUNDLE_FILE =
  /^(?:(agents|orchestrators|tasks|resources|secrets)\/[A-Za-z0-9_.-]+\.yaml|policies\/[A-Za-z0-9_.-]+\.(?:cedar|test\.yaml))$/;

/** True for a path below the bundle's folder that belongs to the bundle. Whoever reads a folder reads these and leaves the rest. */
export function isBundleFile(path: string): boolean {
  return BUNDLE_FILE.test(path);
}

/** The bundle as people write it: YAML declarations and Cedar policies (docs/guides/write-policies.md). */
export const bundleFormat: BundleFormat = {
  parse(files) {
    const problems: string[] = [];
    checkSizes(files, problems);
    if (problems.length > 0) throw invalid(problems);

    const declarations: Declarations = { agents: [], orchestrators: [], tasks: [], resources: [], secrets: [] };
    const policies = new Map<string, string>();
    for (const path of Object.keys(files).sort()) {
      const content = files[path] as string;
      const folder = BUNDLE_FILE.exec(path)?.[1] as Folder | undefined;
      if (folder) readDeclarations(folder, path, content, declarations, problems);
      else if (path.endsWith('.cedar') && isBundleFile(path)) policies.set(path, content);
      else if (!isBundleFile(path)) {
        problems.push(
          `${path}: is no file of a bundle; declarations are <folder>/<name>.yaml in ${Object.keys(SHAPES).join(', ')}, policies are policies/<name>.cedar and policies/<name>.test.yaml`,
        );
      }
    }
    crossCheck(declarations, problems);
    if (problems.length > 0) throw invalid(problems);

    return {
      digest: digestOf(files),
      workloads: [
        ...declarations.agents.map(({ value }) => toWorkload('agent', value, value.standing_exceptions)),
        ...declarations.orchestrators.map(({ value }) => toWorkload('orchestrator', value, [])),
      ],
      taskTypes: new Map(declarations.tasks.map(({ value }) => [value.type, toTaskType(value)])),
      resources: new Map(declarations.resources.map(({ value }) => [value.resource, toResource(value)])),
      secrets: new Map(declarations.secrets.map(({ value }) => [value.name, toSecret(value)])),
      policies,
      files: { ...files },
    } satisfies Bundle;
  },
};

/** `sha256:<hex>` over the files in the order of their paths' bytes: path, NUL, length in bytes, NUL, content. */
export function digestOf(files: Record<string, string>): string {
  const hash = createHash('sha256');
  const entries = Object.entries(files).map(([path, content]) => [Buffer.from(path), Buffer.from(content)] as const);
  for (const [path, content] of entries.sort(([a], [b]) => Buffer.compare(a, b))) {
    hash.update(path).update('\0').update(String(content.length)).update('\0').update(content);
  }
  return `sha256:${hash.digest('hex')}`;
}

function checkSizes(files: Record<string, string>, problems: string[]): void {
  const paths = Object.keys(files);
  if (paths.length > BUNDLE_LIMITS.files) {
    problems.push(
      `the bundle: has ${paths.length} files, at most ${BUNDLE_LIMITS.files} are read; put several declarations into one file`,
    );
  }
  let totalBytes = 0;
  for (const path of paths) {
    const bytes = Buffer.byteLength(files[path] as string);
    totalBytes += bytes;
    if (bytes > BUNDLE_LIMITS.fileBytes) {
      problems.push(`${path}: is ${bytes} bytes long, at most ${BUNDLE_LIMITS.fileBytes} are read; split it`);
    }
  }
  if (totalBytes > BUNDLE_LIMITS.totalBytes) {
    problems.push(`the bundle: is ${totalBytes} bytes long, at most ${BUNDLE_LIMITS.totalBytes} are read`);
  }
}

function readDeclarations(
  folder: Folder,
  path: string,
  content: string,
  declarations: Declarations,
  problems: string[],
): void {
  const parsed = readYaml(path, content, problems);
  if (parsed === undefined) return;
  const values = Array.isArray(parsed) ? parsed : [parsed];
  const room = BUNDLE_LIMITS.declarations - declarations[folder].length;
  if (values.length > room) {
    problems.push(`${path}: is more than ${BUNDLE_LIMITS.declarations} declarations in ${folder}/`);
    return;
  }
  values.forEach((value, position) => {
    const at = Array.isArray(parsed) ? `${path}: ${position + 1}.` : `${path}:`;
    const result = SHAPES[folder].safeParse(value);
    // The shape belongs to the folder, which the type of a table lookup does not say.
    if (result.success) (declarations[folder] as { at: string; value: unknown }[]).push({ at, value: result.data });
    else for (const issue of result.error.issues) problems.push(...problemsOf(at, issue, SHAPES[folder], value));
  });
}

function toWorkload(
  role: WorkloadDeclaration['role'],
  value: z.output<typeof orchestrator>,
  standingExceptions: WorkloadDeclaration['standingExceptions'],
): WorkloadDeclaration {
  return {
    spiffeId: value.spiffe_id,
    role,
    owner: value.owner,
    team: value.team,
    riskTier: value.risk_tier,
    environment: value.environment,
    ...(value.model === undefined ? {} : { model: value.model }),
    tools: value.tools,
    labels: value.labels,
    ...(value.review_by === undefined ? {} : { reviewBy: value.review_by }),
    retired: value.retired,
    standingExceptions,
  };
}

function toTaskType(value: z.output<typeof taskType>): TaskType {
  return {
    type: value.type,
    description: value.description,
    params: mapValues(value.params, (rule) => withoutUndefined(rule)),
    tools: value.tools,
    resources: value.resources,
    secrets: value.secrets,
    ttlMsMax: value.ttl_max,
    risk: value.risk,
    context: mapValues(value.context, toContextOrder),
    agentSettable: value.agent_settable,
  };
}

function toContextOrder(order: z.output<typeof contextOrder>): ContextOrder {
  return Array.isArray(order) ? { kind: 'ordered', values: order } : { kind: order };
}

function toResource(value: z.output<typeof resource>): Resource {
  return {
    resource: value.resource,
    description: value.description,
    owners: value.owners,
    tools: value.tools.map((each) => each.name),
    toolArguments: new Map(
      value.tools.flatMap((each) =>
        each.arguments === undefined
          ? []
          : [[each.name, { declared: each.arguments, others: each.other_arguments }] as const],
      ),
    ),
    enforcement: value.enforcement,
    sensitivity: value.sensitivity,
  };
}

function toSecret(value: z.output<typeof secret>): SecretDeclaration {
  return {
    name: value.name,
    backend: value.backend,
    sensitivity: value.sensitivity,
    ttlMsMax: value.ttl_max,
    settings: value.settings,
  };
}

function mapValues<A, B>(record: Record<string, A>, turn: (value: A) => B): Record<string, B> {
  return Object.fromEntries(Object.entries(record).map(([each, value]) => [each, turn(value)]));
}

/** Drops keys whose value is undefined, as exact optional properties want it. */
function withoutUndefined<T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, each]) => each !== undefined)) as never;
}
