import { isTerminal } from '../core/task.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

/** How many silent heartbeats end a task that is suspended first. */
const SILENT_HEARTBEATS_TO_END = 3;

/**
 * A task whose time has come: its deadline has passed, or its agents have been silent. The script looks again at what is due, so a heartbeat
 * that came meanwhile wins.
 */
export async function watchTask(parts: Parts, taskId: string): Promise<void> {
  const task = await parts.views.task(taskId);
  if (!task || isTerminal(task.state)) return;
  const nowMs = parts.clock.now();
  if (task.deadlineMs <= nowMs) return end(parts, taskId, 'expired', 'deadline', 'its deadline passed');
  if (task.heartbeatMs === undefined) return;
  const silentMs = nowMs - (task.lastHeartbeatMs ?? task.createdAtMs);
  if (silentMs >= task.heartbeatMs * (task.onSilence === 'end' ? 1 : SILENT_HEARTBEATS_TO_END)) {
    return end(parts, taskId, 'silent', 'silence', 'its agents were silent');
  }
  if (task.onSilence === 'suspend' && task.state === 'active' && silentMs >= task.heartbeatMs) {
    const reason = 'its agents were silent';
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

async function end(
  parts: Parts,
  taskId: string,
  state: 'expired' | 'silent',
  onlyIf: 'deadline' | 'silence',
  reason: string,
): Promise<void> {
  const outcome = await parts.ledger.endTask({
    taskId,
    state,
    reason,
    by: 'mayfly',
    onlyIf,
    nowMs: parts.clock.now(),
    audit: systemRecord(parts, 'task.ended', { task: taskId, action: state, reasons: [reason], detail: { state } }),
  });
  if (outcome.outcome === 'ended') parts.schedule.add({ name: 'drain-task', id: taskId });
}
