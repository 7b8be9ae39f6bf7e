import { TASK_DETAIL_TYPE, type TaskClaims } from '../../src/core/claims.js';
import { BrokerError } from '../../src/core/errors.js';
import { deadBecause, type LeaseRecord } from '../../src/core/lease.js';
import { isBefore } from '../../src/core/position.js';
import { scopeOf } from '../../src/core/scope.js';
import { factsAbove, ownFacts, type SelectorHash, selects } from '../../src/core/selector.js';
import { isTerminal, type TaskRecord } from '../../src/core/task.js';
import type { Feed, Job, Ledger, Quotas, Reading, Views } from '../../src/state/stores.js';
import type { VirtualClock } from '../fakes/virtual-clock.js';
import type { Backend } from './backend.js';

/** What policy of the world says of a bundle and the effective risk of a path. */
export type WorldPolicy = (bundle: string, risk: number) => boolean;

/** What the small verbs below use: the product's contracts, a make-believe backend, a policy of one number. */
export interface Hands {
  broker: number;
  clock: VirtualClock;
  ledger: Ledger;
  views: Views;
  feed: Feed;
  backend: Backend;
  allows: WorldPolicy;
  hash: SelectorHash;
  nextId(kind: 'tsk' | 'lse' | 'rev' | 'lck' | 'dec'): string;
  add(job: Job): void;
}

export interface Holder {
  agent: string;
  owner: string;
  team: string;
}

export interface Given {
  lease: LeaseRecord;
  claims: TaskClaims;
  /** The signed token, where there is one. */
  token?: string;
}

export const KID = 'es256-world';
export const TTL_MS = 120_000;
export const INTENT_MS = 8_000;
export const AUDIENCE = 'https://orders.example';
const WORLD_QUOTAS: Quotas = { leasesPerTask: 1_000, leasesPerAgent: 1_000, perTree: 10_000 };
const PAGE = 2;
const TRIES = 3;

export const RISKS = ['low', 'medium', 'high'];

export function riskIn(context: Record<string, unknown>): number {
  return Math.max(0, RISKS.indexOf(String(context['risk'])));
}

/** The effective risk of a path: a child may only tighten what its parents say, whenever they say it. */
export function riskOf(tasks: readonly TaskRecord[]): number {
  return Math.max(0, ...tasks.map((task) => riskIn(task.context)));
}

const audit = (hands: Hands, type: Parameters<Ledger['note']>[0]['type']) => ({
  id: hands.nextId('dec'),
  atMs: hands.clock.now(),
  type,
  actor: {},
});

/** Read, and may they? The lease as it would be given on this reading. */
async function decide(
  hands: Hands,
  of: { id: string; kind: LeaseRecord['kind']; taskId: string; holder: Holder; parent?: Given; tools: string[] },
): Promise<{ reading: Reading; given: Given }> {
  const nowMs = hands.clock.now();
  const { parent, holder } = of;
  const above = parent ? [...parent.lease.path.filter((id) => id.startsWith('lse_')), parent.lease.id] : [];
  const reading = await hands.ledger.read({ taskId: of.taskId, leaseIds: above, nowMs });
  if (!reading) throw new BrokerError('not_found', 'There is no such task.');
  if (reading.tasks.some((task) => task.state !== 'active' || task.deadlineMs <= nowMs)) {
    throw new BrokerError('task_over', 'The task is over.');
  }
  if (parent) {
    await hands.feed.reached(reading.fence, 1_000);
    const lease = reading.leases.at(-1) as LeaseRecord;
    const revoked = hands.feed.table().find(parent.claims, KID) !== undefined;
    if (deadBecause(lease, { tasks: reading.tasks, leases: reading.leases.slice(0, -1), revoked }, nowMs)) {
      throw new BrokerError('subject_rejected', 'The subject_token was not accepted.');
    }
  }
  if (!hands.allows(reading.bundle, riskOf(reading.tasks)))
    throw new BrokerError('denied', 'Policy does not allow it.');
  const task = reading.tasks.at(-1) as TaskRecord;
  const endMs = Math.min(
    nowMs + TTL_MS,
    ...reading.tasks.map((one) => one.deadlineMs),
    parent?.lease.expiresAtMs ?? Number.POSITIVE_INFINITY,
  );
  const expiresAtMs = Math.floor((of.kind === 'token' ? endMs : nowMs + TTL_MS) / 1_000) * 1_000;
  const lease: LeaseRecord = {
    id: of.id,
    kind: of.kind,
    taskId: task.id,
    path: [...task.path, ...above],
    agent: holder.agent,
    actors: parent ? [...parent.lease.actors, parent.lease.agent] : [],
    opener: task.opener,
    owner: holder.owner,
    team: holder.team,
    environment: 'sandbox',
    ...(of.kind === 'token' ? { resource: AUDIENCE, keyId: KID } : { secret: 'orders-db', backend: 'postgres' }),
    tools: parent ? of.tools.filter((tool) => parent.lease.tools.includes(tool)) : of.tools,
    position: reading.position,
    generations: reading.tasks.map((one) => one.generation),
    bundle: reading.bundle,
    identityKeyId: 'dev.mayfly#svid-1',
    binding: 'none',
    state: of.kind === 'token' ? 'active' : 'pending',
    createdAtMs: nowMs,
    expiresAtMs,
  };
  const facts = [...ownFacts(lease), ...reading.leases.flatMap(factsAbove)];
  for (const one of reading.tasks) facts.push(['opener', one.opener]);
  const claims: TaskClaims = {
    iss: 'https://mayfly.example',
    sub: parent?.claims.sub ?? holder.agent,
    aud: AUDIENCE,
    client_id: holder.agent,
    iat: Math.floor(nowMs / 1_000),
    exp: expiresAtMs / 1_000,
    jti: lease.id,
    scope: scopeOf(lease.tools),
    authorization_details: [{ type: TASK_DETAIL_TYPE, identifier: task.id }],
    ...(parent && { act: { sub: holder.agent, ...(parent.claims.act && { act: parent.claims.act }) } }),
    mayfly: {
      cell: 'a',
      path: lease.path,
      pos: lease.position,
      sel: [...new Set(facts.map(([kind, value]) => hands.hash(kind, value)))],
      bundle: lease.bundle,
    },
  };
  const locked = reading.locks.some(
    (lock) => selects(lock.selector, lease) || reading.leases.some((one) => selects(lock.selector, one)),
  );
  if (locked) throw new BrokerError('denied', 'A lock forbids new grants here.');
  return { reading, given: { lease, claims } };
}

const basisOf = (reading: Reading) => ({
  position: reading.position,
  bundle: reading.bundle,
  generations: reading.tasks.map((task) => task.generation),
});

export async function mintToken(
  hands: Hands,
  of: { taskId: string; holder: Holder; parent?: Given; tools: string[] },
): Promise<Given> {
  const id = hands.nextId('lse');
  for (let tries = 0; tries < TRIES; tries++) {
    const { reading, given } = await decide(hands, { ...of, id, kind: 'token' });
    const outcome = await hands.ledger.commitLease({
      lease: given.lease,
      basis: basisOf(reading),
      quotas: WORLD_QUOTAS,
      nowMs: hands.clock.now(),
      audit: audit(hands, 'token.minted'),
    });
    if (outcome.outcome === 'committed') return sign(given);
    if (outcome.outcome !== 'stale') throw new BrokerError('conflict', outcome.outcome);
  }
  throw new BrokerError('unavailable', 'The task keeps changing.');
}

/** What is signed is what went into the store. */
function sign({ lease, claims }: Given): Given {
  return { lease, claims: { ...claims, mayfly: { ...claims.mayfly, pos: lease.position } } };
}

/** Intent, make, commit. Whatever goes wrong after the intent is the sweeper's. */
export async function issueCredential(
  hands: Hands,
  of: { taskId: string; holder: Holder; parent?: Given },
): Promise<Given> {
  const id = hands.nextId('lse');
  const asked = { ...of, id, kind: 'credential' as const, tools: [] };
  let { reading, given } = await decide(hands, asked);
  const deadlineMs = hands.clock.now() + INTENT_MS;
  const intent = await hands.ledger.openIntent({
    lease: given.lease,
    intentDeadlineMs: deadlineMs,
    basis: basisOf(reading),
    quotas: WORLD_QUOTAS,
    nowMs: hands.clock.now(),
    audit: audit(hands, 'credential.intended'),
  });
  if (intent.outcome !== 'committed') throw new BrokerError('unavailable', intent.outcome);
  await hands.backend.make(id, deadlineMs);
  try {
    for (let tries = 0; tries < TRIES; tries++) {
      const outcome = await hands.ledger.commitLease({
        lease: given.lease,
        basis: basisOf(reading),
        quotas: WORLD_QUOTAS,
        nowMs: hands.clock.now(),
        audit: audit(hands, 'credential.issued'),
      });
      if (outcome.outcome === 'committed') return given;
      if (outcome.outcome !== 'stale') throw new BrokerError('conflict', outcome.outcome);
      ({ reading, given } = await decide(hands, asked));
    }
    throw new BrokerError('unavailable', 'The task keeps changing.');
  } catch (error) {
    await hands.ledger.revokeLeases({
      leaseIds: [id],
      reason: 'not committed',
      nowMs: hands.clock.now(),
      audit: audit(hands, 'leases.revoked'),
    });
    hands.add({ name: 'retire-credential', id });
    throw error;
  }
}

export async function renewCredential(
  hands: Hands,
  of: { given: Given; holder: Holder; parent?: Given },
): Promise<void> {
  const { lease } = of.given;
  const { reading } = await decide(hands, {
    id: lease.id,
    kind: 'credential',
    taskId: lease.taskId as string,
    holder: of.holder,
    tools: [],
    ...(of.parent && { parent: of.parent }),
  });
  const outcome = await hands.ledger.renewLease({
    leaseId: lease.id,
    expiresAtMs: hands.clock.now() + TTL_MS,
    basis: basisOf(reading),
    nowMs: hands.clock.now(),
    audit: audit(hands, 'credential.renewed'),
  });
  if (outcome.outcome !== 'committed') throw new BrokerError('conflict', outcome.outcome);
}

async function* leasesBelow(hands: Hands, task?: string): AsyncGenerator<LeaseRecord[]> {
  let cursor: string | undefined;
  do {
    const page = await hands.views.leases({ limit: PAGE, ...(task && { task }), ...(cursor && { cursor }) });
    yield page.items;
    cursor = page.cursor;
  } while (cursor !== undefined);
}

const movable = (lease: LeaseRecord) => lease.state === 'active' || lease.state === 'pending';

async function revokeThem(
  hands: Hands,
  leases: LeaseRecord[],
  reason: string,
  verdict?: Parameters<Ledger['revokeLeases']>[0]['verdict'],
): Promise<boolean> {
  if (leases.length === 0) return true;
  const { stale } = await hands.ledger.revokeLeases({
    leaseIds: leases.map((lease) => lease.id),
    reason,
    ...(verdict && { verdict }),
    nowMs: hands.clock.now(),
    audit: audit(hands, 'leases.revoked'),
  });
  for (const lease of leases) if (lease.kind === 'credential') hands.add({ name: 'retire-credential', id: lease.id });
  return !stale;
}

/** What an end or a suspension left to do: selected by effective state, so it is right also after a resume. */
export async function drainTask(hands: Hands, taskId: string): Promise<void> {
  const task = await hands.views.task(taskId);
  if (!task) return;
  const dueAtMs = (await hands.views.dueAt({ name: 'drain-task', id: taskId })) ?? 0;
  for await (const page of leasesBelow(hands, taskId)) {
    const dead: LeaseRecord[] = [];
    for (const lease of page.filter(movable)) {
      const found = await hands.views.leaseWithAbove(lease.id);
      if (found && deadBecause(found.lease, { ...found, revoked: false }, hands.clock.now())) dead.push(lease);
    }
    await revokeThem(hands, dead, 'drain');
  }
  if (isTerminal(task.state)) {
    for (const child of (await hands.views.children(taskId, { limit: 100 })).items) {
      await hands.ledger.endTask({
        taskId: child,
        state: 'cancelled',
        reason: 'its parent is over',
        by: 'mayfly',
        nowMs: hands.clock.now(),
        audit: audit(hands, 'task.ended'),
      });
    }
  }
  await hands.ledger.settleTask({
    taskId,
    work: 'drain-task',
    state: task.state,
    generation: task.generation,
    dueAtMs,
    nowMs: hands.clock.now(),
  });
}

/** Judges every live lease of a tree under today's context and bundle. */
export async function judgeTask(hands: Hands, taskId: string): Promise<void> {
  const task = await hands.views.task(taskId);
  if (!task) return;
  const reading = await hands.ledger.read({ taskId, nowMs: hands.clock.now() });
  if (!reading) return;
  const { generation, state } = reading.tasks.at(-1) as TaskRecord;
  const verdict = { taskId, generation, bundle: reading.bundle };
  for await (const page of leasesBelow(hands, taskId)) {
    const refused: LeaseRecord[] = [];
    for (const lease of page.filter(movable)) {
      const found = await hands.views.leaseWithAbove(lease.id);
      if (!found) continue;
      // The tasks from this one upwards as they were read; those below it as they are.
      const tasks = [...reading.tasks, ...found.tasks.slice(reading.tasks.length)];
      const over = found.tasks.some((one) => one.state !== 'active');
      if (over || !hands.allows(reading.bundle, riskOf(tasks))) refused.push(lease);
    }
    if (!(await revokeThem(hands, refused, 'policy', verdict))) return;
  }
  await hands.ledger.settleTask({ taskId, work: 're-evaluate-task', state, generation, nowMs: hands.clock.now() });
}

/** Judges all live leases under a bundle. */
export async function judgeBundle(hands: Hands, digest: string): Promise<void> {
  for await (const page of leasesBelow(hands)) {
    for (const lease of page.filter(movable)) {
      const taskId = lease.taskId as string;
      const reading = await hands.ledger.read({ taskId, nowMs: hands.clock.now() });
      // Another bundle is due on its own.
      if (!reading || reading.bundle !== digest) continue;
      if (hands.allows(reading.bundle, riskOf(reading.tasks))) continue;
      const { generation } = reading.tasks.at(-1) as TaskRecord;
      const fresh = await revokeThem(hands, [lease], 'policy', { taskId, generation, bundle: digest });
      if (!fresh) return;
    }
  }
  await hands.ledger.settleBundle({ digest, nowMs: hands.clock.now() });
}

/** The enumeration behind a revocation: everything of the class that was given before it. */
export async function runRevocation(hands: Hands, id: string): Promise<void> {
  for (;;) {
    const revocation = await hands.views.revocation(id);
    if (!revocation || revocation.done) return;
    const from = revocation.cursor ?? '';
    const page = await hands.views.leases({ limit: PAGE, ...(from !== '' && { cursor: from }) });
    const hit: LeaseRecord[] = [];
    for (const lease of page.items.filter(movable)) {
      const found = await hands.views.leaseWithAbove(lease.id);
      const inClass = [lease, ...(found?.leases ?? [])].some((one) => selects(revocation.selector, one));
      if (inClass && isBefore(lease.position, revocation.position as string)) hit.push(lease);
    }
    await revokeThem(hands, hit, 'revocation');
    const outcome = await hands.ledger.advanceRevocation({
      id,
      fromCursor: from,
      cursor: page.cursor ?? 'end',
      hit: { leases: 0, credentials: 0, tasks: [], agents: [], remains: {} },
      done: page.cursor === undefined,
      nowMs: hands.clock.now(),
    });
    if (outcome.outcome !== 'advanced') return;
  }
}

/** One attempt at a credential: do, confirm, close. Also takes those that are past their end, and intents past their deadline. */
export async function retireCredential(hands: Hands, id: string): Promise<void> {
  let lease = await hands.views.lease(id);
  if (!lease) return;
  const nowMs = hands.clock.now();
  const due = lease.state === 'pending' ? lease.createdAtMs + INTENT_MS <= nowMs : lease.expiresAtMs <= nowMs;
  if (movable(lease)) {
    if (!due) return;
    await revokeThem(hands, [lease], 'expired');
    lease = (await hands.views.lease(id)) as LeaseRecord;
  }
  if (lease.state !== 'revoking') return;
  const begun = await hands.ledger.beginAttempt({
    leaseId: id,
    backend: lease.backend ?? '',
    untilMs: nowMs + 1_000,
    nowMs,
    audit: audit(hands, 'credential.revoking'),
  });
  if (begun.outcome !== 'begun') return;
  let result: Parameters<Ledger['closeAttempt']>[0]['result'];
  try {
    await hands.backend.revoke(id);
    if (await hands.backend.exists(id)) throw new Error('still there');
    // Whoever issues it may be about to: until the intent's deadline has passed, "not there" is not "never will be".
    const mayComeUntilMs = lease.createdAtMs + INTENT_MS;
    result =
      hands.clock.now() >= mayComeUntilMs
        ? { state: 'revoked', evidence: 'confirmed' }
        : { state: 'revoking', problem: 'it may still be issued', nextAttemptMs: mayComeUntilMs };
  } catch {
    result = { state: 'revoking', problem: 'backend', nextAttemptMs: hands.clock.now() + 1_000 };
  }
  await hands.ledger.closeAttempt({
    lease,
    attempt: begun.lease.attempts as number,
    result,
    nowMs: hands.clock.now(),
    audit: audit(hands, 'credential.revoked'),
  });
}

/** What exists at the backend and is no live lease here is revoked there: first the backend is read, then the line. */
export async function reconcile(hands: Hands): Promise<void> {
  for (const id of hands.backend.live()) {
    const lease = await hands.views.lease(id);
    if (!lease) await hands.backend.revoke(id);
  }
}

export async function doJob(hands: Hands, job: Job): Promise<void> {
  switch (job.name) {
    case 'drain-task':
      return drainTask(hands, job.id);
    case 're-evaluate-task':
      return judgeTask(hands, job.id);
    case 're-evaluate-bundle':
      return judgeBundle(hands, job.id);
    case 'run-revocation':
      return runRevocation(hands, job.id);
    case 'retire-credential':
      return retireCredential(hands, job.id);
    case 'watch-task': {
      await hands.ledger.endTask({
        taskId: job.id,
        state: 'expired',
        reason: 'its deadline passed',
        by: 'mayfly',
        onlyIf: 'deadline',
        nowMs: hands.clock.now(),
        audit: audit(hands, 'task.ended'),
      });
    }
  }
}
