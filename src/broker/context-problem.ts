import type { Bundle, TaskType } from '../core/bundle.js';
import { contextProblem, type TaskContext } from '../core/context.js';
import { BrokerError } from '../core/errors.js';

const SHOWN_CHARS_MAX = 64;

/** `invalid_request` with the key, the value and what it may be, when what somebody says of a task is nothing that policy could judge. */
export function mustBeWellFormed(
  context: TaskContext,
  type: TaskType | undefined,
  bundle: Bundle,
  options?: { patch: boolean },
): void {
  const problem = contextProblem(context, type, bundle.taskTypes, options);
  if (!problem) return;
  const { key, must } = problem;
  const shown = JSON.stringify(context[key]).slice(0, SHOWN_CHARS_MAX);
  throw new BrokerError('invalid_request', `context.${key}: must ${must}, and is ${shown}.`, {
    field: `context.${key}`,
  });
}
