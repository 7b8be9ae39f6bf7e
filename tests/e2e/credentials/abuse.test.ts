import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { until } from '../brokers.js';
import { Scene, SECRET } from './scene.js';

const JOBS_PREFIX = '{mayfly-jobs:a}';
/** From the due index, with the queue gone. */
const REBUILT_WITHIN_MS = 10_000;
/** What a busy machine adds to a bound of the product's. */
const SLACK_MS = 20_000;
const QUEUES = ['retire@orders-postgres', 'retire', 'drain'];

/** Queues are hands, and what becomes of hands changes nothing of what is true. */
describe('queues and memory of Redis under abuse', () => {
  let scene: Scene;
  let redis: Redis;
  let queues: Queue[];

  beforeAll(async () => {
    scene = await Scene.open();
    redis = new Redis(scene.redis.url);
    queues = QUEUES.map((name) => new Queue(name, { connection: { url: scene.redis.url }, prefix: JOBS_PREFIX }));
    for (const queue of queues) queue.on('error', () => {});
  }, 180_000);

  afterAll(async () => {
    for (const queue of queues ?? []) await queue.close();
    redis?.disconnect();
    await scene?.close();
  }, 60_000);

  const issued = async () => {
    const task = await scene.openTask();
    const { reply, lease } = await scene.issued(task, scene.actor);
    return { task, lease, session: await scene.logIn(reply) };
  };
  const isDead = (lease: string, withinMs = REBUILT_WITHIN_MS + SLACK_MS) =>
    scene.until(`${lease} is revoked`, async (views) => (await views.lease(lease))?.state === 'revoked', withinMs);
  const expectGone = async ({
    lease,
    session,
  }: {
    lease: string;
    session: Awaited<ReturnType<typeof issued>>['session'];
  }) => {
    expect((await scene.witness.look()).filter((role) => role.includes(lease.slice('lse_'.length)))).toEqual([]);
    await expect(session.query('SELECT 1')).rejects.toThrow();
  };

  it('a queue that is obliterated again and again: what ends meanwhile is dead all the same', async () => {
    const given = await issued();
    let stop = false;
    const obliterating = (async () => {
      while (!stop) await Promise.all(queues.map((queue) => queue.obliterate({ force: true }).catch(() => undefined)));
    })();
    await scene.endTask(given.task);
    await isDead(given.lease).finally(() => {
      stop = true;
    });
    await obliterating;
    await expectGone(given);
  }, 90_000);

  it('queues that are paused, as by an operator who forgot: the sweeper comes', async () => {
    const given = await issued();
    await Promise.all(queues.map((queue) => queue.pause()));
    try {
      await scene.endTask(given.task);
      await isDead(given.lease);
    } finally {
      await Promise.all(queues.map((queue) => queue.resume()));
    }
    await expectGone(given);
  }, 90_000);

  it('jobs that nobody wrote: none does anything, no broker falls, and work goes on', async () => {
    const pids = scene.standing.map(({ process }) => process.child.pid);
    const live = await issued();
    const poison: [string, unknown][] = [
      ['no-such-job', { id: live.lease }],
      ['__proto__', { due: [`retire-credential@orders-postgres:${live.lease}`] }],
      ['due', null],
      ['due', 7],
      ['due', { due: `retire-credential@orders-postgres:${live.lease}` }],
      ['due', { due: { length: 1e9 } }],
      ['due', { due: [null, 7, {}, [], '', ':', '@:', '@'] }],
      [
        'due',
        { due: [`no-such-job:${live.lease}`, `__proto__:${live.lease}`, `constructor@constructor:${live.lease}`] },
      ],
      ['due', { due: ['retire-credential@__proto__:*', 'retire-credential@../..:../../../cell'] }],
      ['due', { due: [`retire-credential@orders-postgres:${live.lease}\r\nFLUSHALL\r\n`] }],
      ['due', { due: [`retire-credential:${'x'.repeat(1_000_000)}`] }],
      ['due', { due: Array.from({ length: 100_000 }, () => `drain-task:${live.task}`) }],
      ['due', { due: [`retire-credential@orders-postgres:${live.lease}`, `retire-credential@another:${live.lease}`] }],
      ['due', { due: [`drain-task:${live.task}`, `drain-task:${live.lease}`] }],
    ];
    for (const queue of queues) {
      for (const [name, data] of poison) await queue.add(name, data, { attempts: 3, removeOnComplete: true });
    }
    const ended = await issued();
    await scene.endTask(ended.task);
    await isDead(ended.lease);
    await until('the queues are empty', 30_000, async () => {
      const waiting = await Promise.all(queues.map((queue) => queue.getWaitingCount()));
      return waiting.every((count) => count === 0);
    });
    // A job that names a live lease is no reason to revoke it.
    expect((await (await scene.views()).lease(live.lease))?.state).toBe('active');
    expect((await live.session.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    expect(scene.standing.map(({ process }) => process.child.pid)).toEqual(pids);
    expect(scene.standing.every(({ isAlive }) => isAlive)).toBe(true);
    await scene.endTask(live.task);
    await isDead(live.lease);
    await expectGone(live);
  }, 120_000);

  it('a lease whose revocation kills two workers one after the other is revoked by the third', async () => {
    const given = await issued();
    await scene.ready(2);
    const coming = scene.standing.map((broker) => broker.hold('backend.revoke', 'after', [given.lease]));
    await scene.endTask(given.task);
    const first = await Promise.race(coming);
    // Whoever came in its place would not be held, and could be the second.
    await scene.kill(first, { isReplaced: false });
    const [second] = (await Promise.allSettled(coming)).flatMap((one) =>
      one.status === 'fulfilled' && one.value !== first ? [one.value] : [],
    );
    expect(second).toBeDefined();
    if (second) await scene.kill(second);
    await isDead(given.lease, 90_000);
    await expectGone(given);
    await scene.ready(1);
  }, 180_000);

  it('Redis at its limit: nothing more is given, and what ends is revoked at its backend all the same', async () => {
    const given = await issued();
    await redis.config('SET', 'maxmemory', '1mb');
    try {
      const refused = await scene.ask(given.task, scene.actor);
      expect(refused?.status).toBe(503);
      await scene.endTask(given.task);
      await isDead(given.lease);
      await expectGone(given);
      const spins = scene.actor.process
        .said()
        .split('\n')
        .filter((line) => line.includes('schedule.worker')).length;
      expect(spins).toBeLessThan(200);
    } finally {
      await redis.config('SET', 'maxmemory', '0');
    }
    await until('grants are open again', 30_000, () => scene.canIssue());
  }, 120_000);

  it.each([
    "orders-db'; DROP TABLE orders; --",
    'orders-db"; DROP ROLE postgres; --',
    '../../etc/passwd',
    '..%2f..%2fsys%2fseal-status',
    '%2e%2e/%2e%2e/v1/sys/leases',
    '{{role}}',
    '{{identity.entity.name}}',
    '#{7*7}',
    '__proto__',
    'constructor',
    'orders-db\u0000',
    'orders-db\r\nX-Vault-Token: x',
    'ORDERS-DB',
    ' orders-db',
    'orders-db/',
    'órders-db',
    '\u202eorders-db',
    '*',
    'o'.repeat(5_000),
  ])('a secret called %j is nobody’s: refused, with nothing asked of a backend', async (name) => {
    const task = await scene.openTask();
    const before = scene.actor.intended.length;
    const reply = await scene.ask(task, scene.actor, encodeURIComponent(name));
    expect([400, 403, 404, 413, 414]).toContain(reply?.status);
    expect(scene.actor.intended.length).toBe(before);
    const tables = await scene.postgres.ask('SELECT count(*)::int AS n FROM orders', 'orders');
    expect(tables).toEqual([{ n: 500 }]);
    await scene.endTask(task);
  });

  it.each([
    ['task', { task: "x' OR 1=1 --" }],
    ['task', { task: { $ne: null } }],
    ['task', { task: ['a', 'b'] }],
    ['task', { task: '../tsk_a_00000000000000000000000000' }],
    ['task', { task: 'ref:{{7*7}}' }],
    ['ttl_seconds', { ttl_seconds: '60; DROP ROLE postgres' }],
    ['ttl_seconds', { ttl_seconds: -1 }],
    ['ttl_seconds', { ttl_seconds: 1e300 }],
    ['ttl_seconds', { ttl_seconds: 0.5 }],
    ['an unknown field', { settings: { groups: ['postgres'] } }],
    ['an unknown field', { backend: 'orders-postgres' }],
    ['an unknown field', { username: 'postgres' }],
    ['the body', '{"__proto__": {"ttl_seconds": 1}}'],
  ])('a hostile %s (%j) is refused, with nothing asked of a backend', async (_, more) => {
    const task = await scene.openTask();
    const before = scene.actor.intended.length;
    const body = typeof more === 'string' ? JSON.parse(more) : { task, ...more };
    const bearer = scene.brokers.svid('/agent/refunds');
    const reply = await scene.brokers.request(scene.actor.process, 'POST', `/v1/secrets/${SECRET}`, bearer, body);
    expect([400, 404]).toContain(reply.status);
    expect(scene.actor.intended.length).toBe(before);
    await scene.endTask(task);
  });
});
