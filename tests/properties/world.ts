import { BrokerError } from '../../src/core/errors.js';
import { matchesOf, type Selector, selectorHash } from '../../src/core/selector.js';
import type { TaskRecord, TerminalState } from '../../src/core/task.js';
import type { Feed, Job, Ledger, RevocationRecord } from '../../src/state/stores.js';
import type { LedgerBugs, LineState } from '../fakes/line.js';
import { Line } from '../fakes/line.js';
import { confirmAll, type FakeStores, fakeStores, loseTail } from '../fakes/stores.js';
import { VirtualClock } from '../fakes/virtual-clock.js';
import { Backend } from './backend.js';
import {
  AUDIENCE,
  doJob,
  type Given,
  type Hands,
  type Holder,
  issueCredential,
  KID,
  mintToken,
  RISKS,
  reconcile,
  renewCredential,
  TTL_MS,
  type WorldPolicy,
} from './ledger-verbs.js';
import { Oracle } from './oracle.js';
import { type Call, type Process, Processes } from './processes.js';
import { Verifier, type VerifierBugs } from './verifier.js';

/** Mistakes that live outside the ledger. */
export interface WorldBugs extends LedgerBugs, VerifierBugs {
  /** An exchange judges its parent token by a table that may be behind the fence. */
  dropWaitForFence?: boolean;
  /** A lease carries the position at its commit instead of the one that was read before the decision. */
  latePosition?: boolean;
}

export interface WorldOptions {
  bugs?: WorldBugs;
  /** By bundle, then by effective risk 0 to 2. The first entry of the first bundle is always allowed. */
  policy?: boolean[][];
  bundles?: { digest: string; files: Record<string, string> }[];
  judgesCredentials?: boolean;
}

const BUNDLES = ['bundle-0', 'bundle-1'].map((digest) => ({ digest, files: {} }));
export const OPENER = 'spiffe://dev.mayfly/orchestrator/support';
export const HOLDERS: Holder[] = [
  { agent: 'spiffe://dev.mayfly/agent/refunds', owner: 'payments@example.com', team: 'payments' },
  { agent: 'spiffe://dev.mayfly/agent/emails', owner: 'support@example.com', team: 'support' },
];
const SNAPSHOTS_MAX = 6;
/** Brokers remember for 60 s; a store does not lose more than that. */
const LOSS_MS_MAX = 50_000;
const TASK_MS = 600_000;

/** One cell with two brokers, two verifiers and a backend, all of it standing still unless it is told to move. */
export class World {
  readonly clock = new VirtualClock();
  readonly line: Line;
  readonly brokers: FakeStores[];
  readonly backend = new Backend(this.clock);
  readonly verifiers: Verifier[];
  readonly oracle: Oracle;
  readonly processes: Processes;
  readonly bugs: WorldBugs;
  readonly allows: WorldPolicy;
  /** Happens once, the next time policy is asked. */
  whileDeciding: (() => void) | undefined;
  /** Digests; the first is active at the start. */
  readonly bundles: string[];
  readonly tasks: string[] = [];
  readonly tokens: Given[] = [];
  readonly credentials: Given[] = [];
  readonly locks: string[] = [];
  readonly #snapshots: { atMs: number; state: LineState }[] = [];
  #ids = 0;

  constructor(options: WorldOptions = {}) {
    this.bugs = options.bugs ?? {};
    const table = options.policy ?? [[true, true, true]];
    const [first, ...others] = options.bundles ?? BUNDLES;
    if (!first) throw new Error('a world has a bundle');
    this.bundles = [first, ...others].map((bundle) => bundle.digest);
    this.allows = (bundle, risk) => {
      const pass = this.whileDeciding;
      this.whileDeciding = undefined;
      pass?.();
      return (bundle === first.digest && risk === 0) || (table[this.bundles.indexOf(bundle)]?.[risk] ?? false);
    };
    this.line = new Line({ clock: this.clock, bundle: first, bugs: this.bugs });
    this.brokers = [
      fakeStores({ clock: this.clock, line: this.line }),
      fakeStores({ clock: this.clock, line: this.line }),
    ];
    for (const broker of this.brokers) broker.feed.lag = true;
    this.verifiers = [new Verifier(this.line, this.bugs), new Verifier(this.line, this.bugs)];
    this.oracle = new Oracle(this.line, this.allows, { judgesCredentials: options.judgesCredentials ?? true });
    this.processes = new Processes(this.clock, (call: Call) => this.oracle.saw(call));
  }

  nextId(kind: 'tsk' | 'lse' | 'rev' | 'lck' | 'dec'): string {
    this.#ids += 1;
    return `${kind}_a_${String(this.#ids).padStart(26, '0')}`;
  }

  /** Starts a verb on a broker; `then` sees what it answered, if it ever does. */
  async spawn<T>(
    name: string,
    broker: number,
    verb: (hands: Hands) => Promise<T>,
    then: (answer: T) => void = () => {},
  ): Promise<Process> {
    return this.processes.spawn(name, broker, async (process) => {
      const answer = await verb(this.#handsOf(process));
      then(answer);
      return answer;
    });
  }

  /** The same, run to its end at once; what it throws is its answer. */
  async run<T>(
    name: string,
    broker: number,
    verb: (hands: Hands) => Promise<T>,
    then?: (answer: T) => void,
  ): Promise<T | undefined> {
    const process = await this.spawn(name, broker, verb, then);
    await this.processes.finish(process);
    if (process.error && !(process.error instanceof BrokerError)) throw process.error;
    return process.result as T | undefined;
  }

  async startTask(hands: Hands, parent?: string): Promise<TaskRecord | undefined> {
    const nowMs = this.clock.now();
    const reading = parent === undefined ? undefined : await hands.ledger.read({ taskId: parent, nowMs });
    const root = parent === undefined ? await hands.ledger.read({ nowMs }) : reading;
    if (!root) return undefined;
    const id = this.nextId('tsk');
    const path = [...(reading?.tasks.map((task) => task.id) ?? []), id];
    const result = await hands.ledger.startTask({
      charter: {
        id,
        path,
        params: {},
        purpose: 'refund order 42',
        risk: 'medium',
        opener: OPENER,
        openerKind: 'orchestrator',
        agents: HOLDERS.map((holder) => holder.agent),
        scope: { tools: ['orders.read', 'orders.refund'], resources: [AUDIENCE], secrets: ['orders-db'] },
        selfOpened: false,
        createdAtMs: nowMs,
        deadlineMs: Math.min(nowMs + TASK_MS, ...(reading?.tasks.map((task) => task.deadlineMs) ?? [])),
        onSilence: 'suspend',
        onContextChange: 're-evaluate',
        bundle: root.bundle,
      },
      context: {},
      basis: { position: root.position, bundle: root.bundle, generations: root.tasks.map((task) => task.generation) },
      quotas: { leasesPerTask: 1_000, leasesPerAgent: 1_000, perTree: 10_000 },
      nowMs,
      audit: this.#audit('task.opened'),
    });
    return 'task' in result ? result.task : undefined;
  }

  mint(holder: number, taskId: string, parent?: Given, tools = ['orders.read', 'orders.refund']) {
    return (hands: Hands): Promise<Given> =>
      mintToken(hands, {
        taskId,
        holder: HOLDERS[holder % HOLDERS.length] as Holder,
        tools,
        ...(parent && { parent }),
      });
  }

  issue(holder: number, taskId: string, parent?: Given) {
    return (hands: Hands) =>
      issueCredential(hands, { taskId, holder: HOLDERS[holder % HOLDERS.length] as Holder, ...(parent && { parent }) });
  }

  renew(given: Given) {
    return (hands: Hands): Promise<unknown> => renewCredential(hands, { given, holder: HOLDERS[0] as Holder });
  }

  end(taskId: string, state: TerminalState) {
    return (hands: Hands): Promise<unknown> =>
      hands.ledger.endTask({
        taskId,
        state,
        reason: state,
        by: OPENER,
        nowMs: this.clock.now(),
        audit: this.#audit('task.ended'),
      });
  }

  suspend(taskId: string) {
    return (hands: Hands): Promise<unknown> =>
      hands.ledger.suspendTask({
        taskId,
        reason: 'wait',
        by: OPENER,
        nowMs: this.clock.now(),
        audit: this.#audit('task.suspended'),
      });
  }

  resume(taskId: string) {
    return (hands: Hands): Promise<unknown> =>
      hands.ledger.resumeTask({ taskId, by: OPENER, nowMs: this.clock.now(), audit: this.#audit('task.resumed') });
  }

  changeContext(taskId: string, risk: number, revoke = false) {
    return async (hands: Hands) => {
      const task = await hands.views.task(taskId);
      if (!task) return;
      await hands.ledger.changeContext({
        taskId,
        generation: task.generation,
        context: { risk: RISKS[risk] },
        revoke,
        judgeWithinMs: 5_000,
        nowMs: this.clock.now(),
        audit: this.#audit('task.context_changed'),
      });
    };
  }

  revoke(selector: Selector, withLock: boolean) {
    return async (hands: Hands) => {
      const nowMs = this.clock.now();
      const revocation: RevocationRecord = {
        id: this.nextId('rev'),
        selector,
        reason: 'stop',
        by: 'alice',
        createdAtMs: nowMs,
      };
      const lockId = this.nextId('lck');
      await hands.ledger.revoke({
        revocation,
        matches: matchesOf(selector, hands.hash),
        untilMs: nowMs + TTL_MS + 60_000,
        ...(withLock && { lock: { id: lockId, selector, reason: 'stop', by: 'alice', createdAtMs: nowMs } }),
        nowMs,
        audit: this.#audit(withLock ? 'lock.set' : 'revocation.applied'),
      });
      if (withLock) this.locks.push(lockId);
      hands.add({ name: 'run-revocation', id: revocation.id });
    };
  }

  liftLock(lockId: string) {
    return (hands: Hands): Promise<unknown> =>
      hands.ledger.liftLock({
        lockId,
        by: 'bob',
        secondPersonNeeded: false,
        nowMs: this.clock.now(),
        audit: this.#audit('lock.lifted'),
      });
  }

  activateBundle(digest: string) {
    return async (hands: Hands) => {
      await hands.ledger.activateBundle({
        digest,
        files: {},
        again: true,
        nowMs: this.clock.now(),
        audit: this.#audit('bundle.activated'),
      });
      hands.add({ name: 're-evaluate-bundle', id: digest });
    };
  }

  job(job: Job) {
    return (hands: Hands) => doJob(hands, job);
  }

  /** Keeps the store as it is now, so that its tail may be lost. */
  remember(): void {
    this.#snapshots.push({ atMs: this.clock.now(), state: this.line.snapshot() });
    if (this.#snapshots.length > SNAPSHOTS_MAX) this.#snapshots.shift();
  }

  /** The store forgets what happened since one of the last steps; it comes back under a new epoch. */
  loseTail(steps: number): void {
    const at = Math.max(0, this.#snapshots.length - 1 - steps);
    const then = this.#snapshots[at];
    if (!then || this.clock.now() - then.atMs > LOSS_MS_MAX) return;
    loseTail(this.line, then.state);
    this.#snapshots.length = 0;
    this.oracle.sawLostTail();
  }

  confirm(): void {
    if (this.line.closed !== undefined) confirmAll(this.brokers);
  }

  use(verifier: number, given: Given): void {
    const one = this.verifiers[verifier] as Verifier;
    const nowMs = this.clock.now();
    this.oracle.judged(
      `verifier ${verifier}`,
      one.caughtUpAt,
      given.claims,
      one.judge(given.claims, KID, nowMs),
      nowMs,
    );
  }

  /** What exists at the backend is compared with what is known. */
  reconcile(hands: Hands): Promise<void> {
    return reconcile(hands);
  }

  /** The backend is back. */
  async backendIsBack(): Promise<void> {}

  /** The last fault is over: whatever is on its way dies, what is due is done, everybody hears everything. Then all has to be well. */
  async heal(): Promise<void> {
    for (const process of [...this.processes.running]) await this.processes.step(process, 'die-before');
    this.line.out = false;
    this.backend.down = false;
    this.confirm();
    for (const broker of this.brokers) broker.feed.cut = false;
    for (const seconds of [0, 5, 10, 1]) {
      this.clock.advance(seconds * 1_000);
      await this.backendIsBack();
      await this.#rest();
    }
    await this.run('reconcile', 0, (hands) => this.reconcile(hands));
    await this.#rest();
    this.oracle.atRest(this.backend.live(), this.clock.now());
    for (const [at, verifier] of this.verifiers.entries()) {
      verifier.cut = false;
      verifier.pull(this.oracle.index);
      for (const token of this.tokens) this.use(at, token);
    }
    await this.#checkRepeats();
  }

  async #rest(): Promise<void> {
    for (let rounds = 0; rounds < 40; rounds++) {
      const due = this.brokers[0]?.schedule.due() ?? [];
      if (due.length === 0) return;
      for (const job of due) await this.run(job.name, rounds % 2, this.job(job));
    }
    this.oracle.violations.push('I21: work that is due does not come to an end');
  }

  /** Doing all of it once more changes nothing (I10). */
  async #checkRepeats(): Promise<void> {
    const before = this.#essence();
    // A task that goes on was not drained to its end: what hangs below a revoked token is dead without being moved.
    const over = [...this.line.state.tasks.values()].filter((task) => task.state !== 'active');
    for (const task of over) await this.run('again', 1, this.job({ name: 'drain-task', id: task.id }));
    for (const id of this.line.state.revocations.keys())
      await this.run('again', 1, this.job({ name: 'run-revocation', id }));
    for (const id of this.line.state.leases.keys())
      await this.run('again', 1, this.job({ name: 'retire-credential', id }));
    if (this.#essence() !== before) this.oracle.violations.push('I10: doing it again changed something');
  }

  #essence(): string {
    const { tasks, leases, entries, fence, locks } = this.line.state;
    return JSON.stringify([[...tasks], [...leases], entries, fence, [...locks]]);
  }

  #audit(type: Parameters<Hands['ledger']['note']>[0]['type']) {
    return { id: this.nextId('dec'), atMs: this.clock.now(), type, actor: {} };
  }

  #handsOf(process: Process): Hands {
    const stores = this.brokers[process.broker] as FakeStores;
    const { bugs, line } = this;
    const ledger = bugs.latePosition ? withLatePosition(stores.ledger, line) : stores.ledger;
    return {
      broker: process.broker,
      clock: this.clock,
      ledger: this.processes.gated(process, 'ledger', ledger, LEDGER_METHODS),
      views: this.processes.gated(process, 'views', stores.views, ['leases', 'leaseWithAbove', 'revocation']),
      feed: this.processes.gated(process, 'feed', bugs.dropWaitForFence ? withoutWaiting(stores.feed) : stores.feed, [
        'reached',
      ]),
      backend: this.processes.gated(process, 'backend', this.backend, ['make', 'revoke', 'renew']),
      allows: this.allows,
      hash: selectorHash(line.cellKey),
      nextId: (kind) => this.nextId(kind),
      add: (job) => stores.schedule.add(job),
    };
  }
}

/** The ledger, with the place of the moment written into what is committed. */
function withLatePosition(ledger: Ledger, line: Line): Ledger {
  const late = (write: { lease: { position: string }; basis: { position: string } }) => {
    write.lease.position = line.head();
    write.basis.position = line.head();
  };
  return replaced(ledger, {
    commitLease: (write: Parameters<Ledger['commitLease']>[0]) => {
      late(write);
      return ledger.commitLease(write);
    },
    openIntent: (write: Parameters<Ledger['openIntent']>[0]) => {
      late(write);
      return ledger.openIntent(write);
    },
  });
}

function withoutWaiting(feed: Feed): Feed {
  return replaced(feed, { reached: async () => {} });
}

function replaced<Target extends object>(target: Target, methods: Partial<Target>): Target {
  return new Proxy(target, {
    get: (real, property) => {
      const value = (Reflect.get(methods, property) ?? Reflect.get(real, property, real)) as unknown;
      return typeof value === 'function' ? value.bind(real) : value;
    },
  });
}

const LEDGER_METHODS = [
  'read',
  'startTask',
  'commitLease',
  'openIntent',
  'renewLease',
  'endTask',
  'suspendTask',
  'resumeTask',
  'changeContext',
  'revoke',
  'liftLock',
  'advanceRevocation',
  'revokeLeases',
  'settleBundle',
  'noteCredential',
  'beginAttempt',
  'closeAttempt',
  'settleTask',
  'activateBundle',
];
