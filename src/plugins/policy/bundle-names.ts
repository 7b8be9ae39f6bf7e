import type { z } from 'zod';
import type { ArgumentType } from '../../core/bundle.js';
import { suggestion } from '../../core/did-you-mean.js';
import type { Declarations, param } from './bundle-shapes.js';

/** What one file alone cannot show: names that must exist elsewhere, and names that may exist only once. */
export function crossCheck(all: Declarations, problems: string[]): void {
  const once = (kind: string) => {
    const places = new Map<string, string>();
    return (value: string, at: string) => {
      const first = places.get(value);
      if (first === undefined) places.set(value, at);
      else problems.push(`${at} ${kind} "${value}" is declared twice, first in ${first.replace(/:.*$/, '')}; keep one`);
    };
  };
  const exists = (known: Iterable<string>) => {
    const names = new Set(known);
    return (value: string, at: string, field: string, what: string) => {
      if (!names.has(value))
        problems.push(`${at} ${field}: there is no ${what} "${value}" in this bundle${suggestion(value, names)}`);
    };
  };

  const workloadOnce = once('spiffe_id');
  for (const { at, value } of [...all.agents, ...all.orchestrators]) workloadOnce(value.spiffe_id, at);
  const typeOnce = once('type');
  for (const { at, value } of all.tasks) typeOnce(value.type, at);
  const secretOnce = once('secret');
  for (const { at, value } of all.secrets) secretOnce(value.name, at);

  const resourceOnce = once('resource');
  const toolOnce = once('tool');
  const resourceByTool = new Map<string, string>();
  const argumentTypes = new Map<string, { type: ArgumentType; at: string; tool: string }>();
  for (const { at, value } of all.resources) {
    resourceOnce(value.resource, at);
    for (const each of value.tools) {
      toolOnce(each.name, at);
      resourceByTool.set(each.name, value.resource);
      for (const [argument, type] of Object.entries(each.arguments ?? {})) {
        if (type === 'any') continue;
        const first = argumentTypes.get(argument);
        if (first === undefined) argumentTypes.set(argument, { type, at, tool: each.name });
        else if (first.type !== type) {
          problems.push(
            `${at} tools.${each.name}.arguments.${argument}: is ${type} here and ${first.type} in ${first.tool}; a policy reads one type, so declare it "any" in one of them (then policy does not see it there)`,
          );
        }
      }
    }
  }

  const toolExists = exists(resourceByTool.keys());
  const resourceExists = exists(all.resources.map(({ value }) => value.resource));
  const secretExists = exists(all.secrets.map(({ value }) => value.name));
  for (const { at, value } of [...all.agents, ...all.orchestrators]) {
    for (const each of value.tools) toolExists(each, at, 'tools', 'tool');
  }
  for (const { at, value } of all.agents) {
    for (const each of value.standing_exceptions) secretExists(each.secret, at, 'standing_exceptions', 'secret');
  }

  const params = new Map<string, { type: string; task: string }>();
  const contextKinds = new Map<string, { kind: string; task: string }>();
  for (const { at, value } of all.tasks) {
    for (const each of value.resources) resourceExists(each, at, 'resources', 'resource');
    for (const each of value.secrets) secretExists(each, at, 'secrets', 'secret');
    for (const each of value.tools) {
      toolExists(each, at, 'tools', 'tool');
      const home = resourceByTool.get(each);
      if (home !== undefined && !value.resources.includes(home)) {
        problems.push(`${at} tools: "${each}" belongs to ${home}, which is not in resources; add it there`);
      }
    }
    for (const each of value.agent_settable) {
      if (!Object.hasOwn(value.context, each)) {
        problems.push(
          `${at} agent_settable: "${each}" is not in context${suggestion(each, Object.keys(value.context))}`,
        );
      }
    }
    for (const [param, rule] of Object.entries(value.params)) {
      problems.push(...paramProblems(`${at} params.${param}`, rule));
      const first = params.get(param);
      if (first === undefined) params.set(param, { type: rule.type, task: value.type });
      else if (first.type !== rule.type) {
        problems.push(
          `${at} params.${param}: is ${rule.type} here and ${first.type} in task type "${first.task}"; a policy reads one type, so rename one of them`,
        );
      }
    }
    for (const [contextKey, order] of Object.entries(value.context)) {
      const kind = order === 'add-only' ? 'a set (add-only)' : 'one value';
      const first = contextKinds.get(contextKey);
      if (first === undefined) contextKinds.set(contextKey, { kind, task: value.type });
      else if (first.kind !== kind) {
        problems.push(
          `${at} context.${contextKey}: is ${kind} here and ${first.kind} in task type "${first.task}"; a policy reads one type, so rename one of them`,
        );
      }
      if (Array.isArray(order) && new Set(order).size !== order.length) {
        problems.push(`${at} context.${contextKey}: lists a value twice; an order has each once`);
      }
    }
  }
}

function paramProblems(where: string, rule: z.output<typeof param>): string[] {
  const problems: string[] = [];
  const full = { pattern: undefined, values: undefined, minimum: undefined, maximum: undefined, ...rule };
  if (rule.type !== 'string' && (full.pattern !== undefined || full.values !== undefined)) {
    problems.push(`${where}: pattern and values are for strings; an integer takes minimum and maximum`);
  }
  if (rule.type !== 'integer' && (full.minimum !== undefined || full.maximum !== undefined)) {
    problems.push(`${where}: minimum and maximum are for integers; a string takes pattern or values`);
  }
  if (full.minimum !== undefined && full.maximum !== undefined && full.minimum > full.maximum) {
    problems.push(`${where}: minimum is above maximum, so nothing fits`);
  }
  if (full.pattern !== undefined && !isSafePattern(full.pattern)) {
    problems.push(
      `${where}.pattern: must be a regular expression from ^ to $ without groups that repeat, look-around or back-references`,
    );
  }
  return problems;
}

/** Anchored, and linear in the length of its input: no repeated group, no alternative outside a group, nothing that looks back. */
function isSafePattern(pattern: string): boolean {
  if (!pattern.startsWith('^') || !pattern.endsWith('$') || pattern.endsWith('\\$')) return false;
  const plain = pattern.replace(/\\[^1-9k]/g, 'x').replace(/\[[^\]]*\]/g, 'x');
  if (plain.includes('\\') || /\)[*+?{]/.test(plain) || /\(\?(?!:)/.test(plain)) return false;
  if (/\|/.test(plain.replace(/\([^()]*\)/g, 'x'))) return false;
  // Two unbounded repetitions can already be quadratic; one is enough for an identifier.
  if ((plain.match(/[*+]|\{\d+,\}/g) ?? []).length > 1) return false;
  try {
    new RegExp(pattern, 'u');
    return true;
  } catch {
    return false;
  }
}
