import { BrokerError } from '../core/errors.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mustOperate } from './permitted.js';
import { reachLease } from './reach-lease.js';
import { record, recordingRefusals } from './refusal.js';

const TRIES_MAX = 5;

/**
 * Gives up on a credential that cannot be revoked: nobody tries any more, and what it may still do is on record. Two operators have to say so, the
 * second within 15 minutes of the first.
 */
export async function abandon(
  parts: Parts,
  caller: Caller,
  { lease: id, reason }: { lease: string; reason: string },
): Promise<'requested' | 'abandoned'> {
  const about = { action: 'abandon', lease: id, reasons: [reason] };
  return recordingRefusals(parts, caller, about, async () => {
    await reachLease(parts, caller, id);
    mustOperate(parts, caller, 'abandon', { bound: true });
    const nowMs = parts.clock.now();
    const asked = await parts.ledger.askToAbandon({
      leaseId: id,
      by: caller.name,
      nowMs,
      audit: record(parts, 'credential.abandon_requested', caller, { ...about, effect: 'allow' }),
    });
    if (asked.outcome === 'requested') return 'requested';
    if (asked.outcome !== 'second') throw notBeingRevoked();
    mustOperate(parts, caller, 'abandon', { bound: true, secondPerson: true });
    return giveUp(parts, caller, id, reason);
  });
}

async function giveUp(parts: Parts, caller: Caller, id: string, reason: string): Promise<'abandoned'> {
  // A worker may begin an attempt between the look and the write: then it is looked at again.
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const lease = await parts.views.lease(id);
    if (!lease) break;
    const { outcome } = await parts.ledger.closeAttempt({
      lease,
      attempt: lease.attempts ?? 0,
      result: { state: 'abandoned', reason },
      nowMs: parts.clock.now(),
      audit: record(parts, 'credential.abandoned', caller, {
        action: 'abandon',
        lease: id,
        ...(lease.taskId !== undefined && { task: lease.taskId }),
        ...(lease.secret !== undefined && { resource: lease.secret }),
        effect: 'allow',
        reasons: [reason],
        detail: { backend: lease.backend, handle: lease.handle, expires_at: new Date(lease.expiresAtMs).toISOString() },
      }),
    });
    if (outcome === 'closed') return 'abandoned';
  }
  throw notBeingRevoked();
}

function notBeingRevoked(): BrokerError {
  return new BrokerError('conflict', 'Only a credential that is being revoked can be abandoned.');
}
