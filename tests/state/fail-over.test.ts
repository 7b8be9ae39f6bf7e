import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { epochOf } from '../../src/core/position.js';
import { freePort } from '../../src/main/dev/free-port.js';
import { findServer, type RedisCluster, type RedisServer, startCluster, startRedis } from './redis-servers.js';
import { OPENER, openWorld, type World } from './world.js';

const WAIT_MS = 40_000;

async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS;
  while (performance.now() < deadline) {
    if (await Promise.resolve(isSo()).catch(() => false)) return;
    await delay(50);
  }
  throw new Error(`not so: ${what}`);
}

const isOpen = (world: World) => world.health.grantsClosed() === undefined;
const end = (world: World, taskId: string) =>
  world.ledger.endTask({
    taskId,
    state: 'completed',
    reason: '',
    by: OPENER,
    nowMs: world.clock.now(),
    audit: world.audit('task.ended', { task: taskId }),
  });

describe('a master behind Sentinel that dies', () => {
  let master: RedisServer;
  let replica: RedisServer;
  let sentinel: ChildProcess;
  let dir: string;
  let url: string;

  beforeAll(async () => {
    master = await startRedis();
    replica = await startRedis({
      args: [
        ['replicaof', '127.0.0.1', String(master.port)],
        ['repl-diskless-sync-delay', '0'],
      ],
    });
    dir = mkdtempSync(join(tmpdir(), 'mayfly-sentinel-'));
    const port = await freePort();
    writeFileSync(
      join(dir, 'sentinel.conf'),
      [
        `port ${port}`,
        `dir ${dir}`,
        `sentinel monitor cell 127.0.0.1 ${master.port} 1`,
        'sentinel down-after-milliseconds cell 500',
        'sentinel failover-timeout cell 5000',
        '',
      ].join('\n'),
    );
    const { command, env } = await findServer('redis');
    sentinel = spawn(command, [join(dir, 'sentinel.conf'), '--sentinel'], {
      env: { ...process.env, ...env },
      stdio: 'ignore',
    });
    url = `redis+sentinel://127.0.0.1:${port}/cell`;
    const raw = new Redis(replica.url);
    const asked = new Redis({ port, retryStrategy: () => 50, maxRetriesPerRequest: null });
    asked.on('error', () => {});
    await until('the replica follows', async () => (await raw.info('replication')).includes('master_link_status:up'));
    await until('the sentinel knows the replica', async () =>
      String(await asked.call('SENTINEL', 'REPLICAS', 'cell')).includes(String(replica.port)),
    );
    raw.disconnect();
    asked.disconnect();
  }, 60_000);
  afterAll(async () => {
    sentinel.kill('SIGKILL');
    await Promise.all([master.stop(), replica.stop()]);
    rmSync(dir, { recursive: true, force: true });
  });

  it('is followed to the new one in a new epoch: nothing decided before counts, what was acknowledged holds, grants go on', async () => {
    const world = await openWorld({ url });
    try {
      const task = await world.openTask();
      const other = await world.openTask();
      const lease = await world.tokenFor(other);
      expect(await end(world, task.id)).toMatchObject({ outcome: 'ended' });
      await master.kill();
      await until(
        'grants are open in a new epoch',
        async () => isOpen(world) && epochOf(await world.feed.head()) > epochOf(lease.position),
      );
      expect(await world.views.task(task.id)).toMatchObject({ state: 'completed' });
      expect(await world.mint(other, { position: lease.position })).toEqual({ outcome: 'stale', because: 'epoch' });
      expect(await world.mint(other)).toEqual({ outcome: 'committed' });
      const { position } = (await end(world, other.id)) as { position: string };
      await world.feed.reached(position, 3_000);
    } finally {
      await world.close();
    }
  }, 90_000);
});

describe('a slot that moves to another node of a Cluster', () => {
  let cluster: RedisCluster;
  let nodes: Redis[];
  beforeAll(async () => {
    cluster = await startCluster(3);
    nodes = cluster.urls.map((url) => new Redis(url));
  }, 60_000);
  afterAll(async () => {
    for (const node of nodes) node.disconnect();
    await cluster.stop();
  });

  it('is taken for another process: calls under way are refused or done, never half, and then all of the cell is there', async () => {
    const cell = 'moving';
    const world = await openWorld({ url: cluster.urls, cell });
    try {
      const task = await world.openTask();
      const [first] = nodes as [Redis];
      const slot = Number(await first.cluster('KEYSLOT', `{mayfly:${cell}}:cell`));
      const sizes = await Promise.all(nodes.map((node) => node.cluster('COUNTKEYSINSLOT', slot)));
      const from = sizes.indexOf(Math.max(...sizes.map(Number)) as never);
      const to = (from + 1) % nodes.length;
      const [source, target] = [nodes[from] as Redis, nodes[to] as Redis];
      const [sourceId, targetId] = await Promise.all([source.cluster('MYID'), target.cluster('MYID')]);
      const outcomes = new Set<string>();
      let moving = true;
      const load = (async () => {
        while (moving) {
          const outcome = await world.mint(task).then(
            (reply) => reply.outcome,
            (error: { code?: string }) => error.code ?? String(error),
          );
          outcomes.add(outcome);
          await delay(1);
        }
      })();
      await target.cluster('SETSLOT', slot, 'IMPORTING', sourceId as never);
      await source.cluster('SETSLOT', slot, 'MIGRATING', targetId as never);
      for (;;) {
        const keys = (await source.cluster('GETKEYSINSLOT', slot, 2)) as string[];
        if (keys.length === 0) break;
        await source.migrate('127.0.0.1', cluster.nodes[to]?.port as number, '', 0, 2_000, 'KEYS', ...keys);
      }
      for (const node of [target, source, ...nodes]) await node.cluster('SETSLOT', slot, 'NODE', targetId as never);
      await until('the new node was compared with what is known, and grants are open', () => {
        const looked = world.events.filter(({ event }) => event === 'state.epoch');
        return looked.length > 1 && isOpen(world);
      });
      moving = false;
      await load;
      expect(
        [...outcomes].filter((outcome) => !['committed', 'unavailable', 'stale', 'quota'].includes(outcome)),
      ).toEqual([]);
      expect(await world.views.task(task.id)).toMatchObject({ id: task.id, state: 'active' });
      const leases = new Set<string>();
      let cursor: string | undefined;
      do {
        const page = await world.views.leases({ task: task.id, limit: 500, ...(cursor !== undefined && { cursor }) });
        for (const lease of page.items) leases.add(lease.id);
        cursor = page.cursor;
      } while (cursor !== undefined);
      const written = (await world.auditLog.read({ type: 'token.minted', limit: 500 })).items;
      expect(new Set(written.map((record) => record.lease))).toEqual(leases);
      const fresh = await world.openTask();
      expect(await world.mint(fresh, { agent: 'spiffe://dev.mayfly/agent/fresh' })).toEqual({ outcome: 'committed' });
    } finally {
      await world.close();
    }
  }, 90_000);
});
