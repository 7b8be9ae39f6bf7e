import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../../src/main/dev/free-port.js';
import { findRedisBinary, type RedisBinary, type RedisFlavour } from '../../src/main/dev/redis-binary.js';
import { launchRedis, RedisLine, type RedisProcess } from '../../src/main/dev/redis-process.js';

/** A fetched server is kept where `npm start` keeps it, so a clone fetches once. */
const TOOLS = join(import.meta.dirname, '../../.data/tools');
const PEERS = process.env['MAYFLY_PEERS_DIR'] ?? join(process.env['HOME'] ?? '', '.cache/mayfly-peers');
const CLUSTER_TIMEOUT_MS = 15_000;

export interface RedisServerOptions {
  flavour?: RedisFlavour;
  /** Default `always`: the profile that the broker asks for. */
  appendfsync?: 'always' | 'everysec' | 'no';
  /** Further lines of redis.conf; they win over the others. */
  args?: [name: string, ...words: string[]][];
}

/** A real server in a folder of its own, without a password, that dies with this process whatever happens to it. */
export interface RedisServer {
  url: string;
  port: number;
  /** The process as it is now: another one after `restart`. */
  readonly pid: number;
  dir: string;
  /** Sends a signal; when it is one that ends the process, returns when it has ended. Default SIGKILL. */
  kill(signal?: NodeJS.Signals): Promise<void>;
  /** Ends it if it runs (SIGKILL) and starts it again on the same port and files. Returns when it answers. */
  restart(): Promise<void>;
  /** Ends it and removes its folder. */
  stop(): Promise<void>;
}

/** An installed server, or one that was fetched: from the peers, by `npm start`, or now. */
export function findServer(flavour: RedisFlavour): Promise<RedisBinary> {
  return findRedisBinary({
    toolsDir: TOOLS,
    allowFetch: true,
    say: (line) => process.stderr.write(`${line}\n`),
    flavours: [flavour],
    path: [...(process.env['PATH'] ?? '').split(delimiter), join(PEERS, 'bin')],
  });
}

export async function startRedis({
  flavour = 'redis',
  appendfsync = 'always',
  args = [],
}: RedisServerOptions = {}): Promise<RedisServer> {
  const binary = await findServer(flavour);
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-redis-'));
  const endWatch = watch(dir);
  const port = await freePort();
  const launch = () => launchRedis({ binary, dir, port, settings: [['appendfsync', appendfsync], ...args] });
  let running: RedisProcess = await launch();
  const kill = async (signal: NodeJS.Signals = 'SIGKILL') => {
    running.child.kill(signal);
    if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') await running.gone;
  };
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    dir,
    get pid() {
      return running.pid;
    },
    kill,
    restart: async () => {
      await kill();
      running = await launch();
    },
    stop: async () => {
      await endWatch();
      await running.gone;
    },
  };
}

export interface RedisCluster {
  nodes: RedisServer[];
  /** One URL per node. */
  urls: string[];
  stop(): Promise<void>;
}

/** A real Cluster of `size` masters on loopback; it takes two seconds, so start it once per file. */
export async function startCluster(size = 3, options: RedisServerOptions = {}): Promise<RedisCluster> {
  const nodes = await Promise.all(
    Array.from({ length: size }, async () => {
      const busPort = await freePort();
      const node = await startRedis({
        ...options,
        args: [
          ['cluster-enabled', 'yes'],
          ['cluster-port', String(busPort)],
          ['cluster-node-timeout', '2000'],
          ...(options.args ?? []),
        ],
      });
      return { node, busPort, line: await RedisLine.open(node.port) };
    }),
  );
  const stop = async () => {
    await Promise.all(nodes.map(({ node }) => node.stop()));
  };
  try {
    const slots = 16_384;
    for (const [index, { line }] of nodes.entries()) {
      const first = Math.floor((slots * index) / size);
      const last = Math.floor((slots * (index + 1)) / size) - 1;
      await line.ask('CLUSTER', 'ADDSLOTSRANGE', String(first), String(last));
      await line.ask('CLUSTER', 'SET-CONFIG-EPOCH', String(index + 1));
    }
    for (const { node, busPort } of nodes.slice(1)) {
      await nodes[0]?.line.ask('CLUSTER', 'MEET', '127.0.0.1', String(node.port), String(busPort));
    }
    const deadlineMs = Date.now() + CLUSTER_TIMEOUT_MS;
    for (const { line } of nodes) {
      for (;;) {
        const info = await line.ask('CLUSTER', 'INFO');
        const isWhole = [`cluster_state:ok`, `cluster_known_nodes:${size}\r`, `cluster_size:${size}\r`];
        if (isWhole.every((text) => info.includes(text))) break;
        if (Date.now() > deadlineMs) throw new Error(`the cluster does not form: ${info}`);
        await delay(20);
      }
      line.close();
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { nodes: nodes.map(({ node }) => node), urls: nodes.map(({ node }) => node.url), stop };
}

/**
 * A shell that waits for the end of its input, which comes when we close it or when this process is gone, however it went; then it
 * kills whatever server works in the folder at that time and removes the folder.
 */
function watch(dir: string): () => Promise<void> {
  const script =
    'cat >/dev/null; [ -f "$1/redis.pid" ] && kill -9 "$(cat "$1/redis.pid")" 2>/dev/null; rm -rf "$1"; rm -rf "$1"';
  const shell = spawn('sh', ['-c', script, 'sh', dir], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  shell.unref();
  (shell.stdin as unknown as { unref(): void }).unref();
  return async () => {
    if (shell.exitCode !== null) return;
    shell.ref();
    const ended = once(shell, 'exit');
    shell.stdin.end();
    await ended;
  };
}
