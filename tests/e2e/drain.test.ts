import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RedisLine } from '../../src/main/dev/redis-process.js';
import { Keys } from '../../src/state/keys.js';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { type BrokerProcess, Brokers, ORDERS, until } from './brokers.js';

const ROUNDS = 4;
const CALLERS = 8;
/** Leaving, ten seconds of grace, and a busy machine. */
const DRAINED_WITHIN_MS = 20_000;
const PLENTY = { leases_per_task: 1_000_000, leases_per_agent: 10_000_000, per_tree: 1_000_000 };

interface Outcome {
  granted: number;
  leases: string[];
  failed: string[];
  unavailable: number;
  elsewhere: number;
  streams: { opened: number; ended: number; cut: number };
}

describe('SIGTERM under load', () => {
  let redis: RedisServer;
  let brokers: Brokers;
  let load: ChildProcess | undefined;

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Brokers.open(redis.url);
  }, 90_000);

  afterAll(async () => {
    load?.kill('SIGKILL');
    await brokers?.close();
    await redis?.stop();
  });

  it('brokers that come and go fail no request, cut no stream, and leave no lease that nobody was given', async () => {
    const settings = { quotas: PLENTY };
    let [one, two] = [await brokers.start('one', { first: true, settings }), await brokers.start('two', { settings })];
    const all = [one, two];
    const tasks = [await brokers.openTask(one), await brokers.openTask(two)];
    const targets = join(brokers.dir, 'targets.json');
    const aim = (at: BrokerProcess[]) => {
      const told = {
        brokers: at.map(({ url, opsUrl }) => ({ url, opsUrl })),
        forms: tasks.map((task) => form(brokers, task)),
        feedToken: brokers.svid('/tool/orders'),
        callers: CALLERS,
      };
      // Whoever reads meanwhile reads one or the other, never half of it.
      writeFileSync(`${targets}.new`, JSON.stringify(told));
      renameSync(`${targets}.new`, targets);
    };
    aim([one, two]);
    load = spawn(process.execPath, ['tests/e2e/load.mjs', targets], { stdio: ['pipe', 'pipe', 'inherit'] });
    let said = '';
    load.stdout?.on('data', (chunk: Buffer) => (said += chunk.toString()));

    const line = await RedisLine.open(redis.port);
    const keys = new Keys('mayfly', 'a');
    const leases = async () => {
      let sum = 0;
      for (const task of tasks) sum += Number(await line.ask('ZCARD', keys.tokensOf(task)));
      return sum;
    };
    for (let round = 0; round < ROUNDS; round++) {
      const before = await leases();
      await until('the load runs', 60_000, async () => (await leases()) > before + 50);
      const leaving = round % 2 === 0 ? one : two;
      const staying = leaving === one ? two : one;
      const startedAtMs = performance.now();
      await leaving.kill('SIGTERM');
      expect(performance.now() - startedAtMs).toBeLessThan(DRAINED_WITHIN_MS);
      expect([leaving.child.exitCode, leaving.child.signalCode]).toEqual([0, null]);
      const fresh = await brokers.start(`round-${round}`, { settings, first: leaving.url === brokers.issuer });
      all.push(fresh);
      [one, two] = leaving === one ? [fresh, staying] : [staying, fresh];
      aim([one, two]);
    }
    const afterLast = await leases();
    await until('the load goes on', 60_000, async () => (await leases()) > afterLast + 50);
    load.stdin?.end();
    await once(load, 'close');
    const outcome = JSON.parse(said) as Outcome;
    expect(outcome.failed).toEqual([]);
    const reasons = all.flatMap((broker) =>
      [...broker.said().matchAll(/"status":503.*?"reason":"([^"]*)"/g)].map(([, why]) => why),
    );
    expect(reasons.length).toBe(outcome.unavailable);
    // A busy machine may keep a broker from its store for longer than it waits; a broker that leaves has its store until the end.
    expect(reasons.filter((why) => !/LATE the deadline has passed|Command timed out/.test(String(why)))).toEqual([]);
    expect(outcome.streams.cut).toBe(0);
    expect(outcome.streams.opened).toBeGreaterThan(ROUNDS / 2);
    expect(outcome.granted).toBeGreaterThan(ROUNDS * 50);
    // Every lease in the store was given to somebody (but what the store did not say in time, which may or may not have happened), and
    // everybody's lease is there.
    const unknown = reasons.filter((why) => why === 'commit-lease: Command timed out').length;
    const nobodys = (await leases()) - outcome.granted;
    expect(nobodys).toBeGreaterThanOrEqual(0);
    expect(nobodys).toBeLessThanOrEqual(unknown);
    expect(new Set(outcome.leases).size).toBe(outcome.granted);
    line.close();
  }, 400_000);

  it('a broker that still waits for its store is seen to live, and goes when it is told to', async () => {
    const own = await startRedis();
    const waiting = await Brokers.open(own.url);
    try {
      await own.kill('SIGSTOP');
      const child = await waiting.launch('waiting');
      await until('it waits for the store', 60_000, () => child.said().includes('start.waits'));
      expect((await fetch(`${child.opsUrl}/livez`)).status).toBe(200);
      expect((await fetch(`${child.opsUrl}/startupz`)).status).toBe(503);
      expect((await fetch(`${child.opsUrl}/readyz`)).status).toBe(503);
      await child.kill('SIGTERM');
      expect(child.child.exitCode).toBe(0);
    } finally {
      await own.kill('SIGCONT');
      await waiting.close();
      await own.stop();
    }
  }, 120_000);
});

function form(brokers: Brokers, task: string): string {
  return new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token: brokers.svid('/agent/refunds'),
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    resource: ORDERS,
    scope: `task:${task}`,
  }).toString();
}
