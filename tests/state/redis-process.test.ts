import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import { launchRedis, RedisLine, RedisRefusal } from '../../src/main/dev/redis-process.js';
import { findServer, type RedisServer, startRedis } from './redis-servers.js';

let server: RedisServer;
let dir: string;
const strangers: Server[] = [];
beforeAll(async () => {
  server = await startRedis();
  dir = mkdtempSync(join(tmpdir(), 'mayfly-process-'));
});
afterAll(async () => {
  for (const stranger of strangers) stranger.close();
  rmSync(dir, { recursive: true, force: true });
  await server.stop();
});

/** Something that listens and answers every connection with these bytes, in pieces. */
async function stranger(...pieces: string[]): Promise<number> {
  const listening = createServer(async (socket) => {
    socket.on('error', () => {});
    for (const piece of pieces) await new Promise((resolve) => socket.write(piece, resolve));
  });
  strangers.push(listening);
  await new Promise<void>((resolve) => listening.listen(0, '127.0.0.1', resolve));
  return (listening.address() as { port: number }).port;
}

describe('a server that does not start says why in one line', () => {
  const launch = async (request: Partial<Parameters<typeof launchRedis>[0]>) =>
    launchRedis({ binary: await findServer('redis'), dir, port: await freePort(), ...request });

  it.each([
    [
      'its port is taken by another Redis',
      () => ({ port: server.port }),
      /^Warning: Could not create .*Address already in use$/,
    ],
    [
      'a setting is unknown',
      () => ({ settings: [['nonsense', 'x'] as [string, string]] }),
      /^Bad directive or wrong number of arguments$/,
    ],
    [
      'its program is missing',
      () => ({ binary: { flavour: 'redis' as const, version: '', command: '/nowhere/redis', env: {} } }),
      /^spawn \/nowhere\/redis ENOENT$/,
    ],
  ])('%s', async (_, request, line) => {
    await expect(launch(request())).rejects.toThrow(line);
  });
});

describe('a line to Redis', () => {
  it('reads every kind of reply, however it arrives', async () => {
    const line = await RedisLine.open(server.port);
    expect(await line.ask('SET', 'key', 'two\r\nlines: é')).toBe('OK');
    expect(Buffer.from(await line.ask('GET', 'key'), 'latin1').toString()).toBe('two\r\nlines: é');
    expect(await line.ask('GET', 'none')).toBe('');
    expect(await line.ask('STRLEN', 'key')).toBe('14');
    const long = 'x'.repeat(200_000);
    await line.ask('SET', 'long', long);
    expect(await line.ask('GET', 'long')).toBe(long);
    await expect(line.ask('NONSENSE')).rejects.toThrow(RedisRefusal);
    expect(await line.ask('PING')).toBe('PONG');
    line.close();
    await expect(line.ask('PING')).rejects.toThrow('closed');
  });

  it('fails when the other side hangs up in the middle', async () => {
    const line = await RedisLine.open(server.port);
    await expect(line.ask('QUIT')).resolves.toBe('OK');
    await expect(line.ask('PING')).rejects.toThrow();
  });

  it('puts a reply together from its pieces', async () => {
    const line = await RedisLine.open(await stranger('$', '5\r', '\nhe', 'llo', '\r\n'));
    expect(await line.ask('GET', 'x')).toBe('hello');
    line.close();
  });

  it('gives up on a reply without end', async () => {
    const line = await RedisLine.open(await stranger(`$9999999\r\n${'x'.repeat(2 << 20)}`));
    await expect(line.ask('GET', 'x')).rejects.toThrow(/too long/);
  });

  it('gives up on a server that says nothing', async () => {
    const line = await RedisLine.open(await stranger());
    await expect(line.ask('PING')).rejects.toThrow('does not answer');
  });

  it('asks one thing at a time', async () => {
    const line = await RedisLine.open(server.port);
    const first = line.ask('PING');
    await expect(line.ask('PING')).rejects.toThrow('one question at a time');
    expect(await first).toBe('PONG');
    line.close();
  });
});
