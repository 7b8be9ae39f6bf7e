import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { type BrokerProcess, Brokers, type Reply, until } from './brokers.js';

/** What must stay true when a process is killed in the middle: real brokers, a real Redis, kill -9. */
describe('kill -9', () => {
  let redis: RedisServer;
  let brokers: Brokers;
  let one: BrokerProcess;
  let two: BrokerProcess;

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Brokers.open(redis.url);
    one = await brokers.start('one', { first: true });
    two = await brokers.start('two');
  }, 90_000);

  afterAll(async () => {
    await brokers?.close();
    await redis?.stop();
  });

  it('of Redis in the middle of mints: refusals are 503 within 500 ms, and every token handed out has its lease', async () => {
    const task = await brokers.openTask(one);
    const replies: Reply[] = [];
    let stop = false;
    const minting = Promise.all(
      Array.from({ length: 8 }, async () => {
        while (!stop) replies.push(await brokers.mint(one, task));
      }),
    );
    await until('mints succeed', 10_000, () => replies.filter((reply) => reply.status === 200).length > 20);
    await redis.kill();
    const refusedFrom = replies.length;
    await until(
      'mints are refused',
      10_000,
      () => replies.slice(refusedFrom).filter((reply) => reply.status === 503).length > 20,
    );
    stop = true;
    await minting;
    const refused = replies.filter((reply) => reply.status !== 200);
    expect(new Set(refused.map((reply) => reply.status))).toEqual(new Set([503]));
    for (const reply of refused) {
      expect(reply.headers.get('retry-after')).toMatch(/^\d+$/);
      expect(reply.body['error']).toBe('temporarily_unavailable');
    }
    const slow = refused.map((reply) => reply.tookMs).sort((a, b) => a - b);
    expect(slow[Math.floor(slow.length / 2)]).toBeLessThan(500);

    await redis.restart();
    await until('grants are open again', 30_000, async () => (await brokers.mint(one, task)).status === 200);
    for (const reply of replies.filter((one) => one.status === 200)) {
      expect(await brokers.isActive(one, String(reply.body['access_token']))).toBe(true);
    }
  }, 120_000);

  it('of Redis right after an end was acknowledged: the token stays refused when Redis is back', async () => {
    const task = await brokers.openTask(one);
    const token = String((await brokers.mint(one, task)).body['access_token']);
    expect(await brokers.isActive(two, token)).toBe(true);
    expect((await brokers.end(one, task)).status).toBe(200);
    await redis.kill();
    await redis.restart();
    await until('the brokers answer again', 30_000, async () => (await fetch(`${two.url}/readyz`)).ok);
    expect(await brokers.isActive(two, token)).toBe(false);
    const again = await brokers.mint(two, task);
    expect(again.body['error']).toBe('invalid_authorization_details');
  }, 90_000);

  it('of a broker in the middle of mints and ends: another one goes on, and what was acknowledged holds', async () => {
    const third = await brokers.start('three');
    const tokens: string[] = [];
    const ended: string[] = [];
    let stop = false;
    const working = Promise.all(
      Array.from({ length: 6 }, async () => {
        while (!stop) {
          try {
            const task = await brokers.openTask(third);
            const minted = await brokers.mint(third, task);
            const end = await brokers.end(third, task);
            if (end.status === 200) {
              ended.push(task);
              if (minted.status === 200) tokens.push(String(minted.body['access_token']));
            }
          } catch {
            // The broker is gone: what it had not acknowledged nobody was told.
          }
        }
      }),
    );
    await until('tasks end', 20_000, () => ended.length > 10);
    await third.kill();
    stop = true;
    await working;
    expect(tokens.length).toBeGreaterThan(5);
    for (const token of tokens) expect(await brokers.isActive(two, token)).toBe(false);
    const operator = await brokers.operate(two, 'GET', `/v1/tasks/${ended[0]}`);
    expect(operator.body['state']).toBe('completed');
  }, 90_000);

  it('of a broker right after a stop was acknowledged: the lock holds at the other one, and its enumeration is finished', async () => {
    const third = await brokers.start('three');
    const task = await brokers.openTask(two);
    const token = String((await brokers.mint(two, task)).body['access_token']);
    const stopped = await brokers.operate(third, 'POST', '/v1/locks', {
      selector: { agent: 'spiffe://dev.mayfly/agent/refunds' },
      reason: 'odd refunds',
    });
    await third.kill();
    expect(stopped.status).toBe(201);
    expect(await brokers.isActive(two, token)).toBe(false);
    const refused = await brokers.mint(two, task);
    expect(refused.body['error']).toBe('access_denied');
    const { id } = stopped.body['revocation'] as { id: string };
    await until('the enumeration is done by another worker', 30_000, async () => {
      const revocation = await brokers.operate(two, 'GET', `/v1/revocations/${id}`);
      return JSON.stringify(revocation.body).includes('"done":true');
    });
    const { id: lock } = stopped.body['lock'] as { id: string };
    expect((await brokers.operate(two, 'DELETE', `/v1/locks/${lock}`)).status).toBe(202);
    expect((await brokers.operate(two, 'DELETE', `/v1/locks/${lock}`)).status).toBe(202);
    expect((await brokers.operate(two, 'DELETE', `/v1/locks/${lock}`, undefined, 'operator-2')).status).toBe(204);
    expect((await brokers.mint(two, task)).status).toBe(200);
  }, 90_000);

  it("yesterday's store put back: no token of before is good, what ended stays ended, and grants go on", async () => {
    const kept = mkdtempSync(join(tmpdir(), 'mayfly-yesterday-'));
    try {
      const task = await brokers.openTask(one);
      const token = String((await brokers.mint(one, task)).body['access_token']);
      await redis.kill('SIGTERM');
      cpSync(redis.dir, kept, { recursive: true });
      await redis.restart();
      await until('the brokers answer again', 30_000, async () => (await fetch(`${one.url}/readyz`)).ok);
      expect((await brokers.end(one, task)).status).toBe(200);
      await redis.kill();
      rmSync(join(redis.dir, 'appendonlydir'), { recursive: true, force: true });
      cpSync(join(kept, 'appendonlydir'), join(redis.dir, 'appendonlydir'), { recursive: true });
      await redis.restart();
      await until(
        'grants are open in the new epoch',
        60_000,
        async () => (await fetch(`${one.url}/readyz`)).ok && (await fetch(`${two.url}/readyz`)).ok,
      );
      expect(await brokers.isActive(one, token)).toBe(false);
      expect(await brokers.isActive(two, token)).toBe(false);
      let again: Reply | undefined;
      await until('a mint is answered for good', 30_000, async () => {
        again = await brokers.mint(two, task);
        return again.status !== 503;
      });
      expect(again?.body['error']).toBe('invalid_authorization_details');
      await until('grants go on', 30_000, async () => {
        const fresh = await brokers.openTask(two);
        return (await brokers.mint(one, fresh)).status === 200;
      });
    } finally {
      rmSync(kept, { recursive: true, force: true });
    }
  }, 150_000);
});
