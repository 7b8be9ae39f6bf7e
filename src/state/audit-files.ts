import {
  closeSync,
  existsSync,
  fdatasync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  write,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { AuditRecord } from '../core/audit.js';
import { compareStreamIds } from './stream-id.js';

export type PlacedRecord = AuditRecord & { pos?: string };

/** One record with its place in the stream it came from. */
export interface AuditLine {
  streamId: string;
  record: PlacedRecord;
}

/** One record as it goes into a file: `text` is its JSON. */
export interface AuditText {
  streamId: string;
  text: string;
}

const FILE_BYTES_MAX = 16 << 20;
const NAME = /^audit-(\d{15})-(\d+)\.ndjson$/;

/**
 * The records that left Redis: append-only NDJSON files, named by the place of their first record, each line `{"at": "<stream id>", "record": {…}}`.
 * What `append` returned from is on the disk.
 */
export class AuditFiles {
  readonly #dir: string;
  readonly #retentionMs: number;
  #open: { descriptor: number; bytes: number } | undefined;

  constructor(dataDir: string, cell: string, retentionMs: number) {
    this.#dir = join(dataDir, 'audit', cell);
    this.#retentionMs = retentionMs;
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
  }

  /** Stream id of the last whole line; undefined when nothing was ever moved. */
  last(): string | undefined {
    for (const name of this.#names().reverse()) {
      const last = this.#lines(name).at(-1);
      if (last) return last.streamId;
    }
    return undefined;
  }

  /** One call at a time. The disk is waited for without keeping requests from being served. */
  async append(records: readonly AuditText[]): Promise<void> {
    const first = records[0];
    if (!first) return;
    if (!this.#open || this.#open.bytes >= FILE_BYTES_MAX) this.#turn(first.streamId);
    const open = this.#open as { descriptor: number; bytes: number };
    const lines = Buffer.from(records.map(({ streamId, text }) => `{"at":"${streamId}","record":${text}}\n`).join(''));
    try {
      for (let at = 0; at < lines.length; ) {
        at += (await promisify(write)(open.descriptor, lines, at)).bytesWritten;
      }
      await promisify(fdatasync)(open.descriptor);
    } catch (error) {
      // It may end in the middle of a line: whoever goes on opens it anew, and looks.
      this.close();
      throw error;
    }
    open.bytes += lines.length;
  }

  /** Lines before a place (exclusive), newest first, file by file. */
  *before(streamId: string | undefined): Generator<AuditLine> {
    for (const name of this.#names().reverse()) {
      if (streamId !== undefined && compareStreamIds(firstOf(name), streamId) >= 0) continue;
      for (const line of this.#lines(name).reverse()) {
        if (streamId === undefined || compareStreamIds(line.streamId, streamId) < 0) yield line;
      }
    }
  }

  /** The record with this id, looked for in the files that were written around that time. */
  find(id: string, fromMs: number, toMs: number): PlacedRecord | undefined {
    const names = this.#names();
    for (const [at, name] of names.entries()) {
      const next = names[at + 1];
      const endMs = next === undefined ? Number.POSITIVE_INFINITY : msOf(firstOf(next));
      if (msOf(firstOf(name)) > toMs || endMs < fromMs) continue;
      const found = this.#lines(name, id).find(({ record }) => record.id === id);
      if (found) return found.record;
    }
    return undefined;
  }

  /** Removes the files whose records are all older than what is kept. */
  forget(nowMs: number): void {
    const names = this.#names();
    for (const [at, name] of names.slice(0, -1).entries()) {
      if (msOf(firstOf(names[at + 1] as string)) < nowMs - this.#retentionMs)
        rmSync(join(this.#dir, name), { force: true });
    }
  }

  close(): void {
    if (this.#open) closeSync(this.#open.descriptor);
    this.#open = undefined;
  }

  #turn(streamId: string): void {
    this.close();
    const [ms = '', seq = ''] = streamId.split('-');
    const path = join(this.#dir, `audit-${ms.padStart(15, '0')}-${seq}.ndjson`);
    // After a crash in the middle of a line the file does not end with one: the next begins on its own.
    const isCut = existsSync(path) && !readFileSync(path, 'utf8').endsWith('\n') && statSync(path).size > 0;
    const descriptor = openSync(path, 'a', 0o600);
    if (isCut) writeSync(descriptor, '\n');
    this.#open = { descriptor, bytes: statSync(path).size };
  }

  #names(): string[] {
    return readdirSync(this.#dir)
      .filter((name) => NAME.test(name))
      .sort((a, b) => compareStreamIds(firstOf(a), firstOf(b)));
  }

  #lines(name: string, mention?: string): AuditLine[] {
    const text = readFileSync(join(this.#dir, name), 'utf8');
    return text.split('\n').flatMap((line) => {
      if (line === '' || (mention !== undefined && !line.includes(mention))) return [];
      try {
        const { at, record } = JSON.parse(line) as { at: string; record: PlacedRecord };
        return [{ streamId: at, record }];
      } catch {
        // A crash cut this line; its record is still in Redis and was moved again.
        return [];
      }
    });
  }
}

function firstOf(name: string): string {
  const match = NAME.exec(name);
  return `${Number(match?.[1])}-${match?.[2]}`;
}

function msOf(streamId: string): number {
  return Number(streamId.slice(0, streamId.indexOf('-')));
}
