import { BrokerError } from '../core/errors.js';
import { refIn, type TaskRecord, type TerminalState } from '../core/task.js';
import type { Caller } from './caller.js';
import { findTaskId } from './find-task.js';
import type { Parts } from './parts.js';
import { mayOperate, mustControl, reachTask } from './permitted.js';
import { record, recordingRefusals } from './refusal.js';

export interface EndTaskRequest {
  /** Task id or `ref:…`. */
  task: string;
  state: Extract<TerminalState, 'completed' | 'failed' | 'cancelled' | 'revoked'>;
  reason?: string;
}

/**
 * Ends a task: one script of constant cost, after which everything below is dead for everybody who looks. The first end wins and repeats
 * answer the same. An end by a `ref` the caller has not opened yet is kept and applied when it does: undefined comes back.
 */
export async function endTask(parts: Parts, caller: Caller, request: EndTaskRequest): Promise<TaskRecord | undefined> {
  return recordingRefusals(parts, caller, { action: request.state, task: request.task }, async () => {
    if (await isNotOpenedYet(parts, caller, request.task)) return keepEnd(parts, caller, request);
    const reach = await reachTask(parts, caller, request.task);
    const { task } = reach;
    // An agent of the task may give it up, but only who opened it says that it is done.
    if (!(reach.standing === 'agent' && request.state === 'failed'))
      mustControl(parts, caller, reach, `${VERBS[request.state]}`);
    const reason = request.reason ?? request.state;
    const outcome = await parts.ledger.endTask({
      taskId: task.id,
      state: request.state,
      reason,
      by: caller.name,
      nowMs: parts.clock.now(),
      audit: record(parts, 'task.ended', caller, {
        task: task.id,
        generation: task.generation,
        action: VERBS[request.state],
        effect: 'allow',
        reasons: [reason],
        detail: { state: request.state },
      }),
    });
    if (outcome.outcome === 'ended') parts.schedule.add({ name: 'drain-task', id: task.id });
    if (outcome.outcome === 'not_found' || outcome.outcome === 'not_due') {
      throw new BrokerError('internal', 'The task vanished.', { reason: outcome.outcome });
    }
    return outcome.task;
  });
}

const VERBS = { completed: 'complete', failed: 'fail', cancelled: 'cancel', revoked: 'revoke' } as const;

/** Only somebody who could open tasks has refs of their own to end in advance. */
async function isNotOpenedYet(parts: Parts, caller: Caller, name: string): Promise<boolean> {
  if (!name.startsWith('ref:') || caller.principal.kind === 'tool' || caller.token) return false;
  try {
    await findTaskId(parts, name, caller);
    return false;
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'not_found')
      return caller.principal.kind === 'orchestrator' || mayOperate(parts, caller, 'control');
    throw error;
  }
}

/** Kept for a task that is not opened yet. It may have been opened between the look and this: then it is ended now. */
async function keepEnd(parts: Parts, caller: Caller, request: EndTaskRequest): Promise<TaskRecord | undefined> {
  const ref = refIn(request.task);
  if (ref === undefined) {
    throw new BrokerError('invalid_request', 'ref: 1 to 200 visible characters.', { field: 'ref' });
  }
  const reason = request.reason ?? request.state;
  const outcome = await parts.ledger.keepEnd({
    opener: caller.name,
    ref,
    state: request.state,
    reason,
    nowMs: parts.clock.now(),
    audit: record(parts, 'task.ended', caller, {
      action: VERBS[request.state],
      reasons: [reason],
      detail: { ref, kept: true },
    }),
  });
  if (outcome.outcome === 'full') {
    throw new BrokerError('quota_exceeded', 'Too many ends are waiting for tasks that were never opened.', {
      retryAfterSeconds: 60,
    });
  }
  const opened = await parts.views.taskIdByRef(caller.name, ref);
  return opened === undefined ? undefined : endTask(parts, caller, { ...request, task: opened });
}
