import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { transformFileSync } from '@swc/core';
import { type EmbeddedRedis, startEmbeddedRedis } from '../../src/main/dev/embedded-redis.js';
import { RedisLine } from '../../src/main/dev/redis-process.js';

const SRC = join(import.meta.dirname, '../../src');

let dataDir: string;
const running: EmbeddedRedis[] = [];
const children: ChildProcess[] = [];

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'mayfly-embedded-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  for (const redis of running.splice(0)) await redis.stop();
  const pid = serverPid();
  if (pid && isAlive(pid)) process.kill(pid, 'SIGKILL');
  rmSync(dataDir, { recursive: true, force: true });
});

async function start(folder = dataDir): Promise<EmbeddedRedis> {
  const redis = await startEmbeddedRedis({ dataDir: folder, allowFetch: true, say: () => {} });
  running.push(redis);
  return redis;
}

async function ask(url: string, ...command: string[]): Promise<string> {
  const { port, password } = new URL(url);
  const line = await RedisLine.open(Number(port), password);
  try {
    return await line.ask(...command);
  } finally {
    line.close();
  }
}

function serverPid(): number | undefined {
  const file = join(dataDir, 'redis/redis.pid');
  return existsSync(file) ? Number(readFileSync(file, 'utf8')) : undefined;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie waits for its parent to look, and is as dead as can be.
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' && process.platform !== 'linux';
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadlineMs = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error(`never: ${what}`);
    await delay(10);
  }
}

/** A `mayfly dev` reduced to its Redis, in a process of its own that can be killed. Prints its URL. */
async function startElsewhere(body = ''): Promise<{ child: ChildProcess; url: string }> {
  const code = join(dataDir, 'code');
  for (const file of [
    'core/errors',
    ...readdirSync(join(SRC, 'main/dev')).map((name) => `main/dev/${name.slice(0, -3)}`),
  ]) {
    const target = join(code, `${file}.js`);
    mkdirSync(dirname(target), { recursive: true });
    const options = { jsc: { target: 'es2022', parser: { syntax: 'typescript' } } } as const;
    writeFileSync(target, transformFileSync(join(SRC, `${file}.ts`), options).code);
  }
  writeFileSync(join(code, 'package.json'), '{"type": "module"}');
  writeFileSync(
    join(code, 'main.js'),
    `import { startEmbeddedRedis } from './main/dev/embedded-redis.js';
     const redis = await startEmbeddedRedis({ dataDir: ${JSON.stringify(dataDir)}, allowFetch: true, say: () => {} });
     console.log(redis.url);
     ${body}
     setInterval(() => {}, 1_000);`,
  );
  const child = spawn(process.execPath, [join(code, 'main.js')], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const [printed] = (await once(child.stdout as NodeJS.ReadableStream, 'data')) as [Buffer];
  return { child, url: printed.toString().trim() };
}

describe('a start', () => {
  it('gives a server with the profile that the broker asks for, answering only after each write is on the disk', async () => {
    const { url, version, adopted } = await start();
    expect(url).toMatch(/^redis:\/\/:[A-Za-z0-9_-]{32}@127\.0\.0\.1:\d+$/);
    expect(version).toMatch(/^(Redis [7-9]|Valkey ([89]|7\.[2-9]))/);
    expect(adopted).toBe(false);
    expect(await ask(url, 'INFO', 'persistence')).toContain('aof_enabled:1');
    expect(await ask(url, 'INFO', 'memory')).toContain('maxmemory_policy:noeviction');
    expect(readFileSync(join(dataDir, 'redis/redis.conf'), 'utf8')).toContain('appendfsync "always"');
  });

  it('is private: folder 0700, files with the password 0600, no password in argv, none let in without it', async () => {
    const { url } = await start();
    const { port, password } = new URL(url);
    expect(statSync(join(dataDir, 'redis')).mode & 0o777).toBe(0o700);
    for (const file of ['redis.conf', 'runtime.json']) {
      expect([file, statSync(join(dataDir, 'redis', file)).mode & 0o777]).toEqual([file, 0o600]);
    }
    expect(spawnSync('ps', ['-o', 'args=', '-p', String(serverPid())], { encoding: 'utf8' }).stdout).not.toContain(
      password,
    );
    const stranger = await RedisLine.open(Number(port));
    await expect(stranger.ask('PING')).rejects.toThrow('NOAUTH');
    stranger.close();
    await expect(RedisLine.open(Number(port), 'guess')).rejects.toThrow('WRONGPASS');
  });

  it('listens on loopback only', async () => {
    const { url } = await start();
    expect(await ask(url, 'CONFIG', 'GET', 'bind')).toBe('2');
    expect(readFileSync(join(dataDir, 'redis/redis.conf'), 'utf8')).toMatch(/^bind "127\.0\.0\.1"$/m);
  });

  it('works in a folder with spaces and quotes in its name', async () => {
    const { url } = await start(join(dataDir, 'a "strange"  folder\\'));
    expect(await ask(url, 'PING')).toBe('PONG');
  });

  it('finds the data of the last one, under a new password', async () => {
    const first = await start();
    await ask(first.url, 'SET', 'lease', 'live');
    await first.stop();
    const second = await start();
    expect(second.adopted).toBe(false);
    expect(second.url).not.toBe(first.url);
    expect(await ask(second.url, 'GET', 'lease')).toBe('live');
  });
});

describe('a stop', () => {
  it('ends the server and forgets how to reach it; a second one changes nothing', async () => {
    const redis = await start();
    const pid = serverPid() as number;
    await redis.stop();
    await redis.stop();
    expect(isAlive(pid)).toBe(false);
    expect(existsSync(join(dataDir, 'redis/runtime.json'))).toBe(false);
    await expect(ask(redis.url, 'PING')).rejects.toThrow();
  });

  it('leaves no listener on the process behind', async () => {
    const before = ['exit', 'SIGINT', 'SIGTERM', 'SIGHUP'].map((name) => process.listenerCount(name));
    await (await start()).stop();
    expect(['exit', 'SIGINT', 'SIGTERM', 'SIGHUP'].map((name) => process.listenerCount(name))).toEqual(before);
  });
});

describe('when the process that started it', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('is ended by %s, the server ends with it', async (signal) => {
    const { child } = await startElsewhere();
    const pid = serverPid() as number;
    child.kill(signal);
    const [code, endedBy] = await once(child, 'exit');
    expect([code, endedBy]).toEqual([null, signal]);
    await until('the server is gone', () => !isAlive(pid));
  });

  it('exits, the server ends with it', async () => {
    const { child } = await startElsewhere('setTimeout(() => process.exit(3), 50);');
    const pid = serverPid() as number;
    expect((await once(child, 'exit'))[0]).toBe(3);
    await until('the server is gone', () => !isAlive(pid));
  });

  it('handles a signal itself, the server waits for it to finish', async () => {
    const { child, url } = await startElsewhere(
      "process.on('SIGTERM', () => { console.log('draining'); setTimeout(() => process.exit(0), 60_000); });",
    );
    child.kill('SIGTERM');
    await once(child.stdout as NodeJS.ReadableStream, 'data');
    expect(await ask(url, 'PING')).toBe('PONG');
  });

  it('is killed outright, the server lives on, and the next start takes it over with all its data', async () => {
    const { child, url } = await startElsewhere();
    await ask(url, 'SET', 'lease', 'live');
    const pid = serverPid();
    child.kill('SIGKILL');
    await once(child, 'exit');
    const heir = await start();
    expect(heir).toMatchObject({ adopted: true, url });
    expect(serverPid()).toBe(pid);
    expect(await ask(heir.url, 'GET', 'lease')).toBe('live');
    await heir.stop();
    await until('the server is gone', () => !isAlive(pid as number));
  });

  it('and its server are both killed, the next start finds the data again', async () => {
    const { child, url } = await startElsewhere();
    await ask(url, 'SET', 'lease', 'live');
    const pid = serverPid() as number;
    child.kill('SIGKILL');
    process.kill(pid, 'SIGKILL');
    await until('the server is gone', () => !isAlive(pid));
    const next = await start();
    expect(next.adopted).toBe(false);
    expect(await ask(next.url, 'GET', 'lease')).toBe('live');
  });
});

describe('one folder, one owner, one server', () => {
  const refused = (line: RegExp) =>
    expect.objectContaining({ code: 'unavailable', message: expect.stringMatching(line) });

  it('a second start on a folder in use is refused, and does the first no harm', async () => {
    const { url } = await start();
    await expect(start()).rejects.toEqual(refused(/^Another mayfly dev is running on [^\n]*--data\.$/));
    expect(await ask(url, 'PING')).toBe('PONG');
  });

  it('of several starts at once exactly one gets the folder', async () => {
    const results = await Promise.allSettled([1, 2, 3, 4].map(() => start()));
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(readdirSync(join(dataDir, 'redis')).filter((name) => name.startsWith('appendonly'))).toHaveLength(1);
  });

  it('a start that was killed in its turn holds nobody up', async () => {
    mkdirSync(join(dataDir, 'redis'), { mode: 0o700 });
    const gone = spawnSync('true');
    writeFileSync(join(dataDir, 'redis/starting'), String(gone.pid));
    expect((await start()).adopted).toBe(false);
  });

  it('a live server that does not answer is never passed by', async () => {
    const { child } = await startElsewhere();
    const pid = serverPid() as number;
    process.kill(pid, 'SIGSTOP');
    child.kill('SIGKILL');
    await once(child, 'exit');
    await expect(start()).rejects.toEqual(refused(new RegExp(`\\(pid ${pid}\\) does not answer .*kill -9 ${pid}\\.$`)));
  }, 30_000);

  it('a live server whose address was lost is never passed by', async () => {
    const { child } = await startElsewhere();
    const pid = serverPid() as number;
    child.kill('SIGKILL');
    await once(child, 'exit');
    rmSync(join(dataDir, 'redis/runtime.json'));
    await expect(start()).rejects.toEqual(refused(new RegExp(`pid ${pid}\\) already works on .*kill ${pid}\\.$`)));
  });

  it('whoever has the old port now is not taken for our server, and is not told the password twice', async () => {
    const asked: string[] = [];
    const stranger = createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (data) => {
        asked.push(data.toString());
        socket.end('-ERR who are you\r\n');
      });
    });
    await new Promise<void>((resolve) => stranger.listen(0, '127.0.0.1', resolve));
    const { port } = stranger.address() as { port: number };
    mkdirSync(join(dataDir, 'redis'), { mode: 0o700 });
    writeFileSync(join(dataDir, 'redis/runtime.json'), JSON.stringify({ port, password: 'old' }));
    const redis = await start();
    expect(redis.adopted).toBe(false);
    expect(new URL(redis.url).password).not.toBe('old');
    expect(asked).toHaveLength(1);
    await new Promise((resolve) => stranger.close(resolve));
  });
});

describe('what goes wrong is one clear line', () => {
  it('a folder that cannot be written', async () => {
    writeFileSync(join(dataDir, 'file'), '');
    await expect(start(join(dataDir, 'file'))).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^The folder .* cannot be written \(ENOTDIR\): [^\n]*--data\.$/),
    });
  });

  it('files that are not those of a Redis', async () => {
    const redis = await start();
    await redis.stop();
    const folder = join(dataDir, 'redis/appendonlydir');
    for (const name of readdirSync(folder)) writeFileSync(join(folder, name), 'this is something else\n');
    await expect(start()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^The embedded Redis \(.*\) does not start: Invalid AOF manifest file format$/),
      detail: { hint: expect.stringContaining('redis.log') },
    });
  });
});
