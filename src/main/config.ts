import { readFileSync, statSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';
import { suggestion } from '../core/did-you-mean.js';
import { BrokerError } from '../core/errors.js';
import { backendsConfig } from '../plugins/backends/config.js';
import { identityConfig } from '../plugins/identity/config.js';
import { policyEngines } from '../plugins/policy/registry.js';

const port = z.int().min(0).max(65_535);
const seconds = (min: number, max: number, byDefault: number) => z.int().min(min).max(max).default(byDefault);
const file = z.string().min(1).max(4096);

const listener = z.strictObject({
  host: z.string().min(1).default('127.0.0.1').describe('Address to listen on.'),
  port: port.describe('Port to listen on.'),
});

const tlsFiles = {
  cert_file: file.describe('PEM, leaf first; read again when it changes.'),
  key_file: file.describe('PEM, mode 0600.'),
};

/** Everything that can be configured. One schema checks it, documents it (docs/reference/config.md) and gives the defaults. */
export const configSchema = z.strictObject({
  issuer: z
    .string()
    .refine(
      isIssuer,
      'has to be an https URL (http on a loopback address only) without query, fragment or trailing slash',
    )
    .describe(
      'The issuer of all tokens, and the base address clients use. JWT-SVIDs sent here have exactly this audience.',
    ),
  cell: z
    .string()
    .regex(/^[a-z0-9]{1,8}$/, 'has to be 1 to 8 lower-case letters and digits')
    .default('a')
    .describe('Short name of the cell; it is in every id and every key.'),
  data_dir: file.default('.data').describe('Head file, the last minute of acknowledged changes, audit files.'),
  root_key_file: file.describe(
    'File with the root key: 32 bytes in base64 or hex, mode 0600. It never rests in Redis.',
  ),
  listen: listener
    .extend({
      tls: z
        .strictObject(tlsFiles)
        .optional()
        .describe('Without it this listener speaks plain http (loopback, or behind a proxy that ends TLS).'),
    })
    .default({ host: '127.0.0.1', port: 7117 })
    .describe('The listener for tokens.'),
  mtls: listener
    .extend({
      ...tlsFiles,
      issuer: z.string().optional().describe('Its address as clients see it, for `mtls_endpoint_aliases`.'),
    })
    .optional()
    .describe('The listener for X.509-SVIDs: TLS 1.3 ends in the broker.'),
  ops: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1').describe('Address to listen on.'),
      port: port.default(9464).describe('Port to listen on; 0: any free one.'),
      leaving_seconds: seconds(0, 60, 2).describe(
        'After SIGTERM: how long new connections are still taken while `/readyz` says 503, for a balancer to look away.',
      ),
    })
    .prefault({})
    .describe('The listener for operators: `/metrics`, `/livez`, `/readyz`, `/startupz`. No client needs to reach it.'),
  redis: z
    .strictObject({
      url: z.string().min(1).optional().describe('redis:// or rediss:// address without a password in it.'),
      url_file: file.optional().describe('File with the address, password included.'),
      cluster: z.array(z.string().min(1)).min(1).max(64).optional().describe('Addresses of a Redis Cluster’s nodes.'),
      cluster_file: file
        .optional()
        .describe('File with the addresses of a Redis Cluster’s nodes, one a line, the first with user and password.'),
      key_prefix: z
        .string()
        .regex(/^[a-z0-9-]{1,32}$/)
        .default('mayfly')
        .describe('First part of every key.'),
    })
    .refine(
      ({ url, url_file, cluster, cluster_file }) =>
        [url, url_file, cluster, cluster_file].filter((one) => one !== undefined).length === 1,
      { error: 'needs exactly one of url, url_file, cluster and cluster_file' },
    )
    .describe('The only store of authority: Redis 7.0 or Valkey 7.2 and later, AOF on, noeviction.'),
  identity: identityConfig.describe('Who is believed.'),
  policy: policyEngines.cedar.config.prefault({}).describe('The policy engine.'),
  backends: backendsConfig
    .default({})
    .describe('Where credentials come from: a name of your own, and what is behind it (docs/plugins/backends).'),
  backends_probe_share: z
    .number()
    .min(0)
    .max(1)
    .default(0.05)
    .describe(
      'Share of credentials for secrets that are not sensitive which are tried once they were revoked; sensitive ones always are.',
    ),
  bundle: z
    .strictObject({
      dir: file
        .default('config')
        .describe('Folder with agents/, orchestrators/, tasks/, resources/, secrets/ and policies/.'),
    })
    .prefault({})
    .describe('How the bundle is written.'),
  tokens: z
    .strictObject({
      ttl_seconds: seconds(1, 900, 300).describe('Life of a task token when policy says nothing.'),
      ttl_seconds_max: seconds(1, 900, 900).describe('Longest life of any token.'),
      operator_ttl_seconds: seconds(1, 900, 300).describe('Life of an operator token.'),
      person_token_age_seconds_max: seconds(1, 86_400, 3_600).describe(
        'A person’s token issued longer ago is not exchanged.',
      ),
      identity_left_seconds_min: seconds(0, 600, 60).describe('An SVID with less life left is refused with a hint.'),
      dpop_window_seconds: seconds(5, 300, 60).describe('How far `iat` of a DPoP proof may be from now.'),
      dpop_nonce_required: z.boolean().default(false).describe('Demand a server nonce in every DPoP proof.'),
    })
    .prefault({})
    .describe('Tokens.'),
  tasks: z
    .strictObject({
      ttl_seconds: seconds(1, 2_592_000, 3_600).describe('Life of a task when neither request nor type says.'),
      ttl_seconds_max: seconds(1, 2_592_000, 86_400).describe('Longest life of any task.'),
      judge_within_seconds: seconds(1, 60, 5).describe(
        'After a context change, leases not judged by then are revoked.',
      ),
      judge_bundle_within_seconds: seconds(1, 600, 60).describe('The same after a bundle activation.'),
    })
    .prefault({})
    .describe('Tasks.'),
  quotas: z
    .strictObject({
      leases_per_task: z.int().min(1).max(1_000_000).default(1_000).describe('Live leases of one task.'),
      leases_per_agent: z.int().min(1).max(10_000_000).default(5_000).describe('Live leases of one agent.'),
      per_tree: z.int().min(1).max(1_000_000).default(10_000).describe('Live tasks and leases of one tree.'),
    })
    .prefault({})
    .describe('Quotas; past them 429.'),
  log: z
    .strictObject({
      level: z
        .enum(['debug', 'info', 'warn', 'error', 'silent'])
        .default('info')
        .describe('Least level that is written.'),
    })
    .prefault({})
    .describe('Operational log: one JSON line per request, on standard error.'),
});

export type Config = z.output<typeof configSchema>;

/** Settings that the environment may give instead of the file; the environment wins. */
export const ENVIRONMENT: Record<string, string[]> = {
  MAYFLY_ISSUER: ['issuer'],
  MAYFLY_CELL: ['cell'],
  MAYFLY_DATA_DIR: ['data_dir'],
  MAYFLY_ROOT_KEY_FILE: ['root_key_file'],
  MAYFLY_LISTEN_HOST: ['listen', 'host'],
  MAYFLY_LISTEN_PORT: ['listen', 'port'],
  MAYFLY_OPS_HOST: ['ops', 'host'],
  MAYFLY_OPS_PORT: ['ops', 'port'],
  MAYFLY_REDIS_URL: ['redis', 'url'],
  MAYFLY_REDIS_URL_FILE: ['redis', 'url_file'],
  MAYFLY_BUNDLE_DIR: ['bundle', 'dir'],
  MAYFLY_LOG_LEVEL: ['log', 'level'],
};

/**
 * Reads the configuration: file, then environment over it. Every problem is named at once, by key, with what to do; an unknown key is refused
 * with the nearest known one. Throws `invalid_request`.
 */
export function loadConfig(source: { file?: string; env: Record<string, string | undefined> }): Config {
  const written = source.file === undefined ? {} : readYaml(source.file);
  const variables = new Map<string, string>();
  for (const [name, path] of Object.entries(ENVIRONMENT)) {
    const value = source.env[name];
    if (value === undefined || value === '') continue;
    variables.set(path.join('.'), name);
    // What is no number is left as it is, and told.
    const isNumber = path.at(-1) === 'port' && !Number.isNaN(Number(value));
    place(written, path, isNumber ? Number(value) : value);
  }
  const hint = 'No --config was given: add --config <file>, a YAML file; the environment alone cannot say everything.';
  return checkConfig(written, { variables, ...(source.file === undefined && { hint }) });
}

/** `variables`: which of the settings the environment gave. */
export function checkConfig(
  written: unknown,
  { variables = new Map(), hint }: { variables?: Map<string, string>; hint?: string } = {},
): Config {
  const checked = configSchema.safeParse(written);
  if (checked.success) return refuseDangerous(checked.data);
  const problems = checked.error.issues.flatMap((issue) => problemsOf(issue, written, variables));
  throw new BrokerError(
    'invalid_request',
    `The configuration has ${problems.length} problem${problems.length === 1 ? '' : 's'}.`,
    { problems, ...(hint !== undefined && { hint }) },
  );
}

/** What would be believed with it is not what anybody meant. */
function refuseDangerous(config: Config): Config {
  const problems: string[] = [];
  if (config.tokens.ttl_seconds > config.tokens.ttl_seconds_max) {
    problems.push('tokens.ttl_seconds: longer than tokens.ttl_seconds_max.');
  }
  if (config.identity.trust_domains.length + config.identity.oidc_issuers.length === 0) {
    problems.push('identity: no trust domain and no issuer: nobody could be identified. Add identity.trust_domains.');
  }
  const loopback = ['127.0.0.1', '::1', 'localhost'].includes(config.listen.host);
  if (!config.listen.tls && !loopback && config.issuer.startsWith('http:')) {
    problems.push(
      'listen.tls: plain http outside the loopback address needs an https issuer and a proxy that ends TLS.',
    );
  }
  const { url, cluster = [] } = config.redis;
  const isTelling = (address: string) => /^[a-z+]+:\/\/[^/@]*:[^/@]+@/.test(address);
  if (url !== undefined && isTelling(url)) {
    problems.push(
      'redis.url: a password is visible here; put the whole address into a file and name it in redis.url_file.',
    );
  }
  if (cluster.some(isTelling)) {
    problems.push(
      'redis.cluster: a password is visible here; put the addresses into a file and name it in redis.cluster_file.',
    );
  }
  if (problems.length > 0)
    throw new BrokerError('invalid_request', 'The configuration is not safe to start with.', { problems });
  return config;
}

/** Where the store is, as `startBroker` takes it; files are read now. Throws `invalid_request` when one cannot be. */
export function redisAddress({ redis }: Config): string | string[] {
  const { url, url_file, cluster, cluster_file } = redis;
  if (url !== undefined) return url;
  if (cluster) return cluster;
  const [name, path] = url_file === undefined ? ['cluster_file', cluster_file as string] : ['url_file', url_file];
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new BrokerError('invalid_request', `redis.${name}: ${path} cannot be read.`, { cause });
  }
  const lines = text.split(/\s+/).filter((line) => line !== '');
  const isCluster = name === 'cluster_file';
  if (lines.length === 0 || (lines.length > 1 && !isCluster)) {
    const wanted = isCluster ? 'the addresses of nodes, one a line' : 'one address';
    throw new BrokerError('invalid_request', `redis.${name}: ${path} has to hold ${wanted}.`);
  }
  return isCluster ? lines : (lines[0] as string);
}

/** Who else may read the root key, or change it. Its group may read it: that is how a pod is handed a secret. */
const OTHERS_MODE = 0o027;

/** The root key from its file. Throws `invalid_request` when it is not 32 bytes or others may read it. */
export function readRootKey(path: string): Uint8Array {
  let text: string;
  let mode: number;
  try {
    text = readFileSync(path, 'utf8').trim();
    mode = statSync(path).mode;
  } catch (cause) {
    throw new BrokerError(
      'invalid_request',
      `root_key_file: ${path} cannot be read. Make one: openssl rand -base64 32 > ${path}; chmod 600 ${path}`,
      { cause },
    );
  }
  if ((mode & OTHERS_MODE) !== 0) {
    throw new BrokerError(
      'invalid_request',
      `root_key_file: ${path} may be read or changed by others. Close it: chmod 600 ${path}`,
    );
  }
  const bytes = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, 'hex') : Buffer.from(text, 'base64');
  if (bytes.length !== 32)
    throw new BrokerError('invalid_request', `root_key_file: ${path} has to hold 32 bytes in base64 or hex.`);
  return bytes;
}

function faultOf(cause: unknown): string {
  const { code, message } = Object(cause) as { code?: unknown; message?: string };
  if (code === 'ENOENT') return 'there is no such file.';
  // A parser's first line ends with a colon when the lines that follow show the place.
  const said = message?.split('\n')[0]?.replace(/:$/, '') ?? 'cannot be read';
  return /[.!?]$/.test(said) ? said : `${said}.`;
}

export function readYaml(path: string): Record<string, unknown> {
  try {
    const read: unknown = parse(readFileSync(path, 'utf8'), { maxAliasCount: 10 });
    if (read === null || read === undefined) return {};
    if (typeof read === 'object' && !Array.isArray(read)) return read as Record<string, unknown>;
  } catch (cause) {
    throw new BrokerError('invalid_request', `${path}: ${faultOf(cause)}`, { cause });
  }
  throw new BrokerError('invalid_request', `${path}: has to be a YAML mapping.`);
}

function place(into: Record<string, unknown>, path: string[], value: unknown): void {
  let at = into;
  for (const name of path.slice(0, -1)) {
    const next = at[name];
    const inner = typeof next === 'object' && next !== null ? next : {};
    at[name] = inner;
    at = inner as Record<string, unknown>;
  }
  at[path.at(-1) as string] = value;
}

function problemsOf(issue: z.core.$ZodIssue, written: unknown, variables: Map<string, string>): string[] {
  const path = issue.path.map(String).join('.');
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(issue.path.map(String));
    return issue.keys.map((key) => `${path ? `${path}.` : ''}${key}: not a setting${suggestion(key, known)}`);
  }
  if (issue.code === 'invalid_key') return [`${path}: ${issue.issues.map((one) => one.message).join(', ')}.`];
  if (issue.code === 'invalid_type' && issue.path.reduce(memberOf, written) === undefined)
    return [`${path}: is required.`];
  const variable = variables.get(path);
  const place = variable === undefined ? path || 'configuration' : `${path} (${variable})`;
  // The value stays unsaid: it may be a secret that stands in the wrong place.
  const said = issue.code === 'invalid_type' ? `must be a${article(issue.expected)}` : issue.message;
  return [`${place}: ${said}.`];
}

function memberOf(at: unknown, name: PropertyKey): unknown {
  return Object(at)[name];
}

/** As in `a number`, with an `n` before a vowel; in words of whoever writes YAML. */
function article(kind: string): string {
  const expected = { int: 'whole number', record: 'mapping', object: 'mapping', array: 'list' }[kind] ?? kind;
  return `${/^[aeiou]/.test(expected) ? 'n' : ''} ${expected}`;
}

function keysAt(path: string[]): string[] {
  let schemas = [z.toJSONSchema(configSchema, { io: 'input', unrepresentable: 'any' })] as SchemaNode[];
  for (const name of path) {
    const inner = schemas.map((one) => one.properties?.[name] ?? one.items ?? one.additionalProperties);
    schemas = inner.flatMap((one) => (typeof one === 'object' ? variantsOf(one) : []));
  }
  return schemas.flatMap((one) => Object.keys(one.properties ?? {}));
}

interface SchemaNode {
  properties?: Record<string, SchemaNode>;
  items?: SchemaNode;
  additionalProperties?: SchemaNode | boolean;
  anyOf?: SchemaNode[];
  oneOf?: SchemaNode[];
}

function variantsOf(schema: SchemaNode): SchemaNode[] {
  return schema.anyOf ?? schema.oneOf ?? [schema];
}

function isIssuer(text: string): boolean {
  if (!URL.canParse(text) || text.endsWith('/')) return false;
  const url = new URL(text);
  const loopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  const scheme = url.protocol === 'https:' || (url.protocol === 'http:' && loopback);
  return scheme && url.search === '' && url.hash === '' && url.username === '' && url.password === '';
}
