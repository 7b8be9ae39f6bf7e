import { newId } from '../../src/core/ids.js';
import type { Position } from '../../src/core/position.js';
import { type RedisServer, startRedis } from './redis-servers.js';
import { openWorld, type World } from './world.js';

describe('a head of the feed', () => {
  let redis: RedisServer;
  let world: World;

  beforeAll(async () => {
    redis = await startRedis();
    world = await openWorld({ url: redis.url });
  });

  afterAll(async () => {
    await world.close();
    await redis.stop();
  });

  it('is the last entry that was sent, however fast revocations come: verifiers take anything else for a gap', async () => {
    const stop = new AbortController();
    const revoking = Promise.all(Array.from({ length: 8 }, () => revokeUntil(stop.signal)));
    let last: Position | undefined;
    let heads = 0;
    const wrong: string[] = [];
    for await (const frame of world.feed.follow({ signal: stop.signal })) {
      if (frame.kind === 'entry') last = frame.entry.pos;
      if (frame.kind !== 'head') continue;
      // The first one ends the snapshot, whose last entries may be gone.
      if (heads > 0 && frame.position !== last) wrong.push(`${frame.position} after ${last}`);
      last = frame.position;
      heads += 1;
      if (heads === 8) stop.abort();
    }
    await revoking;
    expect(wrong).toEqual([]);
  });

  async function revokeUntil(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const nowMs = world.clock.now();
      const id = newId('rev', 'a', nowMs);
      await world.ledger.revoke({
        revocation: { id, selector: { team: 'payments' }, reason: 'load', by: 'alice', createdAtMs: nowMs },
        matches: [{ lease: id }],
        untilMs: nowMs + 960_000,
        nowMs,
        audit: world.audit('revocation.applied'),
      });
    }
  }
});
