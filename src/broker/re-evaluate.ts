import type { LeaseRecord } from '../core/lease.js';
import type { TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import { judge } from './judge.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

const PAGE = 500;

export interface Verdicts {
  kept: number;
  revoked: { lease: string; agent: string; reason: string }[];
}

/** One lease with what is above it, and what today's rules say of it. */
export interface Judged {
  lease: LeaseRecord;
  task: TaskRecord | undefined;
  reason: string | undefined;
}

/**
 * Judges every live lease at or below a task again, after its context changed. Each verdict is a compare-and-set on the task's generation and
 * the bundle it was made under: what changed again in between is judged again. Past the deadline, or on an error, a lease is revoked unjudged.
 */
export async function reEvaluateTask(parts: Parts, taskId: string): Promise<void> {
  const task = await parts.views.task(taskId);
  if (!task) return;
  const reading = await parts.ledger.read({ taskId, nowMs: parts.clock.now() });
  if (!reading) return;
  const { generation, state } = reading.tasks.at(-1) as TaskRecord;
  const policy = await policyOf(parts, reading.bundle);
  const deadlineMs = parts.clock.now() + parts.settings.judgeWithinMs;
  const settled = await revokeWhatFails(parts, { task: taskId }, policy, deadlineMs, (judged) => ({
    taskId: judged.task?.id ?? taskId,
    generation: judged.task?.generation ?? generation,
    bundle: reading.bundle,
  }));
  if (!settled) return;
  await parts.ledger.settleTask({ taskId, work: 're-evaluate-task', state, generation, nowMs: parts.clock.now() });
}

/** The same over all live leases, after a bundle became active. */
export async function reEvaluateBundle(parts: Parts, digest: string): Promise<void> {
  const active = await parts.views.activeBundle();
  // A newer bundle has its own turn.
  if (active?.digest !== digest) return parts.ledger.settleBundle({ digest, nowMs: parts.clock.now() });
  const policy = await policyOf(parts, digest);
  const deadlineMs = parts.clock.now() + parts.settings.judgeBundleWithinMs;
  const settled = await revokeWhatFails(parts, {}, policy, deadlineMs, (judged) =>
    judged.task ? { taskId: judged.task.id, generation: judged.task.generation, bundle: digest } : undefined,
  );
  if (settled) await parts.ledger.settleBundle({ digest, nowMs: parts.clock.now() });
}

/** What a context or a bundle would do to the leases that live now, without doing it. */
export async function previewVerdicts(
  parts: Parts,
  filter: { task?: string },
  policy: PreparedPolicy,
  asIf: (tasks: TaskRecord[]) => TaskRecord[] = (tasks) => tasks,
): Promise<Verdicts> {
  const verdicts: Verdicts = { kept: 0, revoked: [] };
  for await (const { lease, reason } of judgeAll(parts, filter, policy, undefined, asIf)) {
    if (reason === undefined) verdicts.kept++;
    else verdicts.revoked.push({ lease: lease.id, agent: lease.agent, reason });
  }
  return verdicts;
}

/** A broker that has not loaded the bundle loads it; what cannot be loaded judges nothing, and the deadline revokes. */
async function policyOf(parts: Parts, digest: string): Promise<PreparedPolicy | undefined> {
  try {
    await parts.policies.refresh();
    return parts.policies.of(digest);
  } catch {
    return undefined;
  }
}

async function revokeWhatFails(
  parts: Parts,
  filter: { task?: string },
  policy: PreparedPolicy | undefined,
  deadlineMs: EpochMs,
  basis: (judged: Judged) => { taskId: string; generation: number; bundle: string } | undefined,
): Promise<boolean> {
  let settled = true;
  for await (const judged of judgeAll(parts, filter, policy, deadlineMs)) {
    if (judged.reason === undefined) continue;
    const verdict = basis(judged);
    const outcome = await parts.ledger.revokeLeases({
      leaseIds: [judged.lease.id],
      reason: judged.reason,
      ...(verdict && { verdict }),
      nowMs: parts.clock.now(),
      audit: systemRecord(parts, 'lease.re_evaluated', {
        lease: judged.lease.id,
        ...(judged.lease.taskId && { task: judged.lease.taskId }),
        ...(judged.task && { generation: judged.task.generation }),
        effect: 'deny',
        reasons: [judged.reason],
        ...(policy && { bundle: policy.bundle.digest }),
      }),
    });
    if (outcome.stale) settled = false;
  }
  return settled;
}

async function* judgeAll(
  parts: Parts,
  filter: { task?: string },
  policy: PreparedPolicy | undefined,
  deadlineMs: EpochMs | undefined,
  asIf: (tasks: TaskRecord[]) => TaskRecord[] = (tasks) => tasks,
): AsyncGenerator<Judged> {
  let cursor: string | undefined;
  do {
    const page = await parts.views.leases({ ...filter, ...(cursor !== undefined && { cursor }), limit: PAGE });
    for (const lease of page.items) {
      if (lease.kind !== 'token' || lease.state !== 'active') continue;
      const found = await parts.views.leaseWithAbove(lease.id);
      if (!found) continue;
      yield {
        lease,
        task: found.tasks.at(-1),
        reason: verdictOn(parts, policy, deadlineMs, lease, { ...found, tasks: asIf(found.tasks) }),
      };
    }
    cursor = page.cursor;
  } while (cursor !== undefined);
}

function verdictOn(
  parts: Parts,
  policy: PreparedPolicy | undefined,
  deadlineMs: EpochMs | undefined,
  lease: LeaseRecord,
  above: { tasks: TaskRecord[]; leases: LeaseRecord[] },
): string | undefined {
  if (deadlineMs !== undefined && parts.clock.now() > deadlineMs) return 'not judged in time';
  if (!policy) return 'the bundle could not be loaded to judge it';
  try {
    return judge(parts, policy, lease, above);
  } catch {
    return 'judging it failed';
  }
}
