import type { TaskClaims } from '../core/claims.js';
import type { LeaseRecord } from '../core/lease.js';
import { matches } from '../core/revocations.js';
import { matchesOf, selects } from '../core/selector.js';
import type { EpochMs } from '../core/time.js';
import type { LockRecord, Reading } from '../state/stores.js';
import type { Parts } from './parts.js';

/**
 * The lock that forbids this grant, or undefined. A lock is matched with the record and with the claims about to be signed (a credential has
 * none), so that whatever its feed entries would kill is never made; and with every lease above.
 */
export function lockOn(
  parts: Parts,
  reading: Reading,
  lease: LeaseRecord,
  claims?: TaskClaims,
): LockRecord | undefined {
  const nowMs = parts.clock.now();
  const leases = [lease, ...reading.leases];
  return reading.locks.find((lock) => {
    if (lock.expiresAtMs !== undefined && lock.expiresAtMs <= nowMs) return false;
    if (leases.some((one) => selects(lock.selector, one))) return true;
    return (
      claims !== undefined &&
      matchesOf(lock.selector, parts.selectorHash).some((match) => matches(match, claims, lease.keyId ?? ''))
    );
  });
}

/** What is known of whoever would get something, before there is a lease of theirs. */
type Holder = Pick<LeaseRecord, 'path' | 'agent' | 'position' | 'bundle'> & Partial<LeaseRecord>;

/** The lock that forbids anything at all to somebody; one that names a tool, a resource or a secret forbids only that. */
export function lockForbidding(locks: readonly LockRecord[], nowMs: EpochMs, holder: Holder): LockRecord | undefined {
  const lease: LeaseRecord = {
    id: '',
    kind: 'token',
    actors: [],
    tools: [],
    generations: [],
    binding: 'none',
    state: 'active',
    createdAtMs: nowMs,
    expiresAtMs: nowMs,
    ...holder,
  };
  return locks.find(
    (lock) => (lock.expiresAtMs === undefined || lock.expiresAtMs > nowMs) && selects(lock.selector, lease),
  );
}
