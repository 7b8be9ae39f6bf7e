import type { AuditRecord } from '../core/audit.js';
import { assert } from '../core/errors.js';
import { isOperatorToken } from '../core/lease.js';
import { basisWords, type Cell, recordLifeMs, refusalOf, SKEW_MS, SLOT_MS, tokenPlace } from './cell.js';
import { commitCredential } from './credential-writes.js';
import { retireMember } from './due.js';
import { pathWords, taskKeys } from './lease-keys.js';
import { leasesById } from './look.js';
import type { Ledger } from './stores.js';
import { secondOf } from './token-record.js';

type LeaseWrites = Pick<Ledger, 'commitLease' | 'revokeLeases'>;

/** Leases of one script. */
const PAGE_MAX = 500;
const REASON_CHARACTERS_MAX = 500;

/** What tokens and credentials have in common: they are committed, and they are revoked. One method, one script. */
export function leaseWrites(cell: Cell): LeaseWrites {
  return {
    commitLease: (write) => (write.lease.kind === 'token' ? commitToken(cell, write) : commitCredential(cell, write)),
    revokeLeases: (write) => revokeLeases(cell, write),
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
      isOperatorToken(lease) ? 'commit-operator-token' : 'commit-lease',
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

/**
 * A script for each page, so that nobody waits long for any of them: a list of leases may be longer than was asked for (HSCAN). The record goes with the
 * first page that moves something, and is of all of them.
 */
async function revokeLeases(
  cell: Cell,
  write: Parameters<Ledger['revokeLeases']>[0],
): ReturnType<Ledger['revokeLeases']> {
  const all: Awaited<ReturnType<Ledger['revokeLeases']>> = { revoked: [], stale: false };
  for (let at = 0; at === 0 || at < write.leaseIds.length; at += PAGE_MAX) {
    const { audit, ...more } = write;
    const leaseIds = write.leaseIds.slice(at, at + PAGE_MAX);
    const page = await revokePage(cell, { ...more, leaseIds, ...(all.revoked.length === 0 && { audit }) });
    all.revoked.push(...page.revoked);
    if (page.position !== undefined) all.position = page.position;
    if (page.stale) return { ...all, stale: true };
  }
  return all;
}

async function revokePage(
  cell: Cell,
  {
    leaseIds,
    known = [],
    reason,
    sinceMs,
    announce,
    verdict,
    nowMs,
    audit,
  }: Omit<Parameters<Ledger['revokeLeases']>[0], 'audit'> & { audit?: AuditRecord },
): ReturnType<Ledger['revokeLeases']> {
  const { keys } = cell;
  // What is read here never changes; whether a lease is live is the script's to say.
  const byId = new Map(known.map((lease) => [lease.id, lease]));
  const unknown = leaseIds.filter((id) => !byId.has(id));
  const read = unknown.length > 0 ? await leasesById(cell, unknown) : byId;
  const leases = leaseIds.flatMap((id) => byId.get(id) ?? read.get(id) ?? []);
  const reply = (await cell.line.run(
    'move-leases',
    [
      keys.named('due'),
      verdict ? keys.task(verdict.taskId) : keys.none,
      ...leases.flatMap((lease) => {
        if (lease.kind === 'credential') {
          return [keys.credential(lease.id), keys.backendCredentials(lease.backend ?? ''), keys.none, keys.none];
        }
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
      sinceMs ?? '',
      ...leases.flatMap((lease) => [
        lease.kind === 'token' ? 't' : 'c',
        lease.id,
        lease.kind === 'token' ? tokenPlace(cell, lease.id)[1] : retireMember(lease),
        lease.expiresAtMs,
        Math.floor(lease.expiresAtMs / SLOT_MS),
        lease.taskId ?? '',
      ]),
    ],
    { nowMs, audit },
  )) as string[];
  const [outcome, position, ...revoked] = reply;
  if (outcome === 'stale') return { revoked: [], stale: true };
  return { revoked, stale: false, ...(position && { position }) };
}
