import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/core/time.js';
import { openStores } from '../../src/state/open-stores.js';
import { startRedis } from './redis-servers.js';

describe('the feed of every broker', () => {
  it('goes on by itself when Redis was killed and is back', async () => {
    const redis = await startRedis();
    const dirs = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'mayfly-feed-')));
    const open = (dataDir: string) =>
      openStores({
        url: redis.url,
        cell: 'a',
        rootKey: new Uint8Array(32),
        clock: systemClock,
        observe: () => {},
        dataDir,
      });
    const brokers = await Promise.all(dirs.map(open));
    try {
      const [one] = brokers;
      for (const digest of ['sha256:1', 'sha256:2']) {
        await redis.kill();
        await redis.restart();
        const position = await activate(one as (typeof brokers)[0], digest);
        for (const broker of brokers) await broker.feed.reached(position, 5_000);
      }
    } finally {
      await Promise.all(brokers.map((broker) => broker.close()));
      await redis.stop();
      for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
    }
  }, 60_000);
});

/** Appends an entry, as soon as the broker has its connection again. */
async function activate(stores: Awaited<ReturnType<typeof openStores>>, digest: string): Promise<string> {
  for (;;) {
    try {
      const nowMs = systemClock.now();
      const audit = {
        id: 'dec_a_01m82yfg6qfknvdcc4temkp80c',
        atMs: nowMs,
        type: 'bundle.activated',
        actor: {},
      } as const;
      const done = await stores.ledger.activateBundle({ digest, files: {}, again: true, nowMs, audit });
      return done.position ?? stores.feed.head();
    } catch {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}
