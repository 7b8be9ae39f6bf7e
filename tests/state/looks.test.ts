import { Redis } from 'ioredis';
import { newId } from '../../src/core/ids.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import type { TaskRecord } from '../../src/core/task.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { openWorld, type World } from './world.js';

describe.each(STORE_NAMES)('looks asked for in one turn on %s', (name) => {
  let store: Store;
  let world: World;

  beforeAll(async () => {
    store = await STORES[name]();
  });
  afterAll(() => store.stop());
  beforeEach(async () => {
    world = await openWorld({ url: store.url });
  });
  afterEach(() => world.close());

  const openTasks = async (count: number) => {
    const tasks: TaskRecord[] = [];
    for (let at = 0; at < count; at++) tasks.push(await world.openTask({ purpose: `purpose ${at}` }));
    return tasks;
  };
  const ask = (taskId: string, leaseIds: string[] = []) =>
    world.ledger.read({ taskId, leaseIds, nowMs: world.clock.now() });

  it('each gets its own task and leases, and no other', async () => {
    const tasks = await openTasks(5);
    const leases: LeaseRecord[] = [];
    for (const task of tasks) {
      const lease = await world.tokenFor(task);
      expect((await world.ledger.commitLease(commitOf(world, lease))).outcome).toBe('committed');
      leases.push(lease);
    }
    const readings = await Promise.all(tasks.map((task, at) => ask(task.id, [leases[at]?.id as string])));
    for (const [at, reading] of readings.entries()) {
      expect(reading?.tasks.map(({ purpose }) => purpose)).toEqual([`purpose ${at}`]);
      expect(reading?.leases.map(({ id }) => id)).toEqual([leases[at]?.id]);
    }
  });

  it('one that is not there is missing for whoever asked for it, and for nobody else', async () => {
    const [task] = (await openTasks(1)) as [TaskRecord];
    const gone = newId('lse', 'zz', world.clock.now());
    const [whole, missing, again] = await Promise.all([ask(task.id), ask(task.id, [gone]), ask(task.id)]);
    expect(whole?.tasks).toHaveLength(1);
    expect(missing).toBeUndefined();
    expect(again?.tasks).toHaveLength(1);
  });

  it('a lease is there under its own id alone, whatever stands before the part that says where it is', async () => {
    const [task] = (await openTasks(1)) as [TaskRecord];
    const lease = await world.tokenFor(task);
    expect((await world.ledger.commitLease(commitOf(world, lease))).outcome).toBe('committed');
    const tail = lease.id.slice(-26);
    for (const alias of [`lse_b_${tail}`, `lse_${tail}`, `tsk_a_${tail}`, `x${lease.id}`, tail]) {
      expect(await world.views.lease(alias)).toBeUndefined();
      expect(await world.views.leaseWithAbove(alias)).toBeUndefined();
      expect(await ask(task.id, [alias])).toBeUndefined();
      const { revoked } = await world.ledger.revokeLeases({
        leaseIds: [alias],
        reason: 'given back',
        announce: true,
        nowMs: world.clock.now(),
        audit: world.audit('leases.revoked'),
      });
      expect(revoked).toEqual([]);
    }
    expect((await world.views.lease(lease.id))?.state).toBe('active');
  });

  it('more than one script takes, all of them are answered', async () => {
    const tasks = await openTasks(3);
    const readings = await Promise.all(Array.from({ length: 150 }, (_, at) => ask((tasks[at % 3] as TaskRecord).id)));
    expect(readings.map((reading) => reading?.tasks[0]?.id)).toEqual(
      Array.from({ length: 150 }, (_, at) => (tasks[at % 3] as TaskRecord).id),
    );
  });

  it('what was acknowledged before a look was asked for is in it, however many looks are under way', async () => {
    const [task] = (await openTasks(1)) as [TaskRecord];
    for (let generation = 1; generation <= 20; generation++) {
      const before = Array.from({ length: 40 }, () => ask(task.id));
      const changed = await world.ledger.changeContext({
        taskId: task.id,
        generation,
        context: { environment: `e${generation}` },
        revoke: false,
        judgeWithinMs: 5_000,
        nowMs: world.clock.now(),
        audit: world.audit('task.context_changed', { task: task.id }),
      });
      expect(changed.outcome).toBe('changed');
      const after = await Promise.all(Array.from({ length: 40 }, () => ask(task.id)));
      for (const reading of after) {
        expect(reading?.tasks[0]).toMatchObject({
          generation: generation + 1,
          context: { environment: `e${generation}` },
        });
      }
      for (const reading of await Promise.all(before)) {
        const seen = reading?.tasks[0];
        expect([generation, generation + 1]).toContain(seen?.generation);
        // Never one generation under the context of another.
        expect(seen?.context['environment']).toBe(
          seen?.generation === 1 ? 'sandbox' : `e${(seen?.generation ?? 0) - 1}`,
        );
      }
    }
  });
});

describe('looks asked for in one turn', () => {
  let store: Store;
  let world: World;

  beforeEach(async () => {
    store = await STORES.redis();
    world = await openWorld({ url: store.url });
  });
  afterEach(async () => {
    await world.close();
    await store.stop();
  });

  it('are one script, and those of the next turn are another', async () => {
    const task = await world.openTask();
    const redis = new Redis(store.url as string);
    const scriptsRun = async () =>
      Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0);
    const ask = () => world.ledger.read({ taskId: task.id, nowMs: world.clock.now() });
    await ask();
    const before = await scriptsRun();
    await Promise.all(Array.from({ length: 30 }, ask));
    const together = (await scriptsRun()) - before;
    for (let at = 0; at < 30; at++) await ask();
    const alone = (await scriptsRun()) - before - together;
    redis.disconnect();
    // A beat or a sweep may come between.
    expect(together).toBeLessThan(15);
    expect(alone).toBeGreaterThanOrEqual(30);
  });

  it('are all refused when the store does not answer', async () => {
    const task = await world.openTask();
    await world.read(task.id);
    await store.stop();
    const outcomes = await Promise.allSettled(
      Array.from({ length: 10 }, () => world.ledger.read({ taskId: task.id, nowMs: world.clock.now() })),
    );
    for (const outcome of outcomes)
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'unavailable' } });
  });
});

function commitOf(world: World, lease: Awaited<ReturnType<World['tokenFor']>>) {
  return {
    lease,
    basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
    quotas: { leasesPerTask: 100, leasesPerAgent: 100, perTree: 1_000 },
    nowMs: world.clock.now(),
    audit: world.audit('token.minted', { lease: lease.id }),
  };
}
