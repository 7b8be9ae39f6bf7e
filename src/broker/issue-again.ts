import { createHash } from 'node:crypto';
import { BrokerError } from '../core/errors.js';
import type { Caller } from './caller.js';
import { hurry } from './hurry.js';
import { issue, type SecretIssued, type SecretRequest } from './issue.js';
import type { Parts } from './parts.js';
import { record } from './refusal.js';

/**
 * A request that is repeated with its `Idempotency-Key`: its first answer was lost, and the credential in it is kept nowhere. So the first lease is
 * revoked and another one issued in its place, which says so. What is stored under the key is a lease's id and nothing else.
 */
export async function issueAgain(
  parts: Parts,
  caller: Caller,
  request: SecretRequest,
  { key: sent, bodyDigest }: { key: string; bodyDigest: string },
): Promise<SecretIssued> {
  const key = createHash('sha256')
    .update(JSON.stringify([caller.name, 'secret', request.secret, sent]))
    .digest('base64url');
  const claim = await parts.replayGuard.claim(key, bodyDigest, parts.clock.now());
  switch (claim.outcome) {
    case 'other_body':
      throw new BrokerError('key_reused', 'This Idempotency-Key came with another body before.', {
        field: 'idempotency-key',
      });
    case 'in_progress':
      throw new BrokerError('conflict', 'The first request with this Idempotency-Key is not answered yet.', {
        field: 'idempotency-key',
        retryAfterSeconds: 1,
      });
    case 'answered': {
      const first = (JSON.parse(claim.answer) as { lease: string }).lease;
      await giveUp(parts, caller, first);
      return remembering(parts, key, () => issue(parts, caller, { ...request, replaces: first }));
    }
    case 'new':
      try {
        return await remembering(parts, key, () => issue(parts, caller, request));
      } catch (error) {
        await parts.replayGuard.release(key).catch(() => {});
        throw error;
      }
  }
}

async function remembering(parts: Parts, key: string, act: () => Promise<SecretIssued>): Promise<SecretIssued> {
  const issued = await act();
  // Without it a repeat waits for the claim to run out instead of leaving two credentials alive.
  await parts.replayGuard.answer(key, JSON.stringify({ lease: issued.leaseId }), parts.clock.now()).catch(() => {});
  return issued;
}

/** It is revoked whoever may hold it now; under this caller's key there is nobody else's lease. */
async function giveUp(parts: Parts, caller: Caller, leaseId: string): Promise<void> {
  const reason = 'its request was repeated';
  await parts.ledger.revokeLeases({
    leaseIds: [leaseId],
    reason,
    nowMs: parts.clock.now(),
    audit: record(parts, 'credential.revoking', caller, { lease: leaseId, action: 'revoke', reasons: [reason] }),
  });
  const lease = await parts.views.lease(leaseId);
  if (lease) hurry(parts, [lease]);
}
