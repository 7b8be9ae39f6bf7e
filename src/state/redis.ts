import { Cluster, type ClusterOptions, Redis, type RedisOptions } from 'ioredis';
import { BrokerError, type ErrorDetail } from '../core/errors.js';
import type { Observe } from '../core/observe.js';
import type { Clock } from '../core/time.js';
import type { Keys } from './keys.js';
import { ScriptCall } from './script-call.js';
import { loadScripts, type Script, type ScriptName } from './scripts.js';

export type RedisClient = Redis | Cluster;

const SENTINEL = 'redis+sentinel://';

/** How long a request waits for Redis; past it the outcome is unknown. Scripts past it do nothing. */
const COMMAND_TIMEOUT_MS = 250;
const CONNECT_TIMEOUT_MS = 500;
const READY_TIMEOUT_MS = 10_000;
/** How long a connection has to end by itself. One that was lost before holds the process for all of it (ioredis: two seconds). */
const DISCONNECT_TIMEOUT_MS = 250;

/**
 * One URL of a single Redis (`redis://`, `rediss://`), of one behind Sentinel (`redis+sentinel://[user:password@]host:port,host:port/name`), or a
 * list with one for each of some nodes of a Cluster.
 */
export type RedisUrl = string | readonly string[];

/** The replies are read as RESP2 has them. */
type ConnectionOptions = Omit<RedisOptions, 'replyMapping'>;

/**
 * Requests: an answer within 250 ms or an error, nothing is sent twice, nothing waits for a connection. By itself the client
 * sends again what got no answer, which runs a script twice, and waits for ever at a node that is frozen.
 */
const REQUEST_OPTIONS: ConnectionOptions = {
  commandTimeout: COMMAND_TIMEOUT_MS,
  connectTimeout: CONNECT_TIMEOUT_MS,
  disconnectTimeout: DISCONNECT_TIMEOUT_MS,
  maxRetriesPerRequest: 1,
  enableOfflineQueue: false,
  autoResendUnfulfilledCommands: false,
  retryStrategy: (times) => Math.min(50 * times, 500),
};

const REQUEST_CLUSTER_OPTIONS: ClusterOptions = {
  enableOfflineQueue: false,
  maxRedirections: 4,
  retryDelayOnFailover: 0,
  retryDelayOnClusterDown: 50,
  retryDelayOnTryAgain: 20,
  slotsRefreshTimeout: 300,
  slotsRefreshInterval: 500,
  clusterRetryStrategy: (times) => Math.min(50 * times, 500),
};

/**
 * Waiting readers and workers: they wait for Redis to come back, and their commands may block (a time limit on a worker's makes errors
 * of them while it is merely idle).
 */
const WAITING_OPTIONS: ConnectionOptions = {
  connectTimeout: 2_000,
  disconnectTimeout: DISCONNECT_TIMEOUT_MS,
  maxRetriesPerRequest: null,
  autoResendUnfulfilledCommands: false,
  retryStrategy: (times) => Math.min(50 * times, 500),
};

const WAITING_CLUSTER_OPTIONS: ClusterOptions = {
  slotsRefreshInterval: 1_000,
  clusterRetryStrategy: (times) => Math.min(50 * times, 500),
};

/** Connects; commands may be sent when it resolves. Errors of the connection go to `observe`, at most one a second. */
export function connect(url: RedisUrl, kind: 'request' | 'waiting', observe: Observe): RedisClient {
  const [own, clusterOwn] =
    kind === 'request' ? [REQUEST_OPTIONS, REQUEST_CLUSTER_OPTIONS] : [WAITING_OPTIONS, WAITING_CLUSTER_OPTIONS];
  let client: RedisClient;
  if (typeof url === 'string' && url.startsWith(SENTINEL)) {
    client = new Redis({ ...own, ...sentinelOf(url) });
  } else if (typeof url === 'string') {
    client = new Redis(url, own);
  } else {
    const nodes = url.map((text) => new URL(text));
    const first = nodes[0];
    const { retryStrategy: _, enableOfflineQueue: __, ...nodeOptions } = own;
    client = new Cluster(
      nodes.map((node) => ({ host: node.hostname, port: Number(node.port || 6379) })),
      {
        ...clusterOwn,
        redisOptions: {
          ...(nodeOptions as object),
          ...(first?.username && { username: decodeURIComponent(first.username) }),
          ...(first?.password && { password: decodeURIComponent(first.password) }),
          ...(first?.protocol === 'rediss:' && { tls: {} }),
        },
      },
    );
  }
  let toldAtMs = Number.NEGATIVE_INFINITY;
  client.on('error', (error: Error) => {
    const atMs = performance.now();
    if (atMs - toldAtMs < 1_000) return;
    toldAtMs = atMs;
    observe({ event: 'redis.connection', level: 'warn', kind, problem: error.message });
  });
  return client;
}

/** Who to ask for the master, and what the master is called there. The user and password are the master's. */
function sentinelOf(url: string): ConnectionOptions {
  const match = /^redis\+sentinel:\/\/(?:([^:@/]*):([^@/]*)@)?([^@/]+)\/([^/?#]+)$/.exec(url);
  if (!match) throw new Error('a Sentinel address is redis+sentinel://[user:password@]host:port,host:port/name');
  const [, username, password, hosts = '', name = ''] = match;
  return {
    name: decodeURIComponent(name),
    sentinels: hosts.split(',').map((host) => {
      const { hostname, port } = new URL(`redis://${host}`);
      return { host: hostname, port: Number(port || 26_379) };
    }),
    ...(username && { username: decodeURIComponent(username) }),
    ...(password && { password: decodeURIComponent(password) }),
    sentinelRetryStrategy: (times) => Math.min(50 * times, 500),
  };
}

export async function ready(client: RedisClient): Promise<void> {
  if (client.status === 'ready') return;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(unavailable('redis does not answer: it was not ready in time')),
      READY_TIMEOUT_MS,
    );
    client.once('ready', () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** What a script's guard said: the store is not the one that this broker knows. */
export type Estrangement = 'BLANK' | 'CHANGED';

/**
 * The one way scripts are run: one round trip, with the broker's time, a deadline on Redis' own clock, and the keys of the line in front.
 * Whatever goes wrong is `unavailable`, and its outcome is unknown.
 */
export class Line {
  readonly client: RedisClient;
  readonly keys: Keys;
  readonly #clock: Clock;
  readonly #scripts = loadScripts();
  readonly #lineKeys: string[];
  /** The process that this connection is known to lead to; '' while it is not known, and always on a Cluster. */
  #run = '';
  /** Redis' clock minus our monotonic one. */
  #offsetMs = 0;
  readonly #clockSkewMsMax: number;
  #onEstranged: (how: Estrangement) => void = () => {};

  constructor(client: RedisClient, keys: Keys, clock: Clock, clockSkewMsMax: number) {
    this.#clockSkewMsMax = clockSkewMsMax;
    this.client = client;
    this.keys = keys;
    this.#clock = clock;
    this.#lineKeys = keys.line;
    if (client instanceof Redis) this.#knowServer(client);
  }

  /** Told when a script found another master or an empty cell: nothing has run, and nothing will until the epoch is raised. */
  onEstranged(listener: (how: Estrangement) => void): void {
    this.#onEstranged = listener;
  }

  /** Redis' clock now, as far as the last synchronisation tells. */
  redisNowMs(): number {
    return performance.now() + this.#offsetMs;
  }

  /** Whether our clock is near enough to Redis' to be believed. */
  clocksAgree(nowMs = this.#clock.now()): boolean {
    return Math.abs(nowMs - this.redisNowMs()) <= this.#clockSkewMsMax;
  }

  /** The time by which something is over and may be forgotten: of two clocks that disagree the earlier, so that a wrong one forgets nothing. */
  earlierMs(nowMs = this.#clock.now()): number {
    return this.clocksAgree(nowMs) ? nowMs : Math.floor(Math.min(nowMs, this.redisNowMs()));
  }

  /** The time from which a life is counted: of two clocks that disagree the later, so that a wrong one shortens nothing. */
  laterMs(nowMs = this.#clock.now()): number {
    return this.clocksAgree(nowMs) ? nowMs : Math.ceil(Math.max(nowMs, this.redisNowMs()));
  }

  /** Asks Redis for its time; everything between question and answer counts as early, so that a deadline is never late. */
  async syncClock(): Promise<number> {
    const askedAtMs = performance.now();
    const [seconds, micros] = await this.ask((client) => this.#time(client));
    const redisMs = Number(seconds) * 1_000 + Math.floor(Number(micros) / 1_000);
    this.#offsetMs = redisMs - performance.now();
    return performance.now() - askedAtMs;
  }

  /** INFO of the node that holds the cell. */
  async info(): Promise<Map<string, string>> {
    const text = (await this.ask((client) =>
      client.eval("return redis.call('INFO', 'everything')", 1, this.keys.named('cell')),
    )) as string;
    return new Map(
      text
        .split('\r\n')
        .filter((line) => line.includes(':'))
        .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
    );
  }

  /** `always`, `everysec`, `no`; undefined where CONFIG may not be asked (managed services): then it counts as less than `always`. */
  async appendFsync(): Promise<string | undefined> {
    const masters = this.client instanceof Cluster ? this.client.nodes('master') : [this.client];
    try {
      const answers = await Promise.all(masters.map((node) => node.config('GET', 'appendfsync')));
      const values = new Set(answers.map((answer) => String((answer as string[])[1])));
      return values.size === 1 ? [...values][0] : undefined;
    } catch {
      return undefined;
    }
  }

  /** The clock as a script just read it. */
  setClock(redisMs: number): void {
    this.#offsetMs = redisMs - performance.now();
  }

  /**
   * Runs a script. `keys` follow those of the line, `args` follow now, deadline and the audit record. A wrong clock of ours ends nothing early:
   * `now` is then the earlier of the two.
   */
  async run(
    name: ScriptName,
    keys: readonly string[],
    args: readonly (string | number)[],
    options: { nowMs?: number; audit?: unknown } = {},
  ): Promise<unknown> {
    const script = this.#scripts[name];
    const words = [
      ...this.#lineKeys,
      ...keys,
      this.earlierMs(options.nowMs),
      `${Math.floor(this.redisNowMs() + COMMAND_TIMEOUT_MS)}:${this.#run}`,
      options.audit === undefined ? '' : JSON.stringify(options.audit),
      ...args,
    ];
    try {
      return await this.#evaluate(script, this.#lineKeys.length + keys.length, words);
    } catch (error) {
      throw this.#explain(error, name);
    }
  }

  /** A plain command, with the same errors. */
  async ask<Answer>(command: (client: RedisClient) => Promise<Answer>): Promise<Answer> {
    this.#gather();
    try {
      return await command(this.client);
    } catch (error) {
      throw this.#explain(error, 'command');
    }
  }

  /**
   * A connection leads to one process for as long as it lasts: asked once, every script on it is spared from asking. From the moment a
   * connection is lost until the next one has answered, the scripts ask themselves, as they always do on a Cluster (redirects).
   */
  #knowServer(client: Redis): void {
    let connection = 0;
    const ask = async () => {
      const asked = connection;
      const info = await client.info('server').catch(() => '');
      if (asked === connection) this.#run = /run_id:([0-9a-f]{40})/.exec(info)?.[1] ?? '';
    };
    client.on('close', () => {
      connection += 1;
      this.#run = '';
    });
    client.on('ready', () => void ask());
    if (client.status === 'ready') void ask();
  }

  async #evaluate(script: Script, keyCount: number, words: (string | number)[]): Promise<unknown> {
    this.#gather();
    try {
      return await (this.client.sendCommand(new ScriptCall(script.sha, keyCount, words)) as Promise<unknown>);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
      return await this.client.eval(script.source, keyCount, ...words);
    }
  }

  /** What is sent in one turn of the event loop leaves in one piece: a write to a socket costs more than the command in it, here and there. */
  #gather(): void {
    const { client } = this;
    // A Cluster has a socket for each node, and picks one only when the command is sent.
    if (!(client instanceof Redis) || client.status !== 'ready' || client.stream.writableCorked > 0) return;
    const { stream } = client;
    stream.cork();
    setImmediate(() => stream.uncork());
  }

  async #time(client: RedisClient): Promise<(string | number)[]> {
    // TIME names no key: the node that holds the cell is asked through a script that does.
    return (await client.eval("return redis.call('TIME')", 1, this.keys.named('cell'))) as string[];
  }

  #explain(error: unknown, name: string): BrokerError {
    if (error instanceof BrokerError) return error;
    const message = error instanceof Error ? error.message : String(error);
    const code = message.slice(0, message.indexOf(' '));
    if (code === 'BLANK' || code === 'CHANGED') this.#onEstranged(code);
    if (code === 'LATE') void this.syncClock().catch(() => {});
    if (code === 'CLASH') return new BrokerError('internal', 'Something went wrong inside.', { reason: message });
    return unavailable(`${name}: ${message}`, error);
  }
}

export function unavailable(reason: string, cause?: unknown): BrokerError {
  const detail: ErrorDetail = { reason, retryAfterSeconds: 1, ...(cause !== undefined && { cause }) };
  return new BrokerError('unavailable', 'Mayfly cannot decide right now.', detail);
}
