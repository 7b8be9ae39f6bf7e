import { deadBecause, type LeaseRecord } from '../core/lease.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import type { LeaseWithAbove } from '../state/stores.js';
import { hurry } from './hurry.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

const PAGE = 500;

/**
 * What an end or a suspension left to do, or the death of a lease that others hang on. Everything below is dead already, because everybody looks at the path: this moves the records, so
 * that backends are asked to revoke and lists tell the truth. It selects by effective state, and goes on after a resume.
 */
export async function drainTask(parts: Parts, taskId: string): Promise<void> {
  const task = await parts.views.task(taskId);
  if (!task) return;
  // Of a task that goes on, leases may die while others of it are looked at: that makes it due anew, and so it stays.
  const dueAtMs = isTerminal(task.state)
    ? undefined
    : ((await parts.views.dueAt({ name: 'drain-task', id: taskId })) ?? 0);
  const reason = task.state === 'active' ? 'a lease above it is dead' : (task.endReason ?? task.state);
  await moveLeases(parts, task, reason);
  if (isTerminal(task.state)) await cancelChildren(parts, taskId);
  await parts.ledger.settleTask({
    taskId,
    work: 'drain-task',
    state: task.state,
    generation: task.generation,
    ...(dueAtMs !== undefined && { dueAtMs }),
    nowMs: parts.clock.now(),
    ...(isTerminal(task.state) && {
      audit: systemRecord(parts, 'task.drained', { task: taskId, generation: task.generation }),
    }),
  });
}

async function moveLeases(parts: Parts, task: TaskRecord, reason: string): Promise<void> {
  let cursor: string | undefined;
  do {
    const page = await parts.views.leases({ task: task.id, ...(cursor !== undefined && { cursor }), limit: PAGE });
    const live = page.items.filter(({ state }) => state === 'active' || state === 'pending');
    // What hangs on a task that is over for good is dead, whatever else there is above it.
    const dead = isTerminal(task.state) ? live : await deadOf(parts, live);
    if (dead.length > 0) {
      const leaseIds = dead.map(({ id }) => id);
      await parts.ledger.revokeLeases({
        leaseIds,
        known: dead,
        reason,
        ...(task.endedAtMs !== undefined && { sinceMs: task.endedAtMs }),
        nowMs: parts.clock.now(),
        audit: systemRecord(parts, 'leases.revoked', {
          task: task.id,
          reasons: [reason],
          detail: { leases: leaseIds },
        }),
      });
      hurry(parts, dead);
    }
    cursor = page.cursor;
  } while (cursor !== undefined);
}

async function deadOf(parts: Parts, live: readonly LeaseRecord[]): Promise<LeaseRecord[]> {
  // Asked for together, they are few scripts.
  const all = await Promise.all(live.map((lease) => parts.views.leaseWithAbove(lease)));
  return all.flatMap((found) => (found && isDead(found, parts.clock.now()) ? [found.lease] : []));
}

/** A token that expired needs nobody; a credential is gone when its backend says so, whatever the time is. */
function isDead(found: LeaseWithAbove, nowMs: EpochMs): boolean {
  const because = deadBecause(found.lease, { ...found, revoked: false }, nowMs);
  return because !== undefined && (because !== 'expired' || found.lease.kind === 'credential');
}

/** Child tasks of an ended one are over too; moving them tells their lists, and their own children follow as they are drained. */
async function cancelChildren(parts: Parts, taskId: string): Promise<void> {
  let cursor: string | undefined;
  do {
    const page = await parts.views.children(taskId, { ...(cursor !== undefined && { cursor }), limit: PAGE });
    for (const child of page.items) {
      const reason = `its parent ${taskId} is over`;
      const outcome = await parts.ledger.endTask({
        taskId: child,
        state: 'cancelled',
        reason,
        by: 'mayfly',
        nowMs: parts.clock.now(),
        audit: systemRecord(parts, 'task.ended', {
          task: child,
          action: 'cancel',
          reasons: [reason],
          detail: { state: 'cancelled' },
        }),
      });
      if (outcome.outcome === 'ended') parts.schedule.add({ name: 'drain-task', id: child });
    }
    cursor = page.cursor;
  } while (cursor !== undefined);
}
