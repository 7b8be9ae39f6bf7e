import type { TaskParam, TaskType } from './bundle.js';

/** What is wrong with a task's parameters under its type, one sentence each; empty when nothing is. */
export function paramProblems(type: TaskType, params: Record<string, unknown>): string[] {
  const problems: string[] = [];
  for (const name of Object.keys(params)) {
    if (!Object.hasOwn(type.params, name)) {
      problems.push(
        `params.${name}: not a parameter of ${type.type} (it has ${Object.keys(type.params).join(', ') || 'none'}).`,
      );
    }
  }
  for (const [name, param] of Object.entries(type.params)) {
    const value = Object.hasOwn(params, name) ? params[name] : undefined;
    if (value === undefined) {
      if (param.required) problems.push(`params.${name}: required by ${type.type}.`);
      continue;
    }
    const problem = valueProblem(param, value);
    if (problem) problems.push(`params.${name}: ${problem}`);
  }
  return problems;
}

function valueProblem(param: TaskParam, value: unknown): string | undefined {
  if (param.type === 'integer') {
    if (!Number.isSafeInteger(value)) return 'must be an integer.';
    const number = value as number;
    if (param.minimum !== undefined && number < param.minimum) return `must be at least ${param.minimum}.`;
    if (param.maximum !== undefined && number > param.maximum) return `must be at most ${param.maximum}.`;
    return undefined;
  }
  if (param.type === 'boolean') return typeof value === 'boolean' ? undefined : 'must be true or false.';
  if (typeof value !== 'string' || value.length > 1024) return 'must be a string of at most 1024 characters.';
  if (param.values && !param.values.includes(value)) return `must be one of ${param.values.join(', ')}.`;
  if (param.pattern && !new RegExp(`^(?:${param.pattern})$`).test(value)) return `must match ${param.pattern}.`;
  return undefined;
}
