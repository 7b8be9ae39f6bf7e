import { describe, expect, it } from '@jest/globals';
import { type FeedFrame, writeFeedFrame } from '../../../../src/core/feed-frames.js';
import type { FeedEntry } from '../../../../src/core/revocations.js';
import { feedChunks } from '../../../../src/edge/http/feed-chunks.js';
import type { EventChunk } from '../../../../src/edge/http/route.js';

const entry = (seq: number): FeedEntry => ({ pos: `1-1-${seq}`, untilMs: 1_000, match: { task: `tsk_${seq}` } });

async function chunksOf(frames: FeedFrame[]): Promise<EventChunk[]> {
  async function* source() {
    yield* frames;
  }
  const chunks: EventChunk[] = [];
  for await (const chunk of feedChunks(source())) chunks.push(chunk);
  return chunks;
}

describe('the feed in bytes', () => {
  it('is what the frames say', async () => {
    const frames: FeedFrame[] = [
      { kind: 'reset' },
      { kind: 'entry', entry: entry(1) },
      { kind: 'head', position: '1-1-1' },
    ];
    const text = (await chunksOf(frames)).map((chunk) => chunk.bytes.toString()).join('');
    expect(text).toBe(frames.map(writeFeedFrame).join(''));
  });

  it('every reader gets the very same bytes of an entry', async () => {
    const shared = entry(2);
    const [[a], [b]] = [
      await chunksOf([{ kind: 'entry', entry: shared }]),
      await chunksOf([{ kind: 'entry', entry: shared }]),
    ];
    expect(a?.bytes).toBe(b?.bytes);
  });

  it('a snapshot waits for its reader, up to and with its head; what follows does not', async () => {
    const chunks = await chunksOf([
      { kind: 'reset' },
      { kind: 'entry', entry: entry(3) },
      { kind: 'head', position: '1-1-3' },
      { kind: 'entry', entry: entry(4) },
      { kind: 'head', position: '1-1-4' },
      { kind: 'reset' },
      { kind: 'entry', entry: entry(5) },
    ]);
    expect(chunks.map((chunk) => chunk.pace)).toEqual([
      'reader',
      'reader',
      'reader',
      'sender',
      'sender',
      'reader',
      'reader',
    ]);
  });

  it('deltas from a cursor wait for nobody from the first', async () => {
    const [first] = await chunksOf([{ kind: 'entry', entry: entry(6) }]);
    expect(first?.pace).toBe('sender');
  });
});
