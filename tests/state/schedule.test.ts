import { setTimeout as delay } from 'node:timers/promises';
import { jest } from '@jest/globals';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import type { TaskRecord } from '../../src/core/task.js';
import type { Job } from '../../src/state/stores.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { BUNDLE, OPENER, openWorld, type World } from './world.js';

const WAIT_MS = 10_000;

async function until(what: string, isSo: () => boolean): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (performance.now() < deadline) {
    if (isSo()) return;
    await delay(10);
  }
  throw new Error(`not so: ${what}`);
}

describe.each(STORE_NAMES)('the schedule on %s', (name) => {
  let store: Store;
  let world: World;
  let nodes: Redis[];

  beforeAll(async () => {
    store = await STORES[name]();
    nodes = [store.url].flat().map((url) => new Redis(url));
  });
  afterAll(async () => {
    for (const node of nodes) node.disconnect();
    await store.stop();
  });
  beforeEach(async () => {
    world = await openWorld({ url: store.url, limits: { sweepEveryMs: 50 } });
    await world.ledger.settleBundle({ digest: BUNDLE, nowMs: world.clock.now() });
  });
  afterEach(() => world.close());

  const endedTask = async (): Promise<TaskRecord> => {
    const task = await world.openTask();
    await world.ledger.endTask({
      taskId: task.id,
      state: 'completed',
      reason: '',
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.ended'),
    });
    return task;
  };
  const settle = (job: Job) =>
    world.ledger.settleTask({
      taskId: job.id,
      work: 'drain-task',
      state: 'completed',
      generation: 1,
      nowMs: world.clock.now(),
    });

  it('a job is done at once, long before the sweeper would come', async () => {
    const done: Job[] = [];
    await world.schedule.start(async (job) => {
      done.push(job);
    });
    const task = await endedTask();
    world.schedule.add({ name: 'drain-task', id: task.id });
    await until('the job is done', () => done.length > 0);
    expect(done).toEqual([{ name: 'drain-task', id: task.id }]);
  });

  it('what comes while a messenger is under way travels together with the next: a crowd is a few jobs', async () => {
    const moved = jest.spyOn(Queue.prototype, 'add');
    const done: string[] = [];
    await world.schedule.start(async ({ id }) => {
      done.push(id);
    });
    const ids = Array.from({ length: 250 }, (_, at) => `task-${at}`);
    for (const id of ids) world.schedule.add({ name: 'drain-task', id });
    await until('all are done', () => done.length === ids.length);
    expect(done.sort()).toEqual(ids.sort());
    // The first alone, and then a hundred at a time.
    expect(moved).toHaveBeenCalledTimes(4);
    moved.mockRestore();
  });

  it('the sweeper leaves a messenger a second, and comes then', async () => {
    const done: Job[] = [];
    const watched: string[] = [];
    await world.schedule.start(
      async (job) => {
        done.push(job);
      },
      {
        watch: async (ids) => {
          watched.push(...ids);
        },
      },
    );
    const task = await endedTask();
    const other = await world.openTask({ deadlineMs: world.clock.now() + 999 });
    world.clock.pass(999);
    await until('the sweeper came for the other one', () => watched.includes(other.id));
    expect(done).toEqual([]);
    world.clock.pass(1);
    await until('the sweeper came', () => done.length > 0);
    expect(done).toEqual([{ name: 'drain-task', id: task.id }]);
  });

  it('it wakes when the next thing is due, however seldom it looks otherwise', async () => {
    const clock = { now: Date.now };
    const seldom = await openWorld({
      url: store.url,
      clock: clock as World['clock'],
      limits: { sweepEveryMs: 600_000 },
    });
    await seldom.ledger.settleBundle({ digest: BUNDLE, nowMs: Date.now() });
    const deadlineMs = Date.now() + 1_500;
    const task = await seldom.openTask({ deadlineMs });
    const watched: string[] = [];
    await seldom.schedule.start(async () => {}, {
      watch: async (ids) => {
        expect(Date.now()).toBeGreaterThanOrEqual(deadlineMs);
        watched.push(...ids);
      },
    });
    await until('the task was watched', () => watched.length > 0);
    expect(watched).toEqual([task.id]);
    await seldom.close();
  });

  it('tasks whose time has come are brought a page at a time, each once', async () => {
    const deadlineMs = world.clock.now() + 5_000;
    const ids: string[] = [];
    for (let at = 0; at < 620; at++) ids.push((await world.openTask({ deadlineMs })).id);
    const pages: (readonly string[])[] = [];
    await world.schedule.start(async () => {}, {
      watch: async (page) => {
        pages.push(page);
        if (pages.length === 1) throw new Error('the first page is lost');
      },
    });
    world.clock.pass(5_000);
    await until('all were brought', () => pages.flat().length === ids.length);
    expect(pages.length).toBeLessThan(4);
    expect(new Set(pages.flat())).toEqual(new Set(ids));
    // What was not settled comes again when its claim is over.
    world.clock.pass(10_001);
    await until('they came again', () => pages.flat().length === 2 * ids.length);
  });

  it('every kind of work has hands, ids with a colon included', async () => {
    const done: string[] = [];
    await world.schedule.start(async (job) => {
      done.push(`${job.name} ${job.id}`);
    });
    const jobs: Job[] = [
      { name: 'drain-task', id: 'a' },
      { name: 'watch-task', id: 'b' },
      { name: 're-evaluate-task', id: 'c' },
      { name: 're-evaluate-bundle', id: 'sha256:abc' },
      { name: 'run-revocation', id: 'd' },
      { name: 'retire-credential', id: '123' },
    ];
    for (const job of jobs) world.schedule.add(job);
    await until('all are done', () => done.length === jobs.length);
    expect(done.sort()).toEqual(jobs.map((job) => `${job.name} ${job.id}`).sort());
  });

  it('the same job again is done again: an id that was used is no obstacle', async () => {
    let done = 0;
    await world.schedule.start(async () => {
      done += 1;
    });
    for (let times = 1; times <= 3; times++) {
      world.schedule.add({ name: 'drain-task', id: 'same' });
      await until('it is done again', () => done === times);
    }
  });

  it('what no job came for, the sweeper does: the queue may be lost', async () => {
    const done: Job[] = [];
    await world.schedule.start(async (job) => {
      done.push(job);
      await settle(job);
    });
    const task = await endedTask();
    world.clock.pass(1_001);
    await until('the sweeper came', () => done.length > 0);
    expect(done).toEqual([{ name: 'drain-task', id: task.id }]);
    expect(await world.schedule.sweep()).toBe(0);
  });

  it('what a handler could not do is tried again', async () => {
    let attempts = 0;
    await world.schedule.start(async (job) => {
      attempts += 1;
      if (attempts === 1) throw new Error('not now');
      await settle(job);
    });
    const task = await endedTask();
    world.schedule.add({ name: 'drain-task', id: task.id });
    await until('the first attempt failed', () => attempts === 1);
    for (let turn = 0; attempts < 2; turn++) {
      expect(turn).toBeLessThan(3);
      world.clock.pass(11_000);
      await world.schedule.sweep();
    }
    expect(await world.schedule.sweep()).toBe(0);
  });

  it('work for one id is never done twice at the same time in one process', async () => {
    let running = 0;
    let most = 0;
    let finish = () => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let begun = 0;
    await world.schedule.start(async ({ id }) => {
      begun += 1;
      if (id !== 'one') return;
      running += 1;
      most = Math.max(most, running);
      await gate;
      running -= 1;
    });
    for (let at = 0; at < 5; at++) world.schedule.add({ name: 'drain-task', id: 'one' });
    world.schedule.add({ name: 'drain-task', id: 'two' });
    await until('both ids were begun', () => begun >= 2);
    finish();
    await until('nothing runs', () => running === 0);
    expect(most).toBe(1);
  });

  it('what is asked for while the same work is under way is done after it, not when its claim is over', async () => {
    let begun = 0;
    let finish = () => {};
    const gate = new Promise<void>((resolve) => {
      finish = resolve;
    });
    await world.schedule.start(async () => {
      begun += 1;
      await gate;
    });
    world.schedule.add({ name: 'drain-task', id: 'one' });
    await until('the first is under way', () => begun === 1);
    for (const id of ['one', 'one', 'two']) world.schedule.add({ name: 'drain-task', id });
    await until('the other one is under way', () => begun === 2);
    finish();
    await until('the first was done again', () => begun === 3);
  });

  it('two brokers that sweep take each due thing once', async () => {
    const cell = (await endedTask()).id.split('_')[1] as string;
    for (let at = 0; at < 20; at++) await endedTask();
    const other = await openWorld({ url: store.url, cell, clock: world.clock, limits: { sweepEveryMs: 60_000 } });
    await other.ledger.settleBundle({ digest: BUNDLE, nowMs: other.clock.now() });
    const done: string[] = [];
    const handle = async (job: Job) => {
      done.push(job.id);
      await settle(job);
    };
    await world.schedule.start(handle);
    await other.schedule.start(handle);
    await Promise.all([world.schedule.sweep(), other.schedule.sweep()]);
    expect(done).toHaveLength(21);
    expect(new Set(done).size).toBe(21);
    await other.close();
  });

  it('what was taken comes back when its taker dies', async () => {
    const task = await endedTask();
    await world.schedule.start(() => new Promise(() => {}));
    void world.schedule.sweep();
    const cell = task.id.split('_')[1] as string;
    const other = await openWorld({ url: store.url, cell, clock: world.clock });
    await other.ledger.settleBundle({ digest: BUNDLE, nowMs: other.clock.now() });
    while ((await other.schedule.sweep()) > 0) await delay(5);
    world.clock.pass(10_001);
    expect(await other.schedule.sweep()).toBe(1);
    await other.close();
  });

  it('a full Redis makes nobody spin, and what is due is done by the sweeper all the same', async () => {
    const done: string[] = [];
    await world.schedule.start(async (job) => {
      done.push(job.id);
      await settle(job);
    });
    const task = await endedTask();
    await Promise.all(nodes.map((node) => node.call('CONFIG', 'SET', 'maxmemory', '1mb')));
    try {
      for (let at = 0; at < 50; at++) world.schedule.add({ name: 'drain-task', id: `lost-${at}` });
      world.clock.pass(1_001);
      await until('the sweeper came', () => done.includes(task.id));
      await delay(1_500);
      const told = world.events.filter(({ event }) => event.startsWith('schedule.'));
      expect(told.length).toBeLessThan(30);
    } finally {
      await Promise.all(nodes.map((node) => node.call('CONFIG', 'SET', 'maxmemory', '0')));
    }
  });
});

describe('a stop holds its process no longer', () => {
  // The least of some looks: other timers come and go, what holds the process stays.
  const held = async () => {
    let least = Number.POSITIVE_INFINITY;
    for (let looks = 0; looks < 20; looks++) {
      await delay(10);
      least = Math.min(least, process.getActiveResourcesInfo().filter((kind) => /Timeout|Socket/.test(kind)).length);
    }
    return least;
  };
  let store: Store;
  let heldBefore: number;
  let world: World;

  beforeEach(async () => {
    store = await STORES.redis();
    heldBefore = await held();
    world = await openWorld({ url: store.url });
  });
  afterEach(() => store.stop());

  const stops = async () => {
    const startedAtMs = performance.now();
    await world.close();
    expect(performance.now() - startedAtMs).toBeLessThan(10_000);
    const goneByMs = performance.now() + 1_000;
    while ((await held()) > heldBefore) expect(performance.now()).toBeLessThan(goneByMs);
  };

  it('when Redis is gone', async () => {
    await world.schedule.start(async () => {});
    await store.stop();
    await stops();
  });

  it('when Redis is full, and every look of its workers fails', async () => {
    const node = new Redis(store.url as string);
    await node.call('CONFIG', 'SET', 'maxmemory', '1mb');
    node.disconnect();
    await world.schedule.start(async () => {});
    await until('the workers were told', () => world.events.some(({ event }) => event === 'schedule.worker'));
    await stops();
  });
});
