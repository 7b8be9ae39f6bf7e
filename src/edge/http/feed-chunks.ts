import { type FeedFrame, writeFeedFrame } from '../../core/feed-frames.js';
import type { FeedEntry } from '../../core/revocations.js';
import type { Clock } from '../../core/time.js';
import type { EventChunk } from './route.js';

/** Every reader gets the same bytes: an entry is serialised once, however many follow. Goes with the entry. */
const entryBytes = new WeakMap<FeedEntry, Buffer>();

/** The same for the head, of which there is one at a time. */
let lastHead = { position: '', bytes: Buffer.alloc(0) };

function bytesOf(frame: FeedFrame): Buffer {
  if (frame.kind === 'head') {
    if (lastHead.position !== frame.position) {
      lastHead = { position: frame.position, bytes: Buffer.from(writeFeedFrame(frame)) };
    }
    return lastHead.bytes;
  }
  if (frame.kind === 'reset') return Buffer.from(writeFeedFrame(frame));
  const known = entryBytes.get(frame.entry);
  if (known) return known;
  const bytes = Buffer.from(writeFeedFrame(frame));
  entryBytes.set(frame.entry, bytes);
  return bytes;
}

/** How often a reader is asked for again: between two looks its stream goes on, as its connection does. */
const PROVEN_FOR_MS = 5_000;

/**
 * The frames for as long as the reader is who it was when it came: a key that left its bundle, a workload that was retired or a resource that
 * changed its owner ends them. `isProven` is asked with a head, at most every five seconds.
 */
export async function* whileProven(
  frames: AsyncIterable<FeedFrame>,
  clock: Clock,
  isProven: () => Promise<boolean>,
): AsyncGenerator<FeedFrame, void, undefined> {
  let provenAtMs = clock.now();
  for await (const frame of frames) {
    if (frame.kind === 'head' && clock.now() - provenAtMs >= PROVEN_FOR_MS) {
      if (!(await isProven())) return;
      provenAtMs = clock.now();
    }
    yield frame;
  }
}

/** The feed's frames as bytes. A snapshot (from `reset` to the head behind it) goes at the reader's pace; deltas do not wait for anybody. */
export async function* feedChunks(frames: AsyncIterable<FeedFrame>): AsyncGenerator<EventChunk, void, undefined> {
  let isSnapshot = false;
  for await (const frame of frames) {
    if (frame.kind === 'reset') isSnapshot = true;
    yield { bytes: bytesOf(frame), pace: isSnapshot ? 'reader' : 'sender' };
    if (frame.kind === 'head') isSnapshot = false;
  }
}
