import type { AuditRecord } from '../../src/core/audit.js';
import type { SecretData } from '../../src/core/credential.js';
import { assert, BrokerError } from '../../src/core/errors.js';
import { isOperatorToken, type LeaseRecord, STUCK_ATTEMPTS } from '../../src/core/lease.js';
import { epochOf, isBefore, type Position } from '../../src/core/position.js';
import type { Match } from '../../src/core/revocations.js';
import { isTerminal, PATH_DEPTH_MAX, type TaskRecord, type TerminalState } from '../../src/core/task.js';
import type { EpochMs } from '../../src/core/time.js';
import type {
  Basis,
  Ledger,
  LockRecord,
  NotThere,
  Quotas,
  Reading,
  Refusal,
  RevocationRecord,
} from '../../src/state/stores.js';
import { type Acknowledged, keptOf, type Line, MEMORY_MS, SKEW_MS } from './line.js';

const KEPT_END_MS = 16 * 60_000;
const KEPT_ENDS_MAX = 1_000;
const LIFT_WINDOW_MS = 15 * 60_000;
const PAGE_MAX = 500;

type Write<Method extends keyof Ledger> = Parameters<Ledger[Method]>[0];

const gone: NotThere = { outcome: 'not_found' };

/**
 * The ledger's promises (src/state/stores.ts) over plain maps. Each method is atomic because it never awaits; what it takes and gives is
 * copied, so that nobody holds a piece of the store.
 */
export class FakeLedger implements Ledger {
  readonly #line: Line;
  readonly #memory: Acknowledged[];

  constructor(line: Line, memory: Acknowledged[]) {
    this.#line = line;
    this.#memory = memory;
  }

  async read(query: Write<'read'>): Promise<Reading | undefined> {
    this.#answer();
    const { state } = this.#line;
    const task = query.taskId === undefined ? undefined : state.tasks.get(query.taskId);
    if (query.taskId !== undefined && !task) return undefined;
    const leases = (query.leaseIds ?? []).map((id) => state.leases.get(id));
    if (leases.some((lease) => lease === undefined)) return undefined;
    return structuredClone({
      tasks: task ? task.path.map((id) => this.#taskAt(id)) : [],
      leases: leases as LeaseRecord[],
      locks: this.liveLocks(query.nowMs),
      fence: state.fence,
      position: this.#line.head(),
      bundle: state.activeBundle,
    });
  }

  async startTask(write: Write<'startTask'>): ReturnType<Ledger['startTask']> {
    this.#answer();
    const { charter, nowMs } = structuredClone(write);
    const { state } = this.#line;
    assert(charter.path.at(-1) === charter.id && charter.path.length <= PATH_DEPTH_MAX, 'a path ends with its own id');
    const there =
      state.tasks.get(charter.id) ??
      (charter.ref === undefined
        ? undefined
        : state.tasks.get(state.refs.get(refKey(charter.opener, charter.ref)) ?? ''));
    if (there) return { outcome: 'exists', task: structuredClone(there) };
    this.#mustGrant();
    const refusal =
      this.#pathRefusal(charter.path.slice(0, -1), [], write.basis, nowMs) ??
      this.#treeRefusal(charter.path[0] as string, write.quotas, nowMs);
    if (refusal) return refusal;

    const task: TaskRecord = {
      ...charter,
      state: 'active',
      generation: 1,
      context: structuredClone(write.context),
      liveUntilMs: 0,
    };
    state.tasks.set(task.id, task);
    this.#line.record(write.audit);
    if (task.ref !== undefined) {
      const key = refKey(task.opener, task.ref);
      state.refs.set(key, task.id);
      const kept = state.keptEnds.get(key);
      state.keptEnds.delete(key);
      if (kept && kept.untilMs > nowMs) {
        this.#finish(task, kept.state, kept.reason, kept.by, nowMs);
        return { outcome: 'opened', task: structuredClone(task) };
      }
    }
    this.#watch(task);
    return { outcome: 'opened', task: structuredClone(task) };
  }

  async commitLease(write: Write<'commitLease'>): ReturnType<Ledger['commitLease']> {
    this.#answer();
    const { state } = this.#line;
    const lease = structuredClone(write.lease);
    const there = state.leases.get(lease.id);
    if (there?.state === 'active') return { outcome: 'committed' };
    if (there && there.state !== 'pending') return { outcome: 'not_live', by: lease.id };
    if (!isOperatorToken(lease)) this.#mustGrant();
    const refusal = this.#leaseRefusal(lease, write.basis, write.quotas, write.nowMs);
    if (refusal) return refusal;
    if (lease.kind === 'credential') {
      if (!there) return { outcome: 'not_found', by: lease.id };
      if (write.nowMs >= (there.intentDeadlineMs ?? 0)) return { outcome: 'too_late', by: lease.id };
      if (there.handle) lease.handle = { ...there.handle, ...lease.handle };
      delete lease.intentDeadlineMs;
    }

    lease.state = 'active';
    state.leases.set(lease.id, lease);
    if (lease.kind === 'credential') {
      if (write.probe) this.#keep(lease.id, { probe: write.probe.expose() });
      this.#retireAt(lease, lease.expiresAtMs);
    } else {
      for (const task of this.#tasksOf(lease)) task.liveUntilMs = Math.max(task.liveUntilMs, lease.expiresAtMs);
    }
    this.#line.record(write.audit);
    return { outcome: 'committed' };
  }

  async openIntent(write: Write<'openIntent'>): ReturnType<Ledger['openIntent']> {
    this.#answer();
    const { state } = this.#line;
    const lease = structuredClone(write.lease);
    assert(lease.kind === 'credential', 'an intent is for a credential');
    const there = state.leases.get(lease.id);
    if (there?.state === 'pending') return { outcome: 'committed' };
    if (there) return { outcome: 'not_live', by: lease.id };
    if (write.requestKey !== undefined) {
      const key = state.requests.get(write.requestKey);
      const isNamed = key !== undefined && key.untilMs > write.nowMs && key.leaseId === lease.id && !key.isGivenUp;
      if (!isNamed) return { outcome: 'not_live', by: lease.id };
    }
    this.#mustGrant();
    const refusal = this.#leaseRefusal(lease, write.basis, write.quotas, write.nowMs);
    if (refusal) return refusal;

    lease.state = 'pending';
    lease.intentDeadlineMs = write.intentDeadlineMs;
    state.leases.set(lease.id, lease);
    this.#retireAt(lease, write.intentDeadlineMs);
    this.#line.record(write.audit);
    return { outcome: 'committed' };
  }

  async noteCredential(write: Write<'noteCredential'>): ReturnType<Ledger['noteCredential']> {
    this.#answer();
    const lease = this.#line.state.leases.get(write.leaseId);
    if (lease?.kind !== 'credential') return gone;
    if (lease.state !== 'pending' && lease.state !== 'revoking') return { outcome: 'not_live' };
    if (Object.keys(write.handle).length > 0) lease.handle = { ...lease.handle, ...write.handle };
    if (write.keep) this.#keep(lease.id, { kept: write.keep.expose() });
    if (lease.state === 'pending') return { outcome: 'noted' };
    this.#retireAt(lease, write.nowMs);
    return { outcome: 'not_live' };
  }

  async renewLease(write: Write<'renewLease'>): ReturnType<Ledger['renewLease']> {
    this.#answer();
    const lease = this.#line.state.leases.get(write.leaseId);
    if (!lease) return { outcome: 'not_found', by: write.leaseId };
    this.#mustGrant();
    if (lease.state !== 'active' || lease.expiresAtMs <= write.nowMs) return { outcome: 'not_live', by: lease.id };
    const refusal = this.#pathRefusal(pathTasks(lease), pathLeases(lease), write.basis, write.nowMs, true);
    if (refusal) return refusal;
    if (this.#tasksOf(lease).some((task) => task.cutAt && isBefore(lease.position, task.cutAt))) {
      return { outcome: 'not_live', by: lease.id };
    }
    lease.expiresAtMs = write.expiresAtMs;
    lease.generations = [...write.basis.generations];
    lease.bundle = write.basis.bundle;
    if (this.#line.bugs.renewalTakesNewPosition) lease.position = write.basis.position;
    this.#retireAt(lease, lease.expiresAtMs);
    this.#line.record(write.audit);
    return { outcome: 'committed' };
  }

  async endTask(write: Write<'endTask'>): ReturnType<Ledger['endTask']> {
    this.#answer();
    const task = this.#line.state.tasks.get(write.taskId);
    if (!task) return gone;
    if (isTerminal(task.state)) return { outcome: 'already', task: structuredClone(task) };
    if (write.onlyIf === 'deadline' && task.deadlineMs > write.nowMs) return { outcome: 'not_due' };
    if (write.onlyIf === 'silence' && !isSilent(task, task.onSilence === 'end' ? 1 : 3, write.nowMs)) {
      return { outcome: 'not_due' };
    }
    const position = this.#finish(task, write.state, write.reason, write.by, write.nowMs);
    this.#line.record(write.audit);
    this.#remember({ kind: 'end', atMs: write.nowMs, task: structuredClone(task) });
    return { outcome: 'ended', task: structuredClone(task), ...(position && { position }) };
  }

  async expireTasks({ ends, reason, by, nowMs }: Write<'expireTasks'>): ReturnType<Ledger['expireTasks']> {
    this.#answer();
    return ends.map(({ taskId, audit }) => {
      const task = this.#line.state.tasks.get(taskId);
      if (!task || isTerminal(task.state)) {
        this.#line.settle('watch-task', taskId);
        return 'over';
      }
      if (task.deadlineMs > nowMs) return 'not_due';
      this.#finish(task, 'expired', reason, by, nowMs);
      this.#line.record(audit);
      return 'ended';
    });
  }

  async keepEnd(write: Write<'keepEnd'>): ReturnType<Ledger['keepEnd']> {
    this.#answer();
    const { keptEnds } = this.#line.state;
    const key = refKey(write.opener, write.ref);
    for (const [other, kept] of keptEnds) if (kept.untilMs <= write.nowMs) keptEnds.delete(other);
    if (keptEnds.has(key)) return { outcome: 'kept' };
    const count = [...keptEnds.values()].filter((kept) => kept.opener === write.opener).length;
    if (count >= KEPT_ENDS_MAX) return { outcome: 'full' };
    keptEnds.set(key, {
      opener: write.opener,
      state: write.state,
      reason: write.reason,
      by: write.opener,
      untilMs: write.nowMs + KEPT_END_MS,
    });
    this.#line.record(write.audit);
    return { outcome: 'kept' };
  }

  async suspendTask(write: Write<'suspendTask'>): ReturnType<Ledger['suspendTask']> {
    this.#answer();
    const task = this.#line.state.tasks.get(write.taskId);
    if (!task) return gone;
    if (isTerminal(task.state)) return { outcome: 'over', task: structuredClone(task) };
    if (task.state === 'suspended') return { outcome: 'already', task: structuredClone(task) };
    if (!this.#line.bugs.changesUnconfirmed) this.#mustGrant();
    if (write.onlyIf === 'silence' && !isSilent(task, 1, write.nowMs)) return { outcome: 'not_due' };
    task.state = 'suspended';
    task.generation += 1;
    const position = this.#cut(task, write.nowMs);
    this.#line.makeDue('drain-task', task.id, write.nowMs);
    this.#watch(task);
    this.#line.record(write.audit);
    this.#remember({
      kind: 'generation',
      atMs: write.nowMs,
      task: structuredClone(task),
      resumed: false,
      cut: true,
    });
    return { outcome: 'suspended', task: structuredClone(task), position };
  }

  async resumeTask(write: Write<'resumeTask'>): ReturnType<Ledger['resumeTask']> {
    this.#answer();
    const task = this.#line.state.tasks.get(write.taskId);
    if (!task) return gone;
    if (isTerminal(task.state)) return { outcome: 'over', task: structuredClone(task) };
    if (task.state === 'active') return { outcome: 'already', task: structuredClone(task) };
    this.#mustGrant();
    task.state = 'active';
    task.generation += 1;
    task.lastHeartbeatMs = write.nowMs;
    this.#watch(task);
    this.#line.record(write.audit);
    this.#remember({
      kind: 'generation',
      atMs: write.nowMs,
      task: structuredClone(task),
      resumed: true,
      cut: false,
    });
    return { outcome: 'resumed', task: structuredClone(task) };
  }

  async changeContext(write: Write<'changeContext'>): ReturnType<Ledger['changeContext']> {
    this.#answer();
    const task = this.#line.state.tasks.get(write.taskId);
    if (!task) return gone;
    if (isTerminal(task.state)) return { outcome: 'over', task: structuredClone(task) };
    if (!this.#line.bugs.changesUnconfirmed) this.#mustGrant();
    if (task.generation !== write.generation) return { outcome: 'generation_mismatch', task: structuredClone(task) };
    task.context = structuredClone(write.context);
    task.generation += 1;
    const { judgeBy } = this.#line.state;
    const position = write.revoke ? this.#cut(task, write.nowMs) : undefined;
    if (!write.revoke && !judgeBy.has(task.id)) judgeBy.set(task.id, write.nowMs + write.judgeWithinMs);
    this.#line.makeDue(write.revoke ? 'drain-task' : 're-evaluate-task', task.id, write.nowMs);
    this.#line.record(write.audit);
    this.#remember({
      kind: 'generation',
      atMs: write.nowMs,
      task: structuredClone(task),
      resumed: false,
      cut: write.revoke,
    });
    return { outcome: 'changed', task: structuredClone(task), ...(position && { position }) };
  }

  async heartbeat(write: Write<'heartbeat'>): ReturnType<Ledger['heartbeat']> {
    this.#answer();
    const task = this.#line.state.tasks.get(write.taskId);
    if (!task) return gone;
    if (task.state === 'active') {
      task.lastHeartbeatMs = Math.max(task.lastHeartbeatMs ?? 0, write.nowMs);
      this.#watch(task);
    }
    return { outcome: 'noted', task: structuredClone(task) };
  }

  async revoke(write: Write<'revoke'>): ReturnType<Ledger['revoke']> {
    this.#answer();
    const there = this.#line.state.revocations.get(write.revocation.id);
    if (there) return { outcome: 'already', position: there.position as Position };
    const position = this.#applyRevocation(write.revocation, write.matches, write.untilMs, write.lock, write.nowMs);
    this.#line.record(write.audit);
    this.#remember({
      kind: 'revocation',
      atMs: write.nowMs,
      ...structuredClone({ revocation: write.revocation, matches: write.matches, untilMs: write.untilMs }),
      ...(write.lock && { lock: structuredClone(write.lock) }),
    });
    return { outcome: 'applied', position };
  }

  async liftLock(write: Write<'liftLock'>): ReturnType<Ledger['liftLock']> {
    this.#answer();
    const { locks } = this.#line.state;
    const lock = locks.get(write.lockId);
    if (!lock || (lock.expiresAtMs ?? Number.POSITIVE_INFINITY) <= write.nowMs) return gone;
    const asked = lock.liftRequestedAtMs !== undefined && write.nowMs - lock.liftRequestedAtMs < LIFT_WINDOW_MS;
    const second = asked && lock.liftRequestedBy !== write.by;
    if (write.secondPersonNeeded && !second) {
      if (!asked) {
        lock.liftRequestedBy = write.by;
        lock.liftRequestedAtMs = write.nowMs;
        this.#line.record(write.audit);
      }
      return { outcome: 'requested' };
    }
    locks.delete(write.lockId);
    this.#line.record(write.audit);
    this.#remember({ kind: 'lift', atMs: write.nowMs, lockId: write.lockId });
    return { outcome: 'lifted' };
  }

  async advanceRevocation(write: Write<'advanceRevocation'>): ReturnType<Ledger['advanceRevocation']> {
    this.#answer();
    const revocation = this.#line.state.revocations.get(write.id);
    if (!revocation) return gone;
    if (revocation.done || (revocation.cursor ?? '') !== write.fromCursor) return { outcome: 'moved_on' };
    revocation.cursor = write.cursor;
    const { hit } = write;
    const seen = this.#line.state.revoked.get(write.id) ?? { tasks: new Set(), agents: new Set() };
    this.#line.state.revoked.set(write.id, seen);
    for (const task of hit.tasks) seen.tasks.add(task);
    for (const agent of hit.agents) seen.agents.add(agent);
    revocation.found = {
      leases: (revocation.found?.leases ?? 0) + hit.leases,
      tasks: seen.tasks.size,
      agents: seen.agents.size,
      credentials: (revocation.found?.credentials ?? 0) + hit.credentials,
    };
    for (const [resource, endMs] of Object.entries(hit.remains)) {
      const lastMs = Math.max(endMs, revocation.remains?.[resource] ?? 0);
      revocation.remains = { ...revocation.remains, [resource]: lastMs };
    }
    if (write.done) {
      revocation.done = true;
      revocation.finishedAtMs = write.nowMs;
      this.#line.settle('run-revocation', write.id);
    }
    this.#line.record(write.audit);
    return { outcome: 'advanced' };
  }

  async revokeLeases(write: Write<'revokeLeases'>): ReturnType<Ledger['revokeLeases']> {
    this.#answer();
    assert(write.leaseIds.length <= PAGE_MAX, 'at most one page of leases moves at once');
    if (write.verdict && this.#isStale(write.verdict)) return { revoked: [], stale: true };
    const { state } = this.#line;
    const revoked: string[] = [];
    let position: Position | undefined;
    for (const id of write.leaseIds) {
      const lease = state.leases.get(id);
      if (!lease || !this.#isMovable(lease, write.nowMs)) continue;
      revoked.push(id);
      const hasBelow = [...state.leases.values()].some((other) => other.path.includes(id));
      if (hasBelow && lease.kind === 'token' && lease.taskId !== undefined) {
        const before = this.#line.dueAt('drain-task', lease.taskId) ?? write.nowMs + 1;
        this.#line.makeDue('drain-task', lease.taskId, Math.min(before - 1, write.nowMs));
      }
      // A verdict's token has no other entry that kills it at a verifier.
      if (hasBelow || ((write.verdict || write.announce) && lease.kind === 'token')) {
        position = this.#line.append({ lease: id }, lease.expiresAtMs + SKEW_MS);
      }
      this.#moveDown(lease, write.reason, write.nowMs, write.sinceMs);
    }
    if (revoked.length > 0) this.#line.record(write.audit);
    return { revoked, stale: false, ...(position && { position }) };
  }

  async beginAttempt(write: Write<'beginAttempt'>): ReturnType<Ledger['beginAttempt']> {
    this.#answer();
    const { state } = this.#line;
    const { nowMs, untilMs } = write;
    const lease = state.leases.get(write.leaseId);
    if (lease?.kind !== 'credential') {
      this.#line.settle('retire-credential', write.leaseId);
      return gone;
    }
    const isLive = lease.state === 'active' || lease.state === 'pending';
    if (!isLive && !isUnfinished(lease)) {
      this.#line.settle('retire-credential', lease.id);
      return { outcome: 'closed' };
    }
    const ends = lease.state === 'active' ? lease.expiresAtMs : (lease.intentDeadlineMs ?? 0);
    const fromMs = isLive ? ends : (state.attemptsHeld.get(lease.id) ?? 0);
    if (fromMs > nowMs) {
      this.#retireAt(lease, fromMs);
      return { outcome: 'not_due' };
    }
    if (isLive) {
      lease.revokedReason = lease.state === 'active' ? 'it expired' : 'it was not committed in time';
      lease.state = 'revoking';
      lease.revokingAtMs = fromMs;
      this.#line.record(write.audit);
    }
    lease.attempts = (lease.attempts ?? 0) + 1;
    state.attemptsHeld.set(lease.id, untilMs);
    this.#retireAt(lease, untilMs);
    return { outcome: 'begun', lease: structuredClone(lease), ...keptOf(state, lease.id) };
  }

  async closeAttempt(write: Write<'closeAttempt'>): ReturnType<Ledger['closeAttempt']> {
    this.#answer();
    const { state } = this.#line;
    const { result, nowMs } = write;
    const lease = state.leases.get(write.lease.id);
    if (lease?.kind !== 'credential') return gone;
    if (!isUnfinished(lease) || (lease.attempts ?? 0) !== write.attempt) return { outcome: 'fenced' };
    state.attemptsHeld.delete(lease.id);
    this.#line.record(write.audit);
    if (result.state === 'revoking') {
      if (result.evidence) lease.evidence = result.evidence;
      lease.nextAttemptMs = result.nextAttemptMs;
      this.#retireAt(lease, result.nextAttemptMs);
      if (result.problem === undefined) return { outcome: 'closed' };
      lease.lastProblem = result.problem;
      const failures = (state.failures.get(lease.id) ?? 0) + 1;
      state.failures.set(lease.id, failures);
      if (failures >= STUCK_ATTEMPTS) lease.stuck = true;
      return { outcome: 'closed' };
    }
    if (lease.state === 'revoking') {
      lease.state = result.state;
      lease.revokedAtMs = nowMs;
      if (result.state === 'revoked') lease.evidence = result.evidence;
    }
    if (result.state === 'abandoned') lease.lastProblem = `given up: ${result.reason}`;
    delete lease.nextAttemptMs;
    delete lease.residue;
    delete lease.stuck;
    state.kept.delete(lease.id);
    this.#line.settle('retire-credential', lease.id);
    if (result.state === 'revoked' && result.residue) {
      lease.residue = result.residue.what;
      lease.nextAttemptMs = result.residue.nextAttemptMs;
      lease.stuck = true;
      this.#retireAt(lease, result.residue.nextAttemptMs);
    }
    return { outcome: 'closed' };
  }

  async askToAbandon(write: Write<'askToAbandon'>): ReturnType<Ledger['askToAbandon']> {
    this.#answer();
    const { state } = this.#line;
    const lease = state.leases.get(write.leaseId);
    if (lease?.kind !== 'credential') return gone;
    if (!isUnfinished(lease)) return { outcome: 'not_live' };
    const before = state.abandoning.get(lease.id);
    const asked = before && write.nowMs - before.atMs < LIFT_WINDOW_MS;
    if (asked && before.by !== write.by) return { outcome: 'second' };
    if (!asked) {
      state.abandoning.set(lease.id, { by: write.by, atMs: write.nowMs });
      this.#line.record(write.audit);
    }
    return { outcome: 'requested' };
  }

  async noteReconciled({ backend, nowMs, ...seen }: Write<'noteReconciled'>): Promise<void> {
    this.#answer();
    const { reconciled } = this.#line.state;
    const before = reconciled.get(backend)?.orphansEver ?? 0;
    reconciled.set(backend, { ...seen, atMs: nowMs, orphansEver: before + seen.orphans });
  }

  async hasten(write: Write<'hasten'>): ReturnType<Ledger['hasten']> {
    this.#answer();
    const late = [...this.#line.state.leases.values()].filter(
      (lease) => lease.backend === write.backend && isUnfinished(lease),
    );
    for (const lease of late) {
      const due = this.#line.state.due.get(`retire-credential:${lease.id}`);
      if (due) due.atMs = Math.min(due.atMs, write.nowMs);
    }
    return { count: late.length };
  }

  async settleTask(write: Write<'settleTask'>): ReturnType<Ledger['settleTask']> {
    this.#answer();
    const task = this.#line.state.tasks.get(write.taskId);
    if (!task) return gone;
    const movedOn = task.generation !== write.generation || task.state !== write.state;
    if (movedOn && !this.#line.bugs.dropVerdictCompare) return { outcome: 'stale' };
    const dueAtMs = this.#line.dueAt(write.work, task.id);
    if (write.dueAtMs !== undefined && dueAtMs !== undefined && dueAtMs !== write.dueAtMs) return { outcome: 'stale' };
    const wasDue = this.#line.settle(write.work, task.id);
    if (write.work === 're-evaluate-task') this.#line.state.judgeBy.delete(task.id);
    if (wasDue) this.#line.record(write.audit);
    return { outcome: 'settled' };
  }

  async activateBundle(write: Write<'activateBundle'>): ReturnType<Ledger['activateBundle']> {
    this.#answer();
    const { state } = this.#line;
    if (state.activeBundle === write.digest) return { outcome: 'already', active: write.digest };
    if (state.bundles.has(write.digest) && !write.again) return { outcome: 'seen', active: state.activeBundle };
    const position = this.#activate(write.digest, write.files, write.nowMs);
    this.#line.record(write.audit);
    this.#remember({ kind: 'bundle', atMs: write.nowMs, digest: write.digest, files: { ...write.files } });
    return { outcome: 'activated', position, active: write.digest };
  }

  async settleBundle(write: Write<'settleBundle'>): Promise<void> {
    this.#answer();
    this.#line.settle('re-evaluate-bundle', write.digest);
  }

  async saveKeyRing(write: Write<'saveKeyRing'>): ReturnType<Ledger['saveKeyRing']> {
    this.#answer();
    const { state } = this.#line;
    const version = state.ring?.version ?? 0;
    if (version !== write.fromVersion) return { outcome: 'moved_on', version };
    state.ring = { ring: structuredClone(write.ring), version: version + 1 };
    if (write.taintedKid !== undefined) this.#line.append({ key: write.taintedKid }, null, { fence: true });
    this.#line.record(write.audit);
    return { outcome: 'saved', version: version + 1 };
  }

  async recover(write: Write<'recover'>): ReturnType<Ledger['recover']> {
    this.#answer();
    const epoch = this.#line.raiseEpoch();
    this.#line.record(write.audit);
    return { epoch };
  }

  async note(record: AuditRecord): Promise<void> {
    this.#answer();
    this.#line.record(record);
  }

  /** Repeats, in a new epoch, what this broker acknowledged in the last minute and the store forgot. */
  confirmEpoch(): void {
    const nowMs = this.#line.clock.now();
    if (!this.#line.bugs.dropMemory) {
      const remembered = this.#memory.filter((one) => this.#line.raisedAtMs - one.atMs <= MEMORY_MS);
      for (const one of remembered) this.#repeat(one, remembered, nowMs);
    }
  }

  liveLocks(nowMs: EpochMs): LockRecord[] {
    return [...this.#line.state.locks.values()].filter(
      (lock) => lock.expiresAtMs === undefined || lock.expiresAtMs > nowMs,
    );
  }

  #repeat(one: Acknowledged, all: Acknowledged[], nowMs: EpochMs): void {
    const { state } = this.#line;
    if (one.kind === 'end') {
      const task = state.tasks.get(one.task.id);
      if (!task || isTerminal(task.state)) return;
      this.#finish(task, one.task.state as TerminalState, one.task.endReason ?? '', one.task.endedBy ?? '', nowMs);
    } else if (one.kind === 'generation') {
      const task = state.tasks.get(one.task.id);
      if (!task || isTerminal(task.state) || task.generation >= one.task.generation) return;
      const resumedSince = all.some(
        (other) =>
          other.kind === 'generation' &&
          other.resumed &&
          other.task.id === task.id &&
          other.task.generation > one.task.generation,
      );
      // A resume that was itself lost is not repeated: its generation is, so that no old decision fits.
      if (!one.resumed && !(one.task.state === 'suspended' && resumedSince)) task.state = one.task.state;
      task.generation = one.task.generation;
      task.context = structuredClone(one.task.context);
      // The copy knows of cuts that came before it, whoever made them.
      const cut = one.cut || (one.task.cutAt !== undefined && one.task.cutAt !== task.cutAt);
      if (cut) this.#cut(task, nowMs);
      if (cut || task.state === 'suspended') this.#line.makeDue('drain-task', task.id, nowMs);
      this.#line.makeDue('re-evaluate-task', task.id, nowMs);
    } else if (one.kind === 'bundle') {
      if (!state.bundles.has(one.digest)) this.#activate(one.digest, one.files, nowMs);
    } else if (one.kind === 'revocation') {
      if (state.revocations.has(one.revocation.id)) return;
      const lifted = all.some((other) => other.kind === 'lift' && other.lockId === one.lock?.id);
      this.#applyRevocation(one.revocation, one.matches, one.untilMs, lifted ? undefined : one.lock, nowMs);
    }
  }

  #answer(): void {
    if (this.#line.out)
      throw new BrokerError('unavailable', 'Mayfly cannot decide right now.', { reason: 'redis is out' });
  }

  #mustGrant(): void {
    if (this.#line.closed !== undefined) {
      throw new BrokerError('unavailable', 'Mayfly cannot decide right now.', { reason: this.#line.closed });
    }
  }

  #remember(one: Acknowledged): void {
    this.#memory.push(one);
  }

  #taskAt(id: string): TaskRecord {
    const task = this.#line.state.tasks.get(id);
    assert(task, `the task ${id} of a path is there`);
    return task;
  }

  #tasksOf(lease: LeaseRecord): TaskRecord[] {
    return pathTasks(lease).flatMap((id) => this.#line.state.tasks.get(id) ?? []);
  }

  /** The refusals that a grant below these tasks and leases meets, in one order: what is there, what is over, what moved on. */
  #pathRefusal(
    taskIds: string[],
    leaseIds: string[],
    basis: Basis,
    nowMs: EpochMs,
    mayHaveExpired = false,
  ): Refusal | undefined {
    const { state, bugs } = this.#line;
    const tasks: TaskRecord[] = [];
    for (const id of taskIds) {
      const task = state.tasks.get(id);
      if (!task) return { outcome: 'not_found', by: id };
      tasks.push(task);
    }
    const leases: LeaseRecord[] = [];
    for (const id of leaseIds) {
      const lease = state.leases.get(id);
      if (!lease) return { outcome: 'not_found', by: id };
      leases.push(lease);
    }
    for (const task of bugs.dropPath ? tasks.slice(-1) : tasks) {
      if (isTerminal(task.state) || task.deadlineMs <= nowMs) return { outcome: 'over', by: task.id };
      if (task.state === 'suspended') return { outcome: 'suspended', by: task.id };
    }
    for (const lease of bugs.dropPath ? [] : leases) {
      if (lease.state !== 'active') return { outcome: 'not_live', by: lease.id };
      if (lease.kind === 'token' && lease.expiresAtMs <= nowMs && !bugs.dropExpiry && !mayHaveExpired) {
        return { outcome: 'parent_expired', by: lease.id };
      }
    }
    if (epochOf(basis.position) !== state.epoch) return { outcome: 'stale', because: 'epoch' };
    if (basis.bundle !== state.activeBundle) return { outcome: 'stale', because: 'bundle' };
    if (isBefore(basis.position, state.fence) && !bugs.dropFence) return { outcome: 'stale', because: 'fence' };
    const compared = bugs.dropGeneration ? [] : tasks.map((task, at) => ({ task, at }));
    for (const { task, at } of bugs.dropAncestorGeneration ? compared.slice(-1) : compared) {
      if (basis.generations[at] !== task.generation) return { outcome: 'stale', because: 'generation' };
    }
    return undefined;
  }

  #leaseRefusal(lease: LeaseRecord, basis: Basis, quotas: Quotas, nowMs: EpochMs): Refusal | undefined {
    const refusal = this.#pathRefusal(pathTasks(lease), pathLeases(lease), basis, nowMs);
    if (refusal) return refusal;
    const live = [...this.#line.state.leases.values()].filter(
      (other) => other.id !== lease.id && isCounted(other, nowMs),
    );
    if (
      lease.taskId !== undefined &&
      live.filter((other) => other.taskId === lease.taskId).length >= quotas.leasesPerTask
    ) {
      return { outcome: 'quota', by: 'task' };
    }
    if (live.filter((other) => other.agent === lease.agent).length >= quotas.leasesPerAgent) {
      return { outcome: 'quota', by: 'agent' };
    }
    return lease.path[0] === undefined ? undefined : this.#treeRefusal(lease.path[0], quotas, nowMs, lease.id);
  }

  #treeRefusal(root: string, quotas: Quotas, nowMs: EpochMs, except?: string): Refusal | undefined {
    const { tasks, leases } = this.#line.state;
    const count =
      [...tasks.values()].filter((task) => task.path[0] === root && !isTerminal(task.state)).length +
      [...leases.values()].filter((lease) => lease.id !== except && lease.path[0] === root && isCounted(lease, nowMs))
        .length;
    return count >= quotas.perTree ? { outcome: 'quota', by: 'tree' } : undefined;
  }

  #finish(task: TaskRecord, state: TerminalState, reason: string, by: string, nowMs: EpochMs): Position | undefined {
    task.state = state;
    task.endedAtMs = nowMs;
    task.endReason = reason;
    task.endedBy = by;
    const position = task.liveUntilMs + SKEW_MS > nowMs ? this.#cut(task, nowMs) : undefined;
    this.#line.settle('watch-task', task.id);
    this.#line.settle('re-evaluate-task', task.id);
    this.#line.makeDue('drain-task', task.id, nowMs);
    return position;
  }

  #cut(task: TaskRecord, nowMs: EpochMs): Position {
    const position = this.#line.append({ task: task.id }, Math.max(task.liveUntilMs, nowMs) + SKEW_MS);
    task.cutAt = position;
    return position;
  }

  #watch(task: TaskRecord): void {
    const since = task.lastHeartbeatMs ?? task.createdAtMs;
    const silentMs =
      task.heartbeatMs === undefined
        ? Number.POSITIVE_INFINITY
        : since + task.heartbeatMs * (task.state === 'suspended' ? 3 : 1);
    this.#line.makeDue('watch-task', task.id, Math.min(task.deadlineMs, silentMs));
  }

  #applyRevocation(
    revocation: RevocationRecord,
    matches: Match[],
    untilMs: EpochMs,
    lock: LockRecord | undefined,
    nowMs: EpochMs,
  ): Position {
    const { state } = this.#line;
    let position = '';
    for (const match of matches.length > 0 ? matches : [{ none: true } as Match]) {
      position = this.#line.append(structuredClone(match), untilMs, { fence: true });
    }
    if (lock) state.locks.set(lock.id, structuredClone(lock));
    state.revocations.set(revocation.id, { ...structuredClone(revocation), position, untilMs, cursor: '' });
    this.#line.makeDue('run-revocation', revocation.id, nowMs);
    return position;
  }

  #activate(digest: string, files: Record<string, string>, nowMs: EpochMs): Position {
    const { state } = this.#line;
    state.bundles.set(digest, { files: { ...files }, activatedAtMs: nowMs });
    state.activeBundle = digest;
    this.#line.makeDue('re-evaluate-bundle', digest, nowMs);
    return this.#line.append({ none: true }, nowMs + SKEW_MS, { fence: true });
  }

  #isStale(verdict: { taskId: string; generation: number; bundle: string }): boolean {
    const { state, bugs } = this.#line;
    if (bugs.dropVerdictCompare) return false;
    return state.tasks.get(verdict.taskId)?.generation !== verdict.generation || state.activeBundle !== verdict.bundle;
  }

  /** Tokens that are not past their end, credentials whatever the time: those are revoked at their backend. */
  #isMovable(lease: LeaseRecord, nowMs: EpochMs): boolean {
    if (lease.kind === 'token') return lease.state === 'active' && lease.expiresAtMs > nowMs;
    return lease.state === 'active' || lease.state === 'pending';
  }

  #moveDown(lease: LeaseRecord, reason: string, nowMs: EpochMs, sinceMs = nowMs): void {
    lease.revokedReason = reason;
    if (lease.kind === 'token') {
      lease.state = 'revoked';
      lease.revokedAtMs = nowMs;
      return;
    }
    lease.state = 'revoking';
    lease.revokingAtMs = sinceMs;
    this.#retireAt(lease, nowMs);
  }

  #keep(leaseId: string, more: { probe?: SecretData; kept?: SecretData }): void {
    const { kept } = this.#line.state;
    kept.set(leaseId, { ...kept.get(leaseId), ...structuredClone(more) });
  }

  #retireAt(lease: LeaseRecord, atMs: EpochMs): void {
    this.#line.makeDue('retire-credential', lease.id, atMs, lease.backend);
  }
}

/** Somebody still has to come for it. */
function isUnfinished(lease: LeaseRecord): boolean {
  return lease.state === 'revoking' || (lease.state === 'revoked' && lease.residue !== undefined);
}

function refKey(opener: string, ref: string): string {
  return `${opener}\n${ref}`;
}

function pathTasks(lease: LeaseRecord): string[] {
  return lease.path.filter((id) => id.startsWith('tsk_'));
}

function pathLeases(lease: LeaseRecord): string[] {
  return lease.path.filter((id) => id.startsWith('lse_'));
}

function isSilent(task: TaskRecord, times: number, nowMs: EpochMs): boolean {
  if (task.heartbeatMs === undefined) return false;
  return (task.lastHeartbeatMs ?? task.createdAtMs) + times * task.heartbeatMs <= nowMs;
}

/** What quotas count: live tokens, and credentials until they are closed. */
function isCounted(lease: LeaseRecord, nowMs: EpochMs): boolean {
  if (lease.kind === 'token') return lease.state === 'active' && lease.expiresAtMs > nowMs;
  return lease.state === 'pending' || lease.state === 'active' || lease.state === 'revoking';
}
