import type { LeaseRecord } from '../core/lease.js';
import { positionOf } from '../core/position.js';
import type { TaskRecord } from '../core/task.js';
import { type Cell, isOwnLease, locksOf, pathOf, tokenPlace } from './cell.js';
import { type LeaseReply, readLeases } from './read.js';
import { unavailable } from './redis.js';
import type { Ledger, Reading } from './stores.js';
import type { Held, TaskReply } from './task-record.js';

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

interface Asked {
  taskIds: readonly string[];
  leaseIds: readonly string[];
  nowMs: number;
  resolve(look: Look | PromiseLike<Look>): void;
  reject(error: unknown): void;
}

/** So many looks, at so many things, are one script at most, short for everybody else; a look at more (a page of a list) has a script of its own. */
const TOGETHER_MAX = 32;
const THINGS_MAX = 200;

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
  const seen = await look(cell, path, leaseIds, nowMs);
  const isWhole = seen.tasks.every((task) => task !== undefined) && seen.leases.every((lease) => lease !== undefined);
  return isWhole ? (seen as Reading) : undefined;
}

/** Leases of either kind by their ids; those that are not there are missing. */
export async function leasesById(cell: Cell, ids: readonly string[]): Promise<Map<string, LeaseRecord>> {
  const pages: Promise<Look>[] = [];
  for (let from = 0; from < ids.length; from += THINGS_MAX) {
    pages.push(look(cell, [], ids.slice(from, from + THINGS_MAX), cell.clock.now()));
  }
  const looks = await Promise.all(pages);
  return new Map(looks.flatMap(({ leases }) => leases.flatMap((lease) => (lease ? [[lease.id, lease]] : []))));
}

/** Looks that will be one script. */
interface Together {
  all: Asked[];
  things: number;
}

const waiting = new WeakMap<Cell, Together>();

/**
 * lua/read-task.lua: these tasks and leases, and the line they hang on, in one look. Looks that are asked for in one turn of the event loop are
 * one script: each sees the line as it is after it was asked for, and nothing of it is kept for the next turn.
 */
export function look(
  cell: Cell,
  taskIds: readonly string[],
  leaseIds: readonly string[],
  nowMs: number,
): Promise<Look> {
  return new Promise((resolve, reject) => {
    const asked = { taskIds, leaseIds, nowMs, resolve, reject };
    const things = taskIds.length + leaseIds.length;
    const others = waiting.get(cell);
    if (others && others.all.length < TOGETHER_MAX && others.things + things <= THINGS_MAX) {
      others.all.push(asked);
      others.things += things;
    } else {
      const together = { all: [asked], things };
      waiting.set(cell, together);
      setImmediate(() => void lookTogether(cell, together));
    }
  });
}

async function lookTogether(cell: Cell, together: Together): Promise<void> {
  if (waiting.get(cell) === together) waiting.delete(cell);
  const { all } = together;
  try {
    const taskIds = [...new Set(all.flatMap((asked) => asked.taskIds))];
    const leaseIds = [...new Set(all.flatMap((asked) => asked.leaseIds))].filter((id) => isOwnLease(cell, id));
    const nowMs = Math.max(...all.map((asked) => asked.nowMs));
    const held = taskIds.map((id) => cell.tasks.held(id));
    const reply = await runReadTask(cell, { taskIds, held, leaseIds, nowMs });
    // What is not there is null in its place: fewer answers than questions are no answers.
    if (reply[6].length !== taskIds.length || reply[7].length !== leaseIds.length) {
      throw unavailable('read-task: the answers are not whole');
    }
    const tasks = new Map(taskIds.map((id, at) => [id, { reply: reply[6][at], held: held[at] as Held }]));
    const leases = new Map(leaseIds.map((id, at) => [id, reply[7][at] ?? null]));
    for (const asked of all) {
      try {
        const seen = lookOf(cell, asked, reply, tasks);
        asked.resolve(asked.leaseIds.length === 0 ? seen : withLeases(cell, asked, seen, leases));
      } catch (error) {
        asked.reject(error);
      }
    }
  } catch (error) {
    for (const asked of all) asked.reject(error);
  }
}

/** Its own part of what was seen, as far as it can be told at once. */
function lookOf(
  cell: Cell,
  { taskIds, nowMs }: Asked,
  [epoch, head, fence, bundle, locksVersion, changedLocks]: ReadReply,
  tasks: ReadonlyMap<string, { reply: TaskReply | null | undefined; held: Held }>,
): Look {
  const locks = locksOf(cell, locksVersion, changedLocks, nowMs);
  return {
    tasks: taskIds.map((id) => {
      const seen = tasks.get(id);
      return seen?.reply ? cell.tasks.read(id, seen.reply, seen.held) : undefined;
    }),
    leases: [],
    locks,
    fence,
    position: positionOf(Number(epoch), head),
    bundle,
  };
}

/** The profiles of leases may have to be asked for. */
async function withLeases(
  cell: Cell,
  { leaseIds }: Asked,
  seen: Look,
  leases: ReadonlyMap<string, LeaseReply>,
): Promise<Look> {
  const replies = leaseIds.map((id) => leases.get(id) ?? null);
  return { ...seen, leases: await readLeases(cell, leaseIds, replies) };
}

async function runReadTask(
  cell: Cell,
  { taskIds, held, leaseIds, nowMs }: { taskIds: string[]; held: Held[]; leaseIds: string[]; nowMs: number },
): Promise<ReadReply> {
  const places = leaseIds.map((id) => tokenPlace(cell, id));
  return (await cell.line.run(
    'read-task',
    [
      cell.keys.named('locks'),
      ...taskIds.map((id) => cell.keys.task(id)),
      ...leaseIds.flatMap((id, at) => [(places[at] as [string, string])[0], cell.keys.credential(id)]),
    ],
    [
      taskIds.length,
      leaseIds.length,
      cell.locks.version,
      ...held.map(({ known }) => known?.generation ?? ''),
      ...places.map(([, field]) => field),
    ],
    { nowMs },
  )) as ReadReply;
}
