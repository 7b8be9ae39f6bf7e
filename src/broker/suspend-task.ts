import { BrokerError } from '../core/errors.js';
import type { TaskRecord } from '../core/task.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mustControl, reachTask } from './permitted.js';
import { notFound, record, recordingRefusals } from './refusal.js';

/** Suspends a task: all that was given dies exactly as at an end, but the task can go on, and everything is minted and decided anew. */
export async function suspendTask(
  parts: Parts,
  caller: Caller,
  request: { task: string; reason?: string },
): Promise<TaskRecord> {
  return recordingRefusals(parts, caller, { action: 'suspend', task: request.task }, async () => {
    const reach = await reachTask(parts, caller, request.task);
    mustControl(parts, caller, reach, 'suspend');
    const { task } = reach;
    const reason = request.reason ?? 'suspended';
    const outcome = await parts.ledger.suspendTask({
      taskId: task.id,
      reason,
      by: caller.name,
      nowMs: parts.clock.now(),
      audit: record(parts, 'task.suspended', caller, {
        task: task.id,
        generation: task.generation,
        action: 'suspend',
        effect: 'allow',
        reasons: [reason],
      }),
    });
    if (outcome.outcome === 'not_found' || outcome.outcome === 'not_due') throw notFound('task', outcome.outcome);
    if (outcome.outcome === 'over') throw taskOver(outcome.task);
    if (outcome.outcome === 'suspended') parts.schedule.add({ name: 'drain-task', id: task.id });
    return outcome.task;
  });
}

/** A suspended task goes on. Nothing given before comes back: its generation rose, and every token is older than the cut. */
export async function resumeTask(parts: Parts, caller: Caller, request: { task: string }): Promise<TaskRecord> {
  return recordingRefusals(parts, caller, { action: 'resume', task: request.task }, async () => {
    const reach = await reachTask(parts, caller, request.task);
    mustControl(parts, caller, reach, 'resume');
    const { task } = reach;
    const outcome = await parts.ledger.resumeTask({
      taskId: task.id,
      by: caller.name,
      nowMs: parts.clock.now(),
      audit: record(parts, 'task.resumed', caller, {
        task: task.id,
        generation: task.generation,
        action: 'resume',
        effect: 'allow',
      }),
    });
    if (outcome.outcome === 'not_found') throw notFound('task', 'gone');
    if (outcome.outcome === 'over') throw taskOver(outcome.task);
    return outcome.task;
  });
}

export function taskOver(task: TaskRecord): BrokerError {
  const { state, endReason = state } = task;
  const why = endReason === state ? '' : ` (${endReason})`;
  return new BrokerError('task_over', `The task is over: ${state}${why}.`, { reason: endReason });
}
