import { setTimeout as delay } from 'node:timers/promises';
import { comparePositions, epochOf, isBefore, type Position, positionOf } from '../core/position.js';
import { type FeedEntry, type Match, RevocationTable } from '../core/revocations.js';
import type { Cell } from './cell.js';
import { type RedisClient, unavailable } from './redis.js';
import type { Feed, FeedFrame, FeedReader, RevocationLookup } from './stores.js';
import { compareStreamIds } from './stream-id.js';

const BLOCK_MS = 1_000;
/** A blocking read that is not answered by then sits on a dead connection. */
const BLOCK_TIMEOUT_MS = 2_500;
const PAGE = 1_000;
const HEAD_EVERY_MS = 500;
const RETRY_MS = 100;
const REACH_TIMEOUT_MS = 1_000;
const READER_LIFE_MS = 3_600_000;

type StreamEntry = [id: string, fields: string[]];

interface Follower {
  /** Entries not yet taken; undefined when it must begin again (its epoch is over, or it fell behind). */
  queue: FeedFrame[] | undefined;
  wake: () => void;
}

/** A follower that does not take this many frames begins again with a snapshot. */
const FOLLOWER_FRAMES_MAX = 20_000;

/**
 * This broker's own copy of the feed, kept by one blocking XREAD, and the source for everybody who follows through this broker. The copy is read
 * from the beginning whenever the epoch changes or the head goes back: entries are only ever added, so nobody is un-revoked by it.
 */
export class RedisFeed implements Feed {
  readonly #cell: Cell;
  readonly #client: RedisClient;
  readonly #table = new RevocationTable();
  readonly #followers = new Set<Follower>();
  readonly #waiting = new Set<{ position: Position; resolve: () => void }>();
  #cursor = '0-0';
  #generation = 0;
  #stopped = false;
  #loop: Promise<void> | undefined;
  #headTimer: NodeJS.Timeout | undefined;

  /** `client` is for the blocking read alone. */
  constructor(cell: Cell, client: RedisClient) {
    this.#cell = cell;
    this.#client = client;
  }

  /** Reads all there is, then goes on reading. */
  async start(): Promise<void> {
    await this.reload();
    this.#loop = this.#readOn();
    this.#headTimer = setInterval(() => void this.#tellHead(), HEAD_EVERY_MS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#headTimer);
    for (const follower of this.#followers) follower.wake();
    await Promise.race([this.#loop, delay(100)]);
  }

  /** Reads the feed from its beginning to the head that a guarded script gives, into the table that is there. */
  async reload(): Promise<void> {
    this.#generation += 1;
    const head = await this.head();
    let cursor = head.slice(head.indexOf('-') + 1);
    let from = '-';
    for (;;) {
      const page = (await this.#cell.line.ask((client) =>
        client.xrange(this.#cell.keys.named('feed'), from, '+', 'COUNT', PAGE),
      )) as StreamEntry[];
      for (const entry of page) this.#apply(entry);
      const last = page.at(-1)?.[0];
      if (last !== undefined && compareStreamIds(cursor, last) < 0) cursor = last;
      if (last === undefined || page.length < PAGE) break;
      from = `(${last}`;
    }
    this.#table.advance(head);
    this.#cursor = cursor;
    this.#settleWaiting();
    for (const follower of this.#followers) {
      follower.queue = undefined;
      follower.wake();
    }
  }

  position(): Position {
    return this.#table.position;
  }

  table(): RevocationLookup {
    return this.#table;
  }

  async reached(position: Position, timeoutMs: number): Promise<void> {
    if (!isBefore(this.#table.position, position)) return;
    let timer: NodeJS.Timeout | undefined;
    const waiting = { position, resolve: () => {} };
    try {
      await new Promise<void>((resolve, reject) => {
        waiting.resolve = resolve;
        this.#waiting.add(waiting);
        timer = setTimeout(
          () => reject(unavailable(`the feed did not reach ${position}: it is at ${this.#table.position}`)),
          timeoutMs,
        );
      });
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(waiting);
    }
  }

  async head(): Promise<Position> {
    const [epoch, head] = (await this.#cell.line.run('head', [], [])) as [string, string];
    return positionOf(Number(epoch), head);
  }

  async *follow({ from, signal }: { from?: Position; signal: AbortSignal }): AsyncIterable<FeedFrame> {
    let wake = () => {};
    const follower: Follower = { queue: [], wake: () => wake() };
    const onAbort = () => wake();
    signal.addEventListener('abort', onAbort, { once: true });
    this.#followers.add(follower);
    try {
      let since = from;
      while (!signal.aborted && !this.#stopped) {
        // Everything below is complete up to a head that Redis gave after this reader came.
        const head = await this.head();
        await this.reached(head, REACH_TIMEOUT_MS);
        follower.queue = [];
        const entries = this.#table.entries();
        const at = this.#table.position;
        const isDelta = since !== undefined && epochOf(since) === epochOf(at) && !isBefore(at, since);
        if (!isDelta) yield { kind: 'reset' };
        for (const entry of entries) {
          if (signal.aborted) return;
          if (!isDelta || isBefore(since as Position, entry.pos)) yield { kind: 'entry', entry };
        }
        yield { kind: 'head', position: at };
        since = undefined;
        while (follower.queue !== undefined && !signal.aborted && !this.#stopped) {
          const frame: FeedFrame | undefined = follower.queue.shift();
          if (frame) yield frame;
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      }
    } finally {
      this.#followers.delete(follower);
      signal.removeEventListener('abort', onAbort);
    }
  }

  async acknowledge(reader: string, resources: string[], position: Position, nowMs: number): Promise<void> {
    const record: FeedReader = { name: reader, resources, position, acknowledgedAtMs: nowMs };
    await this.#cell.line.ask((client) =>
      client.hset(this.#cell.keys.named('feed:readers'), reader, JSON.stringify(record)),
    );
  }

  async readers(): Promise<FeedReader[]> {
    const key = this.#cell.keys.named('feed:readers');
    const records = await this.#cell.line.ask((client) => client.hvals(key));
    const readers = records.map((record) => JSON.parse(record) as FeedReader);
    const oldestMs = this.#cell.clock.now() - READER_LIFE_MS;
    const silent = readers.filter((reader) => reader.acknowledgedAtMs < oldestMs).map((reader) => reader.name);
    if (silent.length > 0) await this.#cell.line.ask((client) => client.hdel(key, ...silent));
    return readers.filter((reader) => reader.acknowledgedAtMs >= oldestMs);
  }

  async #readOn(): Promise<void> {
    while (!this.#stopped) {
      try {
        const generation = this.#generation;
        const answer = await this.#blockingRead();
        if (generation !== this.#generation || !answer) continue;
        for (const entry of answer) this.#apply(entry);
        this.#cursor = answer.at(-1)?.[0] ?? this.#cursor;
        this.#settleWaiting();
      } catch {
        if (!this.#stopped) await delay(RETRY_MS);
      }
    }
  }

  async #blockingRead(): Promise<StreamEntry[] | undefined> {
    const reading = this.#client.xread(
      'COUNT',
      PAGE,
      'BLOCK',
      BLOCK_MS,
      'STREAMS',
      this.#cell.keys.named('feed'),
      this.#cursor,
    );
    // A command that was under way when its connection broke is neither sent again nor answered: nobody but us ends this wait.
    let giveUp = () => {};
    const lost = new Promise<never>((_, reject) => {
      giveUp = () => reject(unavailable('the feed lost its connection'));
    });
    const timer = setTimeout(() => {
      this.#client.disconnect(true);
      giveUp();
    }, BLOCK_TIMEOUT_MS);
    this.#client.once('close', giveUp);
    try {
      const answer = (await Promise.race([reading, lost])) as [string, StreamEntry[]][] | null;
      return answer?.[0]?.[1];
    } finally {
      clearTimeout(timer);
      this.#client.off('close', giveUp);
    }
  }

  #apply([id, fields]: StreamEntry): void {
    const member = (name: string) => fields[fields.indexOf(name) + 1] as string;
    const until = member('u');
    const entry: FeedEntry = {
      pos: positionOf(Number(member('e')), id),
      untilMs: until === '-' ? null : Number(until),
      match: JSON.parse(member('m')) as Match,
    };
    const before = fields.indexOf('b');
    if (before === -1) {
      this.#take(entry);
      return;
    }
    // A cut-off kills what is older than another place than its own: that place is the entry's, and one that kills nothing moves the head.
    const cutOff = { ...entry, pos: fields[before + 1] as Position };
    this.#forgetBefore(cutOff.pos);
    this.#take(cutOff);
    this.#take({ pos: entry.pos, untilMs: entry.untilMs, match: { none: true } });
  }

  #take(entry: FeedEntry): void {
    this.#table.apply(entry);
    this.#tell({ kind: 'entry', entry });
  }

  /** What a cut-off says too need not be kept; entries for ever say more than it does. */
  #forgetBefore(place: Position): void {
    const at = this.#table.position;
    const entries = this.#table.entries();
    this.#table.clear();
    for (const entry of entries) {
      if (entry.untilMs === null || isBefore(place, entry.pos)) this.#table.apply(entry);
    }
    this.#table.advance(at);
  }

  #tell(frame: FeedFrame): void {
    for (const follower of this.#followers) {
      if (!follower.queue) continue;
      if (follower.queue.length >= FOLLOWER_FRAMES_MAX) follower.queue = undefined;
      else follower.queue.push(frame);
      follower.wake();
    }
  }

  /** Told when this copy has reached the head as just read from Redis: everything up to here was sent. A head that went back means that everything is read again. */
  async #tellHead(): Promise<void> {
    try {
      this.#table.expire(this.#cell.line.earlierMs());
      const head = await this.head();
      const at = this.#table.position;
      if (epochOf(head) !== epochOf(at) || comparePositions(head, at) < 0) return;
      if (isBefore(at, head)) await this.reached(head, HEAD_EVERY_MS);
      // Entries behind that head may have been told meanwhile, and a head that is not the last entry sent would look like a step back.
      this.#tell({ kind: 'head', position: this.#table.position });
    } catch {
      // Silence tells a follower that its broker does not know the head: it grows stale, as it should.
    }
  }

  #settleWaiting(): void {
    for (const waiting of this.#waiting) {
      if (!isBefore(this.#table.position, waiting.position)) waiting.resolve();
    }
  }
}
