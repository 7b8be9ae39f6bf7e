import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { newId } from '../../src/core/ids.js';
import { epochOf, isBefore } from '../../src/core/position.js';
import { type RedisServer, startRedis } from './redis-servers.js';
import { OPENER, openWorld, type World } from './world.js';

const WAIT_MS = 15_000;

/** Waits for a condition; what throws is not yet so. */
async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (performance.now() < deadline) {
    if (await Promise.resolve(isSo()).catch(() => false)) return;
    await delay(20);
  }
  throw new Error(`not so: ${what}`);
}

const isOpen = (world: World) => world.health.grantsClosed() === undefined;

describe('the epoch', () => {
  let redis: RedisServer;
  let raw: Redis;
  const worlds: World[] = [];
  const dirs: string[] = [];
  const cell = 'a';
  const cellKey = '{mayfly:a}:cell';

  const open = async (options: Partial<Parameters<typeof openWorld>[0]> = {}) => {
    const world = await openWorld({ url: redis.url, cell, keep: true, ...options });
    worlds.push(world);
    dirs.push(world.dataDir);
    return world;
  };
  const begin = async (appendfsync: 'always' | 'everysec' = 'always') => {
    redis = await startRedis({ appendfsync });
    raw = new Redis(redis.url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
    raw.on('error', () => {});
  };
  const endTask = (world: World, taskId: string) =>
    world.ledger.endTask({
      taskId,
      state: 'completed',
      reason: 'done',
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.ended', { task: taskId }),
    });

  afterEach(async () => {
    raw.disconnect();
    for (const world of worlds.splice(0)) await world.close();
    for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
    await redis.stop();
  });

  it('begins at the Unix second of Redis, with an entry that kills everything before it', async () => {
    await begin();
    const [seconds] = await raw.time();
    const world = await open();
    expect(Math.abs(epochOf(world.feed.position()) - Number(seconds))).toBeLessThanOrEqual(1);
    expect(isOpen(world)).toBe(true);
    const entries = await raw.xrange('{mayfly:a}:feed', '-', '+', 'COUNT', 1);
    expect(entries[0]?.[1]).toContain('{"all":true}');
  });

  it('stays when a broker restarts, an hour later too, and its leases are there', async () => {
    await begin();
    const first = await open();
    const task = await first.openTask();
    const lease = await first.tokenFor(task);
    const epoch = epochOf(first.feed.position());
    await first.close();
    await raw.hincrby(cellKey, 'beatat', -3_600_000);
    const second = await open({ dataDir: first.dataDir, clock: first.clock });
    expect(epochOf(second.feed.position())).toBe(epoch);
    expect(await second.views.task(task.id)).toEqual(task);
    expect(await second.mint(task, { id: lease.id })).toEqual({ outcome: 'committed' });
  });

  it('a broker that restarts together with Redis grants at once: nobody waits for the process whose place it took', async () => {
    await begin();
    const first = await open();
    await first.openTask();
    for (let restart = 0; restart < 2; restart++) {
      await worlds.at(-1)?.close();
      await redis.restart();
      await open({ dataDir: first.dataDir, clock: first.clock });
      expect(worlds.at(-1)?.health.grantsClosed()).toBeUndefined();
    }
  });

  it('waits for another broker that beat lately, on whose head file nobody came back', async () => {
    await begin();
    const [first, second] = [await open(), await open()];
    await Promise.all([first.close(), second.close()]);
    await redis.restart();
    const back = await open({ dataDir: first.dataDir, clock: first.clock });
    expect(back.health.grantsClosed()).toContain('not confirmed by every broker yet');
    await open({ dataDir: second.dataDir, clock: second.clock });
    await until('grants are open', () => isOpen(back));
  });

  it('rises when nobody is left that saw the last beat', async () => {
    await begin();
    const first = await open();
    const epoch = epochOf(first.feed.position());
    await first.close();
    await raw.hincrby(cellKey, 'beatat', -11_000);
    const stranger = await open();
    expect(epochOf(stranger.feed.position())).toBeGreaterThan(epoch);
  });

  it('stays when a stranger comes while the last beat is fresh', async () => {
    await begin();
    const first = await open();
    const stranger = await open();
    expect(epochOf(stranger.feed.position())).toBe(epochOf(first.feed.position()));
  });

  it('stays when Redis restarts with `appendfsync always`: nothing can have been lost', async () => {
    await begin('always');
    const world = await open();
    const task = await world.openTask();
    const lease = await world.tokenFor(task);
    const epoch = epochOf(world.feed.position());
    await redis.restart();
    await until('grants are open', async () => isOpen(world) && (await world.views.task(task.id)) !== undefined);
    expect(epochOf(await world.feed.head())).toBe(epoch);
    expect(await world.mint(task, { position: lease.position })).toEqual({ outcome: 'committed' });
  });

  it('rises when Redis restarts with less, and what was decided before is stale', async () => {
    await begin('everysec');
    const world = await open();
    const task = await world.openTask();
    const lease = await world.tokenFor(task);
    await redis.restart();
    await until('the epoch rose', async () => isBefore(lease.position, await world.feed.head()) && isOpen(world));
    expect(epochOf(await world.feed.head())).toBeGreaterThan(epochOf(lease.position));
    expect(await world.mint(task, { position: lease.position })).toEqual({ outcome: 'stale', because: 'epoch' });
    expect(await world.mint(task)).toEqual({ outcome: 'committed' });
  });

  it('rises beyond everything known when the store is emptied under a running broker', async () => {
    await begin();
    const world = await open();
    const before = world.feed.position();
    await raw.flushall();
    await until('the epoch rose', async () => epochOf(await world.feed.head()) > epochOf(before) && isOpen(world));
    await world.ledger.activateBundle({
      digest: 'sha256:new',
      files: {},
      again: false,
      nowMs: world.clock.now(),
      audit: world.audit('bundle.activated'),
    });
    expect(await world.mint(await world.openTask())).toEqual({ outcome: 'committed' });
  });

  it('rises by hand', async () => {
    await begin();
    const world = await open();
    const before = world.feed.position();
    const audit = world.audit('epoch.raised');
    const { epoch } = await world.ledger.recover({ by: 'alice', reason: 'drill', nowMs: world.clock.now(), audit });
    expect(epoch).toBeGreaterThan(epochOf(before));
    expect(isBefore(before, world.feed.position())).toBe(true);
    expect(await world.auditLog.find(audit.id)).toMatchObject({ type: 'epoch.raised' });
  });

  it('closes grants in the whole cell until every broker that beat lately has confirmed it', async () => {
    await begin();
    const world = await open();
    const task = await world.openTask();
    const beats = '{mayfly:a}:beats';
    const [seconds] = await raw.time();
    await raw.zadd(beats, Number(seconds) * 1_000 + 5_000, 'ghost');
    await world.ledger.recover({
      by: 'alice',
      reason: 'drill',
      nowMs: world.clock.now(),
      audit: world.audit('epoch.raised'),
    });
    expect(world.health.grantsClosed()).toMatch(/not confirmed/);
    await expect(world.mint(task)).rejects.toMatchObject({ code: 'unavailable' });
    // Ends go on meanwhile.
    expect(await endTask(world, task.id)).toMatchObject({ outcome: 'ended' });
    await raw.zrem(beats, 'ghost');
    await until('grants are open', () => isOpen(world));
    expect(await world.mint(await world.openTask())).toEqual({ outcome: 'committed' });
  });

  it('what was acknowledged in the last minute is repeated in a store that lost its tail', async () => {
    await begin('everysec');
    const world = await open();
    const { clock, ledger } = world;
    const now = () => clock.now();
    const [ended, suspended, changed, cut, resumed] = await Promise.all(
      ['ended', 'suspended', 'changed', 'cut', 'resumed'].map((ref) => world.openTask({ ref })),
    );
    for (const task of [ended, suspended, changed, cut, resumed]) if (!task) throw new Error('not opened');
    const lifted = newId('lck', cell, now());
    const lockOf = (id: string) => ({ id, selector: { team: 'x' }, reason: '', by: 'alice', createdAtMs: now() });
    const stop = (id: string, lock: string) =>
      ledger.revoke({
        revocation: { id, selector: { team: 'x' }, reason: '', by: 'alice', lockId: lock, createdAtMs: now() },
        matches: [{ sel: [id] }],
        untilMs: now() + 900_000,
        lock: lockOf(lock),
        nowMs: now(),
        audit: world.audit('lock.set'),
      });
    await stop('rev-before', lifted);
    const kept = mkdtempSync(join(tmpdir(), 'mayfly-tail-'));
    dirs.push(kept);
    await raw.config('SET', 'appendfsync', 'always');
    await raw.set('flushed', '1');
    cpSync(join(redis.dir, 'appendonlydir'), kept, { recursive: true });
    await raw.config('SET', 'appendfsync', 'everysec');

    const lease = await world.tokenFor(changed as never);
    expect(await endTask(world, (ended as { id: string }).id)).toMatchObject({ outcome: 'ended' });
    const suspend = (id: string) =>
      ledger.suspendTask({ taskId: id, reason: '', by: OPENER, nowMs: now(), audit: world.audit('task.suspended') });
    await suspend((suspended as { id: string }).id);
    await suspend((resumed as { id: string }).id);
    await ledger.resumeTask({
      taskId: (resumed as { id: string }).id,
      by: OPENER,
      nowMs: now(),
      audit: world.audit('task.resumed'),
    });
    const change = (id: string, revoke: boolean) =>
      ledger.changeContext({
        taskId: id,
        generation: 1,
        context: { risk: 'high' },
        revoke,
        judgeWithinMs: 5_000,
        nowMs: now(),
        audit: world.audit('task.context_changed'),
      });
    await change((changed as { id: string }).id, false);
    await change((cut as { id: string }).id, true);
    const lock = newId('lck', cell, now());
    await stop('rev-after', lock);
    await ledger.liftLock({
      lockId: lifted,
      by: 'bob',
      secondPersonNeeded: false,
      nowMs: now(),
      audit: world.audit('lock.lifted'),
    });
    await ledger.activateBundle({
      digest: 'sha256:newer',
      files: { a: 'b' },
      again: false,
      nowMs: now(),
      audit: world.audit('bundle.activated'),
    });
    await ledger.saveKeyRing({
      ring: { keys: [] },
      fromVersion: 0,
      taintedKid: 'bad',
      nowMs: now(),
      audit: world.audit('key.moved'),
    });
    const before = await world.feed.head();

    await redis.kill();
    rmSync(join(redis.dir, 'appendonlydir'), { recursive: true, force: true });
    cpSync(kept, join(redis.dir, 'appendonlydir'), { recursive: true });
    await redis.restart();
    await until(
      'grants are open in a new epoch',
      async () => epochOf(await world.feed.head()) > epochOf(before) && isOpen(world),
    );

    const view = (task: unknown) => world.views.task((task as { id: string }).id);
    expect(await view(ended)).toMatchObject({ state: 'completed', endedBy: OPENER });
    expect(await view(suspended)).toMatchObject({ state: 'suspended', generation: 2 });
    // A resumption that was lost is not repeated, only told: the task is as the store knew it, at a generation no old decision fits.
    expect(await view(resumed)).toMatchObject({ state: 'active', generation: 3 });
    expect(await view(changed)).toMatchObject({ generation: 2, context: { risk: 'high' } });
    const cutNow = await view(cut);
    expect(cutNow).toMatchObject({ generation: 2, context: { risk: 'high' }, cutAt: expect.any(String) });
    expect(epochOf(cutNow?.cutAt as string)).toBeGreaterThan(epochOf(before));
    expect(await world.views.activeBundle()).toEqual({ digest: 'sha256:newer', files: { a: 'b' } });
    expect(await world.views.keyRing()).toEqual({ ring: { keys: [] }, version: 1 });
    // The lift was lost too: the lock is back, and somebody is told.
    expect((await world.views.locks(now())).map(({ id }) => id).sort()).toEqual([lifted, lock].sort());
    const lost = world.events.filter(({ event, level }) => event === 'state.lost' && level === 'error');
    expect(lost.map(({ what }) => what).sort()).toEqual(['lift', 'resumption']);
    expect(await world.mint(changed as never, { position: lease.position })).toMatchObject({ outcome: 'stale' });
    expect(await world.mint(changed as never)).toEqual({ outcome: 'committed' });
  });

  it('a broker that restarts together with Redis still repeats what it acknowledged', async () => {
    await begin();
    const first = await open();
    const task = await first.openTask();
    const kept = mkdtempSync(join(tmpdir(), 'mayfly-tail-'));
    dirs.push(kept);
    cpSync(join(redis.dir, 'appendonlydir'), kept, { recursive: true });
    expect(await endTask(first, task.id)).toMatchObject({ outcome: 'ended' });
    await first.close();
    await redis.kill();
    rmSync(join(redis.dir, 'appendonlydir'), { recursive: true, force: true });
    cpSync(kept, join(redis.dir, 'appendonlydir'), { recursive: true });
    await redis.restart();
    const second = await open({ dataDir: first.dataDir, clock: first.clock });
    expect(await second.views.task(task.id)).toMatchObject({ state: 'completed' });
  });
});
