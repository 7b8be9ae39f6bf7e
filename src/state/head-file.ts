import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** How far a broker has seen the line, kept on its own disk: what tells an older store from this one (epoch: docs/architecture.md). */
export interface Head {
  epoch: number;
  /** The last write (audit stream id) it has seen. */
  lastWrite: string;
  /** The beat it made last, and the one it was about to make. */
  beats: string[];
}

export class HeadFile {
  readonly #path: string;

  constructor(dataDir: string, cell: string) {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    this.#path = join(dataDir, `head-${cell}.json`);
  }

  /** Undefined when there is none, or none that can be read: then nobody saw the last beat. */
  read(): Head | undefined {
    try {
      const head = JSON.parse(readFileSync(this.#path, 'utf8')) as Head;
      const isWhole =
        Number.isSafeInteger(head.epoch) && typeof head.lastWrite === 'string' && Array.isArray(head.beats);
      return isWhole ? head : undefined;
    } catch {
      return undefined;
    }
  }

  write(head: Head): void {
    writeFileSync(`${this.#path}.new`, JSON.stringify(head), { mode: 0o600 });
    renameSync(`${this.#path}.new`, this.#path);
  }
}
