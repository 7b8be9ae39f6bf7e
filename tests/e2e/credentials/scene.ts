import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type pg from 'pg';
import { newId } from '../../../src/core/ids.js';
import { systemClock } from '../../../src/core/time.js';
import { Keys } from '../../../src/state/keys.js';
import { openStores } from '../../../src/state/open-stores.js';
import type { Stores } from '../../../src/state/stores.js';
import { GROUP, startServer, type TestServer } from '../../backends/postgres/server.js';
import { type FaultProxy, startFaultProxy } from '../../peers/fault-proxy.js';
import { type RedisServer, startRedis } from '../../state/redis-servers.js';
import { Brokers, ORDERS, type Reply, until } from '../brokers.js';
import { GatedBroker, holdAny } from './gated-broker.js';
import { Witness } from './witness.js';

export const SECRET = 'orders-db';
export const POSTGRES = 'orders-postgres';
const BACK_WITHIN_MS = 60_000;
const FREE_TURN_EVERY_MS = 500;

/** A backend besides PostgreSQL: what to add to configuration and bundle. */
export interface Extra {
  backends: Record<string, unknown>;
  /** Declarations by name, as `config/secrets` has them. */
  secrets: Record<string, Record<string, unknown>>;
  /** The server behind them, and the proxy before it. */
  server?: { proxy: FaultProxy; halt(): Promise<void>; resume(): Promise<void>; close(): Promise<void> | void };
}

export type ServerName = 'postgres' | 'redis' | 'openbao';

export interface Issued {
  reply: Reply;
  lease: string;
  /** Its name at PostgreSQL. */
  role: string;
}

/** What is there before the first broker starts. */
export interface Given {
  postgres: TestServer;
  postgresProxy: FaultProxy;
  brokers: Brokers;
}

const NOTHING: Extra = { backends: {}, secrets: {} };

/**
 * Real brokers, a real Redis and a real PostgreSQL, with a proxy before each, and somebody who watches what exists. Two brokers are there at any
 * time, each with every role: when one is killed the other goes on, and a third takes the place of the first.
 */
export class Scene {
  readonly redis: RedisServer;
  readonly redisProxy: FaultProxy;
  readonly postgres: TestServer;
  readonly postgresProxy: FaultProxy;
  readonly brokers: Brokers;
  readonly witness: Witness;
  #standing: GatedBroker[] = [];
  #coming: Promise<void> = Promise.resolve();
  readonly #options: Parameters<typeof GatedBroker.start>[2];
  #stores: (Stores & { close(): Promise<void> }) | undefined;
  readonly #storesDir = mkdtempSync(join(tmpdir(), 'mayfly-fresh-'));
  #started = 0;
  #extraSecrets: string[] = [];
  readonly #server: Extra['server'];

  private constructor(
    parts: Pick<Scene, 'redis' | 'redisProxy' | 'postgres' | 'postgresProxy' | 'brokers'>,
    extra: Extra,
    config: Record<string, unknown>,
  ) {
    this.redis = parts.redis;
    this.redisProxy = parts.redisProxy;
    this.postgres = parts.postgres;
    this.postgresProxy = parts.postgresProxy;
    this.brokers = parts.brokers;
    this.witness = new Witness(this.postgres);
    this.#server = extra.server;
    this.#options = {
      settings: {
        backends: {
          [POSTGRES]: {
            kind: 'postgres',
            host: '127.0.0.1',
            port: this.postgresProxy.port,
            managers: this.postgres.managers,
            scram_iterations: 64,
            issue_timeout_seconds: 1.5,
            revoke_timeout_seconds: 2,
          },
          ...extra.backends,
        },
        ...config,
      },
    };
  }

  static async open(
    more: (given: Given) => Promise<Extra> = async () => NOTHING,
    config: Record<string, unknown> = {},
  ): Promise<Scene> {
    const [redis, postgres] = await Promise.all([startRedis(), startServer()]);
    const redisProxy = await startFaultProxy(redis.port);
    const postgresProxy = await startFaultProxy(postgres.port);
    const brokers = await Brokers.open(`redis://127.0.0.1:${redisProxy.port}`);
    const extra = await more({ postgres, postgresProxy, brokers });
    const scene = new Scene({ redis, redisProxy, postgres, postgresProxy, brokers }, extra, config);
    try {
      scene.#writeBundle(extra);
      await Promise.all([scene.#startOne(true), scene.#startOne()]);
      await until('the secret can be had', BACK_WITHIN_MS, () => scene.canIssue());
    } catch (error) {
      await scene.close();
      throw error;
    }
    scene.witness.watch();
    return scene;
  }

  /** Those that are alive and not about to be killed: the first one acts, the other goes on. */
  get standing(): readonly GatedBroker[] {
    return this.#standing;
  }

  get actor(): GatedBroker {
    return this.#standing[0] as GatedBroker;
  }

  get other(): GatedBroker {
    return this.#standing.at(-1) as GatedBroker;
  }

  /** Waits until so many stand and grant, and nobody else is coming: a broker that comes in the middle of a point is not held, and takes the work. */
  async ready(brokers: 1 | 2): Promise<void> {
    await this.#coming;
    await until(`${brokers} brokers stand and grant`, BACK_WITHIN_MS, async () => {
      const replies = await Promise.all(this.#standing.map(({ process }) => fetch(`${process.url}/readyz`)));
      return replies.length >= brokers && replies.every(({ ok }) => ok);
    });
  }

  /** kill -9; another one comes in its place meanwhile, unless nobody is to. */
  async kill(broker: GatedBroker, { isReplaced = true } = {}): Promise<void> {
    await broker.process.kill();
    this.#standing = this.#standing.filter((one) => one !== broker);
    if (!isReplaced) return;
    this.#coming = this.#coming.then(() => this.#startOne()).catch(() => this.#startOne());
    this.#coming.catch(() => undefined);
  }

  /** A server is ended, and started again afterwards. */
  async without<T>(what: ServerName, during: () => Promise<T>): Promise<T> {
    const endOutage = this.witness.beginOutage();
    try {
      if (what === 'redis') await this.redis.kill();
      else await (what === 'postgres' ? this.postgres : this.#extraServer).halt();
      return await during();
    } finally {
      if (what === 'redis') await this.redis.restart();
      else await (what === 'postgres' ? this.postgres : this.#extraServer).resume();
      if (what === 'postgres') this.postgresProxy.point(this.postgres.port);
      endOutage();
    }
  }

  proxyOf(what: ServerName): FaultProxy {
    return { redis: this.redisProxy, postgres: this.postgresProxy }[what as string] ?? this.#extraServer.proxy;
  }

  /** As a client does it: a 503 is asked again. */
  async openTask(broker = this.other): Promise<string> {
    let task = '';
    await until('a task is opened', BACK_WITHIN_MS, async () => {
      task = await this.brokers.openTask(broker.process, {
        scope: { tools: ['orders.read'], resources: [ORDERS], secrets: [SECRET, ...this.#extraSecrets] },
        context: { environment: 'production' },
      });
      return true;
    });
    return task;
  }

  /** Undefined: the broker was gone before it answered. */
  async ask(task: string, broker: GatedBroker, secret = SECRET): Promise<Reply | undefined> {
    const bearer = this.brokers.svid('/agent/refunds');
    return this.brokers
      .request(broker.process, 'POST', `/v1/secrets/${secret}`, bearer, { task })
      .catch(() => undefined);
  }

  /** As a client does it: again until somebody says that it is so. */
  async endTask(task: string): Promise<void> {
    await until('the end is acknowledged', BACK_WITHIN_MS, async () => {
      const reply = await this.brokers.end(this.other.process, task);
      return reply.status === 200 || reply.status === 409;
    });
  }

  /** A verb of the task's opener. */
  async act(task: string, verb: string, method: string, body: Record<string, unknown>): Promise<void> {
    const bearer = this.brokers.svid('/orchestrator/workflow');
    const reply = await this.brokers.request(this.other.process, method, `/v1/tasks/${task}/${verb}`, bearer, body);
    if (reply.status >= 300) throw new Error(`${verb}: ${reply.status} ${JSON.stringify(reply.body)}`);
  }

  async logIn(reply: Reply): Promise<pg.Client> {
    const { username, password, database } = dataOf(reply);
    return this.postgres.logIn({
      user: String(username),
      password: String(password),
      database: String(database),
    });
  }

  /** Whichever broker comes there first. */
  holdAny(call: string, when: 'before' | 'after', about: string[]): Promise<GatedBroker> {
    return holdAny(this.#standing, call, when, about);
  }

  /** Somebody reconciles at the next look already, again and again until that has come true; left alone, everybody waits for the next turn. */
  async reconcilingSoon<T>(come: Promise<T>, backend = POSTGRES): Promise<T> {
    const turn = new Keys('mayfly', 'a').once(`reconcile:${backend}`);
    const redis = new Redis(this.redis.url);
    redis.on('error', () => {});
    const freeing = setInterval(() => void redis.del(turn).catch(() => {}), FREE_TURN_EVERY_MS);
    try {
      return await come;
    } finally {
      clearInterval(freeing);
      redis.disconnect();
    }
  }

  async until(
    what: string,
    holds: (views: Stores['views']) => Promise<boolean>,
    withinMs = BACK_WITHIN_MS,
  ): Promise<void> {
    await until(what, withinMs, async () => holds(await this.views()));
  }

  /** After a point that did not come to its end: everything that stands still goes on. */
  async recover(): Promise<void> {
    for (const proxy of [this.redisProxy, this.postgresProxy, this.#server?.proxy]) proxy?.set('pass');
    for (const broker of this.#standing) {
      broker.signal('SIGCONT');
      broker.go();
    }
    await this.ready(1);
  }

  get #extraServer(): NonNullable<Extra['server']> {
    if (!this.#server) throw new Error('there is no further server here');
    return this.#server;
  }

  /** As a client does it: a 503 is asked again. */
  async issued(task: string, broker: GatedBroker, secret = SECRET): Promise<Issued> {
    let reply: Reply | undefined;
    await until('a credential is issued', BACK_WITHIN_MS, async () => {
      reply = await this.ask(task, broker, secret);
      if (reply?.status !== 200) throw new Error(JSON.stringify(reply?.body));
      return true;
    });
    if (!reply) throw new Error('nothing was issued');
    return { reply, lease: String(reply.body['lease_id']), role: String(dataOf(reply)['username']) };
  }

  /** A role as the manager would have made it for a lease that nobody ever heard of. Returns the lease's id. */
  async plantOrphan(like: Issued): Promise<string> {
    const lease = newId('lse', 'a', Date.now());
    const role = like.role.replace(like.lease.slice('lse_a_'.length), lease.slice('lse_a_'.length));
    const [manager] = this.postgres.managers;
    const client = await this.postgres.logIn({
      user: String(manager?.user),
      password: readFileSync(String(manager?.password_file), 'utf8').trim(),
    });
    await client.query(`CREATE ROLE ${role} LOGIN PASSWORD 'whatever' VALID UNTIL 'infinity'`);
    await client.query(`GRANT ${GROUP} TO ${role}`);
    await client.end();
    await this.witness.look();
    return lease;
  }

  /** Somebody else drops the role of a live lease. */
  async lose({ role }: Issued): Promise<void> {
    await this.witness.look();
    await this.postgres.ask(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${role}'; DROP ROLE ${role}`,
    );
  }

  async canIssue(secret = SECRET): Promise<boolean> {
    const task = await this.openTask();
    const reply = await this.ask(task, this.actor, secret);
    await this.brokers.end(this.other.process, task);
    if (reply?.status !== 200) throw new Error(JSON.stringify(reply?.body));
    return true;
  }

  /** The store as a broker that was never there before reads it. */
  async views(): Promise<Stores['views']> {
    this.#stores ??= await openStores({
      url: this.redis.url,
      cell: 'a',
      rootKey: Buffer.from(readFileSync(join(this.brokers.dir, 'root.key'), 'utf8'), 'base64'),
      clock: systemClock,
      observe: () => {},
      dataDir: this.#storesDir,
      role: 'api',
    });
    return this.#stores.views;
  }

  async stores(): Promise<Stores> {
    await this.views();
    return this.#stores as Stores;
  }

  async close(): Promise<void> {
    this.witness.stop();
    await this.#coming.catch(() => undefined);
    await this.#stores?.close();
    await this.brokers.close();
    await this.redis.stop();
    await this.redisProxy[Symbol.asyncDispose]();
    await this.postgresProxy[Symbol.asyncDispose]();
    await this.#server?.proxy[Symbol.asyncDispose]();
    await this.#server?.close();
    await this.postgres.stop();
    rmSync(this.#storesDir, { recursive: true, force: true });
  }

  #writeBundle({ secrets }: Extra): void {
    this.#extraSecrets = Object.keys(secrets);
    const { bundleDir } = this.brokers;
    const write = (path: string, text: string) => writeFileSync(join(bundleDir, path), text);
    const edit = (path: string, from: string, to: string) => {
      const text = readFileSync(join(bundleDir, path), 'utf8');
      if (!text.includes(from)) throw new Error(`${path} does not say ${from}`);
      write(path, text.replace(from, to));
    };
    edit('secrets/orders-db.yaml', 'groups: [orders_readers]', `groups: [${GROUP}]`);
    if (this.#extraSecrets.length === 0) return;
    for (const [name, declaration] of Object.entries(secrets)) {
      write(`secrets/${name}.yaml`, JSON.stringify({ name, ...declaration }));
    }
    edit('tasks/refund.yaml', 'secrets: [orders-db]', `secrets: [orders-db, ${this.#extraSecrets.join(', ')}]`);
    write(
      'policies/extra-secrets.cedar',
      this.#extraSecrets
        .map(
          (name) =>
            `@id("read-${name}") @revocability("rotate-only") permit (principal is Agent, action == Action::"read", resource == Secret::"${name}");\n`,
        )
        .join(''),
    );
  }

  async #startOne(first = false): Promise<void> {
    this.#started += 1;
    const name = `broker-${this.#started}`;
    this.#standing.push(await GatedBroker.start(this.brokers, name, { ...this.#options, first }));
  }
}

function dataOf({ body }: Reply): Record<string, string> {
  return body['data'] as Record<string, string>;
}
