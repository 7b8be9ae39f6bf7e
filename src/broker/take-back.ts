import { setTimeout as delay } from 'node:timers/promises';
import type { LeaseRecord } from '../core/lease.js';
import { hurry } from './hurry.js';
import type { Parts, Untaken } from './parts.js';
import { systemRecord } from './refusal.js';

/** Issues stop when the store is away, so there are not many more than were under way at that moment. */
const UNTAKEN_MAX = 1_000;
const RETRY_MS = 1_000;
/** Once the store is back, nobody's credential is to live much longer than an orphan of a crash. */
const RETRY_MS_MAX = 10_000;
const LAST_TRIES_EVERY_MS = 250;

/**
 * Revokes, by its lease, what nobody was given, whatever became of it. A commit whose reply was lost may have counted: then the lease is active,
 * nothing makes it due before its end, and this process alone knows that its credential is nobody's. So what cannot be said now is kept and said
 * again (`takeBackAgain`) until it is heard, or the lease is at its end. Never throws. If the process dies first, the lease lives until
 * its task is over or it ends itself, or until its request is repeated under its key.
 */
export async function takeBack(parts: Parts, lease: Untaken['lease'], reason: string): Promise<void> {
  const untaken = { lease, reason, failures: 0, dueAtMs: 0 };
  if ((await say(parts, untaken)) === 'taken') return;
  if (parts.untaken.size >= UNTAKEN_MAX) return leave(parts, untaken);
  parts.untaken.set(lease.id, untaken);
}

/**
 * Says again what is due of it; all of it with `now`. A store that cannot be told is away for the others too: the pass ends. A lease that is
 * merely live still is nobody else's matter: the pass goes on, and the lease's next time comes. Never throws.
 */
export async function takeBackAgain(parts: Parts, { now = false } = {}): Promise<void> {
  for (const untaken of [...parts.untaken.values()]) {
    const nowMs = parts.clock.now();
    if (untaken.dueAtMs > nowMs && !now) continue;
    // The sweeper comes for what is past its end.
    const said = untaken.lease.expiresAtMs > nowMs ? await say(parts, untaken) : 'taken';
    if (said === 'away') return;
    if (said === 'taken') parts.untaken.delete(untaken.lease.id);
  }
}

/** Before this process ends: tries for so long, and names what it leaves behind. */
export async function takeBackTheRest(parts: Parts, withinMs: number): Promise<void> {
  const untilMs = performance.now() + withinMs;
  await takeBackAgain(parts, { now: true });
  while (parts.untaken.size > 0 && performance.now() < untilMs) {
    await delay(LAST_TRIES_EVERY_MS);
    await takeBackAgain(parts, { now: true });
  }
  for (const untaken of parts.untaken.values()) leave(parts, untaken);
  parts.untaken.clear();
}

async function say(parts: Parts, untaken: Untaken): Promise<'taken' | 'live' | 'away'> {
  const { lease, reason } = untaken;
  const nowMs = parts.clock.now();
  // Whoever comes meanwhile finds it waiting.
  untaken.dueAtMs = nowMs + Math.min(RETRY_MS * 2 ** untaken.failures, RETRY_MS_MAX);
  try {
    const { revoked } = await parts.ledger.revokeLeases({
      leaseIds: [lease.id],
      reason,
      nowMs,
      audit: systemRecord(parts, 'credential.revoking', {
        lease: lease.id,
        ...(lease.taskId && { task: lease.taskId }),
        reasons: [reason],
      }),
    });
    // It was moved before, or never was there: anything else was not heard, whatever the store answered.
    if (!revoked.includes(lease.id) && isLive(await parts.views.lease(lease.id))) {
      failed(parts, untaken, 'it is still live');
      return 'live';
    }
  } catch (error) {
    failed(parts, untaken, error instanceof Error ? error.message : 'not an Error was thrown');
    return 'away';
  }
  hurry(parts, [lease]);
  return 'taken';
}

function failed(parts: Parts, untaken: Untaken, problem: string): void {
  untaken.failures += 1;
  parts.observe({ event: 'credential.not_taken_back', level: 'warn', lease: untaken.lease.id, problem });
}

function isLive(lease: LeaseRecord | undefined): boolean {
  return lease?.state === 'pending' || lease?.state === 'active';
}

function leave(parts: Parts, { lease }: Untaken): void {
  parts.observe({
    event: 'credential.left_to_its_end',
    level: 'error',
    lease: lease.id,
    expiresAtMs: lease.expiresAtMs,
  });
}
