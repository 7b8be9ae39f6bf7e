import { profileLines } from '../../../src/state/health.js';
import { MemoryTrend } from '../../../src/state/memory-trend.js';

const GOOD = { redis_version: '7.0.15', aof_enabled: '1', maxmemory_policy: 'noeviction' };
const bad = (info: Record<string, string>, fsync: string | undefined = 'always') =>
  profileLines(new Map(Object.entries(info)), fsync)
    .filter(({ ok }) => !ok)
    .map(({ name }) => name);

describe('the profile of a store', () => {
  it.each(['7.0.0', '7.2.4', '8.0.1', '10.0.0'])('Redis %s will do', (version) => {
    expect(bad({ ...GOOD, redis_version: version })).toEqual([]);
  });

  it.each(['6.2.14', '5.0.0', '0', '', 'unknown'])('Redis %j will not', (version) => {
    expect(bad({ ...GOOD, redis_version: version })).toEqual(['redis version']);
  });

  it('Valkey is asked for its own version: it calls itself Redis 7.2', () => {
    expect(bad({ ...GOOD, redis_version: '7.2.4', valkey_version: '9.1.2' })).toEqual([]);
    expect(bad({ ...GOOD, redis_version: '7.2.4', valkey_version: '7.1.0' })).toEqual(['redis version']);
  });

  it.each([
    [{ ...GOOD, aof_enabled: '0' }, ['redis persistence']],
    [{ redis_version: '7.0.0', maxmemory_policy: 'noeviction' }, ['redis persistence']],
    [{ ...GOOD, maxmemory_policy: 'volatile-ttl' }, ['redis eviction']],
    [{ redis_version: '7.0.0', aof_enabled: '1' }, ['redis eviction']],
    [{}, ['redis version', 'redis persistence', 'redis eviction']],
  ])('%j will not', (info, lines) => {
    expect(bad(info as Record<string, string>)).toEqual(lines);
  });

  it.each(['everysec', 'no', undefined])('syncing %s is told, with what it means', (fsync) => {
    const lines = profileLines(new Map(Object.entries(GOOD)), fsync);
    expect(lines.filter(({ ok }) => !ok)).toMatchObject([
      { name: 'redis sync', advice: expect.stringContaining('every token') },
    ]);
  });

  it('what is well needs no advice', () => {
    for (const line of profileLines(new Map(Object.entries(GOOD)), 'always')) expect(line).not.toHaveProperty('advice');
  });
});

describe('the trend of memory', () => {
  const MINUTE_MS = 60_000;

  it('says when what is left is used up, if it goes on', () => {
    const trend = new MemoryTrend();
    trend.note(1_000, 0);
    trend.note(9_999, 1_000);
    trend.note(1_100, MINUTE_MS);
    expect(trend.hoursUntil(1_100 + 600)).toBeCloseTo(0.1);
    expect(trend.hoursUntil(1_000)).toBe(0);
  });

  it('says nothing while nothing grows or nothing is known', () => {
    const trend = new MemoryTrend();
    expect(trend.hoursUntil(1)).toBeUndefined();
    trend.note(1_000, 0);
    expect(trend.hoursUntil(10_000)).toBeUndefined();
    trend.note(900, MINUTE_MS);
    expect(trend.hoursUntil(10_000)).toBeUndefined();
  });

  it('forgets what was more than an hour ago', () => {
    const trend = new MemoryTrend();
    for (let minute = 0; minute <= 120; minute++) trend.note(minute < 60 ? 1_000_000 : minute, minute * MINUTE_MS);
    expect(trend.hoursUntil(120 + 60)).toBeCloseTo(1);
  });
});
