import { appendFileSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { AuditRecord } from '../core/audit.js';
import type { Match } from '../core/revocations.js';
import type { TaskRecord } from '../core/task.js';
import type { LockRecord, RevocationRecord } from './stores.js';

/** What a broker said yes to and nobody may lose: it is repeated when the store has forgotten it (epoch: docs/architecture.md). */
export type Acknowledged = { atMs: number; audit: AuditRecord } & (
  | { kind: 'end'; task: TaskRecord }
  /** A suspension, resumption or context change. `cut`: everything given before died of it. */
  | { kind: 'generation'; task: TaskRecord; resumed: boolean; cut: boolean }
  | { kind: 'bundle'; digest: string; files: Record<string, string>; activation: number }
  | { kind: 'revocation'; revocation: RevocationRecord; matches: Match[]; untilMs: number; lock?: LockRecord }
  | { kind: 'lift'; lockId: string }
  /** `ring` is encrypted under the root key. */
  | { kind: 'key-ring'; ring: string; version: number; taintedKid?: string }
);

const MEMORY_MS = 60_000;

/**
 * The last minute of acknowledged writes, in memory and in two files beside the head file (the present minute's and the one before), so that
 * a broker that restarts together with Redis still has it. Writing is synchronous and not fsynced: it has to survive the broker, not
 * the machine.
 */
export class Memory {
  readonly #file: string;
  readonly #older: string;
  #acknowledged: Acknowledged[];
  #turnedAtMs = Number.NEGATIVE_INFINITY;

  constructor(dataDir: string, cell: string) {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    this.#file = join(dataDir, `acknowledged-${cell}.ndjson`);
    this.#older = join(dataDir, `acknowledged-${cell}.older.ndjson`);
    this.#acknowledged = [...load(this.#older), ...load(this.#file)];
  }

  remember(one: Acknowledged): void {
    this.#acknowledged.push(one);
    appendFileSync(this.#file, `${JSON.stringify(one)}\n`, { mode: 0o600 });
  }

  /** What was acknowledged in the minute before the store last answered, oldest first. */
  lately(): Acknowledged[] {
    return [...this.#acknowledged];
  }

  /** Called while the store is known to be whole (each beat): while it is away or not confirmed, nothing is forgotten, however long that takes. */
  forget(nowMs: number): void {
    this.#acknowledged = this.#acknowledged.filter((one) => nowMs - one.atMs <= MEMORY_MS);
    if (nowMs - this.#turnedAtMs <= MEMORY_MS) return;
    const isFirst = this.#turnedAtMs === Number.NEGATIVE_INFINITY;
    this.#turnedAtMs = nowMs;
    if (isFirst) return;
    rmSync(this.#older, { force: true });
    try {
      renameSync(this.#file, this.#older);
    } catch {
      // There is nothing to turn over: nothing was acknowledged for a minute.
    }
  }
}

/** A line that was cut by a crash was never acknowledged from here on; those before it count. */
function load(path: string): Acknowledged[] {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return [];
  }
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as Acknowledged];
    } catch {
      return [];
    }
  });
}
