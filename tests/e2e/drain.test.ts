import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { RedisLine } from '../../src/main/dev/redis-process.js';
import { Keys } from '../../src/state/keys.js';
import { GROUP, startServer, type TestServer } from '../backends/postgres/server.js';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { type BrokerProcess, Brokers, ORDERS, until } from './brokers.js';

const ROUNDS = 4;
const CALLERS = 8;
/** Leaving, ten seconds of grace, and a busy machine. */
const DRAINED_WITHIN_MS = 20_000;
/** A busy machine may keep a broker from its store for longer than it waits. */
const LATE = /LATE the deadline has passed|Command timed out/;
const PLENTY = { leases_per_task: 1_000_000, leases_per_agent: 10_000_000, per_tree: 1_000_000 };

interface Outcome {
  granted: number;
  leases: string[];
  failed: string[];
  unavailable: number;
  elsewhere: number;
  streams: { opened: number; ended: number; cut: number };
}

interface Ask {
  path: string;
  headers: Record<string, string>;
  body: string;
}

/** Callers in a process of their own, at whichever brokers they are aimed. */
class Load {
  readonly #brokers: Brokers;
  readonly #requests: Ask[];
  readonly #pauseMs: number;
  readonly #targets: string;
  #child: ChildProcess | undefined;
  #said = '';

  constructor(brokers: Brokers, requests: Ask[], pauseMs: number) {
    this.#brokers = brokers;
    this.#requests = requests;
    this.#pauseMs = pauseMs;
    this.#targets = join(brokers.dir, 'targets.json');
  }

  aim(at: BrokerProcess[]): void {
    const told = {
      brokers: at.map(({ url, opsUrl }) => ({ url, opsUrl })),
      requests: this.#requests,
      feedToken: this.#brokers.svid('/tool/orders'),
      callers: CALLERS,
      pauseMs: this.#pauseMs,
    };
    // Whoever reads meanwhile reads one or the other, never half of it.
    writeFileSync(`${this.#targets}.new`, JSON.stringify(told));
    renameSync(`${this.#targets}.new`, this.#targets);
  }

  start(): void {
    this.#child = spawn(process.execPath, ['tests/e2e/load.mjs', this.#targets], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.#child.stdout?.on('data', (chunk: Buffer) => (this.#said += chunk.toString()));
  }

  async end(): Promise<Outcome> {
    this.#child?.stdin?.end();
    if (this.#child) await once(this.#child, 'close');
    return JSON.parse(this.#said) as Outcome;
  }

  kill(): void {
    this.#child?.kill('SIGKILL');
  }
}

/** Brokers go and come under the load, one at a time; `made` counts what it has been given. Returns all that there were. */
async function comeAndGo(
  brokers: Brokers,
  load: Load,
  { rounds, made, settings }: { rounds: number; made: () => Promise<number>; settings: Record<string, unknown> },
): Promise<BrokerProcess[]> {
  let [one, two] = [await brokers.start('one', { first: true, settings }), await brokers.start('two', { settings })];
  const all = [one, two];
  load.aim([one, two]);
  load.start();
  for (let round = 0; round < rounds; round++) {
    const before = await made();
    await until('the load runs', 60_000, async () => (await made()) > before + 50);
    const leaving = round % 2 === 0 ? one : two;
    const staying = leaving === one ? two : one;
    const startedAtMs = performance.now();
    await leaving.kill('SIGTERM');
    expect(performance.now() - startedAtMs).toBeLessThan(DRAINED_WITHIN_MS);
    expect([leaving.child.exitCode, leaving.child.signalCode]).toEqual([0, null]);
    const fresh = await brokers.start(`round-${round}`, { settings, first: leaving.url === brokers.issuer });
    all.push(fresh);
    [one, two] = leaving === one ? [fresh, staying] : [staying, fresh];
    load.aim([one, two]);
  }
  const afterLast = await made();
  await until('the load goes on', 60_000, async () => (await made()) > afterLast + 50);
  return all;
}

/** Why brokers said 503. */
function reasonsOf(all: BrokerProcess[]): string[] {
  return all.flatMap((broker) =>
    [...broker.said().matchAll(/"status":503.*?"reason":"([^"]*)"/g)].map(([, why]) => String(why)),
  );
}

describe('SIGTERM under load', () => {
  let redis: RedisServer;
  let brokers: Brokers;
  let load: Load | undefined;

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Brokers.open(redis.url);
  }, 90_000);

  afterAll(async () => {
    load?.kill();
    await brokers?.close();
    await redis?.stop();
  });

  it('brokers that come and go fail no request, cut no stream, and leave no lease that nobody was given', async () => {
    const opener = await brokers.start('opener', { first: true });
    const tasks = [await brokers.openTask(opener), await brokers.openTask(opener)];
    await opener.kill('SIGTERM');
    const line = await RedisLine.open(redis.port);
    const keys = new Keys('mayfly', 'a');
    const leases = async () => {
      let sum = 0;
      for (const task of tasks) sum += Number(await line.ask('ZCARD', keys.tokensOf(task)));
      return sum;
    };
    load = new Load(
      brokers,
      tasks.map((task) => tokenRequest(brokers, task)),
      10,
    );
    const all = await comeAndGo(brokers, load, { rounds: ROUNDS, made: leases, settings: { quotas: PLENTY } });
    const outcome = await load.end();
    expect(outcome.failed).toEqual([]);
    const reasons = reasonsOf(all);
    expect(reasons.length).toBe(outcome.unavailable);
    // A broker that leaves has its store until the end.
    expect(reasons.filter((why) => !LATE.test(why))).toEqual([]);
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

  it('brokers that come and go half-make no credential: what exists at PostgreSQL is exactly what somebody was given', async () => {
    const postgres: TestServer = await startServer();
    const own = await startRedis();
    const there = await Brokers.open(own.url);
    const secretFile = join(there.bundleDir, 'secrets/orders-db.yaml');
    writeFileSync(secretFile, readFileSync(secretFile, 'utf8').replace('[orders_readers]', `[${GROUP}]`));
    const settings = {
      quotas: PLENTY,
      backends: {
        'orders-postgres': {
          kind: 'postgres',
          host: '127.0.0.1',
          port: postgres.port,
          managers: postgres.managers,
          scram_iterations: 64,
          issue_timeout_seconds: 10,
        },
      },
    };
    const roles = async () =>
      (await postgres.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'mayfly\\_%\\_a\\_%'")).map((row) =>
        String(row['rolname']),
      );
    let secrets: Load | undefined;
    try {
      const opener = await there.start('opener', { first: true, settings });
      const task = await there.openTask(opener, {
        scope: { tools: ['orders.read'], resources: [ORDERS], secrets: ['orders-db'] },
        context: { environment: 'production' },
      });
      await opener.kill('SIGTERM');
      secrets = new Load(there, [secretRequest(there, task)], 250);
      const all = await comeAndGo(there, secrets, { rounds: 2, made: async () => (await roles()).length, settings });
      const outcome = await secrets.end();
      expect(outcome.failed).toEqual([]);
      const reasons = reasonsOf(all);
      expect(reasons.length).toBe(outcome.unavailable);
      // One that comes has not tried its secrets yet.
      expect(reasons.filter((why) => !LATE.test(why) && !/it has not been tried yet/.test(why))).toEqual([]);
      expect(outcome.granted).toBeGreaterThan(100);
      const given = outcome.leases.map((lease) => lease.slice('lse_a_'.length)).sort();
      await until('there is what was given, and nothing else', 60_000, async () => {
        const made = (await roles()).map((role) => role.slice(role.lastIndexOf('_') + 1)).sort();
        return JSON.stringify(made) === JSON.stringify(given);
      });
    } finally {
      secrets?.kill();
      await there.close();
      await own.stop();
      await postgres.stop();
    }
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

function tokenRequest(brokers: Brokers, task: string): Ask {
  const form = new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token: brokers.svid('/agent/refunds'),
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    resource: ORDERS,
    scope: `task:${task}`,
  });
  const headers = { 'content-type': 'application/x-www-form-urlencoded' };
  return { path: '/oauth2/token', headers, body: form.toString() };
}

function secretRequest(brokers: Brokers, task: string): Ask {
  const headers = {
    authorization: `Bearer ${brokers.svid('/agent/refunds')}`,
    'content-type': 'application/json',
  };
  return { path: '/v1/secrets/orders-db', headers, body: JSON.stringify({ task }) };
}
