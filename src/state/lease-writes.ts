import { assert } from '../core/errors.js';
import type { LeaseRecord } from '../core/lease.js';
import {
  basisWords,
  type Cell,
  isLeaseId,
  isTaskId,
  recordLifeMs,
  refusalOf,
  SKEW_MS,
  SLOT_MS,
  tokenPlace,
} from './cell.js';
import type { Basis, Ledger, Quotas } from './stores.js';
import { secondOf } from './token-record.js';

type LeaseWrites = Pick<Ledger, 'commitLease'>;

/** What a lease hangs below, as lua/grant.lua wants it. */
function pathWords(cell: Cell, lease: LeaseRecord, basis: Basis) {
  const tasks = lease.path.filter(isTaskId);
  const above = lease.path.filter(isLeaseId);
  return {
    root: tasks[0],
    tasks,
    above,
    keys: [...tasks.map((id) => cell.keys.task(id)), ...above.map((id) => tokenPlace(cell, id)[0])],
    args: [
      ...tasks.flatMap((id, at) => [id, basis.generations[at] ?? -1]),
      ...above.flatMap((id) => [id, tokenPlace(cell, id)[1]]),
    ],
  };
}

export function leaseWrites(cell: Cell): LeaseWrites {
  const { line, keys } = cell;

  const commitToken = async (
    lease: LeaseRecord,
    basis: Basis,
    quotas: Quotas,
    nowMs: number,
    audit: unknown,
  ): Promise<string[]> => {
    const row = cell.tokens.encode(lease);
    const path = pathWords(cell, lease, basis);
    const { taskId } = lease;
    const named = taskId !== undefined && cell.tasks.charterOf(taskId)?.agents.includes(lease.agent);
    const life = recordLifeMs(cell, lease, nowMs);
    return (await line.run(
      'commit-lease',
      [
        tokenPlace(cell, lease.id)[0],
        keys.named('tokens'),
        keys.profile(row.profileHash),
        keys.agent(lease.agent),
        taskId === undefined || named ? keys.none : keys.agentTasks(lease.agent),
        taskId === undefined ? keys.none : keys.tokensOf(taskId),
        path.root === undefined ? keys.none : keys.tokensOf(path.root),
        path.root === undefined ? keys.none : keys.tree(path.root),
        path.root === undefined ? keys.none : keys.treeCredentials(path.root),
        keys.agentCredentials(lease.agent),
        taskId === undefined ? keys.none : keys.credentialsOf(taskId),
        ...path.keys,
      ],
      [
        row.field,
        row.value,
        lease.expiresAtMs,
        secondOf(lease.id),
        life,
        row.profile,
        lease.id,
        taskId ?? '',
        ...basisWords(basis),
        path.tasks.length,
        path.above.length,
        quotas.leasesPerTask,
        quotas.leasesPerAgent,
        quotas.perTree,
        Math.floor(nowMs / SLOT_MS),
        Math.floor(lease.expiresAtMs / SLOT_MS),
        cell.limits.tokenTtlMsMax + 2 * SKEW_MS,
        ...path.args,
      ],
      { nowMs, audit },
    )) as string[];
  };

  return {
    commitLease: async ({ lease, basis, quotas, nowMs, audit }) => {
      assert(lease.expiresAtMs > nowMs, 'a lease is committed before its end');
      const reply = await commitToken(lease, basis, quotas, nowMs, audit);
      return reply[0] === 'committed' ? { outcome: 'committed' } : refusalOf(reply);
    },
  };
}
