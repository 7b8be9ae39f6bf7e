import type { Bundle, TaskType } from '../core/bundle.js';
import { effectiveContext, loosened, mergeContext, type TaskContext, unfixed } from '../core/context.js';
import { BrokerError } from '../core/errors.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import { undeclaredKeysIn } from '../core/undeclared.js';
import type { Caller } from './caller.js';
import { mustBeWellFormed } from './context-problem.js';
import type { Parts } from './parts.js';
import { mustControl, reachTask, type TaskInReach } from './permitted.js';
import { previewEnd, previewVerdicts, type Verdicts } from './re-evaluate.js';
import { notFound, record, recordingRefusals } from './refusal.js';
import { taskOver } from './suspend-task.js';

export interface ChangeContextRequest {
  task: string;
  /** RFC 7396 merge patch of the task's own context. */
  context: TaskContext;
  /** The generation the caller saw; another one is `generation_mismatch`. */
  generation?: number;
  dryRun?: boolean;
}

/**
 * Merges into a task's own context, raises its generation and has every live lease of the tree judged again; with `on_context_change: revoke`
 * all of them die at once instead. Who controls the task may also loosen what it says itself, but for `fixed` keys; an agent of it and a child
 * may only tighten. A dry run says what would be kept and what would die; `warnings`, what no policy sees of it.
 */
export async function changeContext(
  parts: Parts,
  caller: Caller,
  request: ChangeContextRequest,
): Promise<{ task: TaskRecord; preview?: Verdicts; warnings: string[] }> {
  return recordingRefusals(parts, caller, { action: 'change_context', task: request.task }, async () => {
    const reach = await reachTask(parts, caller, request.task);
    const { task } = reach;
    if (isTerminal(task.state)) throw taskOver(task);
    checkStanding(parts, caller, reach, request.context);
    mustBeWellFormed(request.context, typeOf(parts, reach), bundleOf(parts, reach), { patch: true });
    if (reach.standing === 'agent') checkAgent(parts, reach, request.context);
    if (request.generation !== undefined && request.generation !== task.generation) throw mismatch(task);
    const context = mergeContext(task.context, request.context);
    checkFixed(parts, reach, context);
    checkAbove(parts, reach, context);
    const revoke = task.onContextChange === 'revoke';
    const warnings = undeclaredKeysIn(bundleOf(parts, reach), saidBy(request.context, task));
    if (request.dryRun) {
      const asIf = (tasks: TaskRecord[]) => tasks.map((one) => (one.id === task.id ? { ...one, context } : one));
      const preview = revoke
        ? await previewEnd(parts, { task: task.id }, 'its task was opened to lose everything when its context changes')
        : await previewVerdicts(parts, { task: task.id }, parts.policies.of(reach.reading.bundle), asIf);
      return { task, preview, warnings };
    }
    const outcome = await parts.ledger.changeContext({
      taskId: task.id,
      generation: task.generation,
      context,
      revoke,
      judgeWithinMs: parts.settings.judgeWithinMs,
      nowMs: parts.clock.now(),
      audit: record(parts, 'task.context_changed', caller, {
        task: task.id,
        generation: task.generation + 1,
        action: 'change_context',
        effect: 'allow',
        detail: { keys: Object.keys(request.context), revoke },
      }),
    });
    if (outcome.outcome === 'not_found') throw notFound('task', 'gone');
    if (outcome.outcome === 'over') throw taskOver(outcome.task);
    if (outcome.outcome === 'generation_mismatch') throw mismatch(outcome.task);
    parts.schedule.add({ name: revoke ? 'drain-task' : 're-evaluate-task', id: task.id });
    return { task: outcome.task, warnings };
  });
}

/** Taking away what the task said before is no mistake, whether it is declared or not. */
function saidBy(patch: TaskContext, task: TaskRecord): TaskContext {
  return Object.fromEntries(
    Object.entries(patch).filter(([key, value]) => value !== null || !Object.hasOwn(task.context, key)),
  );
}

function mismatch(task: TaskRecord): BrokerError {
  return new BrokerError('generation_mismatch', `The task is at generation ${task.generation}.`, {
    field: 'generation',
    hint: 'Read the task again and repeat the change if it still fits.',
  });
}

/** An agent of the task may set only what its type lists. */
function checkStanding(parts: Parts, caller: Caller, reach: TaskInReach, patch: TaskContext): void {
  if (reach.standing !== 'agent') {
    mustControl(parts, caller, reach, 'change the context of');
    return;
  }
  const type = typeOf(parts, reach);
  const other = Object.keys(patch).find((key) => !type?.agentSettable.includes(key));
  if (other !== undefined) {
    throw new BrokerError('denied', 'An agent may not set this context key.', { field: `context.${other}` });
  }
}

/** And only tighter than it is. */
function checkAgent(parts: Parts, reach: TaskInReach, patch: TaskContext): void {
  const type = typeOf(parts, reach);
  const removed = Object.keys(patch).find((key) => patch[key] === null);
  const [looser] = removed !== undefined ? [removed] : loosened(reach.task.context, patch, type);
  if (looser !== undefined) {
    throw new BrokerError('denied', 'An agent may only tighten the context.', { field: `context.${looser}` });
  }
}

/** Whoever sets it: what the type declares as fixed is set once. */
function checkFixed(parts: Parts, reach: TaskInReach, context: TaskContext): void {
  const key = unfixed(reach.task.context, context, typeOf(parts, reach));
  if (key === undefined) return;
  throw new BrokerError('invalid_request', `context.${key}: is fixed: once set, nobody changes it or takes it away.`, {
    field: `context.${key}`,
    hint: 'Open another task for it.',
  });
}

/** Whoever sets it: below its parents a task may only tighten. */
function checkAbove(parts: Parts, reach: TaskInReach, context: TaskContext): void {
  const { taskTypes } = bundleOf(parts, reach);
  const above = effectiveContext(reach.tasks.slice(0, -1), taskTypes);
  const [key] = loosened(above, context, typeOf(parts, reach));
  if (key === undefined) return;
  throw new BrokerError('invalid_request', `context.${key}: a child task may only tighten what its parents say.`, {
    field: `context.${key}`,
  });
}

function bundleOf(parts: Parts, reach: TaskInReach): Bundle {
  return parts.policies.of(reach.reading.bundle).bundle;
}

function typeOf(parts: Parts, reach: TaskInReach): TaskType | undefined {
  return bundleOf(parts, reach).taskTypes.get(reach.task.type ?? '');
}
