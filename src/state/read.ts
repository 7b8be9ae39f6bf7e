import type { LeaseRecord } from '../core/lease.js';
import { positionOf } from '../core/position.js';
import { type Cell, decodeToken, learnProfiles, locksOf, pathOf, tokenPlace } from './cell.js';
import { readCredential } from './credential-record.js';
import type { Ledger, Reading } from './stores.js';
import type { TaskReply } from './task-record.js';

type ReadReply = [
  epoch: string,
  head: string,
  fence: string,
  bundle: string,
  locksVersion: string,
  locks: string[] | null,
  tasks: (TaskReply | null)[],
  leases: (string[] | null)[],
];

/** lua/read-task.lua: one round trip when the task's path and the profiles of the leases are known, as they are for all but the first. */
export function reader(cell: Cell): Ledger['read'] {
  return async ({ taskId, leaseIds = [], nowMs }): Promise<Reading | undefined> => {
    const path = taskId === undefined ? [] : await pathOf(cell, taskId);
    if (!path) return undefined;
    const reply = (await cell.line.run(
      'read-task',
      [
        cell.keys.named('locks'),
        ...path.map((id) => cell.keys.task(id)),
        ...leaseIds.flatMap((id) => [tokenPlace(cell, id)[0], cell.keys.credential(id)]),
      ],
      [
        path.length,
        leaseIds.length,
        cell.locks.version,
        ...path.map((id) => cell.tasks.has(id)),
        ...leaseIds.map((id) => tokenPlace(cell, id)[1]),
      ],
      { nowMs },
    )) as ReadReply;
    const [epoch, head, fence, bundle, locksVersion, locks, taskReplies, leaseReplies] = reply;
    if (taskReplies.includes(null) || leaseReplies.includes(null)) return undefined;
    const tasks = path.map((id, at) => cell.tasks.read(id, taskReplies[at] as TaskReply));
    const leases = await readLeases(cell, leaseIds, leaseReplies as string[][]);
    if (!leases) return undefined;
    return {
      tasks,
      leases,
      locks: locksOf(cell, locksVersion, locks, nowMs),
      fence,
      position: positionOf(Number(epoch), head),
      bundle,
    };
  };
}

/** Lease replies of lua/read-task.lua as records; undefined when one of them is gone. */
export async function readLeases(
  cell: Cell,
  ids: readonly string[],
  replies: string[][],
): Promise<LeaseRecord[] | undefined> {
  await learnProfiles(
    cell,
    replies.filter(([kind]) => kind === 'token').map((reply) => reply[1] as string),
  );
  const leases = replies.map((reply, at) =>
    reply[0] === 'token' ? decodeToken(cell, ids[at] as string, reply[1] as string) : readCredential(reply.slice(1)),
  );
  return leases.every((lease) => lease !== undefined) ? leases : undefined;
}
