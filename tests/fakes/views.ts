import { strangeCursor } from '../../src/core/cursor.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import { isTerminal } from '../../src/core/task.js';
import type { CredentialCount, Page, Views } from '../../src/state/stores.js';
import { keptOf, type Line } from './line.js';

const PAGE_MAX = 500;

/** The questions of src/state/stores.ts over the line's maps. */
export function fakeViews(line: Line): Views {
  const state = () => line.state;
  const copy = <T>(value: T): T => structuredClone(value);

  return {
    task: async (id) => copy(state().tasks.get(id)),
    judgeBy: async (id) => state().judgeBy.get(id),
    dueAt: async ({ name, id }) => state().due.get(`${name}:${id}`)?.atMs,
    taskIdByRef: async (opener, ref) => state().refs.get(`${opener}\n${ref}`),
    children: async (taskId, page) => {
      const ids = [...state().tasks.values()].filter((task) => task.path.at(-2) === taskId).map((task) => task.id);
      return pageOf(ids.sort(), (id) => id, page);
    },
    lease: async (id) => copy(state().leases.get(id)),
    kept: async (id) => keptOf(state(), id),
    tasks: async (filter) => {
      const tasks = [...state().tasks.values()].filter(
        (task) =>
          (filter.opener === undefined || task.opener === filter.opener) &&
          (filter.agent === undefined || task.agents.includes(filter.agent)) &&
          (filter.live === undefined || filter.live !== isTerminal(task.state)),
      );
      return newestFirst(copy(tasks), filter);
    },
    leases: async (filter) => {
      const nowMs = line.clock.now();
      const leases = [...state().leases.values()].filter(
        (lease) =>
          isListed(lease, nowMs) &&
          (filter.task === undefined || (lease.path.includes(filter.task) && !isMovedToken(lease))) &&
          (filter.agent === undefined || lease.agent === filter.agent) &&
          (filter.backend === undefined || lease.backend === filter.backend) &&
          (filter.live === undefined || filter.live === !['revoked', 'abandoned'].includes(lease.state)) &&
          (filter.givenFor === undefined || (filter.givenFor === 'task' ? lease.taskId : !lease.taskId)) &&
          (filter.state === undefined || (filter.state === 'stuck' ? lease.stuck : lease.state === filter.state)),
      );
      return pageOf(
        copy(leases).sort((a, b) => (a.id < b.id ? -1 : 1)),
        (lease) => lease.id,
        filter,
      );
    },
    credentialCounts: async () => {
      const counts = new Map<string, CredentialCount>();
      for (const lease of state().leases.values()) {
        if (lease.kind === 'token' || !isListed(lease, line.clock.now())) continue;
        const backend = lease.backend ?? '';
        const key = `${backend} ${lease.state}`;
        const of = counts.get(key) ?? { backend, state: lease.state, count: 0, stuck: 0 };
        of.count += 1;
        if (lease.stuck) of.stuck += 1;
        counts.set(key, of);
      }
      return [...counts.values()];
    },
    reconciled: async (backend) => copy(state().reconciled.get(backend)),
    leaseWithAbove: async (wanted) => {
      const lease = state().leases.get(typeof wanted === 'string' ? wanted : wanted.id);
      if (!lease) return undefined;
      return copy({
        lease,
        tasks: lease.path.flatMap((above) => state().tasks.get(above) ?? []),
        leases: lease.path.flatMap((above) => state().leases.get(above) ?? []),
        fence: state().fence,
      });
    },
    locks: async (nowMs) =>
      copy([...state().locks.values()].filter((lock) => lock.expiresAtMs === undefined || lock.expiresAtMs > nowMs)),
    lock: async (id) => copy(state().locks.get(id)),
    revocation: async (id) => copy(state().revocations.get(id)),
    revocations: async (page) => newestFirst(copy([...state().revocations.values()]), page),
    activeBundle: async () => {
      const digest = state().activeBundle;
      const bundle = state().bundles.get(digest);
      return bundle && { digest, files: { ...bundle.files } };
    },
    bundles: async () =>
      [...state().bundles].map(([digest, bundle]) => ({
        digest,
        activatedAtMs: bundle.activatedAtMs,
        active: digest === state().activeBundle,
      })),
    bundleFiles: async (digest) => copy(state().bundles.get(digest)?.files),
    keyRing: async () => copy(state().ring),
    cellKey: async () => line.cellKey,
  };
}

/** A task's own list is for those who come to move what is left. */
function isMovedToken(lease: LeaseRecord): boolean {
  return lease.kind === 'token' && lease.state !== 'active';
}

/** Not past its end; a credential until it is closed. */
function isListed(lease: LeaseRecord, nowMs: number): boolean {
  if (lease.kind === 'token') return lease.expiresAtMs > nowMs;
  return (lease.state !== 'revoked' && lease.state !== 'abandoned') || lease.residue !== undefined;
}

function pageOf<Item>(
  sorted: Item[],
  idOf: (item: Item) => string,
  page: { cursor?: string; limit: number },
): Page<Item> {
  const limit = Math.min(page.limit, PAGE_MAX);
  if (page.cursor !== undefined && !/^[a-z]{3}_/.test(page.cursor)) throw strangeCursor();
  const rest = page.cursor === undefined ? sorted : sorted.filter((item) => idOf(item) > (page.cursor as string));
  const items = rest.slice(0, limit);
  const last = items.at(-1);
  return { items, ...(last !== undefined && rest.length > limit && { cursor: idOf(last) }) };
}

function newestFirst<Item extends { id: string; createdAtMs: number }>(
  items: Item[],
  page: { cursor?: string; limit: number },
): Page<Item> {
  const order = (item: Item) => `${String(item.createdAtMs).padStart(15, '0')} ${item.id}`;
  const sorted = items.sort((a, b) => (order(a) < order(b) ? 1 : -1));
  if (page.cursor !== undefined && !/^\d{15} [a-z]{3}_/.test(page.cursor)) throw strangeCursor();
  const rest = page.cursor === undefined ? sorted : sorted.filter((item) => order(item) < (page.cursor as string));
  const limit = Math.min(page.limit, PAGE_MAX);
  const taken = rest.slice(0, limit);
  const last = taken.at(-1);
  return { items: taken, ...(last && rest.length > limit && { cursor: order(last) }) };
}
