import { newId } from '../core/ids.js';
import type { RedisAuditLog } from './audit-log.js';
import { Bounded } from './bounded.js';
import { type Cell, readLock, SKEW_MS } from './cell.js';

const EVERY_MS = 1_000;
const PAGE = 500;
const CUT_OFF_PAGE = 1_000;

type StreamEntry = [streamId: string, fields: string[]];

/**
 * What a worker does beside jobs, once a second: moves audit records to files, trims the feed, removes expired locks and old bundles. None of
 * it is urgent.
 */
export class Housekeeping {
  readonly #cell: Cell;
  readonly #auditLog: RedisAuditLog;
  /** Bundles that need not be forgotten again. */
  readonly #forgotten = new Bounded<true>(1_000);
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> | undefined;

  constructor(cell: Cell, auditLog: RedisAuditLog) {
    this.#cell = cell;
    this.#auditLog = auditLog;
  }

  start(): void {
    this.#timer = setInterval(() => {
      this.#working ??= this.once()
        .catch((error: unknown) => {
          const problem = error instanceof Error ? error.message : String(error);
          this.#cell.observe({ event: 'state.housekeeping_failed', level: 'warn', problem });
        })
        .finally(() => {
          this.#working = undefined;
        });
    }, EVERY_MS);
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#working;
  }

  async once(): Promise<void> {
    await this.#auditLog.move();
    await this.trimFeed();
    await this.#removeExpiredLocks();
    await this.#forgetBundles();
  }

  /** Drops what can kill nothing any more; above the bound, turns the oldest quarter into one cut-off. */
  async trimFeed(): Promise<void> {
    const { line, limits } = this.#cell;
    let left = 0;
    for (;;) {
      const [dropped, rest] = (await line.run('trim-feed', [], [PAGE])) as [number, number];
      left = rest;
      if (dropped < PAGE) break;
    }
    if (left > limits.feedEntriesMax) await this.#cutOff(Math.floor(left / 4));
  }

  async #cutOff(count: number): Promise<void> {
    const { line, keys, clock, limits, observe } = this.#cell;
    let place: StreamEntry | undefined;
    let from = '-';
    for (let seen = 0; seen < count; ) {
      const page = (await line.ask((client) =>
        client.xrange(keys.named('feed'), from, '+', 'COUNT', Math.min(CUT_OFF_PAGE, count - seen)),
      )) as StreamEntry[];
      const last = page.at(-1);
      if (!last) break;
      place = last;
      from = `(${last[0]}`;
      seen += page.length;
    }
    if (!place) return;
    const [streamId, fields] = place;
    const epoch = fields[fields.indexOf('e') + 1] as string;
    const nowMs = clock.now();
    const untilMs = line.laterMs(nowMs) + limits.tokenTtlMsMax + SKEW_MS;
    observe({ event: 'state.cut_off', level: 'warn', before: `${epoch}-${streamId}`, entries: count });
    let until: number | '' = untilMs;
    let after = '-';
    for (;;) {
      const [looked, last] = (await line.run('cut-off', [], [streamId, epoch, until, after, CUT_OFF_PAGE], {
        nowMs,
      })) as [number, string];
      until = '';
      if (looked < CUT_OFF_PAGE) return;
      after = `(${last}`;
    }
  }

  /** Keeps the files of the latest bundles; of one that was forgotten and is activated again, they come with the activation. */
  async #forgetBundles(): Promise<void> {
    const { line, keys, limits } = this.#cell;
    const surplus = await line.ask((client) =>
      client.zrange(keys.named('bundles'), '0', String(-1 - limits.bundlesMax)),
    );
    for (const digest of surplus) {
      if (this.#forgotten.get(digest)) continue;
      const [outcome] = (await line.run('forget-bundle', [keys.bundle(digest)], [digest])) as ['forgotten' | 'active'];
      if (outcome === 'forgotten') this.#forgotten.set(digest, true);
    }
  }

  async #removeExpiredLocks(): Promise<void> {
    const { line, keys } = this.#cell;
    const nowMs = line.earlierMs();
    const locks = await line.ask((client) => client.hgetall(keys.named('locks')));
    for (const [id, signed] of Object.entries(locks)) {
      const lock = readLock(this.#cell, signed);
      if ((lock.expiresAtMs ?? Number.POSITIVE_INFINITY) > nowMs) continue;
      await line.run('change-lock', [keys.named('locks')], [id, signed, ''], {
        nowMs,
        audit: {
          id: newId('dec', keys.cell, nowMs),
          atMs: nowMs,
          type: 'lock.lifted',
          actor: {},
          reasons: ['the lock expired'],
          detail: { lock: id },
        },
      });
    }
  }
}
