import { newId } from '../../src/core/ids.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { openWorld, type World } from './world.js';

const HOUR_MS = 3_600_000;
const LIFE_MS = 960_000;

describe.each(STORE_NAMES)('a broker whose clock is an hour off, on %s', (name) => {
  let store: Store;
  let world: World;

  beforeAll(async () => {
    store = await STORES[name]();
  });
  afterAll(() => store.stop());
  beforeEach(async () => {
    world = await openWorld({ url: store.url, limits: { clockSkewMsMax: 5_000 } });
  });
  afterEach(() => world.close());

  it.each([HOUR_MS, -HOUR_MS])(
    '%i ms: an end still tells the verifiers, and its leases are still found and moved',
    async (offMs) => {
      const task = await world.openTask();
      const lease = await world.tokenFor(task);
      expect(await world.mint(task, { id: lease.id })).toMatchObject({ outcome: 'committed' });
      world.clock.pass(offMs);
      expect((await world.views.leases({ limit: 10 })).items.map(({ id }) => id)).toEqual([lease.id]);
      const ended = await world.ledger.endTask({
        taskId: task.id,
        state: 'completed',
        reason: 'done',
        by: 'alice',
        nowMs: world.clock.now(),
        audit: world.audit('task.ended'),
      });
      expect(ended).toMatchObject({ outcome: 'ended', position: expect.any(String) });
      const moved = await world.ledger.revokeLeases({
        leaseIds: [lease.id],
        reason: 'completed',
        nowMs: world.clock.now(),
        audit: world.audit('leases.revoked'),
      });
      expect(moved.revoked).toEqual([lease.id]);
    },
  );

  it.each([HOUR_MS, -HOUR_MS])('%i ms: what it revokes stays revoked until the last token has ended', async (offMs) => {
    const trueMs = world.clock.now();
    world.clock.pass(offMs);
    const nowMs = world.clock.now();
    const id = newId('rev', 'a', nowMs);
    await world.ledger.revoke({
      revocation: { id, selector: { team: 'payments' }, reason: 'stop', by: 'alice', createdAtMs: nowMs },
      matches: [{ sel: ['h'] }],
      untilMs: nowMs + LIFE_MS,
      nowMs,
      audit: world.audit('revocation.applied'),
    });
    const kept = await world.views.revocation(id);
    expect(kept?.untilMs).toBeGreaterThanOrEqual(trueMs + LIFE_MS - 1_000);
  });

  it.each([HOUR_MS, -HOUR_MS])(
    '%i ms: what others made due is given out, and what is an hour away is not',
    async (offMs) => {
      const task = await world.openTask();
      const later = await world.openTask({ deadlineMs: world.clock.now() + HOUR_MS - 60_000 });
      await world.ledger.endTask({
        taskId: task.id,
        state: 'completed',
        reason: 'done',
        by: 'alice',
        nowMs: world.clock.now(),
        audit: world.audit('task.ended'),
      });
      world.clock.pass(offMs);
      const given: string[] = [];
      const drained = new Promise<void>((resolve) => {
        void world.schedule.start(async ({ name, id }) => {
          given.push(`${name} ${id}`);
          if (id === task.id) resolve();
        });
      });
      await drained;
      expect(given).toContain(`drain-task ${task.id}`);
      expect(given).not.toContain(`watch-task ${later.id}`);
    },
  );

  it('of an hour ahead ends no task before its deadline, and lets no lock expire', async () => {
    const task = await world.openTask({ deadlineMs: world.clock.now() + 600_000 });
    const nowMs = world.clock.now();
    const lock = {
      id: newId('lck', 'a', nowMs),
      selector: { team: 'payments' },
      reason: 'stop',
      by: 'alice',
      createdAtMs: nowMs,
      expiresAtMs: nowMs + 600_000,
    };
    await world.ledger.revoke({
      revocation: {
        id: newId('rev', 'a', nowMs),
        selector: lock.selector,
        reason: 'stop',
        by: 'alice',
        createdAtMs: nowMs,
      },
      matches: [{ sel: ['h'] }],
      untilMs: nowMs + LIFE_MS,
      lock,
      nowMs,
      audit: world.audit('lock.set'),
    });
    world.clock.pass(HOUR_MS);
    const ended = await world.ledger.endTask({
      taskId: task.id,
      state: 'expired',
      reason: 'its deadline passed',
      by: 'mayfly',
      onlyIf: 'deadline',
      nowMs: world.clock.now(),
      audit: world.audit('task.ended'),
    });
    expect(ended).toEqual({ outcome: 'not_due' });
    expect((await world.read()).locks).toEqual([lock]);
  });
});
