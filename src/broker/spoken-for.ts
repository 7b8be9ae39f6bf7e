import { BrokerError } from '../core/errors.js';
import { deadBecause } from '../core/lease.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import type { Reading } from '../state/stores.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { notFound } from './refusal.js';

const REACH_MS = 1_000;

/** What a caller's token of ours speaks for: its task, and the leases that whatever is got with it hangs on. */
export function spokenFor(caller: Caller): { taskId: string; leaseIds: string[] } | undefined {
  const { token } = caller;
  if (!token || token.mayfly.roles) return undefined;
  const taskId = token.mayfly.path.findLast((id) => id.startsWith('tsk_'));
  if (taskId === undefined) return undefined;
  return { taskId, leaseIds: [...token.mayfly.path.filter((id) => id.startsWith('lse_')), token.jti] };
}

/**
 * Reads a task as somebody to whom something can be given for it: one of its agents, or whoever holds a token of it. A token is judged again on
 * this reading, once this broker's own table has reached the fence that was read.
 */
export async function readAsHolder(parts: Parts, caller: Caller, taskId: string): Promise<Reading> {
  const nowMs = parts.clock.now();
  const held = spokenFor(caller);
  const reading = await parts.ledger.read({ taskId, leaseIds: held?.leaseIds ?? [], nowMs });
  const task = reading?.tasks.at(-1);
  if (!reading || !task || !(held || task.agents.includes(caller.name))) {
    throw notFound('task', `${caller.name} asked for ${taskId}`);
  }
  if (held) await checkToken(parts, caller, reading, nowMs);
  return reading;
}

async function checkToken(parts: Parts, caller: Caller, reading: Reading, nowMs: EpochMs): Promise<void> {
  await parts.feed.reached(reading.fence, REACH_MS);
  const lease = reading.leases.at(-1);
  const revoked = caller.token && parts.feed.table().find(caller.token, lease?.keyId ?? '') !== undefined;
  const above = { tasks: reading.tasks, leases: reading.leases.slice(0, -1), revoked: revoked ?? false };
  const dead = lease ? deadBecause(lease, above, nowMs) : 'lease';
  if (dead) throw new BrokerError('token_refused', 'The token is refused.', { reason: dead });
}

export function checkTasks(tasks: readonly TaskRecord[], nowMs: EpochMs): void {
  for (const task of tasks) {
    if (isTerminal(task.state) || task.deadlineMs <= nowMs) {
      throw new BrokerError('task_over', 'The task is over.', { reason: `${task.id} ${task.state}` });
    }
    if (task.state === 'suspended') {
      throw new BrokerError('task_suspended', 'The task is suspended.', { hint: 'Its opener may resume it.' });
    }
  }
}
