import type { TaskEvent } from '../../../broker/task-events.js';
import type { EventChunk } from '../route.js';
import { eventBytes } from '../sse.js';
import { taskOnWire } from './task-shape.js';

/** `opened`, `changed` and `ended`, each with the task as it is then. */
export async function* taskEventChunks(events: AsyncIterable<TaskEvent>): AsyncGenerator<EventChunk, void, undefined> {
  for await (const { kind, task } of events) yield { bytes: eventBytes(kind, taskOnWire(task)), pace: 'sender' };
}
