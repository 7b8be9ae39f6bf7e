import { assert } from '../core/errors.js';
import { STUCK_ATTEMPTS } from '../core/lease.js';
import { basisWords, type Cell, refusalOf, SLOT_MS } from './cell.js';
import { readCredential, readKept, writeCredential, writeHandle } from './credential-record.js';
import { retireMember } from './due.js';
import { pathWords, taskKeys } from './lease-keys.js';
import { leasesById } from './look.js';
import type { Ledger } from './stores.js';

type CredentialWrites = Pick<
  Ledger,
  | 'openIntent'
  | 'noteCredential'
  | 'renewLease'
  | 'beginAttempt'
  | 'closeAttempt'
  | 'askToAbandon'
  | 'noteReconciled'
  | 'hasten'
>;

const TEXT_CHARACTERS_MAX = 500;
const HASTEN_PAGE = 500;
const SECOND_PERSON_WITHIN_MS = 15 * 60_000;

/** The life of a credential's lease, from its intent to its closing: one method, one script. */
export function credentialWrites(cell: Cell): CredentialWrites {
  return {
    openIntent: (write) => commitCredential(cell, write),
    noteCredential: (write) => noteCredential(cell, write),
    renewLease: (write) => renewLease(cell, write),
    beginAttempt: (write) => beginAttempt(cell, write),
    closeAttempt: (write) => closeAttempt(cell, write),
    askToAbandon: (write) => askToAbandon(cell, write),
    noteReconciled: async ({ backend, found, orphans, lost, nowMs }) => {
      await cell.line.run('note-reconciled', [cell.keys.reconciled(backend)], [found, orphans, lost], { nowMs });
    },
    hasten: (write) => hasten(cell, write),
  };
}

/** With a deadline it is an intent; without, a pending lease becomes active. */
export async function commitCredential(
  cell: Cell,
  {
    lease,
    probe,
    basis,
    quotas,
    nowMs,
    audit,
    intentDeadlineMs,
    requestKey,
  }: Parameters<Ledger['commitLease']>[0] & { intentDeadlineMs?: number; requestKey?: string },
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
      keys.backendCredentials(lease.backend ?? ''),
      requestKey === undefined ? keys.none : keys.request(requestKey),
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
      retireMember(lease),
      ...path.args,
      ...writeCredential({ ...lease, state: isIntent ? 'pending' : 'active' }),
      ...(probe ? ['probe', cell.encryption.encryptSecret('probe', lease.id, probe)] : []),
    ],
    { nowMs, audit },
  )) as string[];
  return reply[0] === 'committed' ? { outcome: 'committed' } : refusalOf(reply);
}

async function noteCredential(
  cell: Cell,
  { leaseId, backend, handle, keep, nowMs }: Parameters<Ledger['noteCredential']>[0],
): ReturnType<Ledger['noteCredential']> {
  const [outcome] = (await cell.line.run(
    'note-credential',
    [cell.keys.credential(leaseId), cell.keys.named('due')],
    [
      retireMember({ id: leaseId, backend }),
      ...writeHandle(handle),
      ...(keep ? ['kept', cell.encryption.encryptSecret('kept', leaseId, keep)] : []),
    ],
    { nowMs },
  )) as ['noted' | 'not_live' | 'not_found'];
  return { outcome };
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
    [
      leaseId,
      expiresAtMs,
      ...basisWords(basis),
      path.tasks,
      path.above,
      basis.generations.join(','),
      retireMember(lease),
      ...path.args,
    ],
    { nowMs, audit },
  )) as string[];
  return reply[0] === 'committed' ? { outcome: 'committed' } : refusalOf(reply);
}

async function beginAttempt(
  cell: Cell,
  { leaseId, backend, untilMs, nowMs, audit }: Parameters<Ledger['beginAttempt']>[0],
): ReturnType<Ledger['beginAttempt']> {
  const { keys } = cell;
  const [outcome, ...fields] = (await cell.line.run(
    'begin-attempt',
    [keys.credential(leaseId), keys.named('due'), keys.backendCredentials(backend)],
    [leaseId, retireMember({ id: leaseId, backend }), untilMs],
    { nowMs, audit },
  )) as ['begun' | 'not_due' | 'closed' | 'not_found', ...string[]];
  if (outcome !== 'begun') return { outcome };
  const encrypted: Record<string, string> = {};
  for (let at = 0; at < fields.length; at += 2) encrypted[fields[at] as string] = fields[at + 1] as string;
  return { outcome, lease: readCredential(fields), ...readKept(cell, leaseId, encrypted) };
}

async function closeAttempt(
  cell: Cell,
  { lease, attempt, result, nowMs, audit }: Parameters<Ledger['closeAttempt']>[0],
): ReturnType<Ledger['closeAttempt']> {
  const { keys } = cell;
  const ofTask = taskKeys(cell, lease);
  const { problem, nextAttemptMs, evidence, residue } = wordsOf(result);
  const [outcome] = (await cell.line.run(
    'close-attempt',
    [
      keys.credential(lease.id),
      keys.named('due'),
      keys.named('credentials'),
      keys.agentCredentials(lease.agent),
      ofTask.treeCredentials,
      ofTask.credentials,
      keys.backendCredentials(lease.backend ?? ''),
      keys.named('stuck'),
    ],
    [
      lease.id,
      attempt,
      result.state,
      problem.slice(0, TEXT_CHARACTERS_MAX),
      nextAttemptMs,
      cell.limits.retentionMs,
      retireMember(lease),
      evidence,
      residue.slice(0, TEXT_CHARACTERS_MAX),
      STUCK_ATTEMPTS,
    ],
    { nowMs, ...(audit && { audit }) },
  )) as ['closed' | 'fenced' | 'not_found'];
  return { outcome };
}

function wordsOf(result: Parameters<Ledger['closeAttempt']>[0]['result']) {
  const words = { problem: '', nextAttemptMs: '' as number | '', evidence: '', residue: '' };
  switch (result.state) {
    case 'revoking':
      return {
        ...words,
        problem: result.problem ?? '',
        nextAttemptMs: result.nextAttemptMs,
        evidence: result.evidence ?? '',
      };
    case 'abandoned':
      return { ...words, problem: `given up: ${result.reason}` };
    case 'revoked': {
      const { evidence, residue } = result;
      return residue
        ? { ...words, evidence, residue: residue.what, nextAttemptMs: residue.nextAttemptMs }
        : { ...words, evidence };
    }
  }
}

async function askToAbandon(
  cell: Cell,
  { leaseId, by, nowMs, audit }: Parameters<Ledger['askToAbandon']>[0],
): ReturnType<Ledger['askToAbandon']> {
  const [outcome] = (await cell.line.run(
    'ask-to-abandon',
    [cell.keys.credential(leaseId)],
    [by, SECOND_PERSON_WITHIN_MS],
    { nowMs, audit },
  )) as ['requested' | 'second' | 'not_live' | 'not_found'];
  return { outcome };
}

async function hasten(cell: Cell, { backend, nowMs }: Parameters<Ledger['hasten']>[0]): ReturnType<Ledger['hasten']> {
  const { keys } = cell;
  const prefix = retireMember({ id: '', backend });
  let count = 0;
  for (;;) {
    const moved = (await cell.line.run(
      'hasten',
      [keys.named('due'), keys.backendCredentials(backend)],
      [prefix, count, HASTEN_PAGE],
      { nowMs },
    )) as number;
    count += moved;
    if (moved < HASTEN_PAGE) return { count };
  }
}
