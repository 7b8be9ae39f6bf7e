import { isTerminal } from '../core/task.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

/** How many silent heartbeats end a task that is suspended first. */
const SILENT_HEARTBEATS_TO_END = 3;
/** Messengers for so many drains at most; of more the sweeper takes a page at a time, for less. */
const MESSENGERS_MAX = 100;

/**
 * Tasks whose time has come: their deadline has passed, or their agents have been silent. The scripts look again at what is due, so a
 * heartbeat that came meanwhile wins.
 */
export async function watchTasks(parts: Parts, taskIds: readonly string[]): Promise<void> {
  const reason = 'its deadline passed';
  const outcomes = await parts.ledger.expireTasks({
    ends: taskIds.map((taskId) => ({ taskId, audit: endRecord(parts, taskId, 'expired', reason) })),
    reason,
    by: 'mayfly',
    nowMs: parts.clock.now(),
  });
  const those = (outcome: string) => taskIds.filter((_, at) => outcomes[at] === outcome);
  const ended = those('ended');
  if (ended.length <= MESSENGERS_MAX) for (const id of ended) parts.schedule.add({ name: 'drain-task', id });
  await Promise.all(those('not_due').map((id) => lookForSilence(parts, id)));
}

async function lookForSilence(parts: Parts, taskId: string): Promise<void> {
  const task = await parts.views.task(taskId);
  if (!task || isTerminal(task.state) || task.heartbeatMs === undefined) return;
  const nowMs = parts.clock.now();
  const silentMs = nowMs - (task.lastHeartbeatMs ?? task.createdAtMs);
  const reason = 'its agents were silent';
  if (silentMs >= task.heartbeatMs * (task.onSilence === 'end' ? 1 : SILENT_HEARTBEATS_TO_END)) {
    const outcome = await parts.ledger.endTask({
      taskId,
      state: 'silent',
      reason,
      by: 'mayfly',
      onlyIf: 'silence',
      nowMs,
      audit: endRecord(parts, taskId, 'silent', reason),
    });
    if (outcome.outcome === 'ended') parts.schedule.add({ name: 'drain-task', id: taskId });
  } else if (task.onSilence === 'suspend' && task.state === 'active' && silentMs >= task.heartbeatMs) {
    const outcome = await parts.ledger.suspendTask({
      taskId,
      reason,
      by: 'mayfly',
      onlyIf: 'silence',
      nowMs,
      audit: systemRecord(parts, 'task.suspended', { task: taskId, generation: task.generation, reasons: [reason] }),
    });
    if (outcome.outcome === 'suspended') parts.schedule.add({ name: 'drain-task', id: taskId });
  }
}

function endRecord(parts: Parts, taskId: string, state: 'expired' | 'silent', reason: string) {
  return systemRecord(parts, 'task.ended', { task: taskId, action: state, reasons: [reason], detail: { state } });
}
