import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { BackendProblem, type BackendProblemKind } from '../contract.js';
import { engineOf, type SecretSettings } from './engines.js';
import type { VaultLeases } from './leases.js';
import { metadataOf } from './path.js';
import { connect, withControl } from './probe.js';

interface Checked {
  settings: SecretSettings;
  tokenRole: string;
  installation: string;
}

/** Then nothing can be said about the secret. */
const AWAY: ReadonlySet<BackendProblemKind> = new Set(['unreachable', 'timeout', 'sealed', 'busy']);

/** What is wrong with a secret, tried on the real thing: the broker's rights, then a canary that is made, taken back and asked for. */
export async function checkSecret(leases: VaultLeases, checked: Checked, signal: AbortSignal): Promise<string[]> {
  try {
    const missing = await missingRights(leases, checked, signal);
    if (missing.length > 0) return missing;
    await makeCanary(leases, checked, signal);
    return await sessionsThatStay(leases, checked, signal);
  } catch (error) {
    if (!(error instanceof BackendProblem) || AWAY.has(error.kind)) throw error;
    return [error.message];
  }
}

async function missingRights(
  leases: VaultLeases,
  { settings, tokenRole }: Checked,
  signal: AbortSignal,
): Promise<string[]> {
  const needed = neededRights(settings, tokenRole);
  const rights = await leases.capabilities(
    needed.map(([path]) => path),
    signal,
  );
  return needed.flatMap(([path, wanted]) => {
    const has = rights(path);
    if (has.includes('root')) return [];
    const lacking = wanted.filter((right) => !has.includes(right));
    return lacking.length === 0 ? [] : [`the broker’s own Vault policy lacks ${lacking.join(' and ')} on ${path}`];
  });
}

function neededRights(settings: SecretSettings, tokenRole: string): [path: string, rights: string[]][] {
  const place = engineOf(settings).question(settings, 0).path;
  const isLeased = settings.engine === 'database' || (settings.engine === 'path' && settings.revoke === 'lease');
  const rights: [string, string[]][] = [
    [`auth/token/create/${tokenRole}`, ['update']],
    ['auth/token/revoke-accessor', ['update']],
    ['auth/token/lookup-accessor', ['update']],
  ];
  if (isLeased) {
    rights.push(['sys/leases/lookup', ['update']], ['sys/leases/revoke', ['update']]);
    // Without the list, what was made after an answer was lost is not found.
    rights.push([`sys/leases/lookup/${place}/`, ['list', 'sudo']]);
    if (!settings.is_shared) rights.push(['sys/leases', ['read', 'sudo']]);
    if (settings.renewable_seconds_max > 0) {
      rights.push(['sys/leases/renew', ['update']], ['auth/token/renew-accessor', ['update']]);
    }
  }
  // Without it a rotation is not seen, and what was handed out before never ends.
  if (settings.engine === 'kv') rights.push([metadataOf(place), ['read']]);
  if (settings.engine === 'pki') {
    rights.push([`${settings.mount}/revoke`, ['update']], [`${settings.mount}/cert/any`, ['read']]);
  }
  return rights;
}

/** What a crash leaves of a canary ends by itself, as soon as any orphan has to. */
const CANARY_TTL_SECONDS = 30;

async function makeCanary(
  leases: VaultLeases,
  { settings, tokenRole, installation }: Checked,
  signal: AbortSignal,
): Promise<void> {
  const engine = engineOf(settings);
  const displayName = `mayfly_${installation}_check_${randomBytes(8).toString('hex')}`;
  const ttl = { ttlSeconds: CANARY_TTL_SECONDS, ttlSecondsMax: CANARY_TTL_SECONDS };
  const meta = { mayfly_check: settings.engine };
  const { token, accessor } = await leases.makeToken({ role: tokenRole, displayName, ...ttl, meta }, signal);
  try {
    const reply = await leases.read(engine.question(settings, CANARY_TTL_SECONDS), token, signal);
    const { handle = {} } = take(() => engine.take(reply, settings));
    const { pki, serial } = handle;
    if (reply.lease_id !== '') {
      await leases.revokeLease(reply.lease_id, signal);
      const left = await leases.lookUpLease(reply.lease_id, signal);
      if (left !== undefined) throw new BackendProblem('failed', 'a canary was revoked and its lease is still there');
    } else if (settings.engine === 'database' || (settings.engine === 'path' && settings.revoke === 'lease')) {
      throw new BackendProblem('misconfigured', 'it comes without a lease, so nothing can be revoked');
    } else if (pki !== undefined && serial !== undefined) {
      await leases.revokeCertificate(pki, serial, signal);
    }
    if (pki !== undefined && serial !== undefined && !((await leases.certificateRevokedAt(pki, serial, signal)) ?? 0)) {
      throw new BackendProblem(
        'misconfigured',
        'a canary certificate was revoked and the engine does not say so: set no_store=false',
      );
    }
  } finally {
    await leases.revokeToken(accessor, signal);
  }
}

function take<T>(from: () => T): T {
  try {
    return from();
  } catch {
    throw new BackendProblem('failed', 'the engine’s answer has not what this kind of secret needs');
  }
}

const CUT_MS_MAX = 1_000;

/** A session that is open when its user is revoked has to end: PostgreSQL itself lets it go on, so the role's revocation statements have to see to it. */
async function sessionsThatStay(
  leases: VaultLeases,
  { settings, tokenRole: role, installation }: Checked,
  signal: AbortSignal,
): Promise<string[]> {
  if (settings.engine !== 'database' || settings.probe === undefined) return [];
  const { host, port, database, probe } = settings;
  const place = engineOf(settings).question(settings, 0).path;
  return await withControl(leases, { installation, place, role }, signal, async (own, lease) => {
    let session: Awaited<ReturnType<typeof connect>>;
    try {
      session = await connect({ host, port, database, ...own }, probe, signal);
    } catch {
      return [
        'a canary’s login to the database at host and port fails: see host, port, database and probe, or leave probe out',
      ];
    }
    const ended = new Promise<boolean>((resolve) => session.once('end', () => resolve(true)));
    try {
      await leases.revokeLease(lease, signal);
      if (await Promise.race([ended, sleep(CUT_MS_MAX, false, { signal })])) return [];
      return [
        'an open session outlives the revocation of its user: have revocation_statements end it with pg_terminate_backend',
      ];
    } finally {
      await session.end().catch(() => {});
    }
  });
}
