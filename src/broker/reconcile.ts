import type { Handle } from '../core/credential.js';
import type { LeaseRecord } from '../core/lease.js';
import type { EpochMs } from '../core/time.js';
import type { Backend, Found } from '../plugins/backends/contract.js';
import { hurry } from './hurry.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';
import { credentialOf } from './retire.js';

/** How often each backend is compared with what is known of it, by one worker at a time. */
export const RECONCILE_EVERY_MS = 15_000;
const PAGE = 500;
const REACH_MS = 2_000;
/** So many that are not where they should be are asked for one by one; the rest at the next turn. */
const LOST_MAX = 200;
/** What was there for as long as an issue may take and so much more, before the list was begun, is no longer waited for by any intent. */
const NAMELESS_GRACE_MS = 5_000;

/**
 * What exists at a backend under our names minus what we know: revoked, whoever made it. What we believe alive and is not there: reported, and its
 * lease is revoked as lost. The backend is listed first and the store read after it, so that nothing which is just being made looks like nobody's.
 */
export async function reconcile(parts: Parts, backend: Backend, signal: AbortSignal): Promise<void> {
  if (!backend.find || backend.guard?.admits === false) return;
  const startedAtMs = parts.clock.now();
  const turn = `reconcile:${backend.name}`;
  if (!(await parts.replayGuard.once(turn, startedAtMs + RECONCILE_EVERY_MS - 1_000, startedAtMs))) return;

  const found: Found[] = [];
  for await (const one of backend.find(signal)) found.push(one);
  // Nothing is anybody's orphan while this broker has not read the whole line, as after a new epoch.
  await parts.feed.reached(await parts.feed.head(), REACH_MS);
  const known = new KnownLeases(await leasesOf(parts, backend.name));

  let orphans = 0;
  const there = new Set<string>();
  for (const one of found) {
    const lease = await leaseBehind(parts, known, one);
    if (lease === 'elsewhere') continue;
    if (lease) there.add(lease.id);
    if (isKnown(lease)) {
      // The backend has given up on it; we have not.
      if (one.givenUp && lease?.state === 'revoking') hurry(parts, [lease]);
    } else if (await isOld(parts, backend, one, { startedAtMs, signal })) {
      await revokeOrphan(parts, backend, one, lease, signal);
      orphans += 1;
    }
  }
  const missing = known.all.filter(
    (lease) =>
      !there.has(lease.id) &&
      isMadeBefore(backend, lease, startedAtMs) &&
      lease.expiresAtMs > parts.clock.now() &&
      (backend.covers?.(credentialOf({ lease })) ?? true),
  );
  let lost = 0;
  for (const lease of missing.slice(0, LOST_MAX)) if (await isLost(parts, backend, lease, signal)) lost += 1;
  parts.observe({
    event: 'reconcile.done',
    level: orphans + lost > 0 ? 'warn' : 'debug',
    backend: backend.name,
    found: found.length,
    orphans,
    lost,
    ms: parts.clock.now() - startedAtMs,
  });
  await parts.ledger.noteReconciled({
    backend: backend.name,
    found: found.length,
    orphans,
    lost,
    nowMs: parts.clock.now(),
  });
}

async function leasesOf(parts: Parts, backend: string): Promise<LeaseRecord[]> {
  const leases: LeaseRecord[] = [];
  let cursor: string | undefined;
  do {
    const page = await parts.views.leases({ backend, ...(cursor !== undefined && { cursor }), limit: PAGE });
    leases.push(...page.items);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return leases;
}

/** The lease that what was found belongs to; `elsewhere`: another cell's, and none of our business. */
async function leaseBehind(
  parts: Parts,
  known: KnownLeases,
  { leaseId, handle }: Found,
): Promise<LeaseRecord | 'elsewhere' | undefined> {
  if (leaseId === undefined) return known.withHandle(handle);
  if (!leaseId.startsWith(`lse_${parts.settings.cell}_`)) return 'elsewhere';
  return known.withId(leaseId) ?? (await parts.views.lease(leaseId));
}

/** The leases of one backend that are not closed, found by id or by what a nameless find tells of their handles. */
class KnownLeases {
  readonly all: readonly LeaseRecord[];
  readonly #byId: ReadonlyMap<string, LeaseRecord>;
  readonly #byParts = new Map<string, Map<string, LeaseRecord>>();

  constructor(all: readonly LeaseRecord[]) {
    this.all = all;
    this.#byId = new Map(all.map((lease) => [lease.id, lease]));
  }

  withId(leaseId: string): LeaseRecord | undefined {
    return this.#byId.get(leaseId);
  }

  /** Every part has to be the same. Those who tell the same parts share an index: there may be as many finds as leases. */
  withHandle(handle: Handle): LeaseRecord | undefined {
    const names = Object.keys(handle).sort();
    const keyOf = (of: Handle) => JSON.stringify(names.map((name) => of[name]));
    let index = this.#byParts.get(names.join());
    if (!index) {
      index = new Map(this.all.map((lease) => [keyOf(lease.handle ?? {}), lease]));
      this.#byParts.set(names.join(), index);
    }
    return index.get(keyOf(handle));
  }
}

function isKnown(lease: LeaseRecord | undefined): boolean {
  return lease !== undefined && lease.state !== 'revoked' && lease.state !== 'abandoned';
}

/**
 * What has no name may belong to an intent that does not know it yet, until no commit can come any more. Its age is asked of the backend: what this process
 * has seen before is another thing at each turn, which is any worker's.
 */
async function isOld(
  parts: Parts,
  { name, bounds }: Backend,
  { leaseId, ageMs }: Found,
  { startedAtMs, signal }: { startedAtMs: EpochMs; signal: AbortSignal },
): Promise<boolean> {
  if (leaseId !== undefined) return true;
  try {
    const age = await ageMs?.(signal);
    const sinceStartMs = parts.clock.now() - startedAtMs;
    return age !== undefined && age - sinceStartMs > bounds.issueTimeoutMs + NAMELESS_GRACE_MS;
  } catch (error) {
    const problem = error instanceof Error ? error.message : 'unknown';
    parts.observe({ event: 'reconcile.failed', level: 'warn', backend: name, problem });
    return false;
  }
}

async function revokeOrphan(
  parts: Parts,
  backend: Backend,
  { leaseId, handle }: Found,
  lease: LeaseRecord | undefined,
  signal: AbortSignal,
): Promise<void> {
  // Leave a trace first: should this die here, the next turn finds it again.
  await parts.ledger.note(
    systemRecord(parts, 'credential.orphan', {
      ...(leaseId !== undefined && { lease: leaseId }),
      action: 'revoke',
      reasons: [lease ? `it exists, and its lease is ${lease.state}` : 'it exists, and nobody knows a lease for it'],
      detail: { backend: backend.name, handle },
    }),
  );
  try {
    await backend.revoke({ leaseId: leaseId ?? '', handle, expiresAtMs: parts.clock.now() }, signal);
  } catch (error) {
    const problem = error instanceof Error ? error.message : 'unknown';
    parts.observe({ event: 'reconcile.failed', level: 'warn', backend: backend.name, lease: leaseId, problem });
  }
}

/** Alive since before the list was made, with all the time an issue may take. */
function isMadeBefore({ bounds }: Backend, lease: LeaseRecord, startedAtMs: EpochMs): boolean {
  return lease.state === 'active' && lease.createdAtMs + 2 * bounds.issueTimeoutMs < startedAtMs;
}

/** Not in the list is a suspicion; the backend is asked for this one before its lease goes. */
async function isLost(parts: Parts, backend: Backend, lease: LeaseRecord, signal: AbortSignal): Promise<boolean> {
  const answer = await backend.confirm(credentialOf({ lease }), signal).catch(() => undefined);
  if (answer?.state !== 'gone') return false;
  const reason = 'lost: its backend does not have it any more';
  const { revoked } = await parts.ledger.revokeLeases({
    leaseIds: [lease.id],
    reason,
    nowMs: parts.clock.now(),
    audit: systemRecord(parts, 'credential.lost', {
      lease: lease.id,
      ...(lease.taskId !== undefined && { task: lease.taskId }),
      reasons: [reason],
      detail: { backend: backend.name, handle: lease.handle },
    }),
  });
  hurry(parts, [lease]);
  return revoked.length > 0;
}
