import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { BrokerError } from '../../core/errors.js';
import { freePort } from './free-port.js';
import { findRedisBinary } from './redis-binary.js';
import { infoField, launchRedis, pidFileOf, RedisLine, untilReady } from './redis-process.js';

const LAUNCH_ATTEMPTS = 3;
const ADOPT_TIMEOUT_MS = 3_000;
const STOP_TIMEOUT_MS = 10_000;
const STARTING_STALE_MS = 30_000;
const POLL_MS = 20;
/** The name under which the one `mayfly dev` that owns a data folder is known to that folder's Redis. */
const OWNER = 'mayfly-dev';
/** Marks a signal handler that only takes a server along (scripts/dev-postgres.mjs has one too): two of them must not each leave the end to the other. */
const TAKES_ALONG = Symbol.for('mayfly.takes-a-server-along');

export interface EmbeddedRedisOptions {
  /** The data folder; everything of Redis is in `DIR/redis`, a fetched server in `DIR/tools` (or `MAYFLY_TOOLS_DIR`, which several folders can share). */
  dataDir: string;
  /** Whether a server may be fetched when this machine has none. */
  allowFetch: boolean;
  /** Told, in one line each, of steps that take time. */
  say: (line: string) => void;
  /** Aborts the fetching of a server. */
  signal?: AbortSignal;
}

export interface EmbeddedRedis {
  /** `redis://:password@127.0.0.1:port`: a secret. */
  url: string;
  /** Such as `Redis 7.0.15`. */
  version: string;
  /** True when a server that an earlier run left behind (kill -9) was taken over with all its data. */
  adopted: boolean;
  /** Stops the server and waits until it is gone. Its data stays. Repeats do nothing. */
  stop(): Promise<void>;
}

interface Runtime {
  port: number;
  password: string;
}

/**
 * The Redis of `mayfly dev`: a real server as a private child on loopback, with a random port and password, that answers only
 * after each write is on the disk. It lives in `DIR/redis` (0700) and belongs to one owner at a time.
 *
 * It ends when this process does (stop, exit, SIGINT, SIGTERM, SIGHUP). When this process is killed outright it lives on, and the next start adopts it.
 * Throws BrokerError('unavailable') with one line: no server to be had, folder not writable, in use by another, not starting.
 */
export async function startEmbeddedRedis({ dataDir, ...options }: EmbeddedRedisOptions): Promise<EmbeddedRedis> {
  const dir = join(resolve(dataDir), 'redis');
  makePrivateFolder(dir);
  const free = takeTurn(dir);
  try {
    const live = await findLive(dir, options.say);
    const { port, password } = live ?? (await launch(dir, { dataDir, ...options }));
    return await own(dir, { port, password }, live !== undefined);
  } finally {
    free();
  }
}

/** Starts a new server. What it takes to find it again is on the disk before it runs. */
async function launch(dir: string, { dataDir, ...options }: EmbeddedRedisOptions): Promise<Runtime> {
  const toolsDir = resolve(process.env['MAYFLY_TOOLS_DIR'] ?? join(dataDir, 'tools'));
  const binary = await findRedisBinary({ toolsDir, ...options });
  let problem = '';
  for (let attempt = 1; attempt <= LAUNCH_ATTEMPTS; attempt++) {
    const runtime: Runtime = { port: await freePort(), password: randomBytes(24).toString('base64url') };
    const file = join(dir, 'runtime.json');
    writeFileSync(`${file}.new`, `${JSON.stringify(runtime)}\n`, { mode: 0o600 });
    renameSync(`${file}.new`, file);
    try {
      await launchRedis({ binary, dir, ...runtime });
      return runtime;
    } catch (error) {
      problem = (error as Error).message;
      // Somebody else took the port between our look and the server's bind; any other problem stays one.
      if (!/address already in use/i.test(problem)) break;
    }
  }
  throw new BrokerError('unavailable', `The embedded Redis (${binary.command}) does not start: ${problem}`, {
    hint: `Its log is ${join(dir, 'redis.log')}.`,
  });
}

/** The server that an earlier run left behind, once it answers. Undefined when there is none. */
async function findLive(dir: string, say: (line: string) => void): Promise<Runtime | undefined> {
  const pid = livePid(dir);
  const runtime = readRuntime(dir);
  if (!runtime) {
    if (pid === undefined) return undefined;
    throw new BrokerError('unavailable', `A Redis (pid ${pid}) already works on ${dir}: stop it with kill ${pid}.`);
  }
  if (pid === undefined && !(await answers(runtime))) return undefined;
  const isGone = () => pid !== undefined && livePid(dir) === undefined;
  const problem = await untilReady({ ...runtime, patienceMs: ADOPT_TIMEOUT_MS, isGone });
  if (problem === undefined) {
    say('taking over the Redis that an earlier run left behind');
    return runtime;
  }
  if (livePid(dir) === undefined) return undefined;
  // Two servers on the same append-only files would ruin them, so a silent one is never passed by.
  throw new BrokerError(
    'unavailable',
    `The Redis of ${dir} (pid ${pid}) does not answer (${problem}): stop it with kill -9 ${pid}.`,
  );
}

async function answers({ port, password }: Runtime): Promise<boolean> {
  try {
    (await RedisLine.open(port, password)).close();
    return true;
  } catch {
    return false;
  }
}

/** Makes this process the owner: the server knows it by a connection that ends with us, however we end. */
async function own(dir: string, { port, password }: Runtime, adopted: boolean): Promise<EmbeddedRedis> {
  const line = await RedisLine.open(port, password);
  const clients = await line.ask('CLIENT', 'LIST');
  if (clients.includes(` name=${OWNER} `)) {
    line.close();
    throw new BrokerError(
      'unavailable',
      `Another mayfly dev is running on ${join(dir, '..')}: stop it, or choose another folder with --data.`,
    );
  }
  await line.ask('CLIENT', 'SETNAME', OWNER);
  const about = await line.ask('INFO', 'server');
  const pid = Number(infoField(about, 'process_id'));
  const isValkey = infoField(about, 'server_name') === 'valkey';
  const version = isValkey
    ? `Valkey ${infoField(about, 'valkey_version')}`
    : `Redis ${infoField(about, 'redis_version')}`;

  const terminate = () => {
    try {
      process.kill(pid, 'SIGTERM');
    } catch {
      // It is gone already, which is what we want.
    }
  };
  // Whoever handles a signal ends the process in its own time, and `exit` takes the server along. When nobody
  // handles it, the default would end us without `exit`.
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const onSignal = (signal: NodeJS.Signals) => {
    if (process.listeners(signal).some((listener) => !(TAKES_ALONG in listener))) return;
    terminate();
    release();
    process.kill(process.pid, signal);
  };
  Object.assign(onSignal, { [TAKES_ALONG]: true });
  const release = () => {
    process.off('exit', terminate);
    for (const signal of signals) process.off(signal, onSignal);
  };
  process.on('exit', terminate);
  for (const signal of signals) process.on(signal, onSignal);

  let stopping: Promise<void> | undefined;
  const stop = async () => {
    release();
    line.close();
    terminate();
    await untilGone(pid);
    for (const file of [join(dir, 'runtime.json'), pidFileOf(dir)]) rmSync(file, { force: true });
  };
  return {
    url: `redis://:${password}@127.0.0.1:${port}`,
    version,
    adopted,
    stop: () => (stopping ??= stop()),
  };
}

async function untilGone(pid: number): Promise<void> {
  const startedAtMs = Date.now();
  let isKilled = false;
  while (isAlive(pid)) {
    const passedMs = Date.now() - startedAtMs;
    // Every answered write is on the disk, so this loses nothing.
    if (passedMs > STOP_TIMEOUT_MS && !isKilled) process.kill(pid, 'SIGKILL');
    isKilled = passedMs > STOP_TIMEOUT_MS;
    // Not even SIGKILL ends a process that hangs in the kernel.
    if (passedMs > 2 * STOP_TIMEOUT_MS) return;
    await delay(POLL_MS);
  }
}

function readRuntime(dir: string): Runtime | undefined {
  try {
    const { port, password } = JSON.parse(readFileSync(join(dir, 'runtime.json'), 'utf8')) as Partial<Runtime>;
    return Number.isInteger(port) && typeof password === 'string' ? { port: port as number, password } : undefined;
  } catch {
    return undefined;
  }
}

/** The process id that the server left, when that process is alive and is a server of this folder. */
function livePid(dir: string): number | undefined {
  try {
    const pid = Number(readFileSync(pidFileOf(dir), 'utf8'));
    if (!Number.isInteger(pid) || pid < 2 || !isAlive(pid)) return undefined;
    return isRedis(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Process ids are used again. Where /proc tells what a process is, believe it; elsewhere, suppose the worst. */
function isRedis(pid: number): boolean {
  try {
    return /redis|valkey/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    return process.platform !== 'linux';
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  try {
    // A dead process that nobody has collected yet (its parent was killed) still has its id.
    return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return process.platform !== 'linux' || existsSync(`/proc/${pid}`);
  }
}

function makePrivateFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    chmodSync(dir, 0o700);
    writeFileSync(join(dir, 'writable'), '');
    rmSync(join(dir, 'writable'));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new BrokerError(
      'unavailable',
      `The folder ${dir} cannot be written (${code}): choose another one with --data.`,
      {
        cause: error,
      },
    );
  }
}

/** Two starts on one folder go one after the other; a start that died in its turn holds nobody up for long. */
function takeTurn(dir: string): () => void {
  const file = join(dir, 'starting');
  for (let attempt = 1; ; attempt++) {
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx', mode: 0o600 });
      return () => rmSync(file, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const other = Number(readFileSync(file, 'utf8'));
      const isStale = !isAlive(other) || Date.now() - statSync(file).mtimeMs > STARTING_STALE_MS;
      if (!isStale || attempt > 1) {
        throw new BrokerError('unavailable', `Another mayfly dev (pid ${other}) is starting on ${join(dir, '..')}.`);
      }
      rmSync(file, { force: true });
    }
  }
}
