import { strangeCursor } from '../core/cursor.js';
import type { AuditFiles, AuditLine, AuditText, PlacedRecord } from './audit-files.js';
import type { Cell } from './cell.js';
import type { AuditFilter, AuditLog } from './stores.js';
import { compareStreamIds, isStreamId, streamIdAfter } from './stream-id.js';
import { timeOf } from './token-record.js';

const PAGE = 1_000;
const PAGE_MAX = 500;
/** Records looked at for one page; its cursor goes on from there. */
const LOOKED_AT_MAX = 50_000;
/** How far the time in a record's id and the place it was written at may be apart. */
const WINDOW_MS = 120_000;
const MOVER_MS = 10_000;

type StreamEntry = [streamId: string, fields: string[]];

/** Audit records: in Redis from the moment of their change, then in this broker's files (moved by whichever worker holds the turn). */
export class RedisAuditLog implements AuditLog {
  readonly #cell: Cell;
  readonly #files: AuditFiles;
  readonly #mover: string;
  #lastMoved: string | undefined;

  constructor(cell: Cell, files: AuditFiles, mover: string) {
    this.#cell = cell;
    this.#files = files;
    this.#mover = mover;
  }

  async read(filter: AuditFilter): ReturnType<AuditLog['read']> {
    const limit = Math.min(filter.limit, PAGE_MAX);
    const items: PlacedRecord[] = [];
    let at = filter.cursor;
    if (at !== undefined && !isStreamId(at)) throw strangeCursor();
    let looked = 0;
    for await (const { streamId, record } of this.#newestFirst(at)) {
      if (items.length === limit || looked >= LOOKED_AT_MAX) return { items, ...(at && { cursor: at }) };
      looked += 1;
      at = streamId;
      if (isWanted(record, filter)) items.push(record);
    }
    return { items };
  }

  async find(id: string): ReturnType<AuditLog['find']> {
    for await (const { record } of this.#inRedis(undefined)) if (record.id === id) return record;
    const atMs = timeOf(id);
    return this.#files.find(id, atMs - WINDOW_MS, atMs + WINDOW_MS);
  }

  async move(): Promise<number> {
    if (!(await this.#myTurn())) return 0;
    const { line, keys } = this.#cell;
    let count = 0;
    for (;;) {
      this.#lastMoved ??= this.#files.last();
      const page = (await line.ask((client) =>
        client.xrange(keys.named('audit'), '-', '+', 'COUNT', PAGE),
      )) as StreamEntry[];
      const last = page.at(-1)?.[0];
      if (last === undefined) break;
      // After a crash between writing and trimming, what is in the file already is only trimmed. A page is in order.
      const seen = this.#lastMoved;
      const first = page.findIndex(([streamId]) => seen === undefined || compareStreamIds(streamId, seen) > 0);
      const fresh = first === -1 ? [] : page.slice(first);
      await this.#files.append(fresh.map(toText));
      await line.run('trim-audit', [], [last, streamIdAfter(last)]);
      this.#lastMoved = last;
      count += fresh.length;
      if (page.length < PAGE) break;
    }
    this.#files.forget(this.#cell.clock.now());
    return count;
  }

  /** How long the oldest record has waited in Redis, by Redis' clock. */
  async backlogMs(): Promise<number> {
    const { line, keys } = this.#cell;
    const oldest = (await line.ask((client) =>
      client.xrange(keys.named('audit'), '-', '+', 'COUNT', 1),
    )) as StreamEntry[];
    const id = oldest[0]?.[0];
    return id === undefined ? 0 : Math.max(line.redisNowMs() - Number(id.slice(0, id.indexOf('-'))), 0);
  }

  /** Gives the turn back, so that the next worker need not wait for it. */
  async stop(): Promise<void> {
    const key = this.#cell.keys.named('audit:mover');
    const there = await this.#cell.line.ask((client) => client.get(key));
    if (there === this.#mover) await this.#cell.line.ask((client) => client.del(key));
  }

  /** One worker of the cell moves at a time; another takes over when it has been silent for ten seconds. */
  async #myTurn(): Promise<boolean> {
    const key = this.#cell.keys.named('audit:mover');
    const { line } = this.#cell;
    const there = await line.ask((client) => client.set(key, this.#mover, 'PX', MOVER_MS, 'NX', 'GET'));
    if (there === null) return true;
    if (there !== this.#mover) return false;
    await line.ask((client) => client.pexpire(key, MOVER_MS));
    return true;
  }

  async *#newestFirst(before: string | undefined): AsyncGenerator<AuditLine> {
    let at = before;
    for await (const entry of this.#inRedis(before)) {
      at = entry.streamId;
      yield entry;
    }
    yield* this.#files.before(at);
  }

  async *#inRedis(before: string | undefined): AsyncGenerator<AuditLine> {
    let end = before === undefined ? '+' : `(${before}`;
    for (;;) {
      const page = (await this.#cell.line.ask((client) =>
        client.xrevrange(this.#cell.keys.named('audit'), end, '-', 'COUNT', PAGE),
      )) as StreamEntry[];
      for (const entry of page) yield toLine(entry);
      const last = page.at(-1)?.[0];
      if (last === undefined || page.length < PAGE) return;
      end = `(${last}`;
    }
  }
}

/** A record with its position, as text: parsing and writing them all again would keep requests waiting. */
function toText([streamId, fields]: StreamEntry): AuditText {
  const { json, position } = readFields(fields);
  return { streamId, text: `${json.slice(0, -1)},"pos":${JSON.stringify(position)}}` };
}

function toLine([streamId, fields]: StreamEntry): AuditLine {
  const { json, position } = readFields(fields);
  return { streamId, record: { ...(JSON.parse(json) as PlacedRecord), pos: position } };
}

function readFields(fields: string[]): { json: string; position: string } {
  const member = (name: string) => fields[fields.indexOf(name) + 1] as string;
  return { json: member('r'), position: member('p') };
}

function isWanted(record: PlacedRecord, filter: AuditFilter): boolean {
  return (
    (filter.agent === undefined || record.actor.workload === filter.agent) &&
    (filter.task === undefined || record.task === filter.task) &&
    (filter.lease === undefined || record.lease === filter.lease) &&
    (filter.type === undefined || record.type === filter.type) &&
    (filter.fromMs === undefined || record.atMs >= filter.fromMs) &&
    (filter.toMs === undefined || record.atMs < filter.toMs)
  );
}
