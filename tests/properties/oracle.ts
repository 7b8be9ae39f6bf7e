import type { TaskClaims } from '../../src/core/claims.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import { type Selector, selects } from '../../src/core/selector.js';
import { isTerminal, PATH_DEPTH_MAX, type TaskRecord } from '../../src/core/task.js';
import type { EpochMs } from '../../src/core/time.js';
import type { Ledger, LockRecord } from '../../src/state/stores.js';
import type { Line } from '../fakes/line.js';
import { riskOf, type WorldPolicy } from './ledger-verbs.js';
import type { Call, Process } from './processes.js';
import type { Verdict } from './verifier.js';

interface Kill {
  index: number;
  what: string;
  covers(lease: LeaseRecord): boolean;
}

interface Known {
  lease: LeaseRecord;
  /** When the world was read that it was decided on. */
  readAt: number;
}

type Args<Method extends keyof Ledger> = Parameters<Ledger[Method]>[0];
type Result<Method extends keyof Ledger> = Awaited<ReturnType<Ledger[Method]>>;

/**
 * The invariants of the life cycle, checked from the outside: from the calls in the order they took effect, from what exists at the
 * backend and from what verifiers say. It shares no rule with the ledger it watches: what kills what is said here once more, by task paths
 * and selectors, and never by positions, fences or generations.
 *
 * The names of what it finds violated:
 * - I1: what exists at the backend, or a verifier accepts, has one live lease of an active task behind it.
 * - I2: nothing is accepted, or exists, past its own end or that of anything above it.
 * - I3: what was refused as revoked is never accepted again.
 * - I4: each task reaches one end, and keeps it.
 * - I5: paths are bounded; whoever got something passed on has no more tools than who passed it on, who is remembered.
 * - I10: doing it again changes nothing.
 * - I20: whatever waits for somebody is due, so that somebody comes.
 * - I21: after the last fault, work that is due comes to an end.
 * - I23: what today's policy no longer allows does not live on.
 *
 * I8 (a revocation is effective in time), I9 (no fault leads to an allow) and I11 (whoever acts on an older reading changes nothing) are
 * broken only by breaking one of these.
 */
export class Oracle {
  readonly violations: string[] = [];
  readonly #line: Line;
  readonly #allows: WorldPolicy;
  readonly #judgesCredentials: boolean;
  #index = 0;
  readonly #lastRead = new Map<Process, number>();
  readonly #known = new Map<string, Known>();
  readonly #kills: Kill[] = [];
  readonly #ended = new Map<string, { state: string; index: number }>();
  readonly #locks = new Map<string, { lock: LockRecord; index: number }>();
  /** Index of the last change of each task's generation, so that a verdict is only blamed for what it could know. */
  readonly #changed = new Map<string, number>();
  readonly #refusedBy = new Map<string, Set<string>>();
  readonly #opened = new Map<string, number>();

  constructor(line: Line, allows: WorldPolicy, options: { judgesCredentials: boolean }) {
    this.#line = line;
    this.#allows = allows;
    this.#judgesCredentials = options.judgesCredentials;
  }

  get index(): number {
    return this.#index;
  }

  /** Every call that took effect comes by here, in order. */
  saw(call: Call): void {
    this.#index += 1;
    if (call.target !== 'ledger') return;
    const args = call.args[0];
    switch (call.method) {
      case 'read':
        this.#lastRead.set(call.process, this.#index);
        break;
      case 'startTask':
        this.#sawStart(call.result as Result<'startTask'>);
        break;
      case 'openIntent':
      case 'commitLease':
        this.#sawGrant(call, args as Args<'commitLease'>, call.result as Result<'commitLease'>);
        break;
      case 'renewLease':
        this.#sawRenewal(args as Args<'renewLease'>, call.result as Result<'renewLease'>);
        break;
      case 'endTask':
        this.#sawEnd(args as Args<'endTask'>, call.result as Result<'endTask'>);
        break;
      case 'suspendTask':
        this.#sawSuspension(call.result as Result<'suspendTask'>);
        break;
      case 'resumeTask':
        this.#sawResumption(call.result as Result<'resumeTask'>);
        break;
      case 'changeContext':
        this.#sawChange(args as Args<'changeContext'>, call.result as Result<'changeContext'>);
        break;
      case 'revoke':
        this.#sawRevocation(args as Args<'revoke'>, call.result as Result<'revoke'>);
        break;
      case 'liftLock':
        this.#sawLift(args as Args<'liftLock'>, call.result as Result<'liftLock'>);
        break;
      case 'revokeLeases':
        this.#sawMoved(call, args as Args<'revokeLeases'>, call.result as Result<'revokeLeases'>);
        break;
    }
  }

  /** The store came back as it was earlier, in a new epoch: every token is dead, what was not acknowledged may be gone. */
  sawLostTail(): void {
    this.#index += 1;
    this.#kill('the epoch was raised', (lease) => lease.kind === 'token');
    for (const id of this.#opened.keys()) if (!this.#line.state.tasks.has(id)) this.#opened.delete(id);
    for (const [id, known] of this.#known) {
      // A credential whose lease is forgotten is an orphan; the backend is asked about it at the end.
      if (!this.#line.state.leases.has(id) && known.lease.kind === 'credential') this.#known.delete(id);
    }
    this.sawChangesOfAll();
  }

  /** Some rule changed for everybody: verdicts on their way are not blamed. */
  sawChangesOfAll(): void {
    for (const id of this.#line.state.tasks.keys()) this.#changed.set(id, this.#index);
  }

  /** A verifier's word about a token. */
  judged(verifier: string, caughtUpAt: number, claims: TaskClaims, verdict: Verdict, nowMs: EpochMs): void {
    const known = this.#known.get(claims.jti);
    if (!known) {
      if (verdict === 'accepted') this.#violated('I1', `${verifier} accepted ${claims.jti}, which no lease stands for`);
      return;
    }
    const kill = this.#killOf(known);
    if (verdict === 'accepted') {
      if (claims.exp * 1_000 <= nowMs) this.#violated('I2', `${verifier} accepted ${claims.jti} past its exp`);
      if (kill && kill.index <= caughtUpAt) {
        this.#violated(
          'I3',
          `${verifier} accepted ${claims.jti} after: ${kill.what} (read ${known.readAt}, killed ${kill.index}, seen ${caughtUpAt})`,
        );
      }
      if (this.#refusedBy.get(claims.jti)?.has(verifier)) {
        this.#violated('I3', `${verifier} accepted ${claims.jti} again after refusing it`);
      }
    } else if (verdict === 'revoked') {
      const by = this.#refusedBy.get(claims.jti) ?? new Set();
      this.#refusedBy.set(claims.jti, by.add(verifier));
      if (!kill) this.#violated('availability', `${verifier} refused ${claims.jti}, which nothing killed`);
    }
  }

  /** What has to hold after every single step. */
  afterStep(): void {
    const { tasks, leases } = this.#line.state;
    for (const [id, ended] of this.#ended) {
      const task = tasks.get(id);
      if (!task || this.#line.closed !== undefined) continue;
      if (task.state !== ended.state) this.#violated('I4', `${id} was ${ended.state} and is ${task.state}`);
    }
    for (const lease of leases.values()) {
      if (lease.path.length > PATH_DEPTH_MAX * 3) this.#violated('I5', `${lease.id} is too deep`);
      const watched = lease.kind === 'credential' && ['pending', 'active', 'revoking'].includes(lease.state);
      const due = this.#line.state.due.has(`retire-credential:${lease.id}`);
      if (watched && !due) this.#violated('I20', `${lease.id} is ${lease.state} and nobody will come for it`);
    }
  }

  /** Everything has been done that was due: nothing that is dead lives on anywhere, nothing that lives is against today's policy. */
  atRest(backend: readonly string[], nowMs: EpochMs): void {
    const { tasks, leases } = this.#line.state;
    for (const lease of leases.values()) {
      if (lease.state === 'pending' || lease.state === 'revoking')
        this.#violated('I21', `${lease.id} is still ${lease.state}`);
    }
    for (const id of backend) {
      const lease = leases.get(id);
      if (lease?.state !== 'active') {
        this.#violated('I1', `${id} exists at the backend and its lease is ${lease?.state ?? 'not there'}`);
        continue;
      }
      const known = this.#known.get(id);
      const kill = known && this.#killOf(known);
      if (kill)
        this.#violated(
          'I1',
          `${id} exists at the backend after: ${kill.what} (read ${known.readAt}, killed ${kill.index})`,
        );
      if (lease.expiresAtMs <= nowMs) this.#violated('I1', `${id} exists at the backend past its end`);
      const above = lease.path.flatMap((step) => tasks.get(step) ?? []);
      if (above.some((task) => task.state !== 'active'))
        this.#violated('I1', `${id} exists at the backend and its task is not active`);
      if (this.#judgesCredentials) this.#mustBeAllowed(lease, above);
    }
    for (const lease of leases.values()) {
      if (lease.kind !== 'token' || lease.state !== 'active' || lease.expiresAtMs <= nowMs) continue;
      const known = this.#known.get(lease.id);
      if (!known || this.#killOf(known)) continue;
      this.#mustBeAllowed(
        lease,
        lease.path.flatMap((step) => tasks.get(step) ?? []),
      );
    }
  }

  /** Whether anything has killed this lease since it was read for. */
  killOf(leaseId: string): string | undefined {
    const known = this.#known.get(leaseId);
    return known && this.#killOf(known)?.what;
  }

  #mustBeAllowed(lease: LeaseRecord, tasks: TaskRecord[]): void {
    if (!this.#allows(this.#line.state.activeBundle, riskOf(tasks))) {
      this.#violated('I23', `${lease.id} (${lease.kind}) lives on and policy does not allow it any more`);
    }
  }

  #sawStart(result: Result<'startTask'>): void {
    if (result.outcome !== 'opened') return;
    this.#opened.set(result.task.id, this.#index);
    this.#changed.set(result.task.id, this.#index);
    for (const id of result.task.path.slice(0, -1)) {
      if (this.#ended.has(id)) this.#violated('I4', `${result.task.id} was opened below ${id}, which had ended`);
    }
  }

  #sawGrant(call: Call, args: Args<'commitLease'>, result: Result<'commitLease'>): void {
    if (result.outcome !== 'committed') return;
    const { lease } = args;
    const readAt = this.#lastRead.get(call.process) ?? 0;
    for (const id of lease.path) {
      if (this.#ended.has(id)) this.#violated('I2', `${call.method} of ${lease.id} below ${id}, which had ended`);
      const parent = this.#known.get(id)?.lease;
      if (!parent) continue;
      if (parent.kind === 'token' && parent.expiresAtMs <= args.nowMs) {
        this.#violated('I2', `${call.method} of ${lease.id} on the word of ${id}, which had expired`);
      }
      if (lease.kind === 'token' && lease.expiresAtMs > parent.expiresAtMs) {
        this.#violated('I2', `${lease.id} outlives ${id}`);
      }
      if (lease.tools.some((tool) => !parent.tools.includes(tool)))
        this.#violated('I5', `${lease.id} has more tools than ${id}`);
      // Whoever asks for a credential with its own token passes it on to nobody.
      const isOwn = lease.kind === 'credential' && parent.agent === lease.agent && id === lease.path.at(-1);
      const before = isOwn ? parent.actors : [...parent.actors, parent.agent];
      if (before.some((name, at) => lease.actors[at] !== name))
        this.#violated('I5', `${lease.id} forgot who passed it on`);
      const parentKill = this.#killOf(this.#known.get(id) as Known);
      if (parentKill && parentKill.index < readAt) {
        this.#violated('I3', `${call.method} of ${lease.id} on the word of ${id}, dead by: ${parentKill.what}`);
      }
    }
    for (const { lock, index } of this.#locks.values()) {
      const forbids = index < readAt && (lock.expiresAtMs === undefined || lock.expiresAtMs > args.nowMs);
      if (forbids && this.#inClass(lock.selector, lease)) {
        this.#violated('I3', `${call.method} of ${lease.id} under the lock ${lock.id}`);
      }
    }
    this.#known.set(lease.id, { lease: structuredClone(lease), readAt });
  }

  #sawRenewal(args: Args<'renewLease'>, result: Result<'renewLease'>): void {
    const known = this.#known.get(args.leaseId);
    if (result.outcome !== 'committed' || !known) return;
    known.lease.expiresAtMs = args.expiresAtMs;
    for (const id of known.lease.path) {
      if (this.#ended.has(id)) this.#violated('I2', `${args.leaseId} was renewed below ${id}, which had ended`);
    }
  }

  #sawEnd(args: Args<'endTask'>, result: Result<'endTask'>): void {
    if (result.outcome === 'already') {
      const first = this.#ended.get(args.taskId);
      if (first && result.task.state !== first.state && this.#line.closed === undefined) {
        this.#violated('I4', `${args.taskId} had ended as ${first.state} and answers ${result.task.state}`);
      }
      return;
    }
    if (result.outcome !== 'ended') return;
    // A store that forgot an end, and was not yet reminded of it, takes another: over is over.
    if (this.#ended.has(args.taskId) && this.#line.closed === undefined)
      this.#violated('I4', `${args.taskId} ended twice`);
    this.#ended.set(args.taskId, { state: result.task.state, index: this.#index });
    if (!isTerminal(result.task.state)) this.#violated('I4', `${args.taskId} ended as ${result.task.state}`);
    this.#killBelow(args.taskId, `${args.taskId} ended`);
  }

  #sawSuspension(result: Result<'suspendTask'>): void {
    if (result.outcome !== 'suspended') return;
    this.#changed.set(result.task.id, this.#index);
    this.#killBelow(result.task.id, `${result.task.id} was suspended`);
  }

  #sawResumption(result: Result<'resumeTask'>): void {
    if (result.outcome !== 'resumed') return;
    this.#changed.set(result.task.id, this.#index);
    if (this.#ended.has(result.task.id)) this.#violated('I4', `${result.task.id} had ended and was resumed`);
  }

  #sawChange(args: Args<'changeContext'>, result: Result<'changeContext'>): void {
    if (result.outcome !== 'changed') return;
    this.#changed.set(args.taskId, this.#index);
    if (args.revoke) this.#killBelow(args.taskId, `the context of ${args.taskId} changed and revokes`);
  }

  #sawRevocation(args: Args<'revoke'>, result: Result<'revoke'>): void {
    if (result.outcome !== 'applied') return;
    const { selector } = args.revocation;
    if (args.lock) this.#locks.set(args.lock.id, { lock: structuredClone(args.lock), index: this.#index });
    this.#kill(`${args.revocation.id} ${JSON.stringify(selector)}`, (lease) => this.#inClass(selector, lease));
  }

  #sawLift(args: Args<'liftLock'>, result: Result<'liftLock'>): void {
    if (result.outcome === 'lifted') this.#locks.delete(args.lockId);
  }

  #sawMoved(call: Call, args: Args<'revokeLeases'>, result: Result<'revokeLeases'>): void {
    if (result.revoked.length === 0) return;
    const moved = new Set(result.revoked);
    if (args.verdict) this.#checkVerdict(call, args.verdict, result.revoked);
    this.#kill(
      `${args.reason}: ${result.revoked.join(' ')}`,
      (lease) => moved.has(lease.id) || lease.path.some((id) => moved.has(id)),
    );
  }

  /** A verdict that takes something away has to be today's: nothing of its task moved since it was read, or policy says so anyway. */
  #checkVerdict(call: Call, verdict: { taskId: string }, revoked: string[]): void {
    const readAt = this.#lastRead.get(call.process) ?? 0;
    for (const id of revoked) {
      const lease = this.#line.state.leases.get(id);
      const tasks = lease?.path.flatMap((step) => this.#line.state.tasks.get(step) ?? []) ?? [];
      if (!lease || lease.expiresAtMs <= this.#line.clock.now()) continue;
      if (tasks.some((task) => task.state !== 'active')) continue;
      const known = this.#known.get(id);
      if (!known || this.#killOf(known)) continue;
      const othersMoved = tasks.some(
        (task) => task.id !== verdict.taskId && (this.#changed.get(task.id) ?? 0) > readAt,
      );
      if (!othersMoved && this.#allows(this.#line.state.activeBundle, riskOf(tasks))) {
        this.#violated('I23', `${id} was revoked by a verdict on ${verdict.taskId} that holds no more`);
      }
    }
  }

  #inClass(selector: Selector, lease: LeaseRecord): boolean {
    if (selects(selector, lease)) return true;
    return lease.path.some((id) => {
      const above = this.#known.get(id)?.lease;
      return above !== undefined && selects(selector, above);
    });
  }

  #killBelow(taskId: string, what: string): void {
    this.#kill(what, (lease) => lease.path.includes(taskId));
  }

  #kill(what: string, covers: (lease: LeaseRecord) => boolean): void {
    this.#kills.push({ index: this.#index, what, covers });
  }

  #killOf(known: Known): Kill | undefined {
    return this.#kills.find((kill) => kill.index > known.readAt && kill.covers(known.lease));
  }

  #violated(invariant: string, what: string): void {
    this.violations.push(`${invariant}: ${what}`);
  }
}
