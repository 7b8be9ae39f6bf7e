import { asRecorded } from '../core/as-recorded.js';
import type { Handle, Revocability, SecretData } from '../core/credential.js';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import type { LeaseRecord } from '../core/lease.js';
import type { Secret } from '../core/secret.js';
import type { EpochMs } from '../core/time.js';
import { BackendProblem, type Issued } from '../plugins/backends/contract.js';
import type { Reading } from '../state/stores.js';
import type { Caller } from './caller.js';
import { CREDENTIAL_LIFE_MS_MIN, draftCredential } from './draft-credential.js';
import { findTaskId } from './find-task.js';
import { lockOn } from './locked.js';
import { closed, mayRead, type SecretAllowed } from './may-read.js';
import type { Parts } from './parts.js';
import { isProbeWanted } from './probe.js';
import { declarationOf, principalEntity } from './questions.js';
import { notFound, record, recordingRefusals, refusedCommit } from './refusal.js';
import { checkTasks, readAsHolder, spokenFor } from './spoken-for.js';
import { takeBack } from './take-back.js';

export interface SecretRequest {
  secret: string;
  /** An id or `ref:…`; a token of ours brings its own. */
  task?: string;
  ttlMs?: number;
  /** The lease that this one stands in for. */
  replaces?: string;
}

/** A credential that exists, and the lease that answers for it. */
export interface SecretIssued {
  leaseId: string;
  taskId: string;
  expiresAtMs: EpochMs;
  /** What is left of it now: a second at least. */
  lifeMs: number;
  renewable: boolean;
  revocability: Revocability;
  data: Secret<SecretData>;
  warnings: string[];
  replaces?: string;
}

interface Draft {
  reading: Reading;
  allowed: SecretAllowed;
  lease: LeaseRecord;
}

const READS_MAX = 3;
/** Holders are told whole seconds, never more than is true, and never none. */
const LIFE_MS_MIN = 1_000;

/**
 * Issues a credential for a task: who asks → read → may they → leave a trace → act → commit → answer. The trace is an intent: the lease, with the
 * name of what will be made, is in the store before the backend is asked, so that whatever dies on the way is revoked by its lease. Nobody gets a
 * credential whose lease was not committed, and none is issued twice: a commit that finds the world changed is decided again, three times at
 * most, and what then does not fit is taken back, again and again until the store has heard it.
 */
export async function issue(
  parts: Parts,
  caller: Caller,
  request: SecretRequest,
  keyed?: { leaseId: string; requestKey: string },
): Promise<SecretIssued> {
  const about = { action: 'read', detail: { secret: asRecorded('name', request.secret) } };
  return recordingRefusals(parts, caller, about, async () => {
    checkLife(request.ttlMs);
    const taskId = await taskAskedFor(parts, caller, request.task);
    const leaseId = keyed?.leaseId ?? newId('lse', parts.settings.cell, parts.clock.now());
    const draft = await intend(parts, caller, request, { taskId, leaseId, requestKey: keyed?.requestKey });
    try {
      const issued = await make(parts, draft);
      return await commit(parts, caller, request, draft, issued);
    } catch (error) {
      await takeBack(parts, draft.lease, notIssued(error));
      throw inCallersWords(error);
    }
  });
}

function checkLife(ttlMs: number | undefined): void {
  if (ttlMs === undefined || ttlMs >= CREDENTIAL_LIFE_MS_MIN) return;
  throw new BrokerError(
    'invalid_request',
    `A credential lives for ${CREDENTIAL_LIFE_MS_MIN / 1_000} seconds at least.`,
    {
      field: 'ttl_seconds',
    },
  );
}

/** Which task? A token of ours speaks for its own and for no other. */
async function taskAskedFor(parts: Parts, caller: Caller, name: string | undefined): Promise<string> {
  const implied = spokenFor(caller)?.taskId;
  const stated = name === undefined ? undefined : await findTaskId(parts, name, caller);
  if (implied !== undefined && stated !== undefined && stated !== implied) {
    throw notFound('task', `${caller.name} asked for ${stated} with a token of ${implied}`);
  }
  const taskId = implied ?? stated;
  if (taskId === undefined) throw new BrokerError('invalid_request', 'Name the task.', { field: 'task' });
  return taskId;
}

/** Read, may they, and leave a trace first. */
async function intend(
  parts: Parts,
  caller: Caller,
  request: SecretRequest,
  { requestKey, ...ids }: { taskId: string; leaseId: string; requestKey: string | undefined },
): Promise<Draft> {
  for (let reads = 0; reads < READS_MAX; reads++) {
    const draft = await decide(parts, caller, request, ids);
    const { lease, allowed } = draft;
    const nowMs = parts.clock.now();
    const outcome = await parts.ledger.openIntent({
      lease,
      intentDeadlineMs: nowMs + allowed.backend.bounds.issueTimeoutMs,
      basis: basisOf(draft),
      quotas: parts.settings.quotas,
      ...(requestKey !== undefined && { requestKey }),
      nowMs,
      audit: record(parts, 'credential.intended', caller, recordOf(draft)),
    });
    if (outcome.outcome === 'committed') {
      draft.lease.intentDeadlineMs = nowMs + allowed.backend.bounds.issueTimeoutMs;
      return draft;
    }
    if (outcome.outcome === 'not_live' && outcome.by === ids.leaseId) throw revokedMeanwhile(ids.leaseId);
    if (outcome.outcome !== 'stale') throw refusedCommit(outcome);
  }
  throw keepsChanging();
}

/** May they? Everything the lease will say is decided here, on one reading. */
async function decide(
  parts: Parts,
  caller: Caller,
  { secret, ttlMs, replaces }: SecretRequest,
  { taskId, leaseId }: { taskId: string; leaseId: string },
): Promise<Draft> {
  const reading = await readAsHolder(parts, caller, taskId);
  const nowMs = parts.clock.now();
  checkTasks(reading.tasks, nowMs);
  const policy = parts.policies.of(reading.bundle);
  const declaration = declarationOf(caller.principal);
  if (!declaration) throw new BrokerError('denied', 'Secrets are handed to workloads of a task only.');
  const onBehalfOf = reading.tasks.at(-1)?.onBehalfOf;
  const allowed = mayRead(parts, {
    name: secret,
    policy,
    principal: principalEntity(caller.principal, nowMs),
    declaration,
    tasks: reading.tasks,
    binding: caller.binding,
    proof: caller.principal.identity.proof,
    onBehalfOf: onBehalfOf && { subject: onBehalfOf.name, proven: onBehalfOf.proven },
    ...(ttlMs !== undefined && { ttlMsRequested: ttlMs }),
  });
  const problem = parts.secretChecks.problemOf(secret);
  if (problem !== undefined) throw closed(problem);
  const lease = draftCredential({ leaseId, caller, declaration, reading, allowed, nowMs });
  if (replaces !== undefined) lease.replaces = replaces;
  const lock = lockOn(parts, reading, lease);
  if (lock) {
    throw new BrokerError('denied', 'A lock forbids new grants here.', {
      reason: `lock ${lock.id}`,
      hint: `Lock ${lock.id}: ${lock.reason}`,
    });
  }
  return { reading, allowed, lease };
}

/** Act. What a crash would lose on the way is noted in the lease, as long as the lease still waits for it. */
async function make(parts: Parts, { lease, allowed }: Draft): Promise<Issued> {
  const { backend, settings } = allowed;
  const startedAtMs = parts.clock.now();
  const issued = await backend.issue({
    leaseId: lease.id,
    settings,
    handle: lease.handle as Handle,
    expiresAtMs: lease.expiresAtMs,
    deadlineMs: lease.intentDeadlineMs as EpochMs,
    agent: lease.agent,
    taskId: lease.taskId as string,
    ...(lease.onBehalfOf !== undefined && { onBehalfOf: lease.onBehalfOf }),
    note: async (more, keep) => {
      const { outcome } = await parts.ledger.noteCredential({
        leaseId: lease.id,
        backend: backend.name,
        handle: more,
        ...(keep && { keep }),
        nowMs: parts.clock.now(),
      });
      if (outcome !== 'noted') throw new BackendProblem('too_late', 'its lease does not wait for it any more');
    },
    signal: new AbortController().signal,
  });
  parts.observe({ event: 'credential.issued', backend: backend.name, ms: parts.clock.now() - startedAtMs });
  return issued;
}

/** It counts only now: on the reading it was decided on, or on a newer one that allows as much. */
async function commit(
  parts: Parts,
  caller: Caller,
  request: SecretRequest,
  intended: Draft,
  issued: Issued,
): Promise<SecretIssued> {
  const { id: leaseId, taskId, createdAtMs } = intended.lease;
  let draft = intended;
  for (let reads = 0; reads < READS_MAX; reads++) {
    if (reads > 0) draft = await decide(parts, caller, request, { taskId: taskId as string, leaseId });
    if (draft.lease.expiresAtMs < issued.expiresAtMs) throw keepsChanging();
    const { intentDeadlineMs: _, ...decided } = draft.lease;
    const lease: LeaseRecord = {
      ...decided,
      createdAtMs,
      expiresAtMs: issued.expiresAtMs,
      handle: { ...intended.lease.handle, ...issued.handle },
      renewable: issued.renewable,
    };
    const outcome = await parts.ledger.commitLease({
      lease,
      ...(draft.allowed.backend.probe && isProbeWanted(parts, lease) && { probe: issued.data }),
      basis: basisOf(draft),
      quotas: parts.settings.quotas,
      nowMs: parts.clock.now(),
      audit: record(parts, 'credential.issued', caller, recordOf({ ...draft, lease })),
    });
    if (outcome.outcome === 'committed') return answer(parts, draft, lease, issued);
    if (outcome.outcome === 'too_late') throw closed('it was made too late to be committed');
    if (outcome.outcome === 'not_live' && outcome.by === leaseId) throw revokedMeanwhile(leaseId);
    if (outcome.outcome !== 'stale') throw refusedCommit(outcome);
  }
  throw keepsChanging();
}

function answer(parts: Parts, { allowed }: Draft, lease: LeaseRecord, issued: Issued): SecretIssued {
  const lifeMs = lease.expiresAtMs - parts.clock.now();
  if (lifeMs < LIFE_MS_MIN) throw closed('making it took nearly all of its life');
  return {
    leaseId: lease.id,
    lifeMs,
    taskId: lease.taskId as string,
    expiresAtMs: lease.expiresAtMs,
    renewable: issued.renewable,
    revocability: allowed.revocability,
    data: issued.data,
    warnings: issued.warnings ?? [],
    ...(lease.replaces !== undefined && { replaces: lease.replaces }),
  };
}

function notIssued(error: unknown): string {
  return `not issued: ${error instanceof BackendProblem || error instanceof BrokerError ? error.message : 'an error inside'}`;
}

function inCallersWords(error: unknown): unknown {
  return error instanceof BackendProblem ? closed(`${error.kind}: ${error.message}`) : error;
}

function revokedMeanwhile(leaseId: string): BrokerError {
  return new BrokerError('conflict', 'It was revoked while it was made.', { reason: `${leaseId} is not pending` });
}

function keepsChanging(): BrokerError {
  return new BrokerError('unavailable', 'The task keeps changing; try again.', { retryAfterSeconds: 1 });
}

function basisOf({ reading }: Draft) {
  return {
    position: reading.position,
    bundle: reading.bundle,
    generations: reading.tasks.map((task) => task.generation),
  };
}

function recordOf({ lease, allowed }: Draft) {
  const { decision, exception, revocability } = allowed;
  return {
    ...(lease.taskId && { task: lease.taskId }),
    generation: lease.generations.at(-1) as number,
    lease: lease.id,
    action: 'read',
    resource: lease.secret as string,
    effect: 'allow' as const,
    bundle: lease.bundle,
    policyIds: decision.policyIds,
    detail: {
      secret: lease.secret,
      backend: lease.backend,
      revocability,
      expires_at: new Date(lease.expiresAtMs).toISOString(),
      handle: lease.handle,
      binding: lease.binding,
      ...(lease.onBehalfOf && { on_behalf_of: lease.onBehalfOf }),
      ...(lease.actors.length > 0 && { actors: lease.actors }),
      ...(lease.replaces && { replaces: lease.replaces }),
      ...(exception && { exception: { reason: exception.reason, owner: exception.owner } }),
    },
  };
}
