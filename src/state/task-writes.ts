import { assert } from '../core/errors.js';
import type { Position } from '../core/position.js';
import { PATH_DEPTH_MAX, type TaskRecord } from '../core/task.js';
import { basisWords, type Cell, pathOf, refusalOf, rootOf, taskLifeMs } from './cell.js';
import { reader } from './read.js';
import type { Ledger } from './stores.js';
import type { TaskReply } from './task-record.js';

type TaskWrites = Pick<Ledger, 'startTask' | 'endTask'>;

/** The life of a task: one method, one script. */
export function taskWrites(cell: Cell): TaskWrites {
  const { line, keys } = cell;
  const read = reader(cell);

  const readOne = async (id: string, nowMs: number): Promise<TaskRecord | undefined> =>
    (await read({ taskId: id, nowMs }))?.tasks.at(-1);

  /** Keys of lua/tasks.lua; undefined when the task is not there. */
  const taskKeys = async (taskId: string): Promise<string[] | undefined> => {
    const path = await pathOf(cell, taskId);
    return path && [keys.task(taskId), keys.named('due'), keys.tree(path[0] as string)];
  };

  return {
    startTask: async ({ charter, context, basis, quotas, nowMs, audit }) => {
      const { id, path, agents, ref } = charter;
      assert(path.at(-1) === id && path.length <= PATH_DEPTH_MAX, 'a path ends with its own id and is not too deep');
      const ancestors = path.slice(0, -1);
      const parent = ancestors.at(-1);
      const root = rootOf(charter);
      const reply = (await line.run(
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
        const task = await readOne(word as string, nowMs);
        return task ? { outcome, task } : { outcome: 'not_found', by: word as string };
      }
      if (outcome !== 'opened') return refusalOf(reply);
      const [, state, generation, live, ended, reason, by] = reply;
      cell.tasks.learn(charter, Number(generation), context);
      const task = cell.tasks.read(id, [
        state as string,
        generation as string,
        null,
        null,
        live as string,
        ended || null,
        reason as string,
        by as string,
      ]);
      return { outcome, task };
    },

    endTask: async ({ taskId, state, reason, by, onlyIf, nowMs, audit }) => {
      const words = await taskKeys(taskId);
      if (!words) return { outcome: 'not_found' };
      const reply = (await line.run('end-task', words, [taskId, state, reason, by, onlyIf ?? ''], {
        nowMs,
        audit,
      })) as [string, TaskReply, Position];
      const [outcome, fields, position] = reply;
      if (outcome === 'not_found' || outcome === 'not_due') return { outcome };
      const task = cell.tasks.read(taskId, fields);
      if (outcome === 'already') return { outcome, task };
      return { outcome: 'ended', task, ...(position && { position }) };
    },
  };
}
