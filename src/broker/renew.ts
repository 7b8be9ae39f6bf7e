import { BrokerError } from '../core/errors.js';
import { type DeadBecause, deadBecause, type LeaseRecord } from '../core/lease.js';
import type { EpochMs } from '../core/time.js';
import { type Backend, BackendProblem, type Renewable } from '../plugins/backends/contract.js';
import type { Basis, LeaseWithAbove, Reading } from '../state/stores.js';
import type { Caller } from './caller.js';
import { lockOn } from './locked.js';
import { closed, mayRead, type SecretAllowed } from './may-read.js';
import type { Parts } from './parts.js';
import { declarationOf, principalEntity } from './questions.js';
import { reachLease } from './reach-lease.js';
import { notFound, record, recordingRefusals } from './refusal.js';
import { credentialOf } from './retire.js';
import { checkTasks } from './spoken-for.js';

export interface Renewed {
  leaseId: string;
  expiresAtMs: EpochMs;
  /** What is left of it now: a second at least. */
  lifeMs: number;
  renewable: boolean;
}

interface Draft {
  lease: LeaseRecord;
  allowed: SecretAllowed;
  basis: Basis;
  expiresAtMs: EpochMs;
}

const READS_MAX = 3;
const LIFE_MS_MIN = 1_000;
const REACH_MS = 1_000;
/** What is not decided and committed by then is not renewed. */
const DECIDE_MS = 4_000;
/** For writing down what the backend gave, and for the answer. */
const WRITE_MS = 1_000;

/**
 * Longer life for a credential, decided anew like an issue: who → read → may they → commit → act. The lease has its new end before the backend
 * is asked, so that nothing outlives its lease; it keeps its position, so that a revocation which is not enumerated yet still finds it.
 */
export async function renew(
  parts: Parts,
  caller: Caller,
  { lease: id, incrementMs }: { lease: string; incrementMs?: number },
): Promise<Renewed> {
  return recordingRefusals(parts, caller, { action: 'renew', lease: id }, () =>
    oneAtATime(parts, caller, id, (decideByMs) => renewOnce(parts, caller, id, { incrementMs, decideByMs })),
  );
}

/**
 * Two renewals side by side could take back what the other one has promised: of one lease there is one at a time. A turn is as long as a renewal
 * can take, so that of a broker that died the next one waits for no longer than that.
 */
async function oneAtATime<Done>(
  parts: Parts,
  caller: Caller,
  id: string,
  act: (decideByMs: EpochMs) => Promise<Done>,
): Promise<Done> {
  // Nobody takes the turn of a lease that is not theirs to renew.
  const { lease } = await reachLease(parts, caller, id);
  const backendMs = parts.backends.get(lease.backend ?? '')?.bounds.issueTimeoutMs ?? 0;
  const turn = `renew:${id}`;
  const nowMs = parts.clock.now();
  const { outcome } = await parts.replayGuard.claim(turn, 'turn', nowMs, DECIDE_MS + backendMs + WRITE_MS);
  if (outcome !== 'new') {
    throw new BrokerError('unavailable', 'Another renewal of this lease is under way.', { retryAfterSeconds: 1 });
  }
  try {
    return await act(nowMs + DECIDE_MS);
  } finally {
    await parts.replayGuard.release(turn).catch(() => {});
  }
}

async function renewOnce(
  parts: Parts,
  caller: Caller,
  id: string,
  { incrementMs, decideByMs }: { incrementMs: number | undefined; decideByMs: EpochMs },
): Promise<Renewed> {
  for (let reads = 0; reads < READS_MAX; reads++) {
    const draft = await decide(parts, caller, id, incrementMs);
    const { lease, expiresAtMs } = draft;
    // It lives as long already. Nobody is shortened by asking for more.
    if (expiresAtMs <= lease.expiresAtMs) return answer(parts, lease, lease.expiresAtMs);
    if (parts.clock.now() >= decideByMs) break;
    const outcome = await setEnd(parts, caller, draft, expiresAtMs);
    if (outcome.outcome === 'committed') return prolong(parts, caller, draft);
    if (outcome.outcome !== 'stale') throw notLive('lease');
  }
  throw new BrokerError('unavailable', 'The task keeps changing; try again.', { retryAfterSeconds: 1 });
}

/** Whose is it, is it alive, and may they still? */
async function decide(parts: Parts, caller: Caller, id: string, incrementMs: number | undefined): Promise<Draft> {
  const found = await reachLease(parts, caller, id);
  const { lease, standing } = found;
  const declaration = declarationOf(caller.principal);
  if (standing !== 'holder') {
    throw new BrokerError('denied', 'Only its holder renews a lease.', { hint: `${lease.agent} holds it.` });
  }
  if (!declaration) throw notFound('lease', `${caller.name} does not hold ${id}`);
  const backend = lease.kind === 'credential' ? parts.backends.get(lease.backend ?? '') : undefined;
  if (!lease.renewable || !backend) throw cannotBeRenewed();
  renewable(backend);
  const nowMs = parts.clock.now();
  const reading = await parts.ledger.read({ taskId: lease.taskId as string, nowMs });
  if (!reading) throw notFound('lease', `${lease.taskId} is not there`);
  await parts.feed.reached(reading.fence, REACH_MS);
  checkTasks(reading.tasks, nowMs);
  checkAlive(found, reading, nowMs);
  const policy = parts.policies.of(reading.bundle);
  const onBehalfOf = reading.tasks.at(-1)?.onBehalfOf;
  const allowed = mayRead(parts, {
    name: lease.secret as string,
    policy,
    principal: principalEntity(caller.principal, nowMs),
    declaration,
    tasks: reading.tasks,
    binding: caller.binding,
    proof: caller.principal.identity.proof,
    onBehalfOf: onBehalfOf && { subject: onBehalfOf.name, proven: onBehalfOf.proven },
    ...(incrementMs !== undefined && { ttlMsRequested: incrementMs }),
  });
  if (allowed.backend.name !== lease.backend) throw new BrokerError('conflict', 'Its secret has another backend now.');
  const lock = lockOn(parts, { ...reading, leases: found.leases }, lease);
  if (lock) {
    throw new BrokerError('denied', 'A lock forbids new grants here.', {
      reason: `lock ${lock.id}`,
      hint: `Lock ${lock.id}: ${lock.reason}`,
    });
  }
  return {
    lease,
    allowed,
    basis: {
      position: reading.position,
      bundle: reading.bundle,
      generations: reading.tasks.map((task) => task.generation),
    },
    expiresAtMs: Math.floor(Math.min(nowMs + allowed.ttlMsMax, allowed.untilMsMax) / 1_000) * 1_000,
  };
}

function checkAlive({ lease, leases }: LeaseWithAbove, { tasks }: Reading, nowMs: EpochMs): void {
  const dead = deadBecause(lease, { tasks, leases, revoked: false }, nowMs);
  if (dead) throw notLive(dead);
}

function setEnd(parts: Parts, caller: Caller, { lease, basis, allowed }: Draft, expiresAtMs: EpochMs) {
  return parts.ledger.renewLease({
    leaseId: lease.id,
    expiresAtMs,
    basis,
    nowMs: parts.clock.now(),
    audit: record(parts, 'credential.renewed', caller, {
      lease: lease.id,
      ...(lease.taskId !== undefined && { task: lease.taskId }),
      generation: basis.generations.at(-1) as number,
      action: 'read',
      resource: lease.secret as string,
      effect: 'allow',
      bundle: basis.bundle,
      policyIds: allowed.decision.policyIds,
      detail: {
        expires_at: new Date(expiresAtMs).toISOString(),
        ...(allowed.exception && { exception: allowed.exception }),
      },
    }),
  });
}

/** The backend's turn. What it does not give, the lease does not say for longer than it takes to write that down. */
async function prolong(parts: Parts, caller: Caller, draft: Draft): Promise<Renewed> {
  const { lease, allowed, expiresAtMs } = draft;
  const kept = await parts.views.kept(lease.id).catch(() => ({}));
  try {
    const { signal } = new AbortController();
    const granted = await renewable(allowed.backend).renew(credentialOf({ lease, ...kept }), expiresAtMs, signal);
    if (granted.expiresAtMs < expiresAtMs) await setEnd(parts, caller, draft, granted.expiresAtMs).catch(() => {});
    return answer(parts, lease, Math.min(granted.expiresAtMs, expiresAtMs));
  } catch (error) {
    // Unless it is sure that nothing was done, it may live that long: then the lease goes on saying so.
    if (error instanceof BackendProblem && error.isSure) {
      await setEnd(parts, caller, draft, lease.expiresAtMs).catch(() => {});
    }
    throw error instanceof BackendProblem ? closed(`${error.kind}: ${error.message}`) : error;
  }
}

/** Holders are told whole seconds, never more than is true, and never none. */
function answer(parts: Parts, { id }: LeaseRecord, expiresAtMs: EpochMs): Renewed {
  const lifeMs = expiresAtMs - parts.clock.now();
  if (lifeMs < LIFE_MS_MIN) throw notLive('expired');
  return { leaseId: id, expiresAtMs, lifeMs, renewable: true };
}

function renewable(backend: Backend): Renewable {
  if (!backend.renew) throw cannotBeRenewed();
  return backend as Renewable;
}

function cannotBeRenewed(): BrokerError {
  return new BrokerError('conflict', 'This lease cannot be renewed.');
}

function notLive(dead: DeadBecause): BrokerError {
  return new BrokerError('conflict', 'The lease is not live any more.', { reason: dead });
}
