import type { ContextOrder, TaskType } from './bundle.js';

/** A task's context: environment, data sensitivity, risk, labels and whatever its type names. Keys belong to users. */
export type TaskContext = Record<string, unknown>;

/** What one task of a path says, and its type, which gives the keys their order. */
export interface TaskSaying {
  type?: string;
  context: TaskContext;
}

/**
 * The effective context of a path, root first: each task's own merged into its ancestors', where it may only tighten, whichever was said
 * first. A parent that tightens later is stronger than what a child said before: of an ordered key the tighter value holds, add-only sets are
 * united, and of any other key the ancestor's value holds.
 */
export function effectiveContext(path: readonly TaskSaying[], types: ReadonlyMap<string, TaskType>): TaskContext {
  const merged: TaskContext = {};
  for (const { type, context } of path) {
    for (const [key, value] of Object.entries(context)) {
      const order = types.get(type ?? '')?.context[key] ?? FIXED;
      merged[key] = Object.hasOwn(merged, key) ? tighter(order, merged[key], value) : value;
    }
  }
  return merged;
}

const FIXED: ContextOrder = { kind: 'fixed' };

function tighter(order: ContextOrder, above: unknown, own: unknown): unknown {
  if (tightens(order, above, own)) return own;
  const unites = order.kind === 'add-only' && Array.isArray(above) && Array.isArray(own);
  return unites ? [...new Set([...above, ...own])] : above;
}

/** RFC 7396 at the top level: `null` removes a key, everything else replaces it. */
export function mergeContext(context: TaskContext, patch: TaskContext): TaskContext {
  const merged = { ...context };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = value;
  }
  return merged;
}

/**
 * The keys of `next` that loosen what `above` already says. An ordered key may only move towards its tight end, an add-only one may only
 * grow, any other is fixed by the first task of the path that sets it. `above` is the effective context of the ancestors.
 */
export function loosened(above: TaskContext, next: TaskContext, type: TaskType | undefined): string[] {
  return Object.keys(next).filter((key) => {
    const before = above[key];
    if (before === undefined) return false;
    return !tightens(type?.context[key] ?? FIXED, before, next[key]);
  });
}

function tightens(order: ContextOrder, before: unknown, after: unknown): boolean {
  if (isSame(before, after)) return true;
  if (order.kind === 'fixed') return false;
  if (order.kind === 'add-only') {
    return Array.isArray(before) && Array.isArray(after) && before.every((value) => after.includes(value));
  }
  const from = order.values.indexOf(String(before));
  const to = order.values.indexOf(String(after));
  return from !== -1 && to !== -1 && to >= from;
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
