import { isTerminal, type TaskRecord } from '../core/task.js';
import type { Caller } from './caller.js';
import { getTask } from './look-up.js';
import type { Parts } from './parts.js';

/** What happened to a task, and how it is now. `opened` is how it was when the watcher came. */
export interface TaskEvent {
  kind: 'opened' | 'changed' | 'ended';
  task: TaskRecord;
}

/** How often a watched task is looked at. What enforces is the feed; this is for whoever waits for news. */
const LOOK_EVERY_MS = 500;

/**
 * A task as it is, and then each time its state or generation moved, until it is over or the signal aborts. Whoever may no longer see it gets
 * the same `not_found` as at the start. A change that came and went between two looks shows in the generation only.
 */
export async function* taskEvents(
  parts: Parts,
  caller: Caller,
  request: { task: string; signal: AbortSignal },
): AsyncGenerator<TaskEvent, void, undefined> {
  let task = await getTask(parts, caller, request.task);
  yield { kind: isTerminal(task.state) ? 'ended' : 'opened', task };
  while (!isTerminal(task.state)) {
    await pause(LOOK_EVERY_MS, request.signal);
    if (request.signal.aborted) return;
    const seen = task;
    task = await getTask(parts, caller, seen.id);
    if (isTerminal(task.state)) yield { kind: 'ended', task };
    else if (task.state !== seen.state || task.generation !== seen.generation) yield { kind: 'changed', task };
  }
}

function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', settle);
      resolve();
    };
    const timer = setTimeout(settle, durationMs);
    signal.addEventListener('abort', settle);
    if (signal.aborted) settle();
  });
}
