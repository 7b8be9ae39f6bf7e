import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import pg from 'pg';
import { z } from 'zod';
import type { Handle, SecretData } from '../../../core/credential.js';
import type { Secret } from '../../../core/secret.js';
import { BackendProblem } from '../contract.js';
import type { VaultLeases } from './leases.js';

const loginData = z.object({
  host: z.string(),
  port: z.number(),
  database: z.string(),
  username: z.string(),
  password: z.string(),
});

export type LoginData = z.output<typeof loginData>;

export interface ProbeTls {
  tls: boolean;
  ca_file?: string | undefined;
}

/** The server's own words for "not with this name and password" (28P01) and "not you" (28000). */
const REFUSED = new Set(['28P01', '28000']);

const CONTROL_TTL_SECONDS = 30;

/**
 * Logs in to PostgreSQL with the credential, and at the same time with one made for this moment by the same role: a server that refuses everybody proves nothing.
 * A credential without what is needed to reach its database is unclear.
 */
export async function probeDatabase(
  leases: VaultLeases,
  installation: string,
  handle: Handle,
  data: Secret<SecretData>,
  signal: AbortSignal,
): Promise<{ credential: 'refused' | 'accepted' | 'unclear'; control: 'accepted' | 'refused' }> {
  const parsed = loginData.safeParse(data.expose());
  const { probe, probe_ca_file, place, token_role } = handle;
  if (!parsed.success || probe === undefined || place === undefined || token_role === undefined) {
    return { credential: 'unclear', control: 'refused' };
  }
  const tls = { tls: probe === 'tls', ca_file: probe_ca_file };
  const [credential, control] = await Promise.all([
    tryLogin(parsed.data, tls, signal),
    withControl(leases, { installation, place, role: token_role }, signal, async (own) => {
      return await tryLogin({ ...parsed.data, ...own }, tls, signal);
    }),
  ]);
  return { credential, control: control === 'accepted' ? 'accepted' : 'refused' };
}

/**
 * A credential of nobody’s lease, for as long as `use` takes. Should this process die, its token ends it within half a minute: no orphan may live longer.
 */
export async function withControl<T>(
  leases: VaultLeases,
  { installation, place, role }: { installation: string; place: string; role: string },
  signal: AbortSignal,
  use: (own: { username: string; password: string }, lease: string) => Promise<T>,
): Promise<T> {
  const displayName = `mayfly_${installation}_check_${randomBytes(8).toString('hex')}`;
  const ttl = { ttlSeconds: CONTROL_TTL_SECONDS, ttlSecondsMax: CONTROL_TTL_SECONDS };
  const { token, accessor } = await leases.makeToken(
    { role, displayName, ...ttl, meta: { mayfly_check: place } },
    signal,
  );
  try {
    const reply = await leases.read({ method: 'GET', path: place }, token, signal);
    const own = z.object({ username: z.string(), password: z.string() }).safeParse(reply.data);
    if (!own.success) throw new BackendProblem('failed', `${place} gives no username and password`);
    try {
      return await use(own.data, reply.lease_id);
    } finally {
      await leases.revokeLease(reply.lease_id, signal);
    }
  } finally {
    await leases.revokeToken(accessor, signal);
  }
}

async function tryLogin(
  login: LoginData,
  tls: ProbeTls,
  signal: AbortSignal,
): Promise<'refused' | 'accepted' | 'unclear'> {
  try {
    const client = await connect(login, tls, signal);
    await client.end();
    return 'accepted';
  } catch (error) {
    const { code } = error as { code?: unknown };
    return typeof code === 'string' && REFUSED.has(code) ? 'refused' : 'unclear';
  }
}

/** An open session. Its loss is not an error of this process. */
export async function connect(login: LoginData, { tls, ca_file }: ProbeTls, signal: AbortSignal): Promise<pg.Client> {
  const { host, port, database, username: user, password } = login;
  const ca = ca_file === undefined ? undefined : await readFile(ca_file, 'utf8');
  const ssl = tls ? { ...(ca !== undefined && { ca }) } : false;
  const client = new pg.Client({
    host,
    port,
    database,
    user,
    password,
    ssl,
    connectionTimeoutMillis: 5_000,
    options: '',
  });
  client.on('error', () => {});
  const cut = () => void client.end();
  signal.addEventListener('abort', cut, { once: true });
  try {
    await client.connect();
    return client;
  } finally {
    signal.removeEventListener('abort', cut);
  }
}
