import type { Cell } from './cell.js';
import { activateBundle } from './cell-writes.js';
import type { Acknowledged } from './memory.js';
import { applyRevocation } from './revocation-writes.js';
import { endTask, taskKeys } from './task-writes.js';

/**
 * Repeats, in a new epoch, what this broker acknowledged in the last minute and the store forgot: by id or generation, so that what it still
 * knows, and what was lifted or resumed since, is left alone. A lift or a resumption that was itself lost is not repeated (that would open
 * something); it is told loudly. Answers how much the store had forgotten.
 */
export async function repeatAcknowledged(cell: Cell): Promise<number> {
  const nowMs = cell.clock.now();
  const all = cell.memory.lately();
  const counts = { repeated: 0, known: 0 };
  for (const one of all) {
    const outcome = await repeat(cell, one, all, nowMs);
    counts[outcome] += 1;
  }
  if (all.length > 0) cell.observe({ event: 'state.repeated', level: 'info', ...counts });
  return counts.repeated;
}

async function repeat(
  cell: Cell,
  one: Acknowledged,
  all: Acknowledged[],
  nowMs: number,
): Promise<'repeated' | 'known'> {
  const { line, keys } = cell;
  const { audit } = one;
  switch (one.kind) {
    case 'end': {
      const { task } = one;
      const { outcome } = await endTask(cell, {
        taskId: task.id,
        state: task.state as 'completed',
        reason: task.endReason ?? '',
        by: task.endedBy ?? '',
        nowMs,
        audit,
      });
      return outcome === 'ended' ? 'repeated' : 'known';
    }
    case 'generation': {
      const { task } = one;
      const words = await taskKeys(cell, task.id);
      if (!words) return 'known';
      const resumedSince = all.some(
        (other) =>
          other.kind === 'generation' &&
          other.resumed &&
          other.task.id === task.id &&
          other.task.generation > task.generation,
      );
      const leaveState = one.resumed || (task.state === 'suspended' && resumedSince);
      const [outcome] = (await line.run(
        'repeat-generation',
        words,
        [
          task.id,
          task.generation,
          leaveState ? '' : task.state,
          JSON.stringify(task.context),
          one.cut ? '1' : '',
          task.cutAt ?? '',
        ],
        { nowMs, audit },
      )) as ['repeated' | 'known'];
      if (outcome === 'repeated' && one.resumed) {
        cell.observe({
          event: 'state.lost',
          level: 'error',
          what: 'resumption',
          task: task.id,
          advice: 'The store forgot that this task was resumed. If it is suspended, resume it again.',
        });
      }
      return outcome;
    }
    case 'bundle': {
      const there = await line.ask((client) => client.hget(keys.named('cell'), 'activations'));
      if (Number(there ?? 0) >= one.activation) return 'known';
      const { outcome } = await activateBundle(cell, { ...one, again: true, nowMs });
      return outcome === 'activated' ? 'repeated' : 'known';
    }
    case 'revocation': {
      const lifted = all.some((other) => other.kind === 'lift' && other.lockId === one.lock?.id);
      const { outcome } = await applyRevocation(cell, {
        revocation: one.revocation,
        matches: one.matches,
        untilMs: one.untilMs,
        ...(one.lock && !lifted && { lock: one.lock }),
        nowMs,
        audit,
      });
      return outcome === 'applied' ? 'repeated' : 'known';
    }
    case 'lift': {
      const there = await line.ask((client) => client.hget(keys.named('locks'), one.lockId));
      if (there === null) return 'known';
      cell.observe({
        event: 'state.lost',
        level: 'error',
        what: 'lift',
        lock: one.lockId,
        advice: 'The store forgot that this lock was lifted. Lift it again.',
      });
      return 'known';
    }
    case 'key-ring': {
      const version = Number((await line.ask((client) => client.hget(keys.named('keyring'), 'version'))) ?? 0);
      if (version >= one.version) return 'known';
      const tainted = one.taintedKid === undefined ? '' : JSON.stringify({ key: one.taintedKid });
      await line.run('save-key-ring', [keys.named('keyring')], [one.ring, version, tainted, one.version], {
        nowMs,
        audit,
      });
      return 'repeated';
    }
  }
}
