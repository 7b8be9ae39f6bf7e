import { assert } from '../core/errors.js';
import type { Position } from '../core/position.js';
import { PATH_DEPTH_MAX, type TaskRecord } from '../core/task.js';
import { basisWords, type Cell, pathOf, pathsOf, refusalOf, rootOf, taskLifeMs } from './cell.js';
import { readReading } from './look.js';
import type { Ledger } from './stores.js';
import type { TaskReply } from './task-record.js';

type TaskWrites = Pick<
  Ledger,
  | 'startTask'
  | 'endTask'
  | 'expireTasks'
  | 'keepEnd'
  | 'suspendTask'
  | 'resumeTask'
  | 'changeContext'
  | 'heartbeat'
  | 'settleTask'
>;

/** What lua/tasks.lua answers: the outcome, the task as it is now, and the position of its entry. */
type Reply<Outcome extends string> = [Outcome, TaskReply, Position | ''];

const KEPT_END_MS = 16 * 60_000;
const KEPT_ENDS_MAX = 1_000;
/** Tasks of one script: some two milliseconds, in which nobody else is answered. */
const EXPIRE_PAGE = 100;
/** Longer than any end is kept, so that a clock that jumps loses none: what counts is the time inside. */
const KEPT_LIFE_MS = 86_400_000;

/** Keys of lua/tasks.lua; undefined when the task is not there. */
export async function taskKeys(cell: Cell, taskId: string): Promise<string[] | undefined> {
  const path = await pathOf(cell, taskId);
  return path && [cell.keys.task(taskId), cell.keys.named('due'), cell.keys.tree(path[0] as string)];
}

/** The life of a task: one method, one script. */
export function taskWrites(cell: Cell): TaskWrites {
  return {
    startTask: (write) => startTask(cell, write),
    endTask: (write) => endTask(cell, write),
    expireTasks: (write) => expireTasks(cell, write),
    keepEnd: (write) => keepEnd(cell, write),
    suspendTask: (write) => suspendTask(cell, write),
    resumeTask: (write) => resumeTask(cell, write),
    changeContext: (write) => changeContext(cell, write),
    heartbeat: (write) => heartbeat(cell, write),
    settleTask: (write) => settleTask(cell, write),
  };
}

async function startTask(
  cell: Cell,
  { charter, context, basis, quotas, nowMs, audit }: Parameters<Ledger['startTask']>[0],
): ReturnType<Ledger['startTask']> {
  const { keys } = cell;
  const { id, path, agents, ref } = charter;
  assert(path.at(-1) === id && path.length <= PATH_DEPTH_MAX, 'a path ends with its own id and is not too deep');
  const ancestors = path.slice(0, -1);
  const parent = ancestors.at(-1);
  const root = rootOf(charter);
  const reply = (await cell.line.run(
    'start-task',
    [
      keys.task(id),
      keys.named('due'),
      keys.named('tasks'),
      ref === undefined ? keys.none : keys.ref(charter.opener, ref),
      keys.kept(charter.opener),
      keys.openerTasks(charter.opener),
      parent === undefined ? keys.none : keys.children(parent),
      keys.tokensOf(root),
      keys.tree(root),
      keys.treeCredentials(root),
      ...ancestors.map((above) => keys.task(above)),
      ...agents.map((agent) => keys.agentTasks(agent)),
    ],
    [
      id,
      JSON.stringify(charter),
      JSON.stringify(context),
      charter.deadlineMs,
      path.join(','),
      ancestors.join(','),
      charter.heartbeatMs ?? '',
      charter.onSilence,
      ...basisWords(basis),
      ancestors.length,
      agents.length,
      quotas.perTree,
      taskLifeMs(cell, charter, nowMs),
      ref ?? '',
      charter.createdAtMs,
      cell.limits.listMs,
      ...ancestors.flatMap((above, at) => [above, basis.generations[at] ?? -1]),
    ],
    { nowMs, audit },
  )) as string[];
  const [outcome, word] = reply;
  if (outcome === 'exists') {
    const task = await readOne(cell, word as string, nowMs);
    return task ? { outcome, task } : { outcome: 'not_found', by: word as string };
  }
  if (outcome !== 'opened') return refusalOf(reply);
  const [, state, generation, live, ended, reason, by] = reply as [string, ...string[]];
  cell.tasks.learn(charter, Number(generation), context);
  const fields = [state, generation, null, null, live, ended || null, reason, by];
  return { outcome, task: cell.tasks.read(id, fields as TaskReply) };
}

export async function endTask(
  cell: Cell,
  { taskId, state, reason, by, onlyIf, nowMs, audit }: Parameters<Ledger['endTask']>[0],
): ReturnType<Ledger['endTask']> {
  const keys = await taskKeys(cell, taskId);
  if (!keys) return { outcome: 'not_found' };
  const words = [taskId, state, reason, by, onlyIf ?? ''];
  const [outcome, fields, position] = (await cell.line.run('end-task', keys, words, { nowMs, audit })) as Reply<
    'ended' | 'already' | 'not_found' | 'not_due'
  >;
  if (outcome === 'not_found' || outcome === 'not_due') return { outcome };
  const task = cell.tasks.read(taskId, fields);
  if (outcome === 'ended') cell.memory.remember({ kind: 'end', atMs: nowMs, task, audit });
  return { outcome, task, ...(position && { position }) };
}

async function expireTasks(
  cell: Cell,
  { ends, reason, by, nowMs }: Parameters<Ledger['expireTasks']>[0],
): ReturnType<Ledger['expireTasks']> {
  const outcomes = await Promise.all(
    Array.from({ length: Math.ceil(ends.length / EXPIRE_PAGE) }, async (_, page) => {
      const some = ends.slice(page * EXPIRE_PAGE, (page + 1) * EXPIRE_PAGE);
      const paths = await pathsOf(
        cell,
        some.map(({ taskId }) => taskId),
      );
      const keys = some.flatMap(({ taskId }, at) => [cell.keys.task(taskId), cell.keys.tree(paths[at]?.[0] ?? taskId)]);
      const words = some.flatMap(({ taskId, audit }) => [taskId, JSON.stringify(audit)]);
      return (await cell.line.run('expire-tasks', [cell.keys.named('due'), ...keys], [reason, by, ...words], {
        nowMs,
      })) as ('ended' | 'over' | 'not_due')[];
    }),
  );
  return outcomes.flat();
}

async function keepEnd(
  cell: Cell,
  { opener, ref, state, reason, nowMs, audit }: Parameters<Ledger['keepEnd']>[0],
): ReturnType<Ledger['keepEnd']> {
  const kept = [nowMs + KEPT_END_MS, state, opener.replaceAll('|', ' '), reason].join('|');
  const [outcome] = (await cell.line.run(
    'keep-end',
    [cell.keys.kept(opener), cell.keys.ref(opener, ref)],
    [ref, kept, KEPT_ENDS_MAX, KEPT_LIFE_MS],
    { nowMs, audit },
  )) as ['kept' | 'full'];
  return { outcome };
}

async function suspendTask(
  cell: Cell,
  { taskId, onlyIf, nowMs, audit }: Parameters<Ledger['suspendTask']>[0],
): ReturnType<Ledger['suspendTask']> {
  const keys = await taskKeys(cell, taskId);
  if (!keys) return { outcome: 'not_found' };
  const words = [taskId, onlyIf ?? ''];
  const [outcome, fields, position] = (await cell.line.run('suspend-task', keys, words, { nowMs, audit })) as Reply<
    'suspended' | 'already' | 'over' | 'not_found' | 'not_due'
  >;
  if (outcome === 'not_found' || outcome === 'not_due') return { outcome };
  const task = cell.tasks.read(taskId, fields);
  if (outcome === 'over') return { outcome, task };
  if (outcome === 'suspended') {
    cell.memory.remember({ kind: 'generation', atMs: nowMs, task, resumed: false, cut: true, audit });
  }
  return { outcome, task, ...(position && { position }) };
}

async function resumeTask(
  cell: Cell,
  { taskId, nowMs, audit }: Parameters<Ledger['resumeTask']>[0],
): ReturnType<Ledger['resumeTask']> {
  const keys = await taskKeys(cell, taskId);
  if (!keys) return { outcome: 'not_found' };
  const [outcome, fields] = (await cell.line.run('resume-task', keys, [taskId], { nowMs, audit })) as Reply<
    'resumed' | 'already' | 'over' | 'not_found'
  >;
  if (outcome === 'not_found') return { outcome };
  const task = cell.tasks.read(taskId, fields);
  if (outcome === 'resumed') {
    cell.memory.remember({ kind: 'generation', atMs: nowMs, task, resumed: true, cut: false, audit });
  }
  return { outcome, task };
}

async function changeContext(
  cell: Cell,
  { taskId, generation, context, revoke, judgeWithinMs, nowMs, audit }: Parameters<Ledger['changeContext']>[0],
): ReturnType<Ledger['changeContext']> {
  const keys = await taskKeys(cell, taskId);
  if (!keys) return { outcome: 'not_found' };
  const words = [taskId, generation, JSON.stringify(context), revoke ? '1' : '', nowMs + judgeWithinMs];
  const [outcome, fields, position] = (await cell.line.run('change-context', keys, words, { nowMs, audit })) as Reply<
    'changed' | 'over' | 'generation_mismatch' | 'not_found'
  >;
  if (outcome === 'not_found') return { outcome };
  const task = cell.tasks.read(taskId, fields);
  if (outcome !== 'changed') return { outcome, task };
  cell.memory.remember({ kind: 'generation', atMs: nowMs, task, resumed: false, cut: revoke, audit });
  return { outcome, task, ...(position && { position }) };
}

async function heartbeat(
  cell: Cell,
  { taskId, nowMs }: Parameters<Ledger['heartbeat']>[0],
): ReturnType<Ledger['heartbeat']> {
  const keys = await taskKeys(cell, taskId);
  if (!keys) return { outcome: 'not_found' };
  const [outcome, fields] = (await cell.line.run('heartbeat', keys, [taskId], { nowMs })) as Reply<
    'noted' | 'not_found'
  >;
  return outcome === 'noted' ? { outcome, task: cell.tasks.read(taskId, fields) } : { outcome };
}

async function settleTask(
  cell: Cell,
  { taskId, work, state, generation, dueAtMs, nowMs, audit }: Parameters<Ledger['settleTask']>[0],
): ReturnType<Ledger['settleTask']> {
  const keys = await taskKeys(cell, taskId);
  if (!keys) return { outcome: 'not_found' };
  const words = [taskId, work, state, generation, dueAtMs ?? ''];
  const [outcome] = (await cell.line.run('settle-task', keys, words, { nowMs, audit })) as [
    'settled' | 'stale' | 'not_found',
  ];
  return { outcome };
}

async function readOne(cell: Cell, id: string, nowMs: number): Promise<TaskRecord | undefined> {
  return (await readReading(cell, { taskId: id, nowMs }))?.tasks.at(-1);
}
