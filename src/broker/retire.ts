import type { Evidence } from '../core/credential.js';
import { type LeaseRecord, STUCK_ATTEMPTS } from '../core/lease.js';
import type { EpochMs } from '../core/time.js';
import { type Backend, BackendProblem, type Confirmation, type Credential } from '../plugins/backends/contract.js';
import type { Kept, Ledger } from '../state/stores.js';
import type { Parts } from './parts.js';
import { isProbeWanted, probe } from './probe.js';
import { systemRecord } from './refusal.js';

type Result = Parameters<Ledger['closeAttempt']>[0]['result'];
type Begun = Kept & { lease: LeaseRecord };

/** After an intent's deadline and the time an issue may take, so much more: its issuer may have been stopped and have come back. */
const ISSUER_GRACE_MS = 10_000;
const BACK_OFF_MS_MIN = 1_000;
const BACK_OFF_MS_MAX = 60_000;
/** What nobody uses any more is cleared away without haste; what takes many attempts costs the others there something each time. */
const RESIDUE_MS_MIN = 60_000;
const RESIDUE_MS_MAX = 3_600_000;
/** A probe that says nothing is made again so many times; then the catalogue's word has to do. */
const PROBES_MAX = 3;
/** Longer than an attempt takes when every call of it runs out of time: then somebody else may begin one. */
const HELD_CALLS = 3;
const HELD_MARGIN_MS = 2_000;

/**
 * One death: do, confirm, try. Whatever ended a credential (its end, its task, a revocation, an intent nobody committed, the reconciler), this
 * asks its backend to revoke it, then asks the backend what is there, and closes the lease only on that answer. One worker at a time has the
 * lease. What fails is due again, at growing distance and for ever.
 */
export async function retire(parts: Parts, leaseId: string, backendName = ''): Promise<void> {
  const backend = parts.backends.get(backendName);
  // It stays due. Whoever comes when the backend may be tried again tries it for all.
  if (backend?.guard?.admits === false) return;
  const nowMs = parts.clock.now();
  const begun = await parts.ledger.beginAttempt({
    leaseId,
    backend: backendName,
    untilMs: nowMs + HELD_CALLS * (backend?.bounds.revokeTimeoutMs ?? 0) + HELD_MARGIN_MS,
    nowMs,
    audit: systemRecord(parts, 'credential.revoking', { lease: leaseId, reasons: ['its time is over'] }),
  });
  if (begun.outcome !== 'begun') return;
  const { result, problem } = await attempt(parts, backend, backendName, begun);
  await close(parts, begun.lease, result, problem);
}

async function attempt(
  parts: Parts,
  backend: Backend | undefined,
  backendName: string,
  begun: Begun,
): Promise<{ result: Result; problem?: BackendProblem }> {
  const { lease } = begun;
  try {
    if (!backend) throw new BackendProblem('misconfigured', `this broker has no backend ${backendName}`);
    const credential = credentialOf(begun);
    const { signal } = new AbortController();
    await backend.revoke(credential, signal);
    const found = await backend.confirm(credential, signal);
    return { result: await verdict(parts, backend, begun, credential, found) };
  } catch (error) {
    const problem =
      error instanceof BackendProblem
        ? error
        : new BackendProblem('failed', 'the attempt ended in an error inside', { cause: error });
    return { result: failed(parts, lease, `${problem.kind}: ${problem.message}`), problem };
  }
}

/** What the backend's answer is worth. */
async function verdict(
  parts: Parts,
  backend: Backend,
  begun: Begun,
  credential: Credential,
  found: Confirmation,
): Promise<Result> {
  const { lease } = begun;
  const nowMs = parts.clock.now();
  switch (found.state) {
    case 'there':
      throw new BackendProblem('failed', `it is still there: ${found.detail}`);
    case 'unknowable': {
      const { untilMs } = found;
      if (untilMs === undefined) return waiting(nowMs + BACK_OFF_MS_MAX, 'unbounded');
      return untilMs <= nowMs ? { state: 'revoked', evidence: 'expired' } : waiting(untilMs);
    }
    case 'gone': {
      const settledMs = issuerIsDoneMs(lease, backend);
      // "Not there" is not "never will be" while whoever was to make it may still be about to.
      if (nowMs < settledMs) return waiting(settledMs);
      const evidence = await evidenceOf(parts, backend, begun, credential);
      if (evidence === undefined) return failed(parts, lease, 'the probe said nothing');
      const { residue } = found;
      return {
        state: 'revoked',
        evidence,
        ...(residue !== undefined && { residue: { what: residue, nextAttemptMs: nowMs + residueMs(lease) } }),
      };
    }
  }
}

/** Confirmed by the catalogue; and where that is wanted, the credential itself is tried. */
async function evidenceOf(
  parts: Parts,
  backend: Backend,
  { lease, probe: data }: Begun,
  credential: Credential,
): Promise<Evidence | undefined> {
  // One that was never committed was never handed out; one that is gone already was tried when it went.
  const isTried = lease.intentDeadlineMs === undefined && lease.state === 'revoking';
  if (!isTried || !(data || isProbeWanted(parts, lease))) return 'confirmed';
  const isLast = (lease.attempts ?? 0) >= PROBES_MAX;
  const said = await probe(backend, credential, data, new AbortController().signal).catch(() => 'unclear' as const);
  if (said === 'alive') throw new BackendProblem('failed', 'it is said to be gone, and somebody gets in with it');
  if (said === 'unclear') return isLast ? 'not-probed' : undefined;
  return said;
}

async function close(parts: Parts, lease: LeaseRecord, result: Result, problem?: BackendProblem): Promise<void> {
  const nowMs = parts.clock.now();
  // Waiting is no news, but for the first time that it has no end.
  const isNews = result.state !== 'revoking' || result.problem !== undefined || result.evidence !== lease.evidence;
  const { outcome } = await parts.ledger.closeAttempt({
    lease,
    attempt: lease.attempts as number,
    result,
    nowMs,
    ...(isNews && { audit: recordOf(parts, lease, result) }),
  });
  if (outcome !== 'closed') return;
  const about = { backend: lease.backend, lease: lease.id };
  if (result.state === 'revoked') {
    if (lease.state !== 'revoking') return;
    const lagMs = nowMs - (await diedAtMs(parts, lease));
    parts.observe({ event: 'credential.closed', ...about, evidence: result.evidence, lagMs, attempts: lease.attempts });
  } else if (problem) {
    parts.observe({ event: 'credential.attempt_failed', level: 'warn', ...about, problem: problem.kind });
    if (lease.attempts === STUCK_ATTEMPTS) parts.observe({ event: 'credential.stuck', level: 'error', ...about });
  }
}

function recordOf(parts: Parts, lease: LeaseRecord, result: Result) {
  const about = {
    lease: lease.id,
    ...(lease.taskId !== undefined && { task: lease.taskId }),
    ...(lease.secret !== undefined && { resource: lease.secret }),
  };
  const detail = { backend: lease.backend, attempt: lease.attempts };
  if (result.state === 'revoked') {
    const { evidence, residue } = result;
    return systemRecord(parts, 'credential.revoked', {
      ...about,
      reasons: [lease.revokedReason ?? ''],
      detail: { ...detail, evidence, ...(residue && { residue: residue.what }) },
    });
  }
  const told = result.state === 'revoking' ? (result.problem ?? result.evidence) : result.reason;
  return systemRecord(parts, 'credential.revoking', { ...about, reasons: [told ?? ''], detail });
}

/** When it was to be dead. Where it came to its own end first, its task may have ended before that, and nobody said so yet. */
async function diedAtMs(
  parts: Parts,
  { taskId, expiresAtMs, revokingAtMs = parts.clock.now() }: LeaseRecord,
): Promise<EpochMs> {
  if (taskId === undefined || revokingAtMs !== expiresAtMs) return revokingAtMs;
  const task = await parts.views.task(taskId).catch(() => undefined);
  return Math.min(revokingAtMs, task?.endedAtMs ?? revokingAtMs);
}

function waiting(nextAttemptMs: EpochMs, evidence?: 'unbounded'): Result {
  return { state: 'revoking', nextAttemptMs, ...(evidence && { evidence }) };
}

function failed(parts: Parts, lease: LeaseRecord, problem: string): Result {
  const distanceMs = Math.min(BACK_OFF_MS_MIN * 2 ** ((lease.attempts ?? 1) - 1), BACK_OFF_MS_MAX);
  // Those that failed together do not come back together.
  return {
    state: 'revoking',
    problem,
    nextAttemptMs: parts.clock.now() + Math.round(distanceMs * (0.5 + Math.random() / 2)),
  };
}

function residueMs({ attempts = 1 }: LeaseRecord): number {
  return Math.min(RESIDUE_MS_MIN * 2 ** (attempts - 1), RESIDUE_MS_MAX);
}

/** When nobody can make it any more: an intent that was committed is done. */
function issuerIsDoneMs({ intentDeadlineMs }: LeaseRecord, { bounds }: Backend): EpochMs {
  return intentDeadlineMs === undefined ? 0 : intentDeadlineMs + bounds.issueTimeoutMs + ISSUER_GRACE_MS;
}

export function credentialOf({ lease, kept }: { lease: LeaseRecord } & Kept): Credential {
  return {
    leaseId: lease.id,
    handle: lease.handle ?? {},
    expiresAtMs: lease.expiresAtMs,
    ...(kept && { kept }),
  };
}
