import type { LeaseRecord } from '../core/lease.js';
import type { TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import { hurry } from './hurry.js';
import { judge } from './judge.js';
import { judgeCredential } from './judge-credential.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

const PAGE = 500;
/** Leases of a page that are looked up and judged side by side: most of the time of one is the way to the store and back. */
const AT_ONCE = 32;
const NAMED_MAX = 1_000;
const PREVIEW_LEASES_MAX = 100_000;

export interface Verdicts {
  kept: number;
  /** All that would die; at most 1,000 of them are named. */
  dying: number;
  revoked: { lease: string; agent: string; reason: string }[];
  /** True when the count stopped at its limit: there is more. */
  atLeast: boolean;
}

const NOT_IN_TIME = 'not judged in time';

/** One lease with what is above it, and what today's rules say of it. */
export interface Judged {
  lease: LeaseRecord;
  task: TaskRecord | undefined;
  reason: string | undefined;
}

/**
 * Judges every live lease at or below a task again, after its context changed. Each verdict is a compare-and-set on the task's generation and
 * the bundle it was made under: what changed again in between is judged again. Past the deadline, which counts from the change however late somebody came to judge, or on
 * an error, a lease is revoked unjudged. What was decided under this generation already is none of its business.
 */
export async function reEvaluateTask(parts: Parts, taskId: string): Promise<void> {
  const task = await parts.views.task(taskId);
  if (!task) return;
  const reading = await parts.ledger.read({ taskId, nowMs: parts.clock.now() });
  if (!reading) return;
  const { generation, state } = reading.tasks.at(-1) as TaskRecord;
  const policy = await policyOf(parts, reading.bundle);
  const judgeByMs = await parts.views.judgeBy(taskId);
  const deadlineMs = judgeByMs ?? parts.clock.now() + parts.settings.judgeWithinMs;
  const settled = await revokeWhatFails(
    parts,
    { task: taskId, decidedAt: generation },
    policy,
    deadlineMs,
    (judged) => ({
      taskId: judged.task?.id ?? taskId,
      generation: judged.task?.generation ?? generation,
      bundle: reading.bundle,
    }),
  );
  if (!settled) return;
  await parts.ledger.settleTask({ taskId, work: 're-evaluate-task', state, generation, nowMs: parts.clock.now() });
}

/** The same over all live leases, after a bundle became active. */
export async function reEvaluateBundle(parts: Parts, digest: string): Promise<void> {
  const active = await parts.views.activeBundle();
  // A newer bundle has its own turn.
  if (active?.digest !== digest) return parts.ledger.settleBundle({ digest, nowMs: parts.clock.now() });
  const policy = await policyOf(parts, digest);
  // Counted from the activation, however late somebody came to judge by it.
  const activated = (await parts.views.bundles()).find((one) => one.digest === digest);
  const deadlineMs = (activated?.activatedAtMs ?? parts.clock.now()) + parts.settings.judgeBundleWithinMs;
  const settled = await revokeWhatFails(parts, { decidedUnder: digest }, policy, deadlineMs, (judged) =>
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
  return verdictsOf(judgeAll(parts, filter, policy, undefined, asIf));
}

/** The same where nobody judges: all of a task dies, for this reason. */
export async function previewEnd(parts: Parts, filter: { task: string }, reason: string): Promise<Verdicts> {
  return verdictsOf(judgeAll(parts, filter, undefined, 0), reason);
}

async function verdictsOf(pages: AsyncIterable<Judged[]>, ofAll?: string): Promise<Verdicts> {
  const verdicts: Verdicts = { kept: 0, dying: 0, revoked: [], atLeast: false };
  for await (const page of pages) {
    for (const judged of page) {
      const { lease } = judged;
      const reason = ofAll ?? judged.reason;
      if (reason === undefined) verdicts.kept++;
      else if (++verdicts.dying <= NAMED_MAX) verdicts.revoked.push({ lease: lease.id, agent: lease.agent, reason });
    }
    verdicts.atLeast = verdicts.kept + verdicts.dying >= PREVIEW_LEASES_MAX;
    if (verdicts.atLeast) break;
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

/** Which leases: of a task and below; without those that were decided under this bundle, or this generation of the task, already. */
interface Which {
  task?: string;
  decidedAt?: number;
  decidedUnder?: string;
}

function isDecided(lease: LeaseRecord, { task, decidedAt, decidedUnder }: Which): boolean {
  if (decidedAt === undefined) return lease.bundle === decidedUnder;
  const at = lease.path.filter((id) => id.startsWith('tsk_')).indexOf(task as string);
  return lease.generations[at] === decidedAt;
}

async function revokeWhatFails(
  parts: Parts,
  which: Which,
  policy: PreparedPolicy | undefined,
  deadlineMs: EpochMs,
  basis: (judged: Judged) => { taskId: string; generation: number; bundle: string } | undefined,
): Promise<boolean> {
  let settled = true;
  for await (const page of judgeAll(parts, which, policy, deadlineMs)) {
    await revokeUnjudged(
      parts,
      which,
      page.filter(({ reason }) => reason === NOT_IN_TIME),
    );
    const failed = page.filter(({ reason }) => reason !== undefined && reason !== NOT_IN_TIME);
    await sideBySide(failed, async (judged) => {
      const verdict = basis(judged);
      const reason = judged.reason as string;
      const outcome = await parts.ledger.revokeLeases({
        leaseIds: [judged.lease.id],
        reason,
        ...(verdict && { verdict }),
        nowMs: parts.clock.now(),
        audit: systemRecord(parts, 'lease.re_evaluated', {
          lease: judged.lease.id,
          ...(judged.lease.taskId && { task: judged.lease.taskId }),
          ...(judged.task && { generation: judged.task.generation }),
          effect: 'deny',
          reasons: [reason],
          ...(policy && { bundle: policy.bundle.digest }),
        }),
      });
      if (outcome.stale) settled = false;
      else hurry(parts, [judged.lease]);
    });
  }
  return settled;
}

/** The time is up: what is left of a page goes in one step, whatever has changed since. */
async function revokeUnjudged(parts: Parts, { task }: Which, unjudged: readonly Judged[]): Promise<void> {
  if (unjudged.length === 0) return;
  const leaseIds = unjudged.map(({ lease }) => lease.id);
  await parts.ledger.revokeLeases({
    leaseIds,
    reason: NOT_IN_TIME,
    announce: true,
    nowMs: parts.clock.now(),
    audit: systemRecord(parts, 'leases.revoked', {
      ...(task !== undefined && { task }),
      effect: 'deny',
      reasons: [NOT_IN_TIME],
      detail: { leases: leaseIds },
    }),
  });
  hurry(
    parts,
    unjudged.map(({ lease }) => lease),
  );
}

/** Page by page. Past the deadline nothing more is looked up: what is listed is what dies. */
async function* judgeAll(
  parts: Parts,
  which: Which,
  policy: PreparedPolicy | undefined,
  deadlineMs: EpochMs | undefined,
  asIf: (tasks: TaskRecord[]) => TaskRecord[] = (tasks) => tasks,
): AsyncGenerator<Judged[]> {
  const filter = which.task === undefined ? {} : { task: which.task };
  let cursor: string | undefined;
  do {
    const page = await parts.views.leases({ ...filter, ...(cursor !== undefined && { cursor }), limit: PAGE });
    const live = page.items.filter((lease) => lease.state === 'active' && !isDecided(lease, which));
    const judged: Judged[] = [];
    await sideBySide(live, async (lease) => {
      if (deadlineMs !== undefined && parts.clock.now() > deadlineMs) {
        judged.push({ lease, task: undefined, reason: NOT_IN_TIME });
        return;
      }
      const found = await parts.views.leaseWithAbove(lease);
      if (!found) return;
      const reason = verdictOn(parts, policy, lease, { ...found, tasks: asIf(found.tasks) });
      judged.push({ lease, task: found.tasks.at(-1), reason });
    });
    yield judged;
    cursor = page.cursor;
  } while (cursor !== undefined);
}

/** A bounded number of hands work through a list. */
async function sideBySide<Item>(items: readonly Item[], work: (item: Item) => Promise<void>): Promise<void> {
  const left = items.values();
  const hand = async () => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, hand));
}

function verdictOn(
  parts: Parts,
  policy: PreparedPolicy | undefined,
  lease: LeaseRecord,
  above: { tasks: TaskRecord[]; leases: LeaseRecord[] },
): string | undefined {
  if (!policy) return 'the bundle could not be loaded to judge it';
  try {
    return lease.kind === 'token'
      ? judge(parts, policy, lease, above)
      : judgeCredential(parts, policy, lease, above.tasks);
  } catch {
    return 'judging it failed';
  }
}
