import type { Expr, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';

/** Where an entity's tags stand among its attributes; no attribute can have this name. */
export const TAGS = '__tags';

/** A way from one of the request's variables to a value, such as `context.task.type`. */
export type ReadPath = readonly [variable: 'principal' | 'action' | 'resource' | 'context', ...attributes: string[]];

/**
 * Everything a policy's conditions can read of a request, found in the policy itself: what is on none of these paths cannot
 * change its outcome. A variable used whole stands for all of it, except where only an entity's type and id are looked at, which
 * are in every key. Tags, which are read by names that may be computed, are one value called TAGS.
 */
export function readPathsOf(policy: PolicyJson): ReadPath[] {
  const paths = new Map<string, ReadPath>();
  for (const clause of policy.conditions) collect(clause.body, (path) => paths.set(JSON.stringify(path), path));
  return [...paths.values()];
}

/** True when something below `path` may be read, or `path` lies in something that is read whole. */
export function touches(reads: ReadPath[], path: ReadPath): boolean {
  return reads.some((read) => {
    const common = Math.min(read.length, path.length);
    return read.slice(0, common).every((step, at) => step === path[at]);
  });
}

/** Operators that look at an entity's type and id only. */
const BY_ID = ['==', '!=', 'in', 'is'];
const BY_TAG = ['hasTag', 'getTag'];

function collect(node: unknown, found: (path: ReadPath) => void): void {
  if (typeof node !== 'object' || node === null) return;
  if (Array.isArray(node)) {
    for (const each of node) collect(each, found);
    return;
  }
  const path = pathOf(node as Expr);
  if (path) {
    found(path);
    return;
  }
  for (const [operator, operand] of Object.entries(node)) {
    // A literal holds no variables, whatever its value looks like.
    if (operator === 'Value') continue;
    if (BY_ID.includes(operator)) {
      for (const side of Object.values(operand as object)) if (!isEntityVariable(side)) collect(side, found);
    } else if (BY_TAG.includes(operator) && isEntityVariable((operand as { left: Expr }).left)) {
      const { left, right } = operand as { left: { Var: ReadPath[0] }; right: Expr };
      found([left.Var, TAGS]);
      collect(right, found);
    } else collect(operand, found);
  }
}

function isEntityVariable(node: unknown): boolean {
  return typeof node === 'object' && node !== null && 'Var' in node && node.Var !== 'context';
}

/** `context.task.type` as a path; `context.task has parent` reads what it asks for. */
function pathOf(node: Expr): ReadPath | undefined {
  if ('Var' in node) return [(node as { Var: ReadPath[0] }).Var];
  if ('.' in node) {
    const { left, attr } = (node as { '.': { left: Expr; attr: string } })['.'];
    return extended(left, [attr]);
  }
  if ('has' in node) {
    const { left, attr } = (node as { has: { left: Expr; attr: string | string[] } }).has;
    return extended(left, Array.isArray(attr) ? attr : [attr]);
  }
  return undefined;
}

function extended(left: Expr, attributes: string[]): ReadPath | undefined {
  const path = pathOf(left);
  return path && ([...path, ...attributes] as unknown as ReadPath);
}
