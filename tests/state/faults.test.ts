import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { BrokerError } from '../../src/core/errors.js';
import { newId } from '../../src/core/ids.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import type { TaskRecord } from '../../src/core/task.js';
import { type RedisServer, startRedis } from './redis-servers.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { BUNDLE, newCell, OPENER, openWorld, QUOTAS, type World } from './world.js';

const WAIT_MS = 15_000;

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (performance.now() < deadline) {
    if (await Promise.resolve(isSo()).catch(() => false)) return;
    await delay(20);
  }
  throw new Error(`not so: ${what}`);
}

const end = (world: World, taskId: string) =>
  world.ledger.endTask({
    taskId,
    state: 'completed',
    reason: '',
    by: OPENER,
    nowMs: world.clock.now(),
    audit: world.audit('task.ended', { task: taskId }),
  });
const stop = (world: World) =>
  world.ledger.revoke({
    revocation: {
      id: newId('rev', 'a', world.clock.now()),
      selector: { team: 'x' },
      reason: '',
      by: 'alice',
      createdAtMs: world.clock.now(),
    },
    matches: [{ sel: ['x'] }],
    untilMs: world.clock.now() + 960_000,
    lock: {
      id: newId('lck', 'a', world.clock.now()),
      selector: { team: 'x' },
      reason: '',
      by: 'alice',
      createdAtMs: world.clock.now(),
    },
    nowMs: world.clock.now(),
    audit: world.audit('lock.set'),
  });

const cellOf = ({ id }: TaskRecord) => id.split('_')[1] as string;

/** A person's, for the broker itself. */
async function operatorToken(world: World, cell: string): ReturnType<World['ledger']['commitLease']> {
  const nowMs = world.clock.now();
  const { position } = await world.read();
  const lease: LeaseRecord = {
    id: newId('lse', cell, nowMs),
    kind: 'token',
    path: [],
    agent: 'person:alice',
    actors: [],
    resource: 'https://mayfly.example',
    tools: [],
    position,
    generations: [],
    bundle: BUNDLE,
    keyId: 'key-1',
    binding: 'dpop',
    state: 'active',
    createdAtMs: nowMs,
    expiresAtMs: nowMs + 300_000,
  };
  const basis = { position, bundle: BUNDLE, generations: [] };
  return world.ledger.commitLease({ lease, basis, quotas: QUOTAS, nowMs, audit: world.audit('token.minted') });
}

/** Every call of the stores that asks Redis. */
function everyCall(world: World, taskId: string, leaseId: string): Record<string, () => Promise<unknown>> {
  const nowMs = world.clock.now();
  const audit = world.audit('request.refused');
  const basis = { position: world.feed.position(), bundle: BUNDLE, generations: [1] };
  return {
    read: () => world.ledger.read({ taskId, nowMs }),
    endTask: () => end(world, taskId),
    stop: () => stop(world),
    suspendTask: () => world.ledger.suspendTask({ taskId, reason: '', by: '', nowMs, audit }),
    changeContext: () =>
      world.ledger.changeContext({ taskId, generation: 1, context: {}, revoke: true, judgeWithinMs: 1, nowMs, audit }),
    heartbeat: () => world.ledger.heartbeat({ taskId, agent: '', nowMs }),
    revokeLeases: () => world.ledger.revokeLeases({ leaseIds: [leaseId], reason: '', nowMs, audit }),
    renewLease: () => world.ledger.renewLease({ leaseId, expiresAtMs: nowMs, basis, nowMs, audit }),
    note: () => world.ledger.note(audit),
    task: () => world.views.task(taskId),
    lease: () => world.views.lease(leaseId),
    leases: () => world.views.leases({ limit: 10 }),
    tasks: () => world.views.tasks({ limit: 10 }),
    keyRing: () => world.views.keyRing(),
    head: () => world.feed.head(),
    once: () => world.replayGuard.once('jti', nowMs + 60_000, nowMs),
    claim: () => world.replayGuard.claim('key', 'digest', nowMs),
    auditRead: () => world.auditLog.read({ limit: 10 }),
    sweep: () => world.schedule.sweep(),
  };
}

describe('a store that does not answer', () => {
  let redis: RedisServer;
  let world: World;
  beforeEach(async () => {
    redis = await startRedis();
    world = await openWorld({ url: redis.url });
  });
  afterEach(async () => {
    await redis.kill('SIGCONT').catch(() => {});
    await world.close();
    await redis.stop();
  });

  const allUnavailable = async (limitMs: number) => {
    const task = newId('tsk', 'a', world.clock.now());
    const lease = newId('lse', 'a', world.clock.now());
    for (const [name, call] of Object.entries(everyCall(world, task, lease))) {
      const startedAtMs = performance.now();
      const error = await call().then(
        () => 'answered',
        (problem: unknown) => problem,
      );
      expect([name, error]).toEqual([name, expect.any(BrokerError)]);
      expect([name, (error as BrokerError).code]).toEqual([name, 'unavailable']);
      expect((error as BrokerError).detail.retryAfterSeconds).toBe(1);
      expect([name, performance.now() - startedAtMs < limitMs]).toEqual([name, true]);
    }
  };

  it('is `unavailable` within 300 ms in every call when it is gone, and grants close', async () => {
    await redis.kill();
    await allUnavailable(300);
    await redis.restart();
    await until('it is back', async () => (await world.views.tasks({ limit: 1 })).items.length === 0);
  });

  it('is `unavailable` in every call when it is frozen', async () => {
    await redis.kill('SIGSTOP');
    await allUnavailable(350);
  });

  it('does nothing of what timed out when it wakes up later: the deadline is in the script', async () => {
    const task = await world.openTask();
    const lease = await world.tokenFor(task);
    await redis.kill('SIGSTOP');
    const commit = () =>
      world.ledger.commitLease({
        lease,
        basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
        quotas: QUOTAS,
        nowMs: world.clock.now(),
        audit: world.audit('token.minted', { lease: lease.id }),
      });
    await Promise.all([
      expect(commit()).rejects.toMatchObject({ code: 'unavailable' }),
      expect(end(world, task.id)).rejects.toMatchObject({ code: 'unavailable' }),
    ]);
    await redis.kill('SIGCONT');
    await until('it answers', async () => (await world.views.task(task.id)) !== undefined);
    expect(await world.views.task(task.id)).toMatchObject({ state: 'active' });
    expect(await world.views.lease(lease.id)).toBeUndefined();
    const written = (await world.auditLog.read({ limit: 100 })).items.map(({ type }) => type);
    expect(written).not.toContain('task.ended');
    expect(written).not.toContain('token.minted');
  });

  it('loses nobody: the feed goes on where it was', async () => {
    await redis.restart();
    await until('grants are open', () => world.health.grantsClosed() === undefined);
    const { position } = await stop(world);
    await world.feed.reached(position, 2_000);
  });
});

describe.each(STORE_NAMES)('a store of less than the promised profile: %s', (name) => {
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
    world = await openWorld({ url: store.url });
  });
  afterEach(() => world.close());
  const set = (...setting: string[]) => Promise.all(nodes.map((node) => node.call('CONFIG', 'SET', ...setting)));

  it.each([
    ['appendonly', 'no', 'yes', /persistence/],
    ['maxmemory-policy', 'allkeys-lru', 'noeviction', /eviction/],
  ])('with %s %s grants are refused, and revoking goes on', async (setting, bad, good, why) => {
    const task = await world.openTask();
    await world.mint(task);
    await set(setting, bad);
    try {
      const lines = await world.health.check();
      expect(lines.filter(({ ok }) => !ok)).toMatchObject([
        { name: expect.stringMatching(why), advice: expect.any(String) },
      ]);
      expect(world.health.grantsClosed()).toMatch(why);
      await world.health.check();
      await expect(world.mint(task)).rejects.toMatchObject({ code: 'unavailable' });
      await expect(world.openTask()).rejects.toMatchObject({ code: 'unavailable' });
      expect(await operatorToken(world, cellOf(task))).toEqual({ outcome: 'committed' });
      expect(await stop(world)).toMatchObject({ outcome: 'applied' });
      expect(await end(world, task.id)).toMatchObject({ outcome: 'ended' });
    } finally {
      await set(setting, good);
    }
    await world.health.check();
    expect(world.health.grantsClosed()).toBeUndefined();
    await world.openTask();
    // Told once each, however often it was looked at.
    expect(world.events.filter(({ event }) => event.startsWith('grants.'))).toEqual([
      { event: 'grants.closed', level: 'error', problem: expect.stringMatching(why) },
      { event: 'grants.open', level: 'info' },
    ]);
  });

  it('with less than a fifth of its memory left, grants are refused and revoking goes on, also when it is full', async () => {
    const task = await world.openTask();
    await world.mint(task);
    const lease = await world.tokenFor(task);
    const used = Math.max(
      ...(await Promise.all(
        nodes.map(async (node) => Number(/used_memory:(\d+)/.exec(await node.info('memory'))?.[1])),
      )),
    );
    await set('maxmemory', String(Math.floor(used * 1.1)));
    try {
      await world.health.check();
      expect(world.health.grantsClosed()).toMatch(/memory/);
      await expect(world.mint(task)).rejects.toMatchObject({ code: 'unavailable' });
      await set('maxmemory', '1mb');
      // What an operator needs to say stop: a proof that is used up, and a token.
      const { replayGuard, clock } = world;
      expect(await replayGuard.once('dpop:a', clock.now() + 60_000, clock.now())).toBe(true);
      expect(await replayGuard.once('dpop:a', clock.now() + 60_000, clock.now())).toBe(false);
      expect(await operatorToken(world, cellOf(task))).toEqual({ outcome: 'committed' });
      expect(await stop(world)).toMatchObject({ outcome: 'applied' });
      expect(
        await world.ledger.suspendTask({
          taskId: task.id,
          reason: '',
          by: '',
          nowMs: world.clock.now(),
          audit: world.audit('task.suspended'),
        }),
      ).toMatchObject({ outcome: 'suspended' });
      expect(await end(world, task.id)).toMatchObject({ outcome: 'ended' });
      expect(await world.read(task.id)).toMatchObject({ tasks: [{ state: 'completed' }] });
      expect(lease.taskId).toBe(task.id);
    } finally {
      await set('maxmemory', '0');
    }
  });

  it('a broker whose clock is five seconds from Redis’ grants nothing', async () => {
    await world.close();
    world = await openWorld({ url: store.url, limits: { clockSkewMsMax: 5_000 } });
    const task = await world.openTask();
    world.clock.pass(5_500);
    expect(await world.health.check()).toContainEqual(expect.objectContaining({ name: 'clock', ok: false }));
    await expect(world.mint(task)).rejects.toMatchObject({ code: 'unavailable' });
    expect(await end(world, task.id)).toMatchObject({ outcome: 'ended' });
  });
});

describe('what rests in Redis', () => {
  let redis: RedisServer;
  let raw: Redis;
  let world: World;
  let cell: string;
  let dataDir: string;
  beforeAll(async () => {
    redis = await startRedis();
    raw = new Redis(redis.url);
  });
  afterAll(async () => {
    raw.disconnect();
    await redis.stop();
  });
  beforeEach(async () => {
    cell = newCell();
    dataDir = mkdtempSync(join(tmpdir(), 'mayfly-rest-'));
    world = await openWorld({ url: redis.url, cell, dataDir, keep: true });
  });
  afterEach(async () => {
    await world.close();
    rmSync(dataDir, { recursive: true, force: true });
  });
  const key = (name: string) => `{mayfly:${cell}}:${name}`;

  it('a lock that somebody else wrote is refused by everybody, and no grant is made', async () => {
    const task = await world.openTask();
    await raw.hset(key('locks'), 'lck_forged', 'AAAA.{"id":"lck_forged"}');
    await raw.hincrby(key('cell'), 'locks', 1);
    await expect(world.read(task.id)).rejects.toMatchObject({ code: 'internal' });
  });

  it('a bundle whose files were changed is not loaded', async () => {
    const signed = (await raw.hget(key(`bundle:${BUNDLE}`), 'files')) as string;
    await raw.hset(key(`bundle:${BUNDLE}`), 'files', signed.replace('permit', 'forbid'));
    await expect(world.views.activeBundle()).rejects.toMatchObject({ code: 'internal' });
  });

  it('a bundle put in the place of another is not loaded', async () => {
    const signed = (await raw.hget(key(`bundle:${BUNDLE}`), 'files')) as string;
    await raw.hset(key('bundle:sha256:other'), 'files', signed);
    await expect(world.views.bundleFiles('sha256:other')).rejects.toMatchObject({ code: 'internal' });
  });

  it('a key ring is never readable in Redis, and not at all when it was changed', async () => {
    await world.ledger.saveKeyRing({
      ring: { keys: ['a-very-secret-key'] },
      fromVersion: 0,
      nowMs: world.clock.now(),
      audit: world.audit('key.moved'),
    });
    const stored = (await raw.hget(key('keyring'), 'ring')) as string;
    expect(Buffer.from(stored, 'base64url').toString('latin1')).not.toContain('secret');
    const flipped = stored.slice(0, -2) + (stored.at(-2) === 'A' ? 'B' : 'A') + stored.at(-1);
    await raw.hset(key('keyring'), 'ring', flipped);
    await expect(world.views.keyRing()).rejects.toMatchObject({ code: 'internal' });
  });

  it('a broker with another root key does not open', async () => {
    const other = openWorld({ url: redis.url, cell, rootKey: new Uint8Array(32).fill(8) });
    await expect(other).rejects.toMatchObject({ code: 'internal' });
  });

  it('an answer kept for a repeated request is not readable in Redis', async () => {
    const nowMs = world.clock.now();
    const { replayGuard } = world;
    expect(await replayGuard.claim('k', 'd1', nowMs)).toEqual({ outcome: 'new' });
    expect(await replayGuard.claim('k', 'd1', nowMs)).toEqual({ outcome: 'in_progress' });
    expect(await replayGuard.claim('k', 'd2', nowMs)).toEqual({ outcome: 'other_body' });
    await replayGuard.answer('k', 'the secret answer', nowMs);
    expect(await replayGuard.claim('k', 'd1', nowMs)).toEqual({ outcome: 'answered', answer: 'the secret answer' });
    expect(await replayGuard.claim('k', 'd2', nowMs)).toEqual({ outcome: 'other_body' });
    const [place] = await raw.keys(key('idempotency:*'));
    expect(await raw.get(place as string)).not.toContain('secret');
    await replayGuard.release('k');
    expect(await replayGuard.claim('k', 'd2', nowMs)).toEqual({ outcome: 'new' });
  });

  it('a proof counts once, and not at all past its end', async () => {
    const nowMs = world.clock.now();
    expect(await world.replayGuard.once('jti', nowMs + 60_000, nowMs)).toBe(true);
    expect(await world.replayGuard.once('jti', nowMs + 60_000, nowMs)).toBe(false);
    expect(await world.replayGuard.once('late', nowMs, nowMs)).toBe(false);
  });

  it('what many leases share is written again when it has gone, and they are whole', async () => {
    const task = await world.openTask();
    const [first, second] = [await world.tokenFor(task), await world.tokenFor(task)];
    const commit = (lease: typeof first) =>
      world.ledger.commitLease({
        lease,
        basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
        quotas: QUOTAS,
        nowMs: world.clock.now(),
        audit: world.audit('token.minted'),
      });
    expect(await commit(first)).toEqual({ outcome: 'committed' });
    await raw.del(await raw.keys(key('profile:*')));
    expect(await commit(second)).toEqual({ outcome: 'committed' });
    const other = await openWorld({ url: redis.url, cell, clock: world.clock });
    expect(await other.views.lease(first.id)).toEqual(first);
    expect(await other.views.lease(second.id)).toEqual(second);
    await other.close();
  });

  it('a refusal writes nothing at all', async () => {
    const task = await world.openTask();
    const parent = await world.tokenFor(task);
    const stale = await world.tokenFor(task);
    await world.ledger.suspendTask({
      taskId: task.id,
      reason: '',
      by: '',
      nowMs: world.clock.now(),
      audit: world.audit('task.suspended'),
    });
    const nowMs = world.clock.now();
    const audit = world.audit('token.minted');
    const basis = { position: stale.position, bundle: stale.bundle, generations: stale.generations };
    const credential = { ...stale, kind: 'credential' as const };
    const before = await everything(raw, key('*'));
    const { ledger } = world;
    const replies = [
      await ledger.commitLease({ lease: stale, basis, quotas: QUOTAS, nowMs, audit }),
      await ledger.commitLease({
        lease: { ...stale, path: [task.id, parent.id] },
        basis,
        quotas: QUOTAS,
        nowMs,
        audit,
      }),
      await ledger.openIntent({ lease: credential, intentDeadlineMs: nowMs + 1, basis, quotas: QUOTAS, nowMs, audit }),
      await ledger.commitLease({ lease: credential, basis, quotas: QUOTAS, nowMs, audit }),
      await ledger.renewLease({ leaseId: stale.id, expiresAtMs: nowMs + 1, basis, nowMs, audit }),
      await ledger
        .startTask({
          charter: { ...task, id: newId('tsk', cell, nowMs), path: [task.id, newId('tsk', cell, nowMs)].map(String) },
          context: {},
          basis,
          quotas: QUOTAS,
          nowMs,
          audit,
        })
        .catch((error: Error) => ({ outcome: error.message })),
      await ledger.changeContext({
        taskId: task.id,
        generation: 1,
        context: {},
        revoke: true,
        judgeWithinMs: 1,
        nowMs,
        audit,
      }),
      await ledger.settleTask({ taskId: task.id, work: 'drain-task', state: 'active', generation: 1, nowMs, audit }),
      await ledger.revokeLeases({ leaseIds: [stale.id], reason: '', nowMs, audit }),
      await ledger.closeAttempt({
        lease: stale,
        attempt: 0,
        result: { state: 'revoked', evidence: 'confirmed' },
        nowMs,
        audit,
      }),
      await ledger.noteCredential({ leaseId: stale.id, backend: 'pg', handle: { role: 'r' }, nowMs }),
      await ledger.beginAttempt({ leaseId: stale.id, backend: 'pg', untilMs: nowMs + 1, nowMs, audit }),
      await ledger.saveKeyRing({ ring: {}, fromVersion: 9, nowMs, audit }),
      await ledger.activateBundle({ digest: BUNDLE, files: {}, again: false, nowMs, audit }),
    ];
    expect(
      replies
        .map((reply) => JSON.stringify(reply))
        .filter((reply) => /committed|opened|changed|"saved"|activated|"closed"/.test(reply)),
    ).toEqual([]);
    expect(await everything(raw, key('*'))).toEqual(before);
  });
});

/** Every key with what is in it, but for what beats each second. */
async function everything(raw: Redis, pattern: string): Promise<Map<string, string>> {
  const all = new Map<string, string>();
  for (const key of (await raw.keys(pattern)).sort()) {
    if (/:(cell|beats|confirmed)$/.test(key)) continue;
    all.set(key, (await raw.dumpBuffer(key))?.toString('base64') ?? '');
  }
  const cell = await raw.hgetall(pattern.replace('*', 'cell'));
  const { beat: _, beatat: __, ...rest } = cell;
  return all.set('cell', JSON.stringify(rest));
}
