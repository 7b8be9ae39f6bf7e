import { isTerminal, type TaskRecord } from '../core/task.js';
import { type Cell, isLeaseId, isTaskId, readLock } from './cell.js';
import { countCredentials } from './credential-counts.js';
import { readKept } from './credential-record.js';
import { dueMember } from './due.js';
import { listLeases } from './lease-list.js';
import { leasesById, look } from './look.js';
import { pageAfter, readPlace, writePlace } from './paging.js';
import type { Page, RevocationRecord, Views } from './stores.js';
import { timeOf } from './token-record.js';

const PAGE_MAX = 500;
/** Pages of an index looked through for one page of a list whose filter leaves little over. */
const STEPS_MAX = 20;
/** Fields of a revocation: where what it hit can only expire, and when the last of it does. */
const REMAINS = 'remains:';

/** The questions. They change nothing and need no epoch; what decides is read through `Ledger.read`. */
export function redisViews(cell: Cell, cellKey: Uint8Array): Views {
  const { line, keys, encryption, clock } = cell;

  const bundleFiles: Views['bundleFiles'] = async (digest) => {
    const signed = await line.ask((client) => client.hget(keys.bundle(digest), 'files'));
    return signed === null ? undefined : JSON.parse(encryption.verify('bundle', digest, signed));
  };

  return {
    task: async (id) => (await look(cell, [id], [], clock.now())).tasks[0],

    judgeBy: async (id) => {
      const atMs = await line.ask((client) => client.hget(keys.task(id), 'judge'));
      return atMs === null ? undefined : Number(atMs);
    },

    dueAt: async (job) => {
      const atMs = await line.ask((client) => client.zscore(keys.named('due'), dueMember(job)));
      return atMs === null ? undefined : Number(atMs);
    },

    taskIdByRef: async (opener, ref) => (await line.ask((client) => client.get(keys.ref(opener, ref)))) ?? undefined,

    children: async (taskId, { cursor, limit }) => {
      const size = Math.min(limit, PAGE_MAX);
      const places = await pageAfter(cell, keys.children(taskId), readPlace(cursor), size);
      const last = places.at(-1);
      return {
        items: places.map(({ member }) => member),
        ...(last && places.length === size && { cursor: writePlace(last) }),
      };
    },

    lease: async (id) => (await leasesById(cell, [id])).get(id),

    kept: async (leaseId) => {
      const [probe, kept] = await line.ask((client) => client.hmget(keys.credential(leaseId), 'probe', 'kept'));
      return readKept(cell, leaseId, { probe: probe ?? null, kept: kept ?? null });
    },

    tasks: (filter) => listTasks(cell, filter),
    leases: (filter) => listLeases(cell, filter),
    credentialCounts: () => countCredentials(cell),

    reconciled: async (backend) => {
      const { at, found, orphans, lost, ever } = await line.ask((client) => client.hgetall(keys.reconciled(backend)));
      if (at === undefined) return undefined;
      return {
        atMs: Number(at),
        found: Number(found),
        orphans: Number(orphans),
        lost: Number(lost),
        orphansEver: Number(ever),
      };
    },

    leaseWithAbove: async (wanted) => {
      const id = typeof wanted === 'string' ? wanted : wanted.id;
      // The path never changes; everything that does is in the one look that follows.
      const path = typeof wanted === 'string' ? (await leasesById(cell, [id])).get(id)?.path : wanted.path;
      if (!path) return undefined;
      const tasks = path.filter(isTaskId);
      const above = path.filter(isLeaseId);
      const seen = await look(cell, tasks, [id, ...above], clock.now());
      const [lease, ...leases] = seen.leases;
      if (!lease || seen.tasks.includes(undefined)) return undefined;
      // The record of a token is kept until it can have no effect; one that merely expired kills no credential below it.
      const forgottenMs = clock.now() - cell.limits.tokenTtlMsMax;
      if (leases.some((parent, at) => !parent && timeOf(above[at] as string) > forgottenMs)) return undefined;
      return {
        lease,
        tasks: seen.tasks as TaskRecord[],
        leases: leases.filter((parent) => parent !== undefined),
        fence: seen.fence,
      };
    },

    locks: async (nowMs) => (await look(cell, [], [], nowMs)).locks,

    lock: async (id) => {
      const signed = await line.ask((client) => client.hget(keys.named('locks'), id));
      return signed === null ? undefined : readLock(cell, signed);
    },

    revocation: (id) => readRevocation(cell, id),

    revocations: async ({ cursor, limit }) => {
      const size = Math.min(limit, PAGE_MAX);
      const places = await pageAfter(cell, keys.named('revocations'), readPlace(cursor), size, { newestFirst: true });
      const records = await Promise.all(places.map(({ member }) => readRevocation(cell, member)));
      const last = places.at(-1);
      return {
        items: records.filter((record) => record !== undefined),
        ...(last && places.length === size && { cursor: writePlace(last) }),
      };
    },

    bundleFiles,

    activeBundle: async () => {
      const digest = await line.ask((client) => client.hget(keys.named('cell'), 'bundle'));
      const files = digest ? await bundleFiles(digest) : undefined;
      return files && { digest: digest as string, files };
    },

    bundles: async () => {
      const active = await line.ask((client) => client.hget(keys.named('cell'), 'bundle'));
      const places = await pageAfter(cell, keys.named('bundles'), undefined, PAGE_MAX, { newestFirst: true });
      return places.map(({ member, score }) => ({
        digest: member,
        activatedAtMs: score,
        active: member === active,
      }));
    },

    keyRing: async () => {
      const [ring, version] = await line.ask((client) => client.hmget(keys.named('keyring'), 'ring', 'version'));
      if (!ring) return undefined;
      const plain = encryption.decrypt('key-ring', 'keyring', ring);
      return { ring: JSON.parse(plain.toString()), version: Number(version) };
    },

    cellKey: async () => cellKey,
  };
}

async function readRevocation(cell: Cell, id: string): Promise<RevocationRecord | undefined> {
  const fields = await cell.line.ask((client) => client.hgetall(cell.keys.revocation(id)));
  const { record, position, until, cursor, leases, credentials, tasks, agents, done, finished } = fields;
  if (record === undefined || position === undefined) return undefined;
  const remains = Object.entries(fields).flatMap(([name, ends]) =>
    name.startsWith(REMAINS) ? [[name.slice(REMAINS.length), Number(ends)]] : [],
  );
  return {
    ...(JSON.parse(record) as RevocationRecord),
    position,
    untilMs: Number(until),
    cursor: cursor ?? '',
    ...(leases !== undefined && {
      found: {
        leases: Number(leases),
        tasks: Number(tasks ?? 0),
        agents: Number(agents ?? 0),
        credentials: Number(credentials),
      },
    }),
    ...(remains.length > 0 && { remains: Object.fromEntries(remains) }),
    ...(done && { done: true, finishedAtMs: Number(finished) }),
  };
}

async function listTasks(cell: Cell, filter: Parameters<Views['tasks']>[0]): Promise<Page<TaskRecord>> {
  const { keys } = cell;
  const { opener, agent, live } = filter;
  const limit = Math.min(filter.limit, PAGE_MAX);
  const index =
    opener !== undefined
      ? keys.openerTasks(opener)
      : agent !== undefined
        ? keys.agentTasks(agent)
        : keys.named('tasks');
  const items: TaskRecord[] = [];
  let place = readPlace(filter.cursor);
  for (let step = 0; step < STEPS_MAX; step++) {
    const size = limit - items.length;
    const places = await pageAfter(cell, index, place, size, { newestFirst: true });
    const { tasks } = await look(
      cell,
      places.map(({ member }) => member),
      [],
      cell.clock.now(),
    );
    for (const task of tasks) {
      if (!task) continue;
      if (opener !== undefined && task.opener !== opener) continue;
      if (agent !== undefined && !task.agents.includes(agent)) continue;
      if (live !== undefined && live === isTerminal(task.state)) continue;
      items.push(task);
    }
    if (places.length < size) return { items };
    place = places.at(-1);
    if (items.length === limit) break;
  }
  return { items, ...(place && { cursor: writePlace(place) }) };
}
