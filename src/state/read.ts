import type { LeaseRecord } from '../core/lease.js';
import { positionOf } from '../core/position.js';
import type { TaskRecord } from '../core/task.js';
import { type Cell, locksOf, pathOf, tokenPlace } from './cell.js';
import { readCredential } from './credential-record.js';
import type { Ledger, Reading } from './stores.js';
import type { TaskReply } from './task-record.js';

/** A lease as lua/read-task.lua answers it: `token` and its row, or `credential` and its fields and values. */
type LeaseReply = string[] | null;

type ReadReply = [
  epoch: string,
  head: string,
  fence: string,
  bundle: string,
  locksVersion: string,
  locks: string[] | null,
  tasks: (TaskReply | null)[],
  leases: LeaseReply[],
];

/** What one look found; a task or lease that is not there is undefined in its place. */
interface Look extends Omit<Reading, 'tasks' | 'leases'> {
  tasks: (TaskRecord | undefined)[];
  leases: (LeaseRecord | undefined)[];
}

/**
 * `Ledger.read`: one round trip when the task's path and the profiles of the leases are known to this broker, as they are for all but the
 * first time.
 */
export async function readReading(
  cell: Cell,
  { taskId, leaseIds = [], nowMs }: Parameters<Ledger['read']>[0],
): Promise<Reading | undefined> {
  const path = taskId === undefined ? [] : await pathOf(cell, taskId);
  if (!path) return undefined;
  const { tasks, leases, ...rest } = await look(cell, path, leaseIds, nowMs);
  const isWhole = tasks.every((task) => task !== undefined) && leases.every((lease) => lease !== undefined);
  return isWhole ? { ...rest, tasks: tasks as TaskRecord[], leases: leases as LeaseRecord[] } : undefined;
}

/** lua/read-task.lua: these tasks and leases, and the line they hang on, in one look. */
export async function look(
  cell: Cell,
  taskIds: readonly string[],
  leaseIds: readonly string[],
  nowMs: number,
): Promise<Look> {
  const reply = (await cell.line.run(
    'read-task',
    [
      cell.keys.named('locks'),
      ...taskIds.map((id) => cell.keys.task(id)),
      ...leaseIds.flatMap((id) => [tokenPlace(cell, id)[0], cell.keys.credential(id)]),
    ],
    [
      taskIds.length,
      leaseIds.length,
      cell.locks.version,
      ...taskIds.map((id) => cell.tasks.has(id)),
      ...leaseIds.map((id) => tokenPlace(cell, id)[1]),
    ],
    { nowMs },
  )) as ReadReply;
  const [epoch, head, fence, bundle, locksVersion, locks, taskReplies, leaseReplies] = reply;
  return {
    tasks: taskIds.map((id, at) => {
      const fields = taskReplies[at];
      return fields ? cell.tasks.read(id, fields) : undefined;
    }),
    leases: await readLeases(cell, leaseIds, leaseReplies),
    locks: locksOf(cell, locksVersion, locks, nowMs),
    fence,
    position: positionOf(Number(epoch), head),
    bundle,
  };
}

/** Leases of either kind by their ids; those that are not there are missing. */
export async function leasesById(cell: Cell, ids: readonly string[]): Promise<Map<string, LeaseRecord>> {
  const answers = await cell.line.ask(async (client) => {
    const batch = client.pipeline();
    for (const id of ids) {
      const [key, field] = tokenPlace(cell, id);
      batch.hget(key, field).hgetall(cell.keys.credential(id));
    }
    const replies = await batch.exec();
    // A connection that broke under way can leave fewer answers than questions: then nothing is known.
    if (replies?.length !== 2 * ids.length) throw new Error('the answers are not whole');
    return replies.map(([error, answer]) => {
      if (error) throw error;
      return answer;
    });
  });
  const leases = await readLeases(
    cell,
    ids,
    ids.map((_, at) => {
      const row = answers[2 * at] as string | null;
      if (typeof row === 'string') return ['token', row];
      const fields = Object.entries((answers[2 * at + 1] ?? {}) as Record<string, string>).flat();
      return fields.length > 0 ? ['credential', ...fields] : null;
    }),
  );
  return new Map(leases.flatMap((lease) => (lease ? [[lease.id, lease]] : [])));
}

/** Replies as records. A token row whose profile is gone is not there any more. */
async function readLeases(
  cell: Cell,
  ids: readonly string[],
  replies: readonly LeaseReply[],
): Promise<(LeaseRecord | undefined)[]> {
  await learnProfiles(
    cell,
    replies.flatMap((reply) => (reply?.[0] === 'token' ? [reply[1] as string] : [])),
  );
  return replies.map((reply, at) => {
    if (!reply) return undefined;
    return reply[0] === 'token'
      ? decodeToken(cell, ids[at] as string, reply[1] as string)
      : readCredential(reply.slice(1));
  });
}

/** Learns the profiles of token rows that this broker has not seen: one round trip at most, none when all are known. */
export async function learnProfiles(cell: Cell, rows: readonly string[]): Promise<void> {
  const hashes = new Set(rows.map((row) => cell.tokens.profileHashOf(row)));
  const unknown = [...hashes].filter((hash) => !cell.tokens.knows(hash));
  if (unknown.length === 0) return;
  const profiles = await cell.line.ask((client) => client.mget(unknown.map((hash) => cell.keys.profile(hash))));
  for (const [at, profile] of profiles.entries()) if (profile) cell.tokens.learn(unknown[at] as string, profile);
}

export function decodeToken(cell: Cell, id: string, row: string): LeaseRecord | undefined {
  return cell.tokens.knows(cell.tokens.profileHashOf(row)) ? cell.tokens.decode(id, row) : undefined;
}
