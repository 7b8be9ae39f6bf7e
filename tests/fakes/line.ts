import type { AuditRecord } from '../../src/core/audit.js';
import type { SecretData } from '../../src/core/credential.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import { latest, ORIGIN, type Position, positionOf } from '../../src/core/position.js';
import type { FeedEntry, Match } from '../../src/core/revocations.js';
import { Secret } from '../../src/core/secret.js';
import type { TaskRecord, TerminalState } from '../../src/core/task.js';
import type { Clock, EpochMs } from '../../src/core/time.js';
import type { FeedReader, JobName, Kept, LockRecord, Reconciled, RevocationRecord } from '../../src/state/stores.js';

/** Mistakes that can be planted in the fake, so that the oracle of the property tests is proved to see them. */
export interface LedgerBugs {
  /** A grant is committed although the fence is newer than its position. */
  dropFence?: boolean;
  /** No generation of the path is compared. */
  dropGeneration?: boolean;
  /** Only the task's own generation is compared, no ancestor's. */
  dropAncestorGeneration?: boolean;
  /** Only the task's own state is looked at, no ancestor's and no lease's above. */
  dropPath?: boolean;
  /** Verdicts are written whatever changed since they were made. */
  dropVerdictCompare?: boolean;
  /** The epoch stays the same although the store lost its tail. */
  dropEpoch?: boolean;
  /** Brokers do not repeat what they acknowledged before the store lost its tail. */
  dropMemory?: boolean;
  /** Suspensions and context changes are taken while an epoch is not confirmed. */
  changesUnconfirmed?: boolean;
  /** A parent token may be past its expiry. */
  dropExpiry?: boolean;
  /** A renewed credential carries the position of the new decision. */
  renewalTakesNewPosition?: boolean;
}

export interface Due {
  job: JobName;
  id: string;
  backend?: string;
  atMs: EpochMs;
}

/** Everything a cell remembers; plain data, so that it can be copied and lost. */
export interface LineState {
  epoch: number;
  lastMs: number;
  lastSeq: number;
  fence: Position;
  entries: FeedEntry[];
  tasks: Map<string, TaskRecord>;
  /** By when what a task's context changes left to judge has to be judged. */
  judgeBy: Map<string, EpochMs>;
  leases: Map<string, LeaseRecord>;
  /** Plain here, encrypted in the product: what credentials are tried with once they should be dead, and what they are revoked with. */
  kept: Map<string, { probe?: SecretData; kept?: SecretData }>;
  /** Until when an attempt at a credential is somebody's. */
  attemptsHeld: Map<string, EpochMs>;
  /** Attempts that failed. */
  failures: Map<string, number>;
  /** Who asked to give up on a credential, and when. */
  abandoning: Map<string, { by: string; atMs: EpochMs }>;
  refs: Map<string, string>;
  keptEnds: Map<string, { opener: string; state: TerminalState; reason: string; untilMs: EpochMs; by: string }>;
  locks: Map<string, LockRecord>;
  revocations: Map<string, RevocationRecord>;
  bundles: Map<string, { files: Record<string, string>; activatedAtMs: EpochMs }>;
  activeBundle: string;
  ring: { ring: unknown; version: number } | undefined;
  due: Map<string, Due>;
  audit: (AuditRecord & { pos?: Position })[];
  readers: Map<string, FeedReader>;
  /** Who the enumeration of a revocation came across. */
  revoked: Map<string, { tasks: Set<string>; agents: Set<string> }>;
  reconciled: Map<string, Reconciled>;
  once: Map<string, EpochMs>;
  claims: Map<string, { bodyDigest: string; answer?: string; untilMs: EpochMs }>;
  /** What the keys of repeated requests stand for. */
  requests: Map<string, { bodyDigest: string; leaseId: string; isGivenUp: boolean; untilMs: EpochMs }>;
}

/** What one broker acknowledged lately and repeats when the store has forgotten it. */
export type Acknowledged =
  | { kind: 'end'; atMs: EpochMs; task: TaskRecord }
  | { kind: 'generation'; atMs: EpochMs; task: TaskRecord; resumed: boolean; cut: boolean }
  | { kind: 'bundle'; atMs: EpochMs; digest: string; files: Record<string, string> }
  | {
      kind: 'revocation';
      atMs: EpochMs;
      revocation: RevocationRecord;
      matches: Match[];
      untilMs: EpochMs;
      lock?: LockRecord;
    }
  | { kind: 'lift'; atMs: EpochMs; lockId: string };

/** How long a broker remembers what it acknowledged, and how long an entry outlives what it can kill. */
export const MEMORY_MS = 60_000;
export const SKEW_MS = 60_000;

export function keptOf(state: LineState, leaseId: string): Kept {
  const { probe, kept } = structuredClone(state.kept.get(leaseId) ?? {});
  return { ...(probe && { probe: new Secret(probe) }), ...(kept && { kept: new Secret(kept) }) };
}

export interface LineOptions {
  clock: Clock;
  cell?: string;
  /** Active from the start. */
  bundle?: { digest: string; files: Record<string, string> };
  bugs?: LedgerBugs;
}

/**
 * One cell's line, shared by all brokers of a test: what Redis is to the product. Every change happens in one synchronous call of the
 * fake ledger; `append` is the only place that makes positions.
 */
export class Line {
  readonly cell: string;
  readonly clock: Clock;
  readonly bugs: LedgerBugs;
  readonly cellKey: Uint8Array = new Uint8Array(32).fill(7);
  state: LineState;
  /** Why grants are closed; set by tests, and by a lost tail until every broker confirmed. */
  closed: string | undefined;
  /** Redis does not answer: every method throws `unavailable`. */
  out = false;
  /** When the first unconfirmed epoch was raised: what brokers repeat is counted back from here, however late they come. */
  raisedAtMs = 0;
  /** One per broker. */
  readonly brokers: { name: string; memory: Acknowledged[]; confirmedEpoch: number }[] = [];
  readonly #listeners = new Set<(event: 'entry' | 'beat') => void>();

  constructor(options: LineOptions) {
    this.clock = options.clock;
    this.cell = options.cell ?? 'a';
    this.bugs = options.bugs ?? {};
    const epoch = Math.floor(options.clock.now() / 1_000);
    this.state = {
      epoch,
      lastMs: 0,
      lastSeq: 0,
      fence: ORIGIN,
      entries: [],
      tasks: new Map(),
      judgeBy: new Map(),
      leases: new Map(),
      kept: new Map(),
      attemptsHeld: new Map(),
      failures: new Map(),
      abandoning: new Map(),
      refs: new Map(),
      keptEnds: new Map(),
      locks: new Map(),
      revocations: new Map(),
      bundles: new Map(),
      activeBundle: options.bundle?.digest ?? '',
      ring: undefined,
      due: new Map(),
      audit: [],
      readers: new Map(),
      revoked: new Map(),
      reconciled: new Map(),
      once: new Map(),
      claims: new Map(),
      requests: new Map(),
    };
    if (options.bundle) {
      const { digest, files } = options.bundle;
      this.state.bundles.set(digest, { files, activatedAtMs: options.clock.now() });
    }
  }

  head(): Position {
    return positionOf(this.state.epoch, `${this.state.lastMs}-${this.state.lastSeq}`);
  }

  /** Appends one entry; with `fence`, new grants must have read at least this far. */
  append(match: Match, untilMs: EpochMs | null, options: { fence?: boolean } = {}): Position {
    const state = this.state;
    const nowMs = this.clock.now();
    if (nowMs > state.lastMs) {
      state.lastMs = nowMs;
      state.lastSeq = 0;
    } else {
      state.lastSeq += 1;
    }
    const pos = this.head();
    state.entries.push({ pos, untilMs, match });
    if (options.fence) state.fence = latest(state.fence, pos);
    this.#tell('entry');
    return pos;
  }

  record(audit: AuditRecord | undefined): void {
    if (audit) this.state.audit.push({ ...structuredClone(audit), pos: this.head() });
  }

  makeDue(job: JobName, id: string, atMs: EpochMs, backend?: string): void {
    this.state.due.set(`${job}:${id}`, { job, id, atMs, ...(backend !== undefined && { backend }) });
  }

  dueAt(job: JobName, id: string): EpochMs | undefined {
    return this.state.due.get(`${job}:${id}`)?.atMs;
  }

  /** Whether it was due. */
  settle(job: JobName, id: string): boolean {
    return this.state.due.delete(`${job}:${id}`);
  }

  /** Drops entries that can kill nothing any more. */
  trim(): void {
    const nowMs = this.clock.now();
    this.state.entries = this.state.entries.filter((entry) => entry.untilMs === null || entry.untilMs > nowMs);
  }

  snapshot(): LineState {
    return structuredClone(this.state);
  }

  /** Raises the epoch, as `mayfly recover` and a changed master do. */
  raiseEpoch(): number {
    const state = this.state;
    if (this.bugs.dropEpoch) return state.epoch;
    if (this.closed === undefined) this.raisedAtMs = this.clock.now();
    state.epoch = Math.max(state.epoch + 1, Math.floor(this.clock.now() / 1_000));
    this.append({ all: true }, this.clock.now() + 900_000 + SKEW_MS, { fence: true });
    return state.epoch;
  }

  subscribe(listener: (event: 'entry' | 'beat') => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A heartbeat: followers are told the head. */
  beat(): void {
    this.#tell('beat');
  }

  #tell(event: 'entry' | 'beat'): void {
    for (const listener of this.#listeners) listener(event);
  }
}
