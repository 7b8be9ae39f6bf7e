import type { TaskClaims } from '../core/claims.js';
import type { LeaseRecord } from '../core/lease.js';
import { matches } from '../core/revocations.js';
import { matchesOf, selects } from '../core/selector.js';
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
