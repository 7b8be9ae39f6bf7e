import { isIP } from 'node:net';
import { z } from 'zod';
import { boundsConfig } from '../bounds.js';
import { isTemplate } from './templates.js';

const file = z.string().min(1).max(4096);
const port = z.int().min(1).max(65_535);

/** What PostgreSQL takes as a name, in full: a longer one would be cut off, and mean another. */
const identifier = z
  .string()
  .min(1)
  .refine((name) => Buffer.byteLength(name) <= 63 && !name.includes('\0'), 'has to be a name of at most 63 bytes');

const statements = (...names: string[]) =>
  z
    .array(
      z
        .string()
        .min(1)
        .max(4096)
        .refine((text) => !text.includes(';'), 'has to be one statement, without ";"')
        .refine((text) => isTemplate(text, names), `may hold ${names.map((name) => `{{${name}}}`).join(', ')} only`),
    )
    .max(20)
    .default([]);
const FOR_A_LIVE_ROLE = ['role', 'role_text', 'database', 'expires_at'];

export const postgresConfig = z
  .strictObject({
    kind: z.literal('postgres').describe('PostgreSQL 16 or later: a role for each lease.'),
    ...boundsConfig({ issuesMax: 200, revocationsMax: 1_000 }),
    host: z
      .string()
      .min(1)
      .max(1024)
      .describe('The server itself, never a pooler; a path is the folder of a Unix socket.'),
    port: port.default(5432).describe('Its port.'),
    database: identifier.default('postgres').describe('Database that the managers log in to.'),
    managers: z
      .array(z.strictObject({ user: identifier, password_file: file }))
      .min(1)
      .max(64)
      .describe(
        'Roles that make and drop the leases’ roles. Each carries about 300 live leases well; more leases, more managers.',
      ),
    tls: z
      .strictObject({
        ca_file: file.optional().describe('PEM file with the only authorities; absent: those of Node.'),
        cert_file: file.optional().describe('PEM certificate that the server asks of us.'),
        key_file: file.optional().describe('Its key, mode 0600.'),
        server_name: z.string().min(1).max(253).optional().describe('The name in its certificate; default: `host`.'),
      })
      .refine((tls) => (tls.cert_file === undefined) === (tls.key_file === undefined), {
        error: 'needs cert_file and key_file together',
      })
      .optional()
      .describe('Its certificate is always verified, name included. Only a server on this machine may go without.'),
    agents: z
      .strictObject({ host: z.string().min(1).max(1024), port: port.optional() })
      .optional()
      .describe('The address that agents are given, when it is another than ours.'),
    public_databases: z
      .array(identifier)
      .max(1_000)
      .default([])
      .describe('Databases that anybody may connect to, and that is as you want it.'),
    statements: z
      .strictObject({
        creation: statements(...FOR_A_LIVE_ROLE).describe(
          'Run in the transaction that makes the role, after its groups are granted.',
        ),
        renewal: statements(...FOR_A_LIVE_ROLE).describe('Run in the transaction that moves its end.'),
        revocation: statements('role', 'role_text').describe('Run in the transaction that drops it, just before.'),
      })
      .prefault({})
      .describe('Statements of your own. A value is put in for {{…}} quoted: write it bare.'),
    scram_iterations: z
      .int()
      .min(1)
      .max(100_000)
      .default(4_096)
      .describe(
        'Rounds of the password verifier. The passwords are random, so fewer are as safe; some drivers want 4096.',
      ),
    lane_leases_max: z
      .int()
      .min(1)
      .max(100_000)
      .default(1_000)
      .describe('Live leases of one manager past which nothing more is issued.'),
    prepared_transactions: z
      .enum(['refuse', 'roll_back'])
      .default('refuse')
      .describe(
        'On a server that allows prepared transactions: refuse to work with it, or roll back those of a revoked lease.',
      ),
    without_reserved_connections: z
      .enum(['refuse', 'accept'])
      .default('refuse')
      .describe(
        'Where the server keeps no connections for the managers: refuse to work with it, or accept that whoever fills it up keeps them out.',
      ),
  })
  .superRefine((config, context) => {
    if (!config.tls && !isLocal(config.host)) {
      context.addIssue({
        code: 'custom',
        path: ['tls'],
        message: 'is required for a server that is not on this machine',
      });
    }
    const users = config.managers.map(({ user }) => user);
    if (new Set(users).size < users.length) {
      context.addIssue({ code: 'custom', path: ['managers'], message: 'has to name each user once' });
    }
  });

export type PostgresConfig = z.output<typeof postgresConfig>;

/** `settings` of a secret's declaration. */
export const postgresSettings = z.strictObject({
  database: identifier.describe('Database that the credential is for.'),
  groups: z.array(identifier).min(1).max(16).describe('Roles whose privileges it has.'),
  connection_limit: z.int().min(1).max(1_000).optional().describe('Sessions at a time; absent: no limit.'),
});

export type PostgresSettings = z.output<typeof postgresSettings>;

function isLocal(host: string): boolean {
  if (host.startsWith('/') || host === 'localhost' || host === '::1') return true;
  return isIP(host) === 4 && host.startsWith('127.');
}
