import { existsSync } from 'node:fs';
import { RedisLine } from '../../src/main/dev/redis-process.js';
import { type RedisServer, startCluster, startRedis } from './redis-servers.js';

describe.each(['redis', 'valkey'] as const)('%s', (flavour) => {
  let server: RedisServer;
  beforeAll(async () => {
    server = await startRedis({ flavour });
  });
  afterAll(() => server.stop());

  const ask = async (...command: string[]) => {
    const line = await RedisLine.open(server.port);
    try {
      return await line.ask(...command);
    } finally {
      line.close();
    }
  };

  it('an answered write survives kill -9 and a restart', async () => {
    await ask('SET', 'here', 'still');
    const before = server.pid;
    await server.kill('SIGKILL');
    await expect(ask('GET', 'here')).rejects.toThrow();
    await server.restart();
    expect(server.pid).not.toBe(before);
    expect(await ask('GET', 'here')).toBe('still');
  });

  it('has the profile that the broker asks for', async () => {
    expect(await ask('INFO', 'persistence')).toContain('aof_enabled:1');
    expect(await ask('INFO', 'memory')).toContain('maxmemory_policy:noeviction');
  });

  it('leaves nothing behind when it is stopped, even while it is frozen', async () => {
    const frozen = await startRedis({ flavour, appendfsync: 'no' });
    await frozen.kill('SIGSTOP');
    await frozen.stop();
    expect(existsSync(frozen.dir)).toBe(false);
    await expect(RedisLine.open(frozen.port)).rejects.toThrow();
  });
});

it('a cluster of three takes writes on every node and sends a key to its owner', async () => {
  const cluster = await startCluster(3);
  try {
    const replies: string[] = [];
    for (const node of cluster.nodes) {
      const line = await RedisLine.open(node.port);
      replies.push(await line.ask('SET', '{a}key', '1').catch((error: Error) => error.message));
      line.close();
    }
    expect(replies.filter((reply) => reply === 'OK')).toHaveLength(1);
    expect(replies.filter((reply) => reply.startsWith('MOVED 15495 127.0.0.1:'))).toHaveLength(2);
  } finally {
    await cluster.stop();
  }
});
