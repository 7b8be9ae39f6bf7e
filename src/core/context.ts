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
 * united, and of any other key the ancestor's value holds. A value that is not in its key's order (its list changed after it was said) counts
 * as the tightest, so that no policy takes it for harmless.
 */
export function effectiveContext(path: readonly TaskSaying[], types: ReadonlyMap<string, TaskType>): TaskContext {
  const merged: TaskContext = {};
  for (const { type, context } of path) {
    for (const [key, value] of Object.entries(context)) {
      const order = orderOf(key, types.get(type ?? '')) ?? FIXED;
      merged[key] = Object.hasOwn(merged, key) ? tighter(order, merged[key], value) : known(order, value);
    }
  }
  return merged;
}

const FIXED: ContextOrder = { kind: 'fixed' };

/** Undefined when the type does not declare the key. */
function orderOf(key: string, type: TaskType | undefined): ContextOrder | undefined {
  return type && Object.hasOwn(type.context, key) ? type.context[key] : undefined;
}

function tighter(order: ContextOrder, above: unknown, own: unknown): unknown {
  if (order.kind === 'ordered') return order.values[Math.max(rank(order.values, above), rank(order.values, own))];
  if (tightens(order, above, own)) return own;
  const unites = order.kind === 'add-only' && Array.isArray(above) && Array.isArray(own);
  return unites ? [...new Set([...above, ...own])] : above;
}

function known(order: ContextOrder, value: unknown): unknown {
  return order.kind === 'ordered' ? order.values[rank(order.values, value)] : value;
}

/** What the list does not know counts as its tightest. */
function rank(values: readonly string[], value: unknown): number {
  const at = values.indexOf(value as string);
  return at === -1 ? values.length - 1 : at;
}

/** A key whose value no policy could judge. */
export interface ContextProblem {
  key: string;
  /** What it must be, as the end of a sentence. */
  must: string;
}

/**
 * The first key of `context` that is malformed: an ordered one with a value outside of its list, an add-only one that is no list of texts,
 * a fixed one that is no text, or a name that every object has. Policies read one picture of all types, so a key that the task's own type
 * does not declare has to fit the types that do. `null` is for merge patches, where it takes a key away.
 */
export function contextProblem(
  context: TaskContext,
  type: TaskType | undefined,
  types: ReadonlyMap<string, TaskType>,
  { patch = false } = {},
): ContextProblem | undefined {
  for (const [key, value] of Object.entries(context)) {
    const own = orderOf(key, type);
    const orders = own ? [own] : [...types.values()].flatMap((one) => orderOf(key, one) ?? []);
    if (orders.length === 0 && key in Object.prototype) return { key, must: 'not be set: no task type declares it' };
    if (patch && value === null) continue;
    if (orders.length > 0 && !orders.some((order) => fits(order, value))) return { key, must: mustBe(orders) };
  }
  return undefined;
}

function fits(order: ContextOrder, value: unknown): boolean {
  if (order.kind === 'add-only') return Array.isArray(value) && value.every((each) => typeof each === 'string');
  return typeof value === 'string' && (order.kind === 'fixed' || order.values.includes(value));
}

function mustBe(orders: readonly ContextOrder[]): string {
  const values = new Set(orders.flatMap((order) => (order.kind === 'ordered' ? order.values : [])));
  if (values.size > 0) return `be one of ${[...values].join(', ')}`;
  return orders.some(({ kind }) => kind === 'add-only') ? 'be a list of strings' : 'be a string';
}

/** The first key of `next` that changes or drops what its type declares as `fixed`: set once, whoever sets it. */
export function unfixed(own: TaskContext, next: TaskContext, type: TaskType | undefined): string | undefined {
  return Object.keys(own).find((key) => {
    if (orderOf(key, type)?.kind !== 'fixed') return false;
    return !Object.hasOwn(next, key) || !isSame(own[key], next[key]);
  });
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
    if (!Object.hasOwn(above, key)) return false;
    return !tightens(orderOf(key, type) ?? FIXED, above[key], next[key]);
  });
}

function tightens(order: ContextOrder, before: unknown, after: unknown): boolean {
  if (isSame(before, after)) return true;
  if (order.kind === 'fixed') return false;
  if (order.kind === 'add-only') {
    return Array.isArray(before) && Array.isArray(after) && before.every((value) => after.includes(value));
  }
  const from = order.values.indexOf(before as string);
  const to = order.values.indexOf(after as string);
  return from !== -1 && to !== -1 && to >= from;
}

function isSame(a: unknown, b: unknown): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
