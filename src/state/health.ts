import { isBefore, type Position } from '../core/position.js';
import type { RedisAuditLog } from './audit-log.js';
import type { Cell } from './cell.js';
import type { Epochs } from './epochs.js';
import type { RedisFeed } from './feed.js';
import { MemoryTrend } from './memory-trend.js';
import type { Health, HealthLine, StoreFigures } from './stores.js';

const NOT_LOOKED_YET = 'the store has not been looked at yet';
const CHECK_EVERY_MS = 1_000;
/** Work that has been due for longer waits for hands. */
const OVERDUE_MS = 1_000;
const PROFILE_EVERY_MS = 60_000;

/** Looks at the store once a second (its profile once a minute), and says why grants are closed. Revocations never ask. */
export class RedisHealth implements Health {
  readonly #cell: Cell;
  readonly #epochs: Epochs;
  readonly #feed: RedisFeed;
  readonly #auditLog: RedisAuditLog;
  readonly #close: () => Promise<void>;
  #lines: HealthLine[] = [];
  #figures: StoreFigures | undefined;
  #problem: string | undefined = NOT_LOOKED_YET;
  #profileAtMs = Number.NEGATIVE_INFINITY;
  #profile: HealthLine[] = [];
  readonly #trend = new MemoryTrend();
  #headBefore: Position | undefined;
  #timer: NodeJS.Timeout | undefined;
  #checking: Promise<unknown> | undefined;

  constructor(cell: Cell, epochs: Epochs, feed: RedisFeed, auditLog: RedisAuditLog, close: () => Promise<void>) {
    this.#cell = cell;
    this.#epochs = epochs;
    this.#feed = feed;
    this.#auditLog = auditLog;
    this.#close = close;
  }

  async start(): Promise<void> {
    await this.check();
    this.#timer = setInterval(() => {
      this.#checking ??= this.#look()
        .catch(() => {
          this.#figures = undefined;
        })
        .finally(() => {
          this.#checking = undefined;
        });
    }, CHECK_EVERY_MS);
  }

  async check(): Promise<HealthLine[]> {
    this.#profileAtMs = Number.NEGATIVE_INFINITY;
    try {
      await this.#look();
      return this.#lines;
    } catch (error) {
      this.#figures = undefined;
      const detail = error instanceof Error ? error.message : String(error);
      return [
        { name: 'redis', ok: false, detail, advice: 'Is Redis running, and can this broker reach it?', vital: true },
      ];
    }
  }

  grantsClosed(): string | undefined {
    return this.#epochs.closed ?? this.#problem;
  }

  figures(): StoreFigures | undefined {
    return this.#figures;
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#checking;
  }

  close(): Promise<void> {
    return this.#close();
  }

  /** Whoever wonders why nothing is given finds it in the log, told once. */
  #tell(problem: string | undefined): void {
    const nameOf = (text: string | undefined) => text?.slice(0, text.indexOf(':'));
    const before = this.#problem;
    this.#problem = problem;
    if (nameOf(problem) === nameOf(before)) return;
    const { observe } = this.#cell;
    if (problem !== undefined) observe({ event: 'grants.closed', level: 'error', problem });
    else if (before !== NOT_LOOKED_YET) observe({ event: 'grants.open', level: 'info' });
  }

  async #look(): Promise<void> {
    const { line, limits, clock } = this.#cell;
    const info = await line.info();
    if (performance.now() - this.#profileAtMs > PROFILE_EVERY_MS) {
      this.#profile = profileLines(info, await line.appendFsync());
      this.#profileAtMs = performance.now();
    }
    const skewMs = Math.abs(clock.now() - line.redisNowMs());
    const backlogMs = await this.#auditLog.backlogMs();
    const overdueByMs = clock.now() - OVERDUE_MS;
    const due = await line.ask((client) => client.zcount(this.#cell.keys.named('due'), '-inf', overdueByMs));
    const [, oldestMs] =
      due === 0 ? [] : await line.ask((client) => client.zrange(this.#cell.keys.named('due'), '0', '0', 'WITHSCORES'));
    const memory = memoryOf(info);
    const share = memory.limit > 0 ? memory.used / memory.limit : 0;
    this.#trend.note(memory.used, performance.now());
    const hours = this.#trend.hoursUntil(memory.limit * limits.memoryShareMax);
    const position = this.#feed.position();
    const isBehind = this.#headBefore !== undefined && isBefore(position, this.#headBefore);
    this.#headBefore = await this.#feed.head();
    this.#figures = {
      memoryUsedBytes: memory.used,
      memoryLimitBytes: memory.limit,
      auditBacklogMs: backlogMs,
      overdue: due,
      overdueMs: oldestMs === undefined ? 0 : Math.max(overdueByMs - Number(oldestMs), 0),
      clockSkewMs: skewMs,
      epoch: this.#epochs.epoch,
    };
    this.#lines = [
      ...this.#profile,
      {
        name: 'redis memory',
        ok: share < limits.memoryShareMax,
        detail: `${(100 * share).toFixed(1)} % used${hours === undefined ? '' : `; grants close in about ${hours.toFixed(hours < 10 ? 1 : 0)} h if it grows as it did`}`,
        advice: 'Give Redis more memory: grants close at 80 %, revocations go on.',
      },
      {
        name: 'clock',
        ok: skewMs <= limits.clockSkewMsMax,
        detail: `${Math.round(skewMs)} ms from Redis' clock`,
        advice: 'Synchronise the clocks of this machine and of Redis.',
        vital: true as const,
      },
      {
        name: 'audit backlog',
        ok: backlogMs <= limits.auditBacklogMsMax,
        detail: `the oldest record not in a file has waited ${Math.round(backlogMs / 1_000)} s`,
        advice: 'Run a worker (--role all or worker) whose data folder can be written.',
      },
      {
        name: 'epoch',
        ok: this.#epochs.closed === undefined,
        detail: this.#epochs.closed ?? `epoch ${this.#epochs.epoch}, confirmed by every broker`,
      },
      {
        name: 'feed',
        ok: !isBehind,
        detail: isBehind ? `at ${position}, behind the head of a second ago` : `at ${position}`,
        advice: "This broker's own copy of the feed does not move: look for `state.` and `redis.` events in its log.",
        vital: true as const,
      },
      { name: 'due work', ok: due === 0, detail: `${due} overdue`, advice: 'Run a worker (--role all or worker).' },
    ].map(withoutIdleAdvice);
    const closing = ['redis version', 'redis persistence', 'redis eviction', 'redis memory', 'clock', 'audit backlog'];
    const bad = this.#lines.find((one) => !one.ok && closing.includes(one.name));
    this.#tell(bad && `${bad.name}: ${bad.detail}`);
  }
}

/** What the store must be for anything to be granted: version, AOF, no eviction. How it syncs decides about restarts only. */
export function profileLines(info: Map<string, string>, appendFsync: string | undefined): HealthLine[] {
  const valkey = info.get('valkey_version');
  const version = valkey ?? info.get('redis_version') ?? '0';
  const policy = info.get('maxmemory_policy') ?? 'unknown';
  return [
    {
      name: 'redis version',
      ok: isAtLeast(version, valkey === undefined ? [7, 0] : [7, 2]),
      detail: `${valkey === undefined ? 'Redis' : 'Valkey'} ${version}`,
      advice: 'Use Redis 7.0 or later, or Valkey 7.2 or later.',
    },
    {
      name: 'redis persistence',
      ok: info.get('aof_enabled') === '1',
      detail: info.get('aof_enabled') === '1' ? 'append-only file' : 'no append-only file',
      advice: 'Set `appendonly yes`: without it a restart forgets revocations.',
    },
    {
      name: 'redis eviction',
      ok: policy === 'noeviction',
      detail: policy,
      advice: 'Set `maxmemory-policy noeviction`: an evicted key is a forgotten revocation.',
    },
    {
      name: 'redis sync',
      ok: appendFsync === 'always',
      detail: `appendfsync ${appendFsync ?? 'unknown'}`,
      advice:
        'With `appendfsync always` a restart of Redis does not raise the epoch; with less, every token dies with it.',
    },
  ].map(withoutIdleAdvice);
}

function withoutIdleAdvice(line: HealthLine): HealthLine {
  const { advice, ...rest } = line;
  return line.ok || advice === undefined ? rest : { ...rest, advice };
}

function isAtLeast(version: string, [major, minor]: [number, number]): boolean {
  const [ownMajor = 0, ownMinor = 0] = version.split('.').map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}

/** Without a limit of its own, Redis' limit is the machine. */
function memoryOf(info: Map<string, string>): { used: number; limit: number } {
  const limit = Number(info.get('maxmemory') ?? 0) || Number(info.get('total_system_memory') ?? 0);
  return { used: Number(info.get('used_memory') ?? 0), limit };
}
