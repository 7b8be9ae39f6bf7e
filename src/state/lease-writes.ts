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
import { writeCredential } from './credential-record.js';
import { leasesById } from './read.js';
import type { Basis, Ledger } from './stores.js';
import { secondOf } from './token-record.js';

type LeaseWrites = Pick<Ledger, 'commitLease' | 'openIntent' | 'renewLease' | 'revokeLeases' | 'closeAttempt'>;

const PAGE_MAX = 500;
const REASON_CHARACTERS_MAX = 500;

/** The life of leases: one method, one script. */
export function leaseWrites(cell: Cell): LeaseWrites {
  return {
    commitLease: (write) => (write.lease.kind === 'token' ? commitToken(cell, write) : commitCredential(cell, write)),
    openIntent: (write) => commitCredential(cell, write),
    renewLease: (write) => renewLease(cell, write),
    revokeLeases: (write) => revokeLeases(cell, write),
    closeAttempt: (write) => closeAttempt(cell, write),
  };
}

async function commitToken(
  cell: Cell,
  { lease, basis, quotas, nowMs, audit }: Parameters<Ledger['commitLease']>[0],
): ReturnType<Ledger['commitLease']> {
  assert(lease.expiresAtMs > nowMs, 'a lease is committed before its end');
  assert(lease.expiresAtMs - nowMs <= cell.limits.tokenTtlMsMax, 'no token lives longer than the longest');
  const { keys, tokens } = cell;
  const row = tokens.encode(lease);
  const path = pathWords(cell, lease.path, basis);
  const ofTask = taskKeys(cell, lease);
  const second = secondOf(lease.id);
  const isLate = lease.expiresAtMs > (second + 1) * 1_000 + cell.limits.tokenTtlMsMax;
  const words = [
    tokenPlace(cell, lease.id)[0],
    keys.named('tokens'),
    keys.profile(row.profileHash),
    keys.agent(lease.agent),
    ofTask.agentTasks,
    ofTask.tokens,
    ofTask.rootTokens,
    ofTask.tree,
    ofTask.treeCredentials,
    keys.agentCredentials(lease.agent),
    ofTask.credentials,
    ...path.keys,
  ];
  const commit = async (profile: string) =>
    (await cell.line.run(
      'commit-lease',
      words,
      [
        row.field,
        row.value,
        lease.expiresAtMs,
        second,
        recordLifeMs(cell, lease, nowMs),
        profile,
        lease.id,
        lease.taskId ?? '',
        ...basisWords(basis),
        path.tasks,
        path.above,
        quotas.leasesPerTask,
        quotas.leasesPerAgent,
        quotas.perTree,
        Math.floor(nowMs / SLOT_MS),
        Math.floor(lease.expiresAtMs / SLOT_MS),
        cell.limits.tokenTtlMsMax + 2 * SKEW_MS,
        isLate ? '1' : '',
        ...path.args,
      ],
      { nowMs, audit },
    )) as string[];
  let reply = await commit(tokens.isStored(row.profileHash) ? '' : row.profile);
  if (reply[0] === 'profile') reply = await commit(row.profile);
  if (reply[0] !== 'committed') return refusalOf(reply);
  tokens.stored(row.profileHash);
  return { outcome: 'committed' };
}

/** With a deadline it is an intent; without, a pending lease becomes active. */
async function commitCredential(
  cell: Cell,
  {
    lease,
    basis,
    quotas,
    nowMs,
    audit,
    intentDeadlineMs,
  }: Parameters<Ledger['commitLease']>[0] & { intentDeadlineMs?: number },
): ReturnType<Ledger['commitLease']> {
  assert(lease.kind === 'credential' && lease.taskId !== undefined, 'a credential belongs to a task');
  const { keys } = cell;
  const isIntent = intentDeadlineMs !== undefined;
  const path = pathWords(cell, lease.path, basis);
  const ofTask = taskKeys(cell, lease);
  const reply = (await cell.line.run(
    'commit-credential',
    [
      keys.credential(lease.id),
      keys.named('due'),
      keys.named('credentials'),
      keys.agent(lease.agent),
      keys.agentCredentials(lease.agent),
      ofTask.tokens,
      ofTask.rootTokens,
      ofTask.tree,
      ofTask.treeCredentials,
      ofTask.credentials,
      ofTask.agentTasks,
      ...path.keys,
    ],
    [
      isIntent ? 'intent' : 'commit',
      lease.id,
      lease.taskId,
      intentDeadlineMs ?? '',
      lease.expiresAtMs,
      ...basisWords(basis),
      path.tasks,
      path.above,
      quotas.leasesPerTask,
      quotas.leasesPerAgent,
      quotas.perTree,
      Math.floor(nowMs / SLOT_MS),
      ...path.args,
      ...writeCredential({ ...lease, state: isIntent ? 'pending' : 'active' }),
    ],
    { nowMs, audit },
  )) as string[];
  return reply[0] === 'committed' ? { outcome: 'committed' } : refusalOf(reply);
}

async function renewLease(
  cell: Cell,
  { leaseId, expiresAtMs, basis, nowMs, audit }: Parameters<Ledger['renewLease']>[0],
): ReturnType<Ledger['renewLease']> {
  const lease = (await leasesById(cell, [leaseId])).get(leaseId);
  if (lease?.kind !== 'credential') return { outcome: 'not_found', by: leaseId };
  const path = pathWords(cell, lease.path, basis);
  const reply = (await cell.line.run(
    'renew-lease',
    [cell.keys.credential(leaseId), cell.keys.named('due'), ...path.keys],
    [leaseId, expiresAtMs, ...basisWords(basis), path.tasks, path.above, basis.generations.join(','), ...path.args],
    { nowMs, audit },
  )) as string[];
  return reply[0] === 'committed' ? { outcome: 'committed' } : refusalOf(reply);
}

async function revokeLeases(
  cell: Cell,
  { leaseIds, reason, announce, verdict, nowMs, audit }: Parameters<Ledger['revokeLeases']>[0],
): ReturnType<Ledger['revokeLeases']> {
  assert(leaseIds.length <= PAGE_MAX, 'at most one page of leases moves at once');
  const { keys } = cell;
  // What is read here never changes; whether a lease is live is the script's to say.
  const leases = [...(await leasesById(cell, leaseIds)).values()];
  const reply = (await cell.line.run(
    'move-leases',
    [
      keys.named('due'),
      verdict ? keys.task(verdict.taskId) : keys.none,
      ...leases.flatMap((lease) => {
        if (lease.kind === 'credential') return [keys.credential(lease.id), keys.none, keys.none, keys.none];
        const ofTask = taskKeys(cell, lease);
        return [tokenPlace(cell, lease.id)[0], ofTask.tokens, ofTask.tree, keys.agent(lease.agent)];
      }),
    ],
    [
      reason.slice(0, REASON_CHARACTERS_MAX),
      verdict?.generation ?? '',
      verdict?.bundle ?? '',
      leases.length,
      announce ? '1' : '',
      ...leases.flatMap((lease) => [
        lease.kind === 'token' ? 't' : 'c',
        lease.id,
        tokenPlace(cell, lease.id)[1],
        lease.expiresAtMs,
        Math.floor(lease.expiresAtMs / SLOT_MS),
      ]),
    ],
    { nowMs, audit },
  )) as string[];
  const [outcome, position, ...revoked] = reply;
  if (outcome === 'stale') return { revoked: [], stale: true };
  return { revoked, stale: false, ...(position && { position }) };
}

async function closeAttempt(
  cell: Cell,
  { leaseId, attempt, result, nowMs, audit }: Parameters<Ledger['closeAttempt']>[0],
): ReturnType<Ledger['closeAttempt']> {
  const lease = (await leasesById(cell, [leaseId])).get(leaseId);
  if (lease?.kind !== 'credential') return { outcome: 'not_found' };
  const { keys } = cell;
  const ofTask = taskKeys(cell, lease);
  const problem = result.state === 'revoking' ? result.problem : result.state === 'abandoned' ? result.reason : '';
  const [outcome] = (await cell.line.run(
    'close-attempt',
    [
      keys.credential(leaseId),
      keys.named('due'),
      keys.named('credentials'),
      keys.agentCredentials(lease.agent),
      ofTask.treeCredentials,
      ofTask.credentials,
    ],
    [
      leaseId,
      attempt,
      result.state,
      problem.slice(0, REASON_CHARACTERS_MAX),
      result.state === 'revoking' ? result.nextAttemptMs : '',
      cell.limits.retentionMs,
    ],
    { nowMs, audit },
  )) as ['closed' | 'fenced' | 'not_found'];
  return { outcome };
}

/** What a lease hangs below, as lua/grant.lua wants it: tasks root first with the generations they were read at, then the leases above. */
function pathWords(cell: Cell, ids: readonly string[], basis: Basis) {
  const tasks = ids.filter(isTaskId);
  const above = ids.filter(isLeaseId);
  return {
    tasks: tasks.length,
    above: above.length,
    keys: [...tasks.map((id) => cell.keys.task(id)), ...above.map((id) => tokenPlace(cell, id)[0])],
    args: [
      ...tasks.flatMap((id, at) => [id, basis.generations[at] ?? -1]),
      ...above.flatMap((id) => [id, tokenPlace(cell, id)[1]]),
    ],
  };
}

/** The indexes that a lease of this task is in; a lease without a task is in none. */
function taskKeys({ keys, tasks }: Cell, { taskId, path, agent }: LeaseRecord) {
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
