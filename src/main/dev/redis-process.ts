import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { RedisBinary } from './redis-binary.js';

const ANSWER_TIMEOUT_MS = 2_000;
const START_TIMEOUT_MS = 10_000;
const LOAD_TIMEOUT_MS = 120_000;
const POLL_MS = 10;
const REPLY_BYTES_MAX = 1 << 20;

/** Redis answered, and said no (`-ERR …`). Its text is the message. */
export class RedisRefusal extends Error {}

/**
 * One connection that asks one thing at a time: enough to greet, look and say goodbye. It is not the broker's client
 * (that is `state`'s), and it must not keep a process alive: the socket is unreferenced.
 */
export class RedisLine {
  readonly #socket: Socket;
  #received = '';
  #waiting: { resolve: (reply: string) => void; reject: (error: Error) => void } | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('latin1');
    socket.on('data', (chunk: string) => this.#receive(chunk));
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('Redis closed the connection')));
  }

  /** Connects to loopback and authenticates. Throws the socket's error, or RedisRefusal when the password is wrong. */
  static async open(port: number, password?: string): Promise<RedisLine> {
    const socket = connect({ host: '127.0.0.1', port });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
      socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy(new Error('Redis does not answer')));
    });
    socket.setTimeout(0);
    const line = new RedisLine(socket);
    if (password !== undefined) await line.ask('AUTH', password);
    socket.unref();
    return line;
  }

  /** Sends one command and returns its reply as text (a null is empty). One at a time; no nested replies. */
  async ask(...command: string[]): Promise<string> {
    if (this.#waiting) throw new Error('one question at a time');
    if (this.#socket.destroyed) throw new Error('Redis closed the connection');
    const parts = command.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`);
    const timer = setTimeout(() => this.#socket.destroy(new Error('Redis does not answer')), ANSWER_TIMEOUT_MS);
    try {
      return await new Promise<string>((resolve, reject) => {
        this.#waiting = { resolve, reject };
        this.#socket.write(`*${command.length}\r\n${parts.join('')}`);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #receive(chunk: string): void {
    this.#received += chunk;
    if (this.#received.length > REPLY_BYTES_MAX) this.#socket.destroy(new Error('Redis sent too long a reply'));
    const lineEnd = this.#received.indexOf('\r\n');
    if (lineEnd === -1) return;
    const kind = this.#received[0];
    const head = this.#received.slice(1, lineEnd);
    let reply = head;
    let end = lineEnd + 2;
    if (kind === '$' && head !== '-1') {
      const start = end;
      end = start + Number(head) + 2;
      if (this.#received.length < end) return;
      reply = this.#received.slice(start, end - 2);
    }
    this.#received = this.#received.slice(end);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (kind === '-') waiting?.reject(new RedisRefusal(head));
    else waiting?.resolve(kind === '$' && head === '-1' ? '' : reply);
  }

  #fail(error: Error): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.reject(error);
  }
}

export interface RedisProcess {
  child: ChildProcess;
  pid: number;
  /** Resolves when the process is gone, however it went. */
  gone: Promise<void>;
}

/** The file in which a server started by `launchRedis` leaves its process id. */
export function pidFileOf(dir: string): string {
  return join(dir, 'redis.pid');
}

export interface LaunchRequest {
  binary: RedisBinary;
  /** Holds the configuration, the append-only files, the log and the process id. Exists, mode 0700. */
  dir: string;
  port: number;
  password?: string;
  /** Further lines of redis.conf, as name and words. They come last, so they win. */
  settings?: [name: string, ...words: string[]][];
}

/**
 * Starts a server on loopback and returns when it answers PING. The password goes through a configuration file of mode
 * 0600, never through argv. The child leads a process group of its own, so that a Ctrl-C meant for its parent leaves it
 * to the parent to stop it when the parent has finished its work.
 *
 * Throws an Error whose message is one line: what the server last wrote into its log.
 */
export async function launchRedis({
  binary,
  dir,
  port,
  password,
  settings = [],
}: LaunchRequest): Promise<RedisProcess> {
  const configFile = join(dir, 'redis.conf');
  const logFile = join(dir, 'redis.log');
  const lines: [string, ...string[]][] = [
    ['bind', '127.0.0.1'],
    ['port', String(port)],
    ['dir', dir],
    ['pidfile', pidFileOf(dir)],
    ['logfile', logFile],
    ['save', ''],
    ['appendonly', 'yes'],
    ['appendfsync', 'always'],
    ['maxmemory-policy', 'noeviction'],
    ...(password === undefined ? [] : ([['requirepass', password]] as [string, string][])),
    ...settings,
  ];
  writeFileSync(configFile, lines.map(([name, ...words]) => `${name} ${words.map(quote).join(' ')}\n`).join(''), {
    mode: 0o600,
  });
  rmSync(logFile, { force: true });
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn(binary.command, [configFile], {
    cwd: dir,
    env: { ...process.env, ...binary.env },
    // What it says before it has read where its log is.
    stdio: ['ignore', log, log],
    detached: true,
  });
  closeSync(log);
  let spawnError: Error | undefined;
  const gone = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      spawnError = error;
      resolve();
    });
    child.once('exit', () => resolve());
  });
  child.unref();
  const isGone = () => child.exitCode !== null || child.signalCode !== null || spawnError !== undefined;
  const problem = await untilReady({ port, password, patienceMs: START_TIMEOUT_MS, isGone, pid: child.pid });
  if (problem === undefined) return { child, pid: child.pid as number, gone };
  child.kill('SIGKILL');
  throw new Error(spawnError?.message ?? lastWords(logFile) ?? problem);
}

/**
 * Waits for a server to answer. Undefined when it does, else why it does not: it is gone, it refuses us, or its time is up
 * (more time is given to one that says it is loading its data). With a `pid`, only that process will do: another one that
 * has taken the port meanwhile is not mistaken for it.
 */
export async function untilReady(server: {
  port: number;
  password: string | undefined;
  patienceMs: number;
  isGone: () => boolean;
  pid?: number | undefined;
}): Promise<string | undefined> {
  const startedAtMs = Date.now();
  for (;;) {
    if (server.isGone()) return 'it stopped at once';
    let { patienceMs } = server;
    let line: RedisLine | undefined;
    try {
      line = await RedisLine.open(server.port, server.password);
      await line.ask('PING');
      const isRight =
        server.pid === undefined || infoField(await line.ask('INFO', 'server'), 'process_id') === `${server.pid}`;
      if (isRight) return undefined;
    } catch (error) {
      if (error instanceof RedisRefusal) {
        // A big append-only file takes its time; a server that says so is on its way.
        if (error.message.startsWith('LOADING')) patienceMs = LOAD_TIMEOUT_MS;
        else if (server.pid === undefined) return error.message;
      }
    } finally {
      line?.close();
    }
    if (Date.now() - startedAtMs > patienceMs) return 'it does not answer';
    await delay(POLL_MS);
  }
}

/** One field of an INFO reply; empty when it is not there. */
export function infoField(info: string, name: string): string {
  return new RegExp(`^${name}:(.*)$`, 'm').exec(info)?.[1]?.trim() ?? '';
}

/** redis.conf reads quoted words with C escapes, so a folder may be called anything. */
function quote(word: string): string {
  return `"${word.replaceAll(/["\\]/g, (character) => `\\${character}`)}"`;
}

/** The line of a server's log that says best why it gave up. */
function lastWords(logFile: string): string | undefined {
  const lines = readFileSync(logFile, 'utf8')
    .split('\n')
    .map((line) => line.replace(/^\d+:\w .*? [*#.-] /, '').trim())
    .filter((line) => line !== '' && !line.startsWith('***'));
  return lines.findLast((line) => /can't|cannot|could not|invalid|bad |denied|no space/i.test(line)) ?? lines.at(-1);
}
