import { z } from 'zod';
import type { Handle, Revocability, SecretData } from '../../../core/credential.js';
import type { EpochMs } from '../../../core/time.js';
import type { Question, Reading } from './leases.js';
import { isVaultPath, PATH_RULE } from './path.js';

/** What an engine's answer comes to. Whether there is a Vault lease is seen in the answer itself. */
export interface Taken {
  data: SecretData;
  /** For the handle. */
  handle?: Handle;
  /** The end that the engine itself gave it. */
  expiresAtMs?: EpochMs;
  warnings?: string[];
}

/** One secrets engine: how it is asked, and what its answer means. */
export interface Engine<Settings> {
  question(settings: Settings, ttlSeconds: number): Question;
  /** Throws a ZodError when the answer has not what it needs. */
  take(reply: Reading, settings: Settings): Taken;
  revocability(settings: Settings): Revocability;
}

const path = (what: string) => z.string().max(512).refine(isVaultPath, PATH_RULE).describe(what);
const name = (what: string) =>
  z
    .string()
    .refine((text) => isVaultPath(text) && !text.includes('/'), PATH_RULE)
    .describe(what);
const text = z.string().min(1).max(1024);

const common = {
  token_role: name('The token role that makes the token of each lease; absent: the backend’s own.').optional(),
  renewable_seconds_max: z
    .int()
    .min(0)
    .max(31_536_000)
    .default(86_400)
    .describe('The longest life of a credential with all its renewals; 0: it is not renewed.'),
  is_shared: z
    .boolean()
    .default(false)
    .describe('Others read from this path too, so what no lease of ours names there is not ours to revoke.'),
};

export const secretSettings = z.discriminatedUnion('engine', [
  z.strictObject({
    engine: z.literal('database').describe('A database user from a database engine.'),
    mount: path('Where the engine is mounted.').default('database'),
    role: name('The role whose users are made.'),
    host: text.max(255).describe('Handed to the agent.'),
    port: z.int().min(1).max(65_535).default(5432).describe('Handed to the agent.'),
    database: text.max(63).describe('Handed to the agent.'),
    probe: z
      .strictObject({
        tls: z.boolean().default(true).describe('Speak TLS to the database, and check its certificate.'),
        ca_file: text.max(4096).optional().describe('PEM file with the only authorities for it.'),
      })
      .optional()
      .describe(
        'This broker can reach the PostgreSQL at host and port: dead credentials are tried there, and the check sees that sessions are cut.',
      ),
    ...common,
  }),
  z.strictObject({
    engine: z.literal('pki').describe('A certificate with its key from a PKI engine.'),
    mount: path('Where the engine is mounted.').default('pki'),
    role: name('The role to issue by; without no_store, else nothing can be revoked.'),
    common_name: text.max(64),
    alt_names: z.array(text.max(255)).max(64).optional(),
    uri_sans: z.array(text.max(255)).max(64).optional(),
    checked_within_seconds: z
      .int()
      .min(1)
      .max(604_800)
      .optional()
      .describe(
        'Whoever relies on it knows of a revocation (CRL, OCSP) within this time. Absent: nobody looks, so it only expires.',
      ),
    ttl_seconds_max: z
      .int()
      .min(1)
      .max(31_536_000)
      .default(86_400)
      .describe('The longest life of a certificate, as shown where it only expires.'),
    ...common,
  }),
  z.strictObject({
    engine: z.literal('kv').describe('A static value from a KV version 2 engine.'),
    mount: path('Where the engine is mounted.').default('secret'),
    path: path('The value’s path.'),
    ...common,
  }),
  z.strictObject({
    engine: z.literal('ssh').describe('A key pair with a signed certificate from an SSH engine.'),
    mount: path('Where the engine is mounted.').default('ssh'),
    role: name('The role to issue by.'),
    valid_principals: z.array(text.max(255)).min(1).max(64),
    key_type: z.enum(['ed25519', 'ec', 'rsa']).default('ed25519'),
    ttl_seconds_max: z
      .int()
      .min(1)
      .max(31_536_000)
      .default(86_400)
      .describe('The longest life of a certificate: it only expires.'),
    ...common,
  }),
  z
    .strictObject({
      engine: z.literal('path').describe('Anything else that answers with a secret.'),
      method: z.enum(['GET', 'POST']).default('GET'),
      path: path('The path to ask, mount included.'),
      body: z
        .record(z.string(), z.json())
        .optional()
        .describe('What is sent; `{ttl}` as a whole value stands for the seconds ordered.'),
      revoke: z
        .enum(['lease', 'none'])
        .describe('`lease`: it comes with a Vault lease, and revoking that takes it back.'),
      revocability: z
        .discriminatedUnion('kind', [
          z.strictObject({ kind: z.literal('instant') }),
          z.strictObject({ kind: z.literal('eventual'), within_seconds: z.int().min(1).max(604_800) }),
          z.strictObject({ kind: z.literal('expiry-only'), ttl_seconds_max: z.int().min(1).max(31_536_000) }),
          z.strictObject({ kind: z.literal('rotate-only') }),
        ])
        .describe('What revoking really does to it where it is used.'),
      ...common,
    })
    .refine(
      (one) =>
        one.revoke === 'lease' || one.revocability.kind === 'expiry-only' || one.revocability.kind === 'rotate-only',
      {
        error: 'cannot be instant or eventual when nothing is revoked',
        path: ['revocability'],
      },
    ),
]);

export type SecretSettings = z.output<typeof secretSettings>;
export type EngineName = SecretSettings['engine'];
type SettingsOf<Name extends EngineName> = Extract<SecretSettings, { engine: Name }>;

const seconds = (ttlSeconds: number) => `${ttlSeconds}s`;

const database: Engine<SettingsOf<'database'>> = {
  question: ({ mount, role }) => ({ method: 'GET', path: `${mount}/creds/${role}` }),
  take(reply, { host, port, database }) {
    const { username, password } = z
      .object({ username: z.string().min(1), password: z.string().min(1) })
      .parse(reply.data);
    return { data: { host, port, database, username, password }, handle: { username } };
  },
  revocability: () => ({ kind: 'instant' }),
};

const certificate = z.object({
  certificate: z.string().min(1),
  private_key: z.string().min(1),
  private_key_type: z.string().optional(),
  serial_number: z.string().regex(/^[0-9a-f]{2}(:[0-9a-f]{2}){0,31}$/),
  issuing_ca: z.string().optional(),
  ca_chain: z.array(z.string()).optional(),
  expiration: z.int().positive(),
});

const pki: Engine<SettingsOf<'pki'>> = {
  question: ({ mount, role, common_name, alt_names, uri_sans }, ttlSeconds) => ({
    method: 'POST',
    path: `${mount}/issue/${role}`,
    body: {
      common_name,
      ttl: seconds(ttlSeconds),
      ...(alt_names && { alt_names: alt_names.join(',') }),
      ...(uri_sans && { uri_sans: uri_sans.join(',') }),
    },
  }),
  take(reply, { mount }) {
    const { expiration, ca_chain, ...one } = certificate.parse(reply.data);
    return {
      data: flat({ ...one, ...(ca_chain && { ca_chain: ca_chain.join('\n') }) }),
      handle: { pki: mount, serial: one.serial_number },
      expiresAtMs: expiration * 1000,
    };
  },
  revocability: ({ checked_within_seconds: within, ttl_seconds_max: most }) =>
    within === undefined
      ? { kind: 'expiry-only', ttlMsMax: most * 1000 }
      : { kind: 'eventual', withinMs: within * 1000 },
};

const kv: Engine<SettingsOf<'kv'>> = {
  question: ({ mount, path }) => ({ method: 'GET', path: `${mount}/data/${path}` }),
  take(reply) {
    const value = z
      .object({ data: z.record(z.string(), z.unknown()), metadata: z.object({ version: z.int().positive() }) })
      .parse(reply.data);
    return {
      data: flat(value.data),
      handle: { version: String(value.metadata.version) },
      warnings: ['A static value: whoever has it keeps it until it is changed where it is used.'],
    };
  },
  revocability: () => ({ kind: 'rotate-only' }),
};

const sshReply = z.object({
  signed_key: z.string().min(1),
  private_key: z.string().min(1),
  serial_number: z.string().min(1),
});

const ssh: Engine<SettingsOf<'ssh'>> = {
  question: ({ mount, role, valid_principals, key_type }, ttlSeconds) => ({
    method: 'POST',
    path: `${mount}/issue/${role}`,
    body: { key_type, ttl: seconds(ttlSeconds), cert_type: 'user', valid_principals: valid_principals.join(',') },
  }),
  take(reply) {
    const data = sshReply.parse(reply.data);
    return { data, handle: { serial: data.serial_number } };
  },
  revocability: ({ ttl_seconds_max: most }) => ({ kind: 'expiry-only', ttlMsMax: most * 1000 }),
};

const anyPath: Engine<SettingsOf<'path'>> = {
  question: ({ method, path, body = {} }, ttlSeconds) => ({
    method,
    path,
    ...(method === 'POST' && {
      body: Object.fromEntries(
        Object.entries(body).map(([key, value]) => [key, value === '{ttl}' ? seconds(ttlSeconds) : value]),
      ),
    }),
  }),
  take: (reply) => ({ data: flat(z.record(z.string(), z.unknown()).parse(reply.data)) }),
  revocability({ revocability }) {
    if (revocability.kind === 'eventual') return { kind: 'eventual', withinMs: revocability.within_seconds * 1000 };
    if (revocability.kind === 'expiry-only')
      return { kind: 'expiry-only', ttlMsMax: revocability.ttl_seconds_max * 1000 };
    return revocability;
  },
};

const engines: { [Name in EngineName]: Engine<SettingsOf<Name>> } = { database, pki, kv, ssh, path: anyPath };

export function engineOf(settings: SecretSettings): Engine<SecretSettings> {
  // The settings' own name picks the engine, so it is the one that takes them.
  return engines[settings.engine] as Engine<SecretSettings>;
}

/** Text and numbers as they are, anything else as JSON; what is null is left out. */
function flat(data: Record<string, unknown>): SecretData {
  const entries = Object.entries(data).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(
    entries.map(([key, value]) => [
      key,
      typeof value === 'string' || typeof value === 'number' ? value : JSON.stringify(value),
    ]),
  );
}
