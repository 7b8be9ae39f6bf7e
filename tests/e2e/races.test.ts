import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createVerifier } from '../../src/client/verifier.js';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { type BrokerProcess, Brokers, ORDERS, REFUNDS, until } from './brokers.js';

/** On a busy machine. */
const READY_MS_MAX = 20_000;

/** Several brokers on one Redis are one broker, in whatever order things arrive. */
describe('two brokers on one Redis', () => {
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

  it('what one minted, the other introspects, and what one ended, the other refuses', async () => {
    const task = await brokers.openTask(one);
    const token = String((await brokers.mint(two, task)).body['access_token']);
    expect(await brokers.isActive(one, token)).toBe(true);
    expect((await brokers.end(two, task)).status).toBe(200);
    expect(await brokers.isActive(one, token)).toBe(false);
    expect((await brokers.mint(one, task)).status).toBe(400);
  });

  it('of ends that arrive together, in any kind, exactly one wins and all are told the same', async () => {
    for (let round = 0; round < 5; round++) {
      const task = await brokers.openTask(one);
      const ends = ['complete', 'fail', 'cancel', 'complete', 'fail', 'cancel', 'complete', 'fail'];
      const replies = await Promise.all(ends.map((how, at) => brokers.end(at % 2 ? one : two, task, how)));
      expect(new Set(replies.map((reply) => reply.status))).toEqual(new Set([200]));
      expect(new Set(replies.map((reply) => `${reply.body['state']} ${reply.body['ended_at']}`)).size).toBe(1);
    }
  });

  it('a completion racing mints: whatever was minted is refused once the completion was acknowledged', async () => {
    let minted = 0;
    for (let round = 0; round < 30; round++) {
      const task = await brokers.openTask(one);
      const mints = Array.from({ length: 4 }, (_, at) => brokers.mint(at % 2 ? one : two, task));
      const end = await brokers.end(round % 2 ? one : two, task);
      expect(end.status).toBe(200);
      for (const reply of await Promise.all(mints)) {
        if (reply.status !== 200) {
          expect(reply.body['error']).toBe('invalid_authorization_details');
          continue;
        }
        minted++;
        expect(await brokers.isActive(one, String(reply.body['access_token']))).toBe(false);
        expect(await brokers.isActive(two, String(reply.body['access_token']))).toBe(false);
      }
    }
    expect(minted).toBeGreaterThan(0);
  }, 60_000);

  it('an end by ref before the task is opened is kept for its opener and applied when it opens, at either broker', async () => {
    const orchestrator = brokers.svid('/orchestrator/workflow');
    const early = await brokers.request(one, 'POST', '/v1/tasks/ref:run-7/cancel', orchestrator, {});
    expect(early.status).toBe(202);
    const opened = await brokers.request(two, 'POST', '/v1/tasks', orchestrator, {
      type: 'refund',
      params: { order_id: 7 },
      purpose: 'refund order 7',
      ref: 'run-7',
      agents: [REFUNDS],
    });
    expect([opened.status, opened.body['state']]).toEqual([201, 'cancelled']);
    expect((await brokers.mint(one, String(opened.body['id']))).status).toBe(400);
  });

  it('a context change at one has the tokens of the other judged: risk high revokes, within the bound', async () => {
    const task = await brokers.openTask(one, { scope: { tools: ['orders.refund'], resources: [ORDERS] } });
    const token = String((await brokers.mint(two, task)).body['access_token']);
    expect(await brokers.isActive(one, token)).toBe(true);
    const changed = await brokers.request(
      one,
      'PATCH',
      `/v1/tasks/${task}/context`,
      brokers.svid('/orchestrator/workflow'),
      { context: { risk: 'high' } },
    );
    expect(changed.status).toBe(200);
    await until('the token is revoked', 6_000, async () => !(await brokers.isActive(two, token)));
    expect((await brokers.mint(two, task)).body['error']).toBe('access_denied');
  }, 30_000);

  it('a verifier whose broker is killed refuses everything once it is stale; when that broker is back it lets in what lives and refuses what ended meanwhile', async () => {
    const third = await brokers.start('three');
    const verifier = createVerifier({
      issuer: brokers.issuer,
      url: third.url,
      audience: ORDERS,
      identity: { bearer: async () => brokers.svid('/tool/orders') },
    });
    try {
      await verifier.ready(READY_MS_MAX);
      const [task, live] = [await brokers.openTask(one), await brokers.openTask(one)];
      const token = String((await brokers.mint(one, task)).body['access_token']);
      const other = String((await brokers.mint(one, live)).body['access_token']);
      for (const one of [token, other]) expect(await reasonOf(verifier.verify(one))).toBe('taken');
      await third.kill();
      expect((await brokers.end(one, task)).status).toBe(200);
      // Silent for 10 s: it refuses everything, and has not been told of the end.
      await until('the verifier is stale and refuses', 30_000, async () =>
        reasonOf(verifier.verify(other)).then((reason) => reason === 'stale'),
      );
      expect(await reasonOf(verifier.verify(token))).toBe('stale');

      await brokers.start('three', { port: Number(new URL(third.url).port) });
      await until('the verifier is back', 30_000, async () => (await reasonOf(verifier.verify(other))) === 'taken');
      expect(await reasonOf(verifier.verify(token))).toBe('revoked');
      const later = await brokers.openTask(one);
      const fresh = String((await brokers.mint(two, later)).body['access_token']);
      expect(await reasonOf(verifier.verify(fresh))).toBe('taken');
      await brokers.end(two, later);
      await until(
        'it is told of ends again',
        10_000,
        async () => (await reasonOf(verifier.verify(fresh))) === 'revoked',
      );
    } finally {
      await verifier.close();
    }
  }, 180_000);

  it('a verifier that is started anew knows what ended while it was away before it lets anybody in', async () => {
    const start = () =>
      createVerifier({
        issuer: brokers.issuer,
        url: two.url,
        audience: ORDERS,
        identity: { bearer: async () => brokers.svid('/tool/orders') },
      });
    const [task, live] = [await brokers.openTask(one), await brokers.openTask(one)];
    const token = String((await brokers.mint(one, task)).body['access_token']);
    const other = String((await brokers.mint(one, live)).body['access_token']);
    const before = start();
    await before.ready(READY_MS_MAX);
    expect(await reasonOf(before.verify(token))).toBe('taken');
    await before.close();
    await brokers.end(one, task);
    const after = start();
    try {
      // Whatever it is asked before its first complete snapshot it refuses.
      expect(await reasonOf(after.verify(other))).toBe('not-ready');
      await after.ready(READY_MS_MAX);
      expect(await reasonOf(after.verify(other))).toBe('taken');
      expect(await reasonOf(after.verify(token))).toBe('revoked');
    } finally {
      await after.close();
    }
  }, 60_000);

  it('the bundle of the broker that started last is the bundle of both, and a restart with an older one does not bring it back', async () => {
    const stricter = join(brokers.dir, 'stricter');
    cpSync(brokers.bundleDir, stricter, { recursive: true });
    const tokens = join(stricter, 'policies/tokens.cedar');
    writeFileSync(
      tokens,
      `${readFileSync(tokens, 'utf8')}\n@id("nothing-in-the-test")\nforbid (principal is Agent, action == Action::"mint", resource is Tool);\n`,
    );
    // The sample tests of the bundle expect mints to be allowed.
    for (const name of ['refunds', 'research']) {
      writeFileSync(join(stricter, `policies/${name}.test.yaml`), 'tests: []\n');
    }
    const task = await brokers.openTask(one);
    const token = String((await brokers.mint(one, task)).body['access_token']);
    const third = await brokers.start('four', { bundleDir: stricter });
    const refused = await brokers.mint(third, task);
    expect(refused.body['error']).toBe('access_denied');
    await until(
      'the other broker decides by it too',
      5_000,
      async () => (await brokers.mint(one, task)).body['error'] === 'access_denied',
    );
    await until('what was given before was judged by it', 65_000, async () => !(await brokers.isActive(two, token)));
    const restarted = await brokers.start('five');
    expect((await brokers.mint(restarted, task)).body['error']).toBe('access_denied');
    expect(restarted.said()).toContain('bundle.seen_before');
  }, 120_000);
});

async function reasonOf(verification: Promise<unknown>): Promise<string> {
  try {
    await verification;
    return 'taken';
  } catch (error) {
    return (error as { reason?: string }).reason ?? String(error);
  }
}
