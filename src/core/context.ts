import type { ContextOrder, TaskType } from './bundle.js';

/** A task's context: environment, data sensitivity, risk, labels and whatever its type names. Keys belong to users. */
export type TaskContext = Record<string, unknown>;

/** The effective context of a path: its ancestors' merged with its own, root first. Add-only sets are united. */
export function effectiveContext(contexts: readonly TaskContext[]): TaskContext {
  const merged: TaskContext = {};
  for (const context of contexts) {
    for (const [key, value] of Object.entries(context)) {
      const before = merged[key];
      merged[key] = Array.isArray(before) && Array.isArray(value) ? [...new Set([...before, ...value])] : value;
    }
  }
  return merged;
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
    return !tightens(type?.context[key] ?? { kind: 'fixed' }, before, next[key]);
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
