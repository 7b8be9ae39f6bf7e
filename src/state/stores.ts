import type { AuditRecord } from '../core/audit.js';
import type { Evidence, Handle, SecretData } from '../core/credential.js';
import type { LeaseRecord, LeaseState } from '../core/lease.js';
import type { Position } from '../core/position.js';
import type { FeedEntry, Match } from '../core/revocations.js';
import type { Secret } from '../core/secret.js';
import type { Selector } from '../core/selector.js';
import type { TaskCharter, TaskRecord, TaskState, TerminalState } from '../core/task.js';
import type { EpochMs } from '../core/time.js';

/**
 * What is remembered, as promises. One method that changes something is one Lua script on one slot: state, indexes, due time, feed
 * entry and audit record move together or not at all. Every method may throw `BrokerError('unavailable')` when Redis does not answer
 * in time: then the outcome is *unknown*, never "did not happen"; every script is idempotent for the same ids.
 *
 * Grants (`startTask`, `openIntent`, `commitLease`, `resumeTask`) are refused with `unavailable` while the store's profile is less than
 * promised, its memory is over 80 %, its audit backlog is too old, the clock is off or a new epoch is not confirmed by every broker.
 * Ends, locks and revocations are never refused for those reasons. Suspensions and context changes wait for an epoch to be confirmed (10 s at
 * the outside), and for nothing else: a generation raised meanwhile would be taken for one that was acknowledged before and lost.
 */
export interface Stores {
  ledger: Ledger;
  views: Views;
  feed: Feed;
  schedule: Schedule;
  replayGuard: ReplayGuard;
  auditLog: AuditLog;
  health: Health;
}

/** The state changes. `nowMs` comes from the clock part; the audit record of the change is always a parameter. */
export interface Ledger {
  /**
   * Everything a decision hangs on, in one look: the tasks of the path, the leases above, locks, fence, head, active bundle.
   * Undefined when the task (or a lease above) is not there.
   */
  read(query: { taskId?: string; leaseIds?: string[]; nowMs: EpochMs }): Promise<Reading | undefined>;

  /**
   * Opens a task. A root's path is its own id. `exists`: the opener has that ref already, and here is the task. `over`, `suspended`: an
   * ancestor is. An end kept for that opener and ref is applied at once: the task comes back ended.
   */
  startTask(write: {
    charter: TaskCharter;
    context: Record<string, unknown>;
    /** Generations of the ancestors and the bundle as read; the fence as for leases. */
    basis: Basis;
    quotas: Quotas;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'opened' | 'exists'; task: TaskRecord } | Refusal>;

  /**
   * Makes a lease count. A token goes straight to active; a credential's `pending` lease (openIntent) becomes active before its deadline.
   * Nothing is written unless: every task on the path is active at the generations of the basis, every lease above is active, a parent
   * *token* is not past its expiry, the bundle is the active one, the fence is not newer than the position, the quotas are free.
   * `probe`: what to try the credential with once it should be dead; it rests encrypted until the lease is closed. Its handle is added to what
   * was noted.
   */
  commitLease(write: {
    lease: LeaseRecord;
    probe?: Secret<SecretData>;
    basis: Basis;
    quotas: Quotas;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'committed' } | Refusal>;

  /**
   * Writes a credential's intent: a `pending` lease, due at `intentDeadlineMs`. Same conditions as commitLease. With a `requestKey` it is also
   * refused, as `not_live` by its own id, unless that key names this lease now (ReplayGuard.nameLease).
   */
  openIntent(write: {
    lease: LeaseRecord;
    intentDeadlineMs: EpochMs;
    requestKey?: string;
    basis: Basis;
    quotas: Quotas;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'committed' } | Refusal>;

  /**
   * Adds to a credential's handle while it is made. `keep` rests encrypted until the lease is closed. `not_live`: the lease is no longer pending,
   * and nothing more may be made; one that is being revoked keeps what was noted all the same and is due at once, one that is closed does not.
   */
  noteCredential(write: {
    leaseId: string;
    backend: string;
    handle: Handle;
    keep?: Secret<SecretData>;
    nowMs: EpochMs;
  }): Promise<{ outcome: 'noted' | 'not_live' } | NotThere>;

  /**
   * Another end for an active credential; its position stays. Same conditions as commitLease, with the basis of the new decision, and also
   * refused (`not_live`) when the lease is older than a cut on its path. A token above that merely expired is no obstacle.
   */
  renewLease(write: {
    leaseId: string;
    expiresAtMs: EpochMs;
    basis: Basis;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'committed' } | Refusal>;

  /**
   * Ends a task for good, in constant time whatever hangs below: terminal state, cut, one feed entry (none when nothing can be alive), the
   * task due for its drain. The first terminal state wins: `already` brings the task as it ended. `onlyIf` makes it a clock's move: refused
   * as `not_due` unless the deadline (or three times the heartbeat, or once it when silence ends) has passed at `nowMs`.
   */
  endTask(write: {
    taskId: string;
    state: TerminalState;
    reason: string;
    by: string;
    onlyIf?: 'deadline' | 'silence';
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<
    { outcome: 'ended' | 'already'; task: TaskRecord; position?: Position } | NotThere | { outcome: 'not_due' }
  >;

  /**
   * Ends those of many tasks whose deadline has passed, each as `endTask` does; an answer for each, in order. What an epoch forgets of it is
   * done again by the clock.
   */
  expireTasks(write: {
    ends: readonly { taskId: string; audit: AuditRecord }[];
    reason: string;
    by: string;
    nowMs: EpochMs;
  }): Promise<('ended' | 'over' | 'not_due')[]>;

  /** Keeps an end for a ref its opener has not opened yet, for 16 minutes; at most 1,000 per opener. */
  keepEnd(write: {
    opener: string;
    ref: string;
    state: TerminalState;
    reason: string;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'kept' | 'full' }>;

  /** All that was given dies exactly as at an end, the generation rises, and the task can go on later. `onlyIf: 'silence'` as above. */
  suspendTask(write: {
    taskId: string;
    reason: string;
    by: string;
    onlyIf?: 'silence';
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<
    | { outcome: 'suspended' | 'already'; task: TaskRecord; position?: Position }
    | NotThere
    | { outcome: 'over'; task: TaskRecord }
    | { outcome: 'not_due' }
  >;

  /** A suspended task goes on at a new generation; nothing given before comes back. */
  resumeTask(write: {
    taskId: string;
    by: string;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'resumed' | 'already'; task: TaskRecord } | NotThere | { outcome: 'over'; task: TaskRecord }>;

  /**
   * Stores the task's own new context by compare-and-set on its generation, raises it, makes the task due for judging, which has to be over
   * after `judgeWithinMs` (`Views.judgeBy`); a change before that gives no more time.
   * `revoke` cuts instead: everything given before at or below it is dead, with a feed entry, and the task is due for its drain.
   */
  changeContext(write: {
    taskId: string;
    generation: number;
    context: Record<string, unknown>;
    revoke: boolean;
    judgeWithinMs: number;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<
    | { outcome: 'changed'; task: TaskRecord; position?: Position }
    | NotThere
    | { outcome: 'over'; task: TaskRecord }
    | { outcome: 'generation_mismatch'; task: TaskRecord }
  >;

  /** An agent of the task is alive. Moves the silence due time; writes no audit record. */
  heartbeat(write: {
    taskId: string;
    agent: string;
    nowMs: EpochMs;
  }): Promise<{ outcome: 'noted'; task: TaskRecord } | NotThere>;

  /** Revokes by selector: the feed entries, the fence, the revocation's record, due for enumeration. With `lock` it also forbids new grants. */
  revoke(write: {
    revocation: RevocationRecord;
    matches: Match[];
    /** The latest end of anything the entries can kill. */
    untilMs: EpochMs;
    lock?: LockRecord;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'applied' | 'already'; position: Position }>;

  /** First call by one person: `requested`; by a second one within 15 min: `lifted`. `system` (a key that is back) lifts alone. */
  liftLock(write: {
    lockId: string;
    by: string;
    secondPersonNeeded: boolean;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'requested' | 'lifted' } | NotThere>;

  /**
   * Progress of a revocation's enumeration: compare-and-set on its cursor, so that two workers never count twice. What a page hit is added to
   * what was found; a task or an agent that several pages name counts once.
   */
  advanceRevocation(write: {
    id: string;
    fromCursor: string;
    cursor: string;
    hit: RevocationHit;
    done: boolean;
    nowMs: EpochMs;
    audit?: AuditRecord;
  }): Promise<{ outcome: 'advanced' | 'moved_on' } | NotThere>;

  /**
   * Moves live leases (at most 500): tokens to `revoked`, credentials to `revoking` and due. A lease with leases below it also gets a
   * `{lease}` feed entry, and so does every token moved by a verdict or with `announce`: nothing else would tell the verifiers. (Single leases
   * need no fence.) Those not live are skipped. With `verdict`, a lease is moved only if its task still has that generation and the
   * cell that bundle (compare-and-set of verdicts); otherwise nothing is written, it is `stale`, and the task stays due. `known` are
   * records that were read already: what never changes in them is not read again. `sinceMs`: since when they ought to be dead, where that is not now.
   */
  revokeLeases(write: {
    leaseIds: string[];
    known?: readonly LeaseRecord[];
    reason: string;
    sinceMs?: EpochMs;
    announce?: boolean;
    verdict?: { taskId: string; generation: number; bundle: string };
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ revoked: string[]; stale: boolean; position?: Position }>;

  /**
   * Begins an attempt at revoking a credential, for one worker: nobody else begins one before `untilMs`, or before this one is closed. A
   * lease past its end and an intent past its deadline are moved to `revoking` by it (then `audit` is written). `begun` brings the lease with
   * the attempt's number; `not_due`: alive, or somebody else's attempt; `closed`: nothing is left to do.
   */
  beginAttempt(write: {
    leaseId: string;
    backend: string;
    untilMs: EpochMs;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<({ outcome: 'begun'; lease: LeaseRecord } & Kept) | { outcome: 'not_due' | 'closed' } | NotThere>;

  /**
   * One attempt at revoking a credential is over: it is dead (`revoked`), not yet (`revoking`, next attempt due), or given up by operators. With
   * `residue` it is dead, and what is left of it goes on being due. An attempt without a problem only waits: it makes nobody stuck. When it is
   * over, what rests encrypted is erased.
   */
  closeAttempt(write: {
    /** As the attempt began with it: what of it never changes says where it is indexed. */
    lease: LeaseRecord;
    /** Fences workers. Operators give the last one begun. */
    attempt: number;
    result:
      | { state: 'revoked'; evidence: Evidence; residue?: { what: string; nextAttemptMs: EpochMs } }
      | { state: 'revoking'; problem?: string; evidence?: 'unbounded'; nextAttemptMs: EpochMs }
      | { state: 'abandoned'; reason: string };
    nowMs: EpochMs;
    audit?: AuditRecord;
  }): Promise<{ outcome: 'closed' | 'fenced' } | NotThere>;

  /**
   * Somebody asks to give up on a credential that is being revoked. `second`: another person asked within 15 minutes before, and it may be done
   * (`closeAttempt`). Asking again alone changes nothing.
   */
  askToAbandon(write: {
    leaseId: string;
    by: string;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'requested' | 'second' | 'not_live' } | NotThere>;

  /** What the latest comparison of a backend with its leases found. */
  noteReconciled(write: {
    backend: string;
    found: number;
    orphans: number;
    lost: number;
    nowMs: EpochMs;
  }): Promise<void>;

  /** A backend is back: everything that is being revoked there is due now. */
  hasten(write: { backend: string; nowMs: EpochMs }): Promise<{ count: number }>;

  /**
   * The drain or the judging of a task is done, as it was begun on the task in this state and generation: no longer due for that work. `stale`:
   * the task moved on meanwhile and the work stays due. (An end keeps the generation, so the state counts too; and a drain settles no judging.)
   * Who settles what was settled already gets the same answer, and leaves no record. With `dueAtMs` it is also stale when it is due, and at another
   * time than this: it was made due anew since (`Views.dueAt`).
   */
  settleTask(write: {
    taskId: string;
    work: 'drain-task' | 're-evaluate-task';
    state: TaskState;
    generation: number;
    dueAtMs?: EpochMs;
    nowMs: EpochMs;
    audit?: AuditRecord;
  }): Promise<{ outcome: 'settled' | 'stale' } | NotThere>;

  /**
   * Makes a bundle the active one (fence and an entry that kills nothing), due for judging all live leases again (`re-evaluate-bundle`). `seen`:
   * activated before, and `again` was not set.
   */
  activateBundle(write: {
    digest: string;
    files: Record<string, string>;
    again: boolean;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'activated' | 'already' | 'seen'; position?: Position; active: string }>;

  /** All live leases were judged under this bundle: no longer due. */
  settleBundle(write: { digest: string; nowMs: EpochMs }): Promise<void>;

  /** Stores the key ring (encrypted under the root key by state) by compare-and-set on its version. A tainted kid gets a feed entry for ever. */
  saveKeyRing(write: {
    ring: unknown;
    fromVersion: number;
    taintedKid?: string;
    nowMs: EpochMs;
    audit: AuditRecord;
  }): Promise<{ outcome: 'saved' | 'moved_on'; version: number }>;

  /** Raises the epoch by hand: every token of earlier epochs is dead. */
  recover(write: { by: string; reason: string; nowMs: EpochMs; audit: AuditRecord }): Promise<{ epoch: number }>;

  /** A record without a change: refusals, decisions. */
  note(record: AuditRecord): Promise<void>;
}

/** What a decision was made under; a script refuses as `stale` when any of it moved on. */
export interface Basis {
  position: Position;
  bundle: string;
  /** Generations of the tasks on the path, root first. */
  generations: number[];
}

export interface Quotas {
  leasesPerTask: number;
  leasesPerAgent: number;
  /** Live tasks and leases per tree. */
  perTree: number;
}

/** What rests encrypted with a credential's lease until it is closed: what it is tried with, and what its backend cannot revoke without. */
export interface Kept {
  probe?: Secret<SecretData>;
  kept?: Secret<SecretData>;
}

export interface NotThere {
  outcome: 'not_found';
}

/** A lease, what is above it, and the fence of that moment: only a table that has reached it can say that no selector kills the lease. */
export interface LeaseWithAbove {
  lease: LeaseRecord;
  /** Root first. */
  tasks: TaskRecord[];
  /** Outermost first. */
  leases: LeaseRecord[];
  fence: Position;
}

/** Why a grant was not written. `stale`: read and decide again. `by` names the task, lease or quota. */
export type Refusal =
  | { outcome: 'stale'; because: 'fence' | 'generation' | 'bundle' | 'epoch' }
  | { outcome: 'over' | 'suspended' | 'not_found' | 'not_live' | 'parent_expired' | 'too_late'; by: string }
  | { outcome: 'quota'; by: 'task' | 'agent' | 'tree' };

export interface Reading {
  /** Root first; empty when no task was asked for. */
  tasks: TaskRecord[];
  /** Outermost first. */
  leases: LeaseRecord[];
  locks: LockRecord[];
  fence: Position;
  /** The feed's head: what a lease decided on this reading carries. */
  position: Position;
  bundle: string;
}

export interface LockRecord {
  id: string;
  selector: Selector;
  reason: string;
  by: string;
  createdAtMs: EpochMs;
  /** Absent: until lifted. */
  expiresAtMs?: EpochMs;
  /** Set by the system for an SVID key that left its bundle. */
  system?: boolean;
  liftRequestedBy?: string;
  liftRequestedAtMs?: EpochMs;
}

export interface RevocationRecord {
  id: string;
  selector: Selector;
  reason: string;
  by: string;
  lockId?: string;
  createdAtMs: EpochMs;
  /** Filled in by the store. */
  position?: Position;
  untilMs?: EpochMs;
  cursor?: string;
  found?: { leases: number; tasks: number; agents: number; credentials: number };
  /** Where what was hit can only expire: resource to its latest end. */
  remains?: Record<string, EpochMs>;
  done?: boolean;
  finishedAtMs?: EpochMs;
}

/** What one page of an enumeration hit (at most 500 leases). */
export interface RevocationHit {
  leases: number;
  credentials: number;
  tasks: string[];
  agents: string[];
  remains: Record<string, EpochMs>;
}

/** Questions; they change nothing. */
export interface Views {
  task(id: string): Promise<TaskRecord | undefined>;
  /** When the judging that context changes of a task left to do has to be over; undefined when none is left. */
  judgeBy(taskId: string): Promise<EpochMs | undefined>;
  /** When a piece of work is due; undefined when it is not. */
  dueAt(job: Job): Promise<EpochMs | undefined>;
  taskIdByRef(opener: string, ref: string): Promise<string | undefined>;
  /** Direct children. */
  children(taskId: string, page: { cursor?: string; limit: number }): Promise<Page<string>>;
  lease(id: string): Promise<LeaseRecord | undefined>;
  /** Newest first; `opener` and `agent` restrict to what somebody may see. */
  tasks(filter: {
    opener?: string;
    agent?: string;
    live?: boolean;
    cursor?: string;
    limit: number;
  }): Promise<Page<TaskRecord>>;
  /**
   * Leases that are not past their end, and credentials until they are closed. `task`: at it or anywhere below it, revoked tokens left
   * out. `backend`: its credentials only. The state `stuck` is a label (core/lease.ts). `live`: whether by their own state they are not over
   * (what is being revoked is not); `givenFor`: an operator token is given for no task. At most 500 a page, in a stable order, resumable by
   * cursor; a credential that moves on meanwhile may come twice in the list of its backend.
   */
  leases(filter: {
    task?: string;
    agent?: string;
    backend?: string;
    state?: string;
    live?: boolean;
    givenFor?: 'task' | 'operator';
    cursor?: string;
    limit: number;
  }): Promise<Page<LeaseRecord>>;
  /** What rests encrypted with a credential's lease until it is closed. */
  kept(leaseId: string): Promise<Kept>;
  /** A lease with what is above it, as deadBecause wants it: one script for whoever has its path, which never changes, and two for who has its id. */
  leaseWithAbove(lease: string | Pick<LeaseRecord, 'id' | 'path'>): Promise<LeaseWithAbove | undefined>;
  /** How many credentials each backend has in each state. One short read per 500 of them. */
  credentialCounts(): Promise<CredentialCount[]>;
  /** The latest comparison of a backend with its leases; undefined when there was none. */
  reconciled(backend: string): Promise<Reconciled | undefined>;
  locks(nowMs: EpochMs): Promise<LockRecord[]>;
  lock(id: string): Promise<LockRecord | undefined>;
  revocation(id: string): Promise<RevocationRecord | undefined>;
  revocations(page: { cursor?: string; limit: number }): Promise<Page<RevocationRecord>>;
  activeBundle(): Promise<{ digest: string; files: Record<string, string> } | undefined>;
  bundles(): Promise<{ digest: string; activatedAtMs: EpochMs; active: boolean }[]>;
  bundleFiles(digest: string): Promise<Record<string, string> | undefined>;
  keyRing(): Promise<{ ring: unknown; version: number } | undefined>;
  /** The cell's key for selector hashes, nonces and cursors: made once, never rotated. */
  cellKey(): Promise<Uint8Array>;
}

export interface Page<Item> {
  items: Item[];
  cursor?: string;
}

/** The ordered stream of revocations, and this broker's own copy of it. */
export interface Feed {
  /** This broker's own position: the last entry it applied (or the head it was told). */
  position(): Position;
  /** Whether this broker's own table kills a lease or token; see core/revocations.ts. */
  table(): RevocationLookup;
  /** Resolves when the own table has reached `position`; `unavailable` after `timeoutMs`. */
  reached(position: Position, timeoutMs: number): Promise<void>;
  /** The head as Redis has it now (a guarded script). */
  head(): Promise<Position>;
  /** Frames from a cursor (deltas) or from a snapshot (`reset` first). Ends when the signal aborts; `head` every 500 ms and after the snapshot. */
  follow(options: { from?: Position; signal: AbortSignal }): AsyncIterable<FeedFrame>;
  acknowledge(reader: string, resources: string[], position: Position, nowMs: EpochMs): Promise<void>;
  readers(): Promise<FeedReader[]>;
}

export type FeedFrame = { kind: 'reset' } | { kind: 'entry'; entry: FeedEntry } | { kind: 'head'; position: Position };

export interface FeedReader {
  name: string;
  resources: string[];
  position: Position;
  acknowledgedAtMs: EpochMs;
}

/** What the table of core/revocations.ts answers, so that verbs depend on the question only. */
export interface RevocationLookup {
  /** The entry that kills a token with these claims, signed by `kid`; undefined when none does. */
  find(claims: import('../core/claims.js').TaskClaims, kid: string): FeedEntry | undefined;
}

/** Work that somebody comes for. A job carries a name and an id, nothing else; the state decides what is to be done. */
export type JobName =
  | 'drain-task'
  | 're-evaluate-task'
  | 're-evaluate-bundle'
  | 'run-revocation'
  | 'watch-task'
  | 'retire-credential';

export interface Job {
  name: JobName;
  id: string;
  /** Where it is to be done, for work at a backend. */
  backend?: string;
}

export interface Schedule {
  /** Best effort, at once; the sweeper comes for what is lost. Never throws. */
  add(job: Job): void;
  /**
   * Starts workers and the sweeper (worker role). A handler is called at least once per due thing, never twice at the same time in one
   * process for the same id; it settles the due time through the ledger. A handler that throws is tried again by the sweeper. Each backend
   * named has hands of its own, so many at a time. Tasks whose time has come are many at a time when their deadlines are the same: `watch` gets a page of them.
   */
  start(
    handle: (job: Job) => Promise<void>,
    more?: {
      backends?: readonly { name: string; concurrency: number }[];
      watch?: (taskIds: readonly string[]) => Promise<void>;
    },
  ): Promise<void>;
  /** Sweeps once, now, and waits for no messenger: what tests with a virtual clock call. Returns how many were due. */
  sweep(): Promise<number>;
  stop(): Promise<void>;
}

/** Things that may happen once. */
export interface ReplayGuard {
  /** True the first time for this key before `untilMs`; throws `unavailable` when Redis is out (fail closed). */
  once(key: string, untilMs: EpochMs, nowMs: EpochMs): Promise<boolean>;
  /**
   * Idempotency-Key: the stored answer of the same body, `new` (now claimed), or `other_body`. Answers are kept encrypted for 24 h. A claim
   * whose owner died is free again after `holdMs`, a minute unless it is said.
   */
  claim(
    key: string,
    bodyDigest: string,
    nowMs: EpochMs,
    holdMs?: number,
  ): Promise<
    | { outcome: 'new' }
    | { outcome: 'other_body' }
    | { outcome: 'in_progress' }
    | { outcome: 'answered'; answer: string }
  >;
  answer(key: string, answer: string, nowMs: EpochMs): Promise<void>;
  /** Gives the claim back when the request failed. */
  release(key: string): Promise<void>;
  /**
   * An Idempotency-Key that stands for a lease, for 24 h: of the leases that come with it, `openIntent` opens the one it names and no other.
   * `named`: that is `leaseId` now. `given_up`: it named another one, whose intent can never be opened from here on; once that one is revoked,
   * come again `inPlaceOf` it. Until then the key names it still, so that whoever dies in between leaves it to the next who asks. `taken`:
   * somebody else came with the key meanwhile.
   */
  nameLease(
    key: string,
    name: { bodyDigest: string; leaseId: string; inPlaceOf?: string },
    nowMs: EpochMs,
  ): Promise<{ outcome: 'named' | 'taken' | 'other_body' } | { outcome: 'given_up'; leaseId: string }>;
}

export interface AuditLog {
  /** Newest first, from Redis and then from the files this broker keeps. */
  read(filter: AuditFilter): Promise<Page<AuditRecord & { pos?: Position }>>;
  /** One record by its id. */
  find(id: string): Promise<(AuditRecord & { pos?: Position }) | undefined>;
  /** Appends records to NDJSON files (fsync), then trims them from Redis. Worker role. Returns how many moved. */
  move(): Promise<number>;
}

export interface AuditFilter {
  agent?: string;
  task?: string;
  lease?: string;
  type?: string;
  fromMs?: EpochMs;
  toMs?: EpochMs;
  cursor?: string;
  limit: number;
}

export interface Health {
  /** Everything `doctor` and readiness want to know, one line each. */
  check(): Promise<HealthLine[]>;
  /** Why grants are closed, or undefined while they are open. */
  grantsClosed(): string | undefined;
  /** The numbers behind the last check, which is a second old at most; undefined while the store does not answer. Asks nobody. */
  figures(): StoreFigures | undefined;
  close(): Promise<void>;
}

export interface HealthLine {
  name: string;
  ok: boolean;
  detail: string;
  /** What to do about it. */
  advice?: string;
  /**
   * Without it this broker can do nothing for anybody, and another one perhaps can: it is not ready. All else closes grants at most, and stays
   * ready: whoever comes to revoke has to find a way in.
   */
  vital?: true;
  /** Everything but some secrets works without it. */
  optional?: true;
  /** Nothing is broken: this broker was never given it. */
  absent?: true;
}

/** What the store looks like, in numbers. */
export interface StoreFigures {
  memoryUsedBytes: number;
  /** Redis' own limit, or the machine's where it has none. */
  memoryLimitBytes: number;
  /** How long the oldest audit record has waited to be moved to a file. */
  auditBacklogMs: number;
  /** Due work that nobody has come for in time, and for how long the oldest of it has waited. */
  overdue: number;
  overdueMs: number;
  clockSkewMs: number;
  epoch: number;
}

/** What a comparison of a backend with its leases found. */
export interface Reconciled {
  atMs: EpochMs;
  /** Credentials under our names. */
  found: number;
  /** Of these: nobody's, and revoked. */
  orphans: number;
  /** Leases whose credential was not there. */
  lost: number;
  /** In all comparisons that this store knows of. */
  orphansEver: number;
}

/** Credentials that are not closed, of one backend in one state. */
export interface CredentialCount {
  backend: string;
  state: LeaseState;
  count: number;
  /** Of these: revoking for so many attempts that somebody should look. */
  stuck: number;
}
