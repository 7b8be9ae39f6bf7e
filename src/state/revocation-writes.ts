import { type Cell, readLock, writeLock } from './cell.js';
import { unavailable } from './redis.js';
import type { Ledger, LockRecord } from './stores.js';

type RevocationWrites = Pick<Ledger, 'revoke' | 'liftLock' | 'advanceRevocation'>;

const LIFT_WINDOW_MS = 15 * 60_000;
const ATTEMPTS_MAX = 3;

export function revocationWrites(cell: Cell): RevocationWrites {
  return {
    revoke: async (write) => {
      const reply = await applyRevocation(cell, write);
      const { revocation, matches, untilMs, lock, nowMs, audit } = write;
      if (reply.outcome === 'applied') {
        cell.memory.remember({
          kind: 'revocation',
          atMs: nowMs,
          revocation,
          matches,
          untilMs,
          ...(lock && { lock }),
          audit,
        });
      }
      return reply;
    },
    liftLock: (write) => liftLock(cell, write),
    advanceRevocation: (write) => advanceRevocation(cell, write),
  };
}

/** lua/revoke.lua, without remembering it. */
export async function applyRevocation(
  cell: Cell,
  { revocation, matches, untilMs, lock, nowMs, audit }: Parameters<Ledger['revoke']>[0],
): ReturnType<Ledger['revoke']> {
  const { keys } = cell;
  const [outcome, position] = (await cell.line.run(
    'revoke',
    [keys.revocation(revocation.id), keys.named('revocations'), keys.named('locks'), keys.named('due')],
    [
      revocation.id,
      JSON.stringify(revocation),
      untilMs + cell.line.laterMs(nowMs) - nowMs,
      lock?.id ?? '',
      lock ? writeLock(cell, lock) : '',
      revocation.createdAtMs,
      cell.limits.listMs,
      ...matches.map((match) => JSON.stringify(match)),
    ],
    { nowMs, audit },
  )) as ['applied' | 'already', string];
  return { outcome, position };
}

async function liftLock(
  cell: Cell,
  { lockId, by, secondPersonNeeded, nowMs, audit }: Parameters<Ledger['liftLock']>[0],
): ReturnType<Ledger['liftLock']> {
  const key = cell.keys.named('locks');
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const signed = await cell.line.ask((client) => client.hget(key, lockId));
    if (signed === null) return { outcome: 'not_found' };
    const lock = readLock(cell, signed);
    if ((lock.expiresAtMs ?? Number.POSITIVE_INFINITY) <= nowMs) return { outcome: 'not_found' };
    const isAsked = lock.liftRequestedAtMs !== undefined && nowMs - lock.liftRequestedAtMs < LIFT_WINDOW_MS;
    const isSecond = isAsked && lock.liftRequestedBy !== by;
    const isRequest = secondPersonNeeded && !isSecond;
    if (isRequest && isAsked) return { outcome: 'requested' };
    const next: LockRecord = { ...lock, liftRequestedBy: by, liftRequestedAtMs: nowMs };
    const [outcome] = (await cell.line.run(
      'change-lock',
      [key],
      [lockId, signed, isRequest ? writeLock(cell, next) : ''],
      { nowMs, audit },
    )) as ['changed' | 'moved_on'];
    if (outcome === 'moved_on') continue;
    if (isRequest) return { outcome: 'requested' };
    cell.memory.remember({ kind: 'lift', atMs: nowMs, lockId, audit });
    return { outcome: 'lifted' };
  }
  throw unavailable('the lock keeps changing');
}

async function advanceRevocation(
  cell: Cell,
  { id, fromCursor, cursor, hit, done, nowMs, audit }: Parameters<Ledger['advanceRevocation']>[0],
): ReturnType<Ledger['advanceRevocation']> {
  const { keys, limits } = cell;
  const remains = Object.entries(hit.remains);
  const [outcome] = (await cell.line.run(
    'advance-revocation',
    [keys.revocation(id), keys.named('due'), keys.revokedTasks(id), keys.revokedAgents(id)],
    [
      ...[id, fromCursor, cursor, done ? '1' : '', hit.leases, hit.credentials, limits.listMs],
      ...[hit.tasks.length, hit.agents.length, remains.length],
      ...[...hit.tasks, ...hit.agents, ...remains.flat()],
    ],
    { nowMs, audit },
  )) as ['advanced' | 'moved_on' | 'not_found'];
  return { outcome };
}
