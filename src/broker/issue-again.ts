import { createHash } from 'node:crypto';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import type { Caller } from './caller.js';
import { hurry } from './hurry.js';
import { issue, type SecretIssued, type SecretRequest } from './issue.js';
import type { Parts } from './parts.js';
import { record } from './refusal.js';
import { spokenFor } from './spoken-for.js';

/** So long a repeat has the lease it replaces for itself. */
const TURN_MS = 60_000;

/**
 * A request that is repeated with its `Idempotency-Key`: its first answer was lost, and the credential in it is kept nowhere. So the first lease is
 * revoked and another one issued in its place, which says so. What is stored under the key is a lease's id and nothing else, and it is stored
 * before that lease's intent: whatever dies on the way, the next repeat knows what to revoke.
 */
export async function issueAgain(
  parts: Parts,
  caller: Caller,
  request: SecretRequest,
  { key: sent, bodyDigest }: { key: string; bodyDigest: string },
): Promise<SecretIssued> {
  // A key is one caller's, for one task: a token of another task has keys of its own.
  const task = spokenFor(caller)?.taskId ?? request.task;
  const key = createHash('sha256')
    .update(JSON.stringify([caller.name, 'secret', request.secret, task, sent]))
    .digest('base64url');
  const claim = await parts.replayGuard.claim(key, bodyDigest, parts.clock.now());
  if (claim.outcome === 'other_body') {
    throw new BrokerError('key_reused', 'This Idempotency-Key came with another body before.', {
      field: 'idempotency-key',
    });
  }
  if (claim.outcome === 'in_progress') throw inProgress();
  const replaces = claim.outcome === 'answered' ? await giveUp(parts, caller, claim.answer) : undefined;
  const leaseId = newId('lse', parts.settings.cell, parts.clock.now());
  await parts.replayGuard.answer(key, JSON.stringify({ lease: leaseId }), parts.clock.now());
  return issue(parts, caller, { ...request, ...(replaces !== undefined && { replaces }) }, leaseId);
}

function inProgress(): BrokerError {
  return new BrokerError('conflict', 'Another request with this Idempotency-Key is not answered yet.', {
    field: 'idempotency-key',
    retryAfterSeconds: 1,
  });
}

/**
 * Revokes what the key stands for, whoever may hold it now: under this caller's key there is nobody else's lease. Of several repeats one has the
 * turn. Undefined when there was nothing to replace.
 */
async function giveUp(parts: Parts, caller: Caller, answer: string): Promise<string | undefined> {
  const { lease: leaseId } = JSON.parse(answer) as { lease: string };
  const nowMs = parts.clock.now();
  if (!(await parts.replayGuard.once(`replaces:${leaseId}`, nowMs + TURN_MS, nowMs))) throw inProgress();
  const reason = 'its request was repeated';
  await parts.ledger.revokeLeases({
    leaseIds: [leaseId],
    reason,
    nowMs,
    audit: record(parts, 'credential.revoking', caller, { lease: leaseId, action: 'revoke', reasons: [reason] }),
  });
  const lease = await parts.views.lease(leaseId);
  if (lease) hurry(parts, [lease]);
  // One that was never committed was never handed out: nothing is replaced.
  return lease && lease.intentDeadlineMs === undefined ? lease.id : undefined;
}
