import { asRecorded } from '../core/as-recorded.js';
import type { AuditRecord, AuditType } from '../core/audit.js';
import type { Decision, PolicyQuestion } from '../core/decision.js';
import { BrokerError, type ErrorCode } from '../core/errors.js';
import { newId } from '../core/ids.js';
import type { Refusal } from '../state/stores.js';
import { actorOf, type Caller } from './caller.js';
import type { Parts } from './parts.js';
import { type Dropped, sampleRefusal } from './sample-refusals.js';

/** What a record is about, beside who asks and when: also for whom they act, and through whom it came to them. */
export type About = Partial<Omit<AuditRecord, 'id' | 'atMs' | 'type' | 'actor'>> &
  Pick<AuditRecord['actor'], 'onBehalfOf' | 'chain'>;

/** A new record of what this caller does now. */
export function record(parts: Parts, type: AuditType, caller: Caller | undefined, about: About = {}): AuditRecord {
  const nowMs = parts.clock.now();
  const { onBehalfOf, chain, ...rest } = about;
  const actor = caller ? actorOf(caller) : {};
  if (onBehalfOf !== undefined) actor.onBehalfOf = onBehalfOf;
  if (chain) actor.chain = chain;
  return {
    id: newId('dec', parts.settings.cell, nowMs),
    atMs: nowMs,
    type,
    actor,
    ...(caller && { requestId: caller.requestId }),
    ...(caller?.traceId && { traceId: caller.traceId }),
    ...rest,
  };
}

/** A record of what the broker does by itself: a clock's move, a drain, a re-evaluation. */
export function systemRecord(parts: Parts, type: AuditType, about: About = {}): AuditRecord {
  return record(parts, type, undefined, about);
}

/** Refusals that say something about the caller's rights: each is recorded and carries its decision's id. */
const RECORDED: readonly ErrorCode[] = [
  'denied',
  'not_found',
  'task_over',
  'task_suspended',
  'scope_invalid',
  'target_invalid',
  'quota_exceeded',
  'approval_pending',
  'subject_rejected',
  'generation_mismatch',
];

/**
 * Runs a verb for a proven caller; a refusal leaves a record first, and carries its id. The task and the lease may be as the caller wrote
 * them. When the record cannot be written the caller is refused all the same, without an id: refusing is never blocked by audit. Of one that is
 * refused without end a share is written, and the number of the others.
 */
export async function recordingRefusals<T>(
  parts: Parts,
  caller: Caller,
  about: About,
  verb: () => Promise<T>,
): Promise<T> {
  try {
    return await verb();
  } catch (error) {
    if (!(error instanceof BrokerError) || error.detail.decisionId || !RECORDED.includes(error.code)) throw error;
    const { isWritten, dropped } = sampleRefusal(parts, caller.name);
    if (dropped) await noteDropped(parts, caller, dropped);
    if (!isWritten) throw error;
    const refusal = record(parts, 'request.refused', caller, {
      effect: 'deny',
      code: error.code,
      reasons: [error.detail.reason ?? error.message],
      ...about,
      ...(about.task !== undefined && { task: asRecorded('tsk', about.task) }),
      ...(about.lease !== undefined && { lease: asRecorded('lse', about.lease) }),
      ...detailOf(error, about.detail),
      ...(error.detail.policyIds && { policyIds: error.detail.policyIds }),
    });
    try {
      await parts.ledger.note(refusal);
    } catch {
      throw error;
    }
    throw new BrokerError(error.code, error.message, { ...error.detail, decisionId: refusal.id, cause: error });
  }
}

export async function noteDropped(
  parts: Parts,
  caller: Caller | undefined,
  { refusals, from }: Dropped,
): Promise<void> {
  await parts.ledger
    .note(record(parts, 'audit.dropped', caller, { detail: { refusals, from } }))
    .catch(() => undefined);
}

/** For `mayfly why`: what policy was asked, and what was nearest to a yes. */
export function detailOf(error: BrokerError, more?: AuditRecord['detail']): Pick<AuditRecord, 'detail'> {
  const { asked } = error.detail;
  if (!asked) return {};
  const { nearestMiss, inputs } = asked;
  return { detail: { ...more, ...(nearestMiss !== undefined && { nearest_miss: nearestMiss }), inputs } };
}

/** The same answer for what is not there and what is not yours. */
export function notFound(
  what: 'task' | 'lease' | 'revocation' | 'lock' | 'record' | 'key' | 'secret' | 'backend',
  reason?: string,
  hint?: string,
): BrokerError {
  return new BrokerError('not_found', `There is no such ${what}, or it is not yours.`, {
    ...(reason && { reason }),
    ...(hint && { hint }),
  });
}

/** Policy's no, in the caller's words; the nearest miss is the hint. */
export function deniedBy(
  decision: Decision,
  miss: string | undefined,
  what: string,
  question?: PolicyQuestion,
): BrokerError {
  const asked = question && { asked: { inputs: inputsOf(question), ...(miss !== undefined && { nearestMiss: miss }) } };
  if (decision.effect === 'ask') {
    return new BrokerError('denied', 'Policy wants a human to approve this, and approvals cannot be given here yet.', {
      policyIds: decision.policyIds,
      reason: `${what}: needs ${decision.limits.approval}`,
      ...asked,
    });
  }
  return new BrokerError('denied', 'Policy does not allow it.', {
    policyIds: decision.policyIds,
    reason: [what, ...decision.errors].join('; '),
    ...(miss !== undefined && { hint: miss }),
    ...asked,
  });
}

const INPUTS_BYTES_MAX = 4_096;

/** All that policy was told. What callers wrote can be long: then the record names what there was and leaves out how it read. */
function inputsOf({ principal, action, resource, context }: PolicyQuestion): Record<string, unknown> {
  const inputs = { principal, action, resource, context };
  if (Buffer.byteLength(JSON.stringify(inputs)) <= INPUTS_BYTES_MAX) return inputs;
  return { principal: principal.id, action, resource: resource.id, too_long: Object.keys(context).sort() };
}

/** Why the store would not write it, in the caller's words. */
export function refusedCommit(refusal: Exclude<Refusal, { outcome: 'stale' }>): BrokerError {
  switch (refusal.outcome) {
    case 'quota':
      return new BrokerError('quota_exceeded', `The quota of live leases per ${refusal.by} is used up.`, {
        retryAfterSeconds: 10,
      });
    case 'suspended':
      return new BrokerError('task_suspended', 'The task is suspended.', { hint: 'Its opener may resume it.' });
    case 'not_found':
      return notFound('task', refusal.by);
    case 'not_live':
    case 'parent_expired':
      return new BrokerError('subject_rejected', 'The subject_token was not accepted.', {
        reason: `${refusal.outcome} ${refusal.by}`,
      });
    case 'over':
    case 'too_late':
      return new BrokerError('task_over', 'The task is over.', { reason: refusal.by });
  }
}
