import { BrokerError } from '../core/errors.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { reachTask } from './permitted.js';
import { notFound, recordingRefusals } from './refusal.js';
import { taskOver } from './suspend-task.js';

/** An agent of the task says that it is alive. Only its agents count: an orchestrator's heartbeat would hide a silent agent. */
export async function heartbeat(parts: Parts, caller: Caller, request: { task: string }): Promise<TaskRecord> {
  return recordingRefusals(parts, caller, { action: 'heartbeat', task: request.task }, async () => {
    const { task } = await reachTask(parts, caller, request.task);
    if (!task.agents.includes(caller.name)) {
      throw new BrokerError('denied', 'Only an agent named in the task sends its heartbeat.');
    }
    if (isTerminal(task.state)) throw taskOver(task);
    const outcome = await parts.ledger.heartbeat({ taskId: task.id, agent: caller.name, nowMs: parts.clock.now() });
    if (outcome.outcome === 'not_found') throw notFound('task', 'gone');
    return outcome.task;
  });
}
