import { asRecorded } from '../core/as-recorded.js';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import type { Selector } from '../core/selector.js';
import type { LockRecord } from '../state/stores.js';
import { currentBundle } from './authenticate.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mayOperate, mustOperate } from './permitted.js';
import { notFound, record, recordingRefusals } from './refusal.js';
import {
  applySelector,
  checkSelector,
  previewSelector,
  type Revoked,
  type RevokeRequest,
  unknownIn,
} from './revoke.js';

const LOCK_MS_MAX = 30 * 86_400_000;

/** Revokes a selector *and* forbids new grants for it until lifted or expired: the emergency stop. One person is enough to stop. */
export async function lock(
  parts: Parts,
  caller: Caller,
  request: RevokeRequest & { expiresInMs?: number },
): Promise<Revoked> {
  return recordingRefusals(parts, caller, { action: 'lock', detail: { selector: request.selector } }, async () => {
    mustOperate(parts, caller, 'lock', { bound: !request.dryRun });
    const selector = checkSelector(currentBundle(parts), request.selector);
    const { expiresInMs } = request;
    if (expiresInMs !== undefined && expiresInMs > LOCK_MS_MAX) {
      throw new BrokerError(
        'invalid_request',
        'expires_in: 30 days at most; without it a lock stays until it is lifted.',
        { field: 'expires_in' },
      );
    }
    const preview = await previewSelector(parts, selector);
    const unknown = await unknownIn(parts, selector);
    if (request.dryRun) return { preview, warnings: unknown, unknown };
    const nowMs = parts.clock.now();
    const made: LockRecord = {
      id: newId('lck', parts.settings.cell, nowMs),
      selector,
      reason: request.reason,
      by: caller.name,
      createdAtMs: nowMs,
      ...(expiresInMs !== undefined && { expiresAtMs: nowMs + expiresInMs }),
    };
    const revocation = await applySelector(parts, caller, selector, request.reason, made);
    return { preview, revocation, lock: made, warnings: unknown, unknown };
  });
}

/** Lifting needs two people: the first asks, a second one repeats it within fifteen minutes. */
export async function liftLock(parts: Parts, caller: Caller, request: { id: string }): Promise<'requested' | 'lifted'> {
  const recorded = asRecorded('lck', request.id);
  return recordingRefusals(parts, caller, { action: 'lift', detail: { lock: recorded } }, async () => {
    const found = mayOperate(parts, caller, 'view') ? await parts.views.lock(request.id) : undefined;
    if (!found) throw notFound('lock', recorded);
    const secondPerson = found.liftRequestedBy !== undefined && found.liftRequestedBy !== caller.name;
    mustOperate(parts, caller, 'lift', { bound: true, secondPerson });
    const outcome = await parts.ledger.liftLock({
      lockId: request.id,
      by: caller.name,
      secondPersonNeeded: true,
      nowMs: parts.clock.now(),
      audit: record(parts, secondPerson ? 'lock.lifted' : 'lock.lift_requested', caller, {
        action: 'lift',
        effect: 'allow',
        detail: { lock: request.id, selector: found.selector },
      }),
    });
    if (outcome.outcome === 'not_found') throw notFound('lock', recorded);
    return outcome.outcome;
  });
}

/** A key that left its trust bundle is locked: what was obtained with identities it signed is dead, and nothing new comes of them. */
export async function lockKey(parts: Parts, keyId: string): Promise<void> {
  const open = await parts.views.locks(parts.clock.now());
  if (open.some((one) => one.system && one.selector.key === keyId)) return;
  const selector: Selector = { key: keyId };
  const nowMs = parts.clock.now();
  const reason = 'the key left its trust bundle';
  await applySelector(parts, undefined, selector, reason, {
    id: newId('lck', parts.settings.cell, nowMs),
    selector,
    reason,
    by: 'mayfly',
    createdAtMs: nowMs,
    system: true,
  });
}

/** The key is back in a newer bundle: its lock is lifted by the system that set it. What it killed stays dead. */
export async function unlockKey(parts: Parts, keyId: string): Promise<void> {
  for (const one of await parts.views.locks(parts.clock.now())) {
    if (!one.system || one.selector.key !== keyId) continue;
    await parts.ledger.liftLock({
      lockId: one.id,
      by: 'mayfly',
      secondPersonNeeded: false,
      nowMs: parts.clock.now(),
      audit: record(parts, 'lock.lifted', undefined, {
        action: 'lift',
        detail: { lock: one.id, selector: one.selector },
      }),
    });
  }
}
