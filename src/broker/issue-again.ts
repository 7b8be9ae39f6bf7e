import { createHash } from 'node:crypto';
import { asRecorded } from '../core/as-recorded.js';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import type { Caller } from './caller.js';
import { findTaskId } from './find-task.js';
import { hurry } from './hurry.js';
import { issue, type SecretIssued, type SecretRequest } from './issue.js';
import type { Parts } from './parts.js';
import { record, recordingRefusals } from './refusal.js';
import { spokenFor } from './spoken-for.js';

/**
 * A request that is repeated with its `Idempotency-Key`: its first answer was lost, and the credential in it is kept nowhere. So the first lease is
 * revoked and another one issued in its place, which says so. What is stored is the id of the one lease that the key stands for, before that
 * lease's intent, and an intent opens only while the key names its lease. A repeat gives that lease up first: from then on it is in the ledger
 * already, to be revoked, or never will be. Only when it is revoked does the key name the next one. So of a key's leases one at most is neither revoked
 * nor being revoked, at whatever moment and however many ask; of several at once the latest to be named is answered, the others are told of a
 * conflict. Whoever dies on the way leaves a key that names what the next repeat has to revoke.
 */
export async function issueAgain(
  parts: Parts,
  caller: Caller,
  request: SecretRequest,
  { key: sent, bodyDigest }: { key: string; bodyDigest: string },
): Promise<SecretIssued> {
  // A key is one caller's, for one task: a token of another task has keys of its own.
  const task = spokenFor(caller)?.taskId ?? (await taskIdOf(parts, caller, request));
  const requestKey = createHash('sha256')
    .update(JSON.stringify([caller.name, 'secret', request.secret, task, sent]))
    .digest('base64url');
  const leaseId = newId('lse', parts.settings.cell, parts.clock.now());
  const name = { bodyDigest, leaseId };
  let replaces: string | undefined;
  let named = await parts.replayGuard.nameLease(requestKey, name, parts.clock.now());
  if (named.outcome === 'given_up') {
    const inPlaceOf = named.leaseId;
    replaces = await revokeGivenUp(parts, caller, inPlaceOf);
    named = await parts.replayGuard.nameLease(requestKey, { ...name, inPlaceOf }, parts.clock.now());
  }
  if (named.outcome === 'other_body') {
    throw new BrokerError('key_reused', 'This Idempotency-Key came with another body before.', {
      field: 'idempotency-key',
    });
  }
  if (named.outcome !== 'named') throw inProgress();
  return issue(parts, caller, { ...request, ...(replaces !== undefined && { replaces }) }, { leaseId, requestKey });
}

/** By whichever of its names it is asked for, it is one task. */
async function taskIdOf(parts: Parts, caller: Caller, { task, secret }: SecretRequest): Promise<string | undefined> {
  if (task === undefined) return undefined;
  const about = { action: 'read', detail: { secret: asRecorded('name', secret) } };
  return recordingRefusals(parts, caller, about, () => findTaskId(parts, task, caller));
}

function inProgress(): BrokerError {
  return new BrokerError('conflict', 'Another request with this Idempotency-Key is not answered yet.', {
    field: 'idempotency-key',
    retryAfterSeconds: 1,
  });
}

/**
 * Revokes what the key stood for, whoever may hold it now: under this caller's key there is nobody else's lease. Several repeats may do it at the
 * same time. Undefined when there was nothing to replace.
 */
async function revokeGivenUp(parts: Parts, caller: Caller, leaseId: string): Promise<string | undefined> {
  const reason = 'its request was repeated';
  await parts.ledger.revokeLeases({
    leaseIds: [leaseId],
    reason,
    nowMs: parts.clock.now(),
    audit: record(parts, 'credential.revoking', caller, { lease: leaseId, action: 'revoke', reasons: [reason] }),
  });
  const lease = await parts.views.lease(leaseId);
  if (lease) hurry(parts, [lease]);
  // One that was never committed was never handed out: nothing is replaced.
  return lease && lease.intentDeadlineMs === undefined ? lease.id : undefined;
}
