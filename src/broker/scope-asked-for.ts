import type { Bundle, Resource } from '../core/bundle.js';
import { BrokerError } from '../core/errors.js';
import { isWithin } from '../core/scope.js';
import type { TaskRecord } from '../core/task.js';
import type { Parts } from './parts.js';

/** The one resource a token is for: named, or the task's only one, or Mayfly itself (what may be narrowed and passed on). */
export function resourceAskedFor(
  parts: Parts,
  bundle: Bundle,
  task: TaskRecord,
  audience: string | undefined,
): Resource {
  const { issuer } = parts.settings;
  const named = audience ?? (task.scope.resources.length === 1 ? task.scope.resources[0] : undefined);
  if (named === undefined) {
    throw new BrokerError('target_invalid', 'Say which resource the token is for.', {
      field: 'resource',
      hint: `This task has: ${task.scope.resources.join(', ') || 'none'}.`,
    });
  }
  if (named === issuer) return mayflyItself(issuer, task);
  const resource = bundle.resources.get(named);
  if (!resource || !task.scope.resources.includes(named)) {
    throw new BrokerError('target_invalid', 'The resource is not one of this task.', { field: 'resource' });
  }
  return resource;
}

export function mayflyItself(issuer: string, task: TaskRecord): Resource {
  return {
    resource: issuer,
    description: 'Mayfly itself',
    owners: [],
    tools: task.scope.tools,
    toolArguments: new Map(),
    enforcement: 'introspection',
    sensitivity: 'internal',
  };
}

export interface ToolsAskedFor {
  tools: string[];
  /** Named one by one: then each has to be allowed. Otherwise what policy allows of them is given. */
  named: boolean;
}

/** The tools asked for by name, or else every tool that task, resource, declaration and delegator have in common. */
export function toolsAskedFor(
  asked: readonly string[] | undefined,
  outer: {
    task: TaskRecord;
    resource: Resource;
    declared: readonly string[];
    delegated: readonly string[] | undefined;
  },
): ToolsAskedFor {
  const { task, resource, declared, delegated } = outer;
  const possible = task.scope.tools.filter(
    (tool) => resource.tools.includes(tool) && (!delegated || delegated.includes(tool)),
  );
  if (!asked) {
    const tools = possible.filter((tool) => declared.includes(tool)).sort();
    if (tools.length > 0) return { tools, named: false };
    throw new BrokerError('scope_invalid', 'No tool of this task at this resource is declared for this agent.', {
      field: 'scope',
    });
  }
  if (delegated && !isWithin(asked, delegated)) {
    throw new BrokerError('scope_invalid', 'Delegation only ever narrows.', { field: 'scope' });
  }
  const outside = asked.find((tool) => !possible.includes(tool));
  if (outside !== undefined) {
    throw new BrokerError('scope_invalid', `The tool ${outside} is not one of this task at this resource.`, {
      field: 'scope',
      hint: `It has: ${possible.join(', ') || 'none'}.`,
    });
  }
  return { tools: [...asked].sort(), named: true };
}
