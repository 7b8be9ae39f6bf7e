import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { jest } from '@jest/globals';
import { findRedisBinary, type RedisFlavour, type RedisSearch } from '../../../../src/main/dev/redis-binary.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'mayfly-binary-'));
});
afterEach(() => {
  jest.restoreAllMocks();
  rmSync(root, { recursive: true, force: true });
});

/** A make-believe server that answers `--version`. */
function install(path: string, says: string, mode = 0o755): string {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `#!/bin/sh\necho '${says}'\n`, { mode });
  return file;
}

function find(search: Partial<RedisSearch> = {}) {
  return findRedisBinary({
    toolsDir: join(root, 'tools'),
    allowFetch: false,
    say: () => {},
    path: [join(root, 'missing'), join(root, 'bin'), join(root, 'more')],
    ...search,
  });
}

const none = expect.objectContaining({
  code: 'unavailable',
  message: expect.stringMatching(/^There is no Redis to run on[^\n]*MAYFLY_REDIS_URL\.$/),
});

describe('an installed server', () => {
  it.each([
    ['redis', 'Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1', '7.0.15'],
    ['redis', 'Redis server v=8.2.1 sha=00000000:0', '8.2.1'],
    ['valkey', 'Valkey server v=7.2.5 sha=00000000:0', '7.2.5'],
    ['valkey', 'Valkey server v=10.0.0 sha=00000000:0', '10.0.0'],
  ])('%s is taken when it says %j', async (flavour, says, version) => {
    const command = install(`bin/${flavour}-server`, says);
    expect(await find()).toEqual({ flavour, version, command, env: {} });
  });

  it.each([
    ['too old a Redis', 'redis', 'Redis server v=6.2.14 sha=00000000:0'],
    ['too old a Valkey', 'valkey', 'Valkey server v=7.1.9 sha=00000000:0'],
    ['a Valkey under the name of Redis', 'redis', 'Valkey server v=9.1.2 sha=00000000:0'],
    ['something else', 'redis', 'KeyDB server v=6.3.4 sha=00000000:0'],
    ['something that says nothing', 'redis', ''],
  ])('%s is passed by', async (_, flavour, says) => {
    install(`bin/${flavour}-server`, says);
    await expect(find()).rejects.toEqual(none);
  });

  it('that cannot be executed is passed by, and a later folder is looked into', async () => {
    install('bin/redis-server', 'Redis server v=7.4.0 sha=0', 0o644);
    const command = install('more/redis-server', 'Redis server v=7.2.0 sha=0');
    expect(await find()).toMatchObject({ command });
  });

  it('is Valkey where both are, and whichever is asked for', async () => {
    install('bin/redis-server', 'Redis server v=7.4.0 sha=0');
    install('bin/valkey-server', 'Valkey server v=9.1.2 sha=0');
    expect((await find()).flavour).toBe('valkey');
    for (const flavour of ['redis', 'valkey'] as RedisFlavour[]) {
      expect((await find({ flavours: [flavour] })).flavour).toBe(flavour);
    }
  });
});

describe('a search that is told to stop', () => {
  it('ends at once, and fetches from nowhere else', async () => {
    const stopping = new AbortController();
    const lines: string[] = [];
    const say = (line: string) => {
      lines.push(line);
      stopping.abort(new Error('stopped'));
    };
    jest.spyOn(globalThis, 'fetch').mockImplementation(async (_, init) => {
      init?.signal?.throwIfAborted();
      throw new Error('nothing is fetched in this test');
    });
    await expect(find({ allowFetch: true, say, signal: stopping.signal })).rejects.toThrow('stopped');
    expect(lines).toHaveLength(1);
    expect(readdirSync(join(root, 'tools'))).toEqual([]);
  });
});

describe('a server that was unpacked by an earlier start', () => {
  it('is taken without fetching, with its libraries', async () => {
    const command = install('tools/redis/usr/bin/redis-server', 'Redis server v=7.0.15 sha=0');
    mkdirSync(join(root, 'tools/redis/usr/lib/x86_64-linux-gnu'), { recursive: true });
    const found = await find({ allowFetch: true });
    expect(found).toMatchObject({ flavour: 'redis', command });
    expect(found.env['LD_LIBRARY_PATH']?.split(':')).toEqual(
      expect.arrayContaining([join(root, 'tools/redis/usr/lib'), join(root, 'tools/redis/usr/lib/x86_64-linux-gnu')]),
    );
  });

  it('comes after an installed one', async () => {
    install('tools/redis/usr/bin/redis-server', 'Redis server v=7.0.15 sha=0');
    const command = install('bin/redis-server', 'Redis server v=7.0.1 sha=0');
    expect(await find()).toMatchObject({ command });
  });
});

describe('with no server here', () => {
  it('nothing is fetched unless it is allowed, and the line says what to do', async () => {
    const fetch = jest.spyOn(globalThis, 'fetch');
    await expect(find()).rejects.toThrow(/apt-get install redis-server, brew install valkey.*allow fetching/);
    expect(fetch).not.toHaveBeenCalled();
    expect(readdirSync(root)).toEqual([]);
  });

  it.each([
    ['other bytes than the pinned ones', async () => new Response('something else'), /is not the pinned one/],
    ['an error status', async () => new Response('', { status: 404 }), /cannot be reached: status 404/],
    [
      'no network',
      async () => {
        throw new TypeError('fetch failed', { cause: new Error('getaddrinfo ENOTFOUND') });
      },
      /cannot be reached: getaddrinfo ENOTFOUND/,
    ],
  ])('a fetch that gives %s is one line, and leaves nothing behind', async (_, reply, line) => {
    jest.spyOn(globalThis, 'fetch').mockImplementation(reply as typeof fetch);
    const said: string[] = [];
    const finding = find({ allowFetch: true, flavours: ['valkey'], say: (text) => said.push(text) });
    await expect(finding).rejects.toEqual(none);
    await expect(finding).rejects.toThrow(line);
    expect(said).toEqual([expect.stringMatching(/^fetching Valkey .*once\)$/)]);
    expect(readdirSync(join(root, 'tools'))).toEqual([]);
  });
});
