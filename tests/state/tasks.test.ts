import { Redis } from 'ioredis';
import { newId } from '../../src/core/ids.js';
import { isBefore } from '../../src/core/position.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { AGENT, BUNDLE, OPENER, openWorld, QUOTAS, type World } from './world.js';

describe.each(STORE_NAMES)('tasks on %s', (name) => {
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

  const end = (taskId: string, state: 'completed' | 'failed' = 'completed') =>
    world.ledger.endTask({
      taskId,
      state,
      reason: 'done',
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.ended', { task: taskId }),
    });
  const suspend = (taskId: string, onlyIf?: 'silence') =>
    world.ledger.suspendTask({
      taskId,
      reason: 'look',
      by: OPENER,
      ...(onlyIf && { onlyIf }),
      nowMs: world.clock.now(),
      audit: world.audit('task.suspended', { task: taskId }),
    });
  const resume = (taskId: string) =>
    world.ledger.resumeTask({
      taskId,
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.resumed', { task: taskId }),
    });
  const change = (taskId: string, generation: number, context: Record<string, unknown>, revoke = false) =>
    world.ledger.changeContext({
      taskId,
      generation,
      context,
      revoke,
      judgeWithinMs: 5_000,
      nowMs: world.clock.now(),
      audit: world.audit('task.context_changed', { task: taskId }),
    });

  it('an opened task reads back whole, by another broker too', async () => {
    const task = await world.openTask({ ref: 'run-1', onBehalfOf: { name: 'alice', proven: false } }, { risk: 'low' });
    expect(task).toMatchObject({ state: 'active', generation: 1, context: { risk: 'low' }, liveUntilMs: 0 });
    expect((await world.read(task.id)).tasks).toEqual([task]);
    expect(await world.views.task(task.id)).toEqual(task);
    expect(await world.views.taskIdByRef(OPENER, 'run-1')).toBe(task.id);
  });

  it('a context change says by when it has to be judged; the next before that gives no more time, and once it was judged nothing is left', async () => {
    const task = await world.openTask();
    const judged = (work: 're-evaluate-task' | 'drain-task', generation: number) =>
      world.ledger.settleTask({ taskId: task.id, work, state: 'active', generation, nowMs: world.clock.now() });
    expect(await world.views.judgeBy(task.id)).toBeUndefined();
    const byMs = world.clock.now() + 5_000;
    await change(task.id, 1, { risk: 'high' });
    world.clock.pass(1_000);
    await change(task.id, 2, { risk: 'low' });
    expect(await world.views.judgeBy(task.id)).toBe(byMs);
    // Neither a drain nor a judging under a generation that is over takes it away.
    await judged('drain-task', 3);
    expect(await judged('re-evaluate-task', 2)).toEqual({ outcome: 'stale' });
    expect(await world.views.judgeBy(task.id)).toBe(byMs);
    expect(await judged('re-evaluate-task', 3)).toEqual({ outcome: 'settled' });
    expect(await world.views.judgeBy(task.id)).toBeUndefined();
    await change(task.id, 3, {}, true);
    expect(await world.views.judgeBy(task.id)).toBeUndefined();
  });

  it('a drain that two messengers bring is recorded once: by whoever settles it', async () => {
    const task = await world.openTask();
    await end(task.id);
    const settle = () =>
      world.ledger.settleTask({
        taskId: task.id,
        work: 'drain-task',
        state: 'completed',
        generation: task.generation,
        nowMs: world.clock.now(),
        audit: world.audit('task.drained', { task: task.id }),
      });
    expect([await settle(), await settle()]).toEqual([{ outcome: 'settled' }, { outcome: 'settled' }]);
    expect((await world.auditLog.read({ task: task.id, type: 'task.drained', limit: 10 })).items).toHaveLength(1);
  });

  it('the same reference opens one task, whoever is first', async () => {
    const task = await world.openTask({ ref: 'run-1' });
    const again = await world.openTask({ ref: 'run-1' });
    expect(again.id).toBe(task.id);
    const other = await world.openTask({ ref: 'run-1', opener: 'spiffe://dev.mayfly/orchestrator/other' });
    expect(other.id).not.toBe(task.id);
  });

  it('what is not there is not there', async () => {
    const id = newId('tsk', 'a', world.clock.now());
    expect(await world.ledger.read({ taskId: id, nowMs: world.clock.now() })).toBeUndefined();
    expect(await world.views.task(id)).toBeUndefined();
    expect(await end(id)).toEqual({ outcome: 'not_found' });
    expect(await suspend(id)).toEqual({ outcome: 'not_found' });
    expect(await resume(id)).toEqual({ outcome: 'not_found' });
    expect(await change(id, 1, {})).toEqual({ outcome: 'not_found' });
    expect(await world.ledger.heartbeat({ taskId: id, agent: AGENT, nowMs: world.clock.now() })).toEqual({
      outcome: 'not_found',
    });
  });

  it('a child is opened only below a live parent at the generation that was read', async () => {
    const parent = await world.openTask();
    const child = await world.openTask({ path: parent.path });
    expect(child.path).toEqual([parent.id, child.id]);
    const stale = await world.basis(parent.id);
    await suspend(parent.id);
    const open = async (basis = stale) => {
      const id = newId('tsk', 'a', world.clock.now());
      return world.ledger.startTask({
        charter: { ...child, id, path: [parent.id, id] },
        context: {},
        basis,
        quotas: QUOTAS,
        nowMs: world.clock.now(),
        audit: world.audit('task.opened'),
      });
    };
    expect(await open()).toEqual({ outcome: 'suspended', by: parent.id });
    await resume(parent.id);
    expect(await open()).toEqual({ outcome: 'stale', because: 'generation' });
    expect(await open(await world.basis(parent.id))).toMatchObject({ outcome: 'opened' });
    await end(parent.id);
    expect(await open(stale)).toEqual({ outcome: 'over', by: parent.id });
    expect((await world.views.children(parent.id, { limit: 10 })).items).toHaveLength(2);
  });

  it('a path that is not its parent’s is refused', async () => {
    const one = await world.openTask();
    const other = await world.openTask();
    const id = newId('tsk', 'a', world.clock.now());
    const basis = await world.basis(one.id);
    const reply = await world.ledger.startTask({
      charter: { ...one, id, path: [other.id, one.id, id] },
      context: {},
      basis: { ...basis, generations: [1, 1] },
      quotas: QUOTAS,
      nowMs: world.clock.now(),
      audit: world.audit('task.opened'),
    });
    expect(reply).toEqual({ outcome: 'not_found', by: one.id });
  });

  it('the first end wins, and every later one says how it ended', async () => {
    const task = await world.openTask();
    expect(await end(task.id)).toMatchObject({ outcome: 'ended', task: { state: 'completed', endedBy: OPENER } });
    expect(await end(task.id, 'failed')).toMatchObject({ outcome: 'already', task: { state: 'completed' } });
    expect(await suspend(task.id)).toMatchObject({ outcome: 'over' });
    expect(await resume(task.id)).toMatchObject({ outcome: 'over' });
    expect(await change(task.id, 1, {})).toMatchObject({ outcome: 'over' });
  });

  it('an end writes a feed entry only when something can be alive', async () => {
    const idle = await world.openTask();
    const before = await world.feed.head();
    expect(await end(idle.id)).not.toHaveProperty('position');
    expect(await world.feed.head()).toBe(before);
    const busy = await world.openTask();
    expect(await world.mint(busy)).toEqual({ outcome: 'committed' });
    const reply = await end(busy.id);
    expect(reply).toMatchObject({ outcome: 'ended', position: await world.feed.head() });
    expect(isBefore(before, await world.feed.head())).toBe(true);
  });

  it('a suspension and a resumption each raise the generation, and the cut stays', async () => {
    const task = await world.openTask();
    const suspended = await suspend(task.id);
    expect(suspended).toMatchObject({ outcome: 'suspended', task: { state: 'suspended', generation: 2 } });
    expect(await suspend(task.id)).toMatchObject({ outcome: 'already', task: { generation: 2 } });
    const resumed = await resume(task.id);
    expect(resumed).toMatchObject({ outcome: 'resumed', task: { state: 'active', generation: 3 } });
    expect(resumed).toMatchObject({ task: { cutAt: (suspended as { position: string }).position } });
    expect(await resume(task.id)).toMatchObject({ outcome: 'already' });
  });

  it('a context is changed from the generation it was read at, or not at all', async () => {
    const task = await world.openTask();
    expect(await change(task.id, 1, { risk: 'high' })).toMatchObject({
      outcome: 'changed',
      task: { generation: 2, context: { risk: 'high' } },
    });
    expect(await change(task.id, 1, { risk: 'low' })).toMatchObject({
      outcome: 'generation_mismatch',
      task: { generation: 2, context: { risk: 'high' } },
    });
    expect(await world.views.task(task.id)).toMatchObject({ context: { risk: 'high' } });
  });

  it('a context change cuts only when it revokes', async () => {
    const task = await world.openTask();
    const before = await world.feed.head();
    expect(await change(task.id, 1, {})).not.toHaveProperty('position');
    expect(await world.feed.head()).toBe(before);
    const cut = await change(task.id, 2, {}, true);
    expect(cut).toMatchObject({ position: await world.feed.head(), task: { cutAt: await world.feed.head() } });
  });

  it('contexts are the users’: empty arrays, big numbers and odd keys come back as they went', async () => {
    const context = { list: [], object: {}, big: 9_007_199_254_740_991, __proto: 'x', 'a:b': null, text: 'ü\u2028"\\' };
    const task = await world.openTask({}, context);
    expect((await world.views.task(task.id))?.context).toEqual(context);
  });

  it('a deadline ends a task when it has passed, not before', async () => {
    const task = await world.openTask({ deadlineMs: world.clock.now() + 1_000 });
    const expire = () =>
      world.ledger.endTask({
        taskId: task.id,
        state: 'expired',
        reason: 'deadline',
        by: 'mayfly',
        onlyIf: 'deadline',
        nowMs: world.clock.now(),
        audit: world.audit('task.ended'),
      });
    expect(await expire()).toEqual({ outcome: 'not_due' });
    world.clock.pass(1_000);
    expect(await expire()).toMatchObject({ outcome: 'ended', task: { state: 'expired' } });
  });

  it('a heartbeat puts silence off; silence suspends once and ends after three', async () => {
    const task = await world.openTask({ heartbeatMs: 10_000 });
    const silence = () =>
      world.ledger.endTask({
        taskId: task.id,
        state: 'silent',
        reason: 'silence',
        by: 'mayfly',
        onlyIf: 'silence',
        nowMs: world.clock.now(),
        audit: world.audit('task.ended'),
      });
    world.clock.pass(9_000);
    await world.ledger.heartbeat({ taskId: task.id, agent: AGENT, nowMs: world.clock.now() });
    world.clock.pass(9_000);
    expect(await suspend(task.id, 'silence')).toEqual({ outcome: 'not_due' });
    world.clock.pass(1_000);
    expect(await suspend(task.id, 'silence')).toMatchObject({ outcome: 'suspended' });
    expect(await silence()).toEqual({ outcome: 'not_due' });
    world.clock.pass(20_000);
    expect(await silence()).toMatchObject({ outcome: 'ended', task: { state: 'silent' } });
  });

  it('an end by reference is kept and applied when the task opens', async () => {
    const keep = () =>
      world.ledger.keepEnd({
        opener: OPENER,
        ref: 'early',
        state: 'cancelled',
        reason: 'too | late',
        nowMs: world.clock.now(),
        audit: world.audit('task.ended'),
      });
    expect(await keep()).toEqual({ outcome: 'kept' });
    expect(await keep()).toEqual({ outcome: 'kept' });
    const task = await world.openTask({ ref: 'early' });
    expect(task).toMatchObject({ state: 'cancelled', endReason: 'too | late', endedBy: OPENER });
    const other = await world.openTask({ ref: 'other' });
    expect(other.state).toBe('active');
  });

  it('a thousand kept ends are all there is room for, until the first of them is over', async () => {
    const keep = async (ref: string) =>
      (
        await world.ledger.keepEnd({
          opener: OPENER,
          ref,
          state: 'failed',
          reason: '',
          nowMs: world.clock.now(),
          audit: world.audit('task.ended'),
        })
      ).outcome;
    expect(await keep('first')).toBe('kept');
    world.clock.pass(1_000);
    const rest = await Promise.all(Array.from({ length: 999 }, (_, at) => keep(`r${at}`)));
    expect(new Set(rest)).toEqual(new Set(['kept']));
    for (const ref of ['more', 'still more']) expect(await keep(ref)).toBe('full');
    expect(await keep('r7')).toBe('kept');
    world.clock.pass(16 * 60_000 - 1_001);
    expect(await keep('more')).toBe('full');
    world.clock.pass(1);
    expect([await keep('more'), await keep('still more')]).toEqual(['kept', 'full']);
    world.clock.pass(1_000);
    expect(await keep('still more')).toBe('kept');
  });

  it('a kept end is forgotten after 16 minutes', async () => {
    const { nowMs } = world.clock;
    await world.ledger.keepEnd({
      opener: OPENER,
      ref: 'late',
      state: 'failed',
      reason: '',
      nowMs,
      audit: world.audit('task.ended'),
    });
    world.clock.pass(16 * 60_000);
    expect((await world.openTask({ ref: 'late' })).state).toBe('active');
  });

  it('work on a task is settled at the state it was begun in, and only that work', async () => {
    const task = await world.openTask();
    await suspend(task.id);
    const settle = (state: 'suspended' | 'completed', work: 'drain-task' | 're-evaluate-task' = 'drain-task') =>
      world.ledger.settleTask({ taskId: task.id, work, state, generation: 2, nowMs: world.clock.now() });
    expect(await settle('suspended', 're-evaluate-task')).toEqual({ outcome: 'settled' });
    await world.ledger.settleBundle({ digest: BUNDLE, nowMs: world.clock.now() });
    expect(await world.schedule.sweep()).toBe(1);
    await end(task.id);
    expect(await settle('suspended')).toEqual({ outcome: 'stale' });
    expect(await world.schedule.sweep()).toBe(1);
    expect(await settle('completed')).toEqual({ outcome: 'settled' });
    expect(await world.schedule.sweep()).toBe(0);
  });

  it('a drain that was made due anew while it was at work stays due, also within the same millisecond', async () => {
    const task = await world.openTask();
    const die = async () => {
      const parent = await world.tokenFor(task);
      const child = await world.tokenFor(task, { path: [task.id, parent.id] });
      for (const lease of [parent, child]) {
        expect(
          await world.ledger.commitLease({
            lease,
            basis: await world.basis(task.id),
            quotas: QUOTAS,
            nowMs: world.clock.now(),
            audit: world.audit('token.minted'),
          }),
        ).toEqual({ outcome: 'committed' });
      }
      await world.ledger.revokeLeases({
        leaseIds: [parent.id],
        reason: 'why',
        nowMs: world.clock.now(),
        audit: world.audit('leases.revoked'),
      });
    };
    const dueAt = () => world.views.dueAt({ name: 'drain-task', id: task.id });
    const settle = (dueAtMs: number) =>
      world.ledger.settleTask({
        taskId: task.id,
        work: 'drain-task',
        state: 'active',
        generation: 1,
        dueAtMs,
        nowMs: world.clock.now(),
      });
    expect(await dueAt()).toBeUndefined();
    await die();
    for (let again = 0; again < 3; again++) {
      const begunMs = (await dueAt()) as number;
      expect(begunMs).toBeLessThanOrEqual(world.clock.now());
      await die();
      expect(await settle(begunMs)).toEqual({ outcome: 'stale' });
    }
    expect(await settle((await dueAt()) as number)).toEqual({ outcome: 'settled' });
    expect(await dueAt()).toBeUndefined();
    expect(await settle(world.clock.now())).toEqual({ outcome: 'settled' });
  });

  it('lists: by opener, by agent, live ones, newest first, page by page', async () => {
    const ids: string[] = [];
    for (let at = 0; at < 5; at++) {
      ids.unshift((await world.openTask()).id);
      world.clock.pass(1);
    }
    await end(ids[1] as string);
    const first = await world.views.tasks({ opener: OPENER, limit: 2 });
    const second = await world.views.tasks({ opener: OPENER, limit: 2, cursor: first.cursor as string });
    expect([...first.items, ...second.items].map((task) => task.id)).toEqual(ids.slice(0, 4));
    const live = await world.views.tasks({ agent: AGENT, live: true, limit: 10 });
    expect(live.items.map((task) => task.id)).toEqual(ids.filter((id) => id !== ids[1]));
    expect((await world.views.tasks({ opener: 'nobody', limit: 10 })).items).toEqual([]);
    expect((await world.views.tasks({ limit: 10 })).items).toHaveLength(5);
  });

  it('a grant decided under another bundle is stale', async () => {
    const basis = await world.basis();
    await world.ledger.activateBundle({
      digest: 'sha256:two',
      files: {},
      again: false,
      nowMs: world.clock.now(),
      audit: world.audit('bundle.activated'),
    });
    const id = newId('tsk', 'a', world.clock.now());
    const task = await world.openTask();
    const start = (over: { bundle?: string }) =>
      world.ledger.startTask({
        charter: { ...task, id, path: [id] },
        context: {},
        basis: { ...basis, ...over },
        quotas: QUOTAS,
        nowMs: world.clock.now(),
        audit: world.audit('task.opened'),
      });
    expect(await start({})).toEqual({ outcome: 'stale', because: 'bundle' });
    expect(await start({ bundle: 'sha256:two' })).toEqual({ outcome: 'stale', because: 'fence' });
    expect(BUNDLE).not.toBe('sha256:two');
  });
});

it('a record that is damaged keeps no other of its page from being ended and drained', async () => {
  const redis = await STORES.redis();
  const raw = new Redis(String(redis.url));
  const world = await openWorld({ url: redis.url });
  const deadlineMs = world.clock.now() + 1_000;
  const tasks: string[] = [];
  for (let at = 0; at < 5; at++) tasks.push((await world.openTask({ deadlineMs })).id);
  const keyOf = async (id: string) => (await raw.keys(`*task:${id}`))[0] as string;
  await raw.hdel(await keyOf(tasks[2] as string), 'deadline');
  await raw.hset(await keyOf(tasks[3] as string), 'live', 'never');
  world.clock.pass(1_000);
  const ends = tasks.map((taskId) => ({ taskId, audit: world.audit('task.ended', { task: taskId }) }));
  const outcomes = await world.ledger.expireTasks({
    ends,
    reason: 'its deadline passed',
    by: 'mayfly',
    nowMs: world.clock.now(),
  });
  expect(outcomes).toEqual(tasks.map(() => 'ended'));
  const [due] = await raw.keys('*:due');
  expect(await raw.zrange(due as string, '0', '-1')).toEqual(
    expect.arrayContaining(tasks.map((id) => `drain-task:${id}`)),
  );
  await world.close();
  raw.disconnect();
  await redis.stop();
});
