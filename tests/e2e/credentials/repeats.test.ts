import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { issueAgain } from '../../../src/broker/issue-again.js';
import type { Parts } from '../../../src/broker/parts.js';
import { BrokerError } from '../../../src/core/errors.js';
import { newId } from '../../../src/core/ids.js';
import { systemClock } from '../../../src/core/time.js';
import { openStores } from '../../../src/state/open-stores.js';
import { FakeBackend } from '../../fakes/backend.js';
import { fakeBundle, REFUNDS } from '../../fakes/policy.js';
import type { VirtualClock } from '../../fakes/virtual-clock.js';
import { type RedisServer, startRedis } from '../../state/redis-servers.js';
import { agentOf, openVerbWorld, type VerbWorld } from '../../unit/broker/world.js';

const ROUNDS = 40;
const AT_ONCE = 4;

/** A backend in memory behind a real Redis: what races is the engine and the store. */
describe('two brokers on one Redis, asked with one key at once', () => {
  let redis: RedisServer;
  let worlds: VerbWorld[];
  let close: () => Promise<void>;
  const backend = new FakeBackend(systemClock as VirtualClock, 'pg', { issuesMax: 100, revocationsMax: 100 });

  beforeAll(async () => {
    redis = await startRedis();
    const dataDirs = [0, 1].map(() => mkdtempSync(join(tmpdir(), 'mayfly-repeats-')));
    const bundle = fakeBundle('sample', {
      workloads: [{ spiffeId: REFUNDS }],
      taskTypes: [{}],
      resources: [{}],
      secrets: [{ sensitivity: 'internal' }],
    });
    const brokers: Awaited<ReturnType<typeof openStores>>[] = [];
    for (const dataDir of dataDirs) {
      brokers.push(
        await openStores({
          url: redis.url,
          cell: 'a',
          rootKey: new Uint8Array(32).fill(7),
          clock: systemClock,
          observe: () => {},
          dataDir,
          role: 'api',
        }),
      );
    }
    const [{ ledger }] = brokers as [(typeof brokers)[number]];
    const audit = { id: newId('dec', 'a', Date.now()), atMs: Date.now(), type: 'bundle.activated' as const, actor: {} };
    const { digest, files } = bundle;
    await ledger.activateBundle({ digest, files, again: false, nowMs: Date.now(), audit });
    await ledger.settleBundle({ digest, nowMs: Date.now() });
    worlds = await Promise.all(
      brokers.map((stores) =>
        openVerbWorld({
          clock: systemClock as VirtualClock,
          backends: [backend],
          bundles: [{ bundle }],
          parts: {
            ledger: stores.ledger,
            views: stores.views,
            feed: stores.feed,
            replayGuard: stores.replayGuard,
            auditLog: stores.auditLog,
            health: stores.health,
            // Nothing is retired meanwhile: whatever was made is there to be seen.
            schedule: { add: () => {}, start: async () => {}, sweep: async () => 0, stop: async () => {} },
          },
        }),
      ),
    );
    close = async () => {
      for (const stores of brokers) await stores.close();
      for (const dataDir of dataDirs) rmSync(dataDir, { recursive: true, force: true });
    };
  }, 60_000);

  afterAll(async () => {
    await close?.();
    await redis?.stop();
  }, 60_000);

  it('one is alive of all that were made, whoever asked; and the next repeat replaces that one', async () => {
    const [one] = worlds as [VerbWorld];
    const task = await one.openTask();
    const ask = (parts: Parts, key: string) =>
      issueAgain(parts, agentOf(one), { secret: 'orders-db', task: task.id }, { key, bodyDigest: 'b' });
    let made = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const key = `k${round}`;
      const before = new Set(backend.live());
      const answers = await Promise.allSettled(
        Array.from({ length: AT_ONCE }, async (_, at) => {
          // From the same moment to some milliseconds apart.
          for (let turn = 0; turn < at * round; turn++) await new Promise(setImmediate);
          return ask(worlds[at % 2] as VerbWorld, key);
        }),
      );
      for (const answer of answers) {
        if (answer.status === 'fulfilled') continue;
        expect(answer.reason).toBeInstanceOf(BrokerError);
        expect(['conflict', 'unavailable']).toContain(answer.reason.code);
      }
      const own = backend.live().filter((id) => !before.has(id));
      made += own.length;
      const leases = await Promise.all(own.map((id) => one.views.lease(id)));
      const active = leases.flatMap((lease) => (lease?.state === 'active' ? lease.id : []));
      expect(active).toHaveLength(1);
      const given = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value.leaseId : []));
      expect(given).toContain(active[0]);
      expect((await ask(one, key)).replaces).toBe(active[0]);
      expect((await one.views.lease(active[0] as string))?.state).toBe('revoking');
    }
    // They did race: some were made and revoked.
    expect(made).toBeGreaterThan(ROUNDS);
  }, 60_000);
});
