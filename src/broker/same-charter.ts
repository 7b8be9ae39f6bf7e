import { isDeepStrictEqual } from 'node:util';
import { BrokerError } from '../core/errors.js';
import type { TaskCharter, TaskScope } from '../core/task.js';

const SCOPE_MEMBERS = ['tools', 'resources', 'secrets'] as const;

/**
 * A ref names one task: who asks for another one by it is told, as it would be paid for the wrong order. Told is the first thing that differs, of what says
 * which work it is and by whom; purpose, context and times may have moved on, and a scope that was not said now is whatever it is.
 */
export function mustBeSameCharter(there: TaskCharter, asked: TaskCharter, scope: Partial<TaskScope> | undefined): void {
  const field = differenceOf(there, asked, scope);
  if (field === undefined) return;
  throw new BrokerError('conflict', `${field}: the task that has this ref was opened with another value.`, {
    field,
    hint: `Repeat what ${there.id} was opened with, or choose another ref.`,
  });
}

function differenceOf(
  there: TaskCharter,
  asked: TaskCharter,
  scope: Partial<TaskScope> | undefined,
): string | undefined {
  if (there.type !== asked.type) return 'type';
  for (const name of new Set([...Object.keys(asked.params), ...Object.keys(there.params)])) {
    if (!isSame(there.params[name], asked.params[name])) return `params.${name}`;
  }
  if (!isSame([...there.agents].sort(), [...asked.agents].sort())) return 'agents';
  for (const member of SCOPE_MEMBERS) {
    if (scope?.[member] && !isSame(there.scope[member], asked.scope[member])) return `scope.${member}`;
  }
  if (there.path.at(-2) !== asked.path.at(-2)) return 'parent';
  if (!isSame(there.onBehalfOf, asked.onBehalfOf)) return 'on_behalf_of';
  return undefined;
}

/** As JSON, which is what was sent and what is kept. */
function isSame(one: unknown, other: unknown): boolean {
  return isDeepStrictEqual(plain(one), plain(other));
}

function plain(value: unknown): unknown {
  return value === undefined ? undefined : JSON.parse(JSON.stringify(value));
}
