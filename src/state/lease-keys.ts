import type { LeaseRecord } from '../core/lease.js';
import { type Cell, isLeaseId, isTaskId, tokenPlace } from './cell.js';
import type { Basis } from './stores.js';

/** What a lease hangs below, as lua/grant.lua wants it: tasks root first with the generations they were read at, then the leases above. */
export function pathWords(cell: Cell, ids: readonly string[], basis: Basis) {
  const tasks = ids.filter(isTaskId);
  const above = ids.filter(isLeaseId);
  const keys: string[] = [];
  const args: (string | number)[] = [];
  tasks.forEach((id, at) => {
    keys.push(cell.keys.task(id));
    args.push(id, basis.generations[at] ?? -1);
  });
  for (const id of above) {
    const [key, field] = tokenPlace(cell, id);
    keys.push(key);
    args.push(id, field);
  }
  return { tasks: tasks.length, above: above.length, keys, args };
}

/** The indexes that a lease of this task is in; a lease without a task is in none. */
export function taskKeys({ keys, tasks }: Cell, { taskId, path, agent }: LeaseRecord) {
  const root = path.find(isTaskId);
  if (taskId === undefined || root === undefined) {
    const { none } = keys;
    return { tokens: none, rootTokens: none, tree: none, treeCredentials: none, credentials: none, agentTasks: none };
  }
  return {
    tokens: keys.tokensOf(taskId),
    rootTokens: keys.tokensOf(root),
    tree: keys.tree(root),
    treeCredentials: keys.treeCredentials(root),
    credentials: keys.credentialsOf(taskId),
    // A task that names the agent is in its list since it was opened.
    agentTasks: tasks.charterOf(taskId)?.agents.includes(agent) ? keys.none : keys.agentTasks(agent),
  };
}
