import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { newId } from '../../src/core/ids.js';
import { type RedisServer, startRedis } from './redis-servers.js';
import { newCell, openWorld, type World } from './world.js';

describe('the audit log', () => {
  let redis: RedisServer;
  let raw: Redis;
  let world: World;
  let cell: string;
  let dataDir: string;

  beforeAll(async () => {
    redis = await startRedis();
    raw = new Redis(redis.url);
  });
  afterAll(async () => {
    raw.disconnect();
    await redis.stop();
  });
  beforeEach(async () => {
    cell = newCell();
    dataDir = mkdtempSync(join(tmpdir(), 'mayfly-audit-'));
    world = await openWorld({ url: redis.url, cell, dataDir, keep: true });
  });
  afterEach(async () => {
    await world.close();
    rmSync(dataDir, { recursive: true, force: true });
  });

  const filesIn = () => readdirSync(join(dataDir, 'audit', cell)).sort();
  const linesIn = () =>
    filesIn().flatMap((name) =>
      readFileSync(join(dataDir, 'audit', cell, name), 'utf8')
        .trim()
        .split('\n'),
    );
  const note = async (count: number, more: object = {}) => {
    const ids: string[] = [];
    for (let at = 0; at < count; at++) {
      const record = world.audit('request.refused', more);
      await world.ledger.note(record);
      ids.push(record.id);
    }
    return ids;
  };
  const inRedis = () => raw.xlen(`{mayfly:${cell}}:audit`);
  const readAll = async (filter: object, limit = 3) => {
    const ids: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await world.auditLog.read({ ...filter, limit, ...(cursor !== undefined && { cursor }) });
      ids.push(...page.items.map(({ id }) => id));
      cursor = page.cursor;
    } while (cursor !== undefined);
    return ids;
  };

  it('a record is there with its change, and carries the position after it', async () => {
    const task = await world.openTask();
    await world.mint(task);
    const audit = world.audit('task.ended', { task: task.id });
    const ended = await world.ledger.endTask({
      taskId: task.id,
      state: 'completed',
      reason: '',
      by: 'x',
      nowMs: world.clock.now(),
      audit,
    });
    expect(await world.auditLog.find(audit.id)).toEqual({ ...audit, pos: (ended as { position: string }).position });
  });

  it('what is moved leaves Redis only when it is in a file, and reads as before', async () => {
    const ids = await note(7, { task: 'tsk_x' });
    const before = await readAll({});
    expect(before.slice(0, 7)).toEqual([...ids].reverse());
    expect(await world.auditLog.move()).toBe(before.length);
    expect(await inRedis()).toBe(0);
    expect(linesIn()).toHaveLength(before.length);
    expect(await readAll({})).toEqual(before);
    expect(await world.auditLog.find(ids[0] as string)).toMatchObject({ id: ids[0], task: 'tsk_x' });
    expect(await world.auditLog.move()).toBe(0);
  });

  it('reads across Redis and files without a gap or a repetition, whatever the page', async () => {
    const ids: string[] = [];
    for (let round = 0; round < 4; round++) {
      ids.push(...(await note(5, { task: `tsk_${round % 2}` })));
      if (round < 3) await world.auditLog.move();
    }
    for (const limit of [1, 4, 500]) {
      const all = await readAll({ type: 'request.refused' }, limit);
      expect(all).toEqual([...ids].reverse());
      const odd = [...ids.slice(5, 10), ...ids.slice(15)];
      expect(await readAll({ task: 'tsk_1' }, limit)).toEqual(odd.reverse());
    }
    expect(await readAll({ task: 'tsk_none' })).toEqual([]);
  });

  it('filters by who, what, which and when', async () => {
    const [one] = await note(1, { lease: 'lse_1', actor: { workload: 'spiffe://d/agent/one' } });
    world.clock.pass(10_000);
    const [two] = await note(1, { lease: 'lse_2', actor: { workload: 'spiffe://d/agent/two' } });
    expect(await readAll({ lease: 'lse_1' })).toEqual([one]);
    expect(await readAll({ agent: 'spiffe://d/agent/two' })).toEqual([two]);
    expect(await readAll({ type: 'request.refused', fromMs: world.clock.now() })).toEqual([two]);
    expect(await readAll({ type: 'request.refused', toMs: world.clock.now() })).toEqual([one]);
  });

  it('after a crash between file and trim nothing is written twice', async () => {
    await note(3);
    await world.auditLog.move();
    const ids = await note(3);
    const [name] = filesIn();
    // The crash: the records are in the file, Redis was not told.
    const entries = (await raw.xrange(`{mayfly:${cell}}:audit`, '-', '+')) as [string, string[]][];
    const written = entries.map(([at, fields]) => JSON.stringify({ at, record: JSON.parse(fields[1] as string) }));
    appendFileSync(join(dataDir, 'audit', cell, name as string), `${written.slice(0, 2).join('\n')}\n{"at":"17`);
    await world.close();
    world = await openWorld({ url: redis.url, cell, dataDir, keep: true, clock: world.clock });
    await world.auditLog.move();
    expect(await inRedis()).toBe(0);
    const all = await readAll({ type: 'request.refused' });
    expect(all.slice(0, 3)).toEqual([...ids].reverse());
    expect(new Set(all).size).toBe(all.length);
  });

  it('one worker moves at a time, and the next takes over', async () => {
    const otherDir = mkdtempSync(join(tmpdir(), 'mayfly-audit-'));
    await note(2);
    expect(await world.auditLog.move()).toBeGreaterThan(0);
    const other = await openWorld({ url: redis.url, cell, dataDir: otherDir, clock: world.clock });
    await note(2);
    expect(await other.auditLog.move()).toBe(0);
    await world.close();
    expect(await other.auditLog.move()).toBe(2);
    await other.close();
  });

  it('trimming is no loss: the epoch stays', async () => {
    await note(2);
    const before = world.feed.position();
    await world.auditLog.move();
    await world.close();
    world = await openWorld({ url: redis.url, cell, dataDir, keep: true, clock: world.clock });
    expect(world.feed.position()).toBe(before);
  });

  it('files older than what is kept are removed, never the newest', async () => {
    await note(1);
    await world.auditLog.move();
    const [own] = filesIn();
    for (const ms of ['000000000001000', '000000000002000']) {
      writeFileSync(join(dataDir, 'audit', cell, `audit-${ms}-0.ndjson`), '');
    }
    await note(1);
    await world.auditLog.move();
    expect(filesIn()).toEqual(['audit-000000000002000-0.ndjson', own]);
  });

  it('a record that was never written is not found', async () => {
    expect(await world.auditLog.find(newId('dec', cell, world.clock.now()))).toBeUndefined();
  });

  it('a backlog that is too old closes grants, and moving it opens them', async () => {
    await world.close();
    world = await openWorld({
      url: redis.url,
      cell,
      dataDir,
      keep: true,
      clock: world.clock,
      limits: { auditBacklogMsMax: -1 },
    });
    await note(1);
    await world.health.check();
    expect(world.health.grantsClosed()).toMatch(/audit backlog/);
    await expect(world.openTask()).rejects.toMatchObject({ code: 'unavailable' });
  });
});
