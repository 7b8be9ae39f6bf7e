import type { AuditRecord } from '../core/audit.js';
import { counted } from '../core/counted.js';
import { BrokerError } from '../core/errors.js';
import { isId } from '../core/ids.js';
import { type DeadBecause, deadBecause, type LeaseRecord } from '../core/lease.js';
import { epochOf } from '../core/position.js';
import { isTerminal, refIn, type TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import type { AuditFilter, LockRecord, Page, RevocationRecord } from '../state/stores.js';
import { currentBundle } from './authenticate.js';
import type { Caller } from './caller.js';
import { findTaskId } from './find-task.js';
import { mustBeId, mustBeName, notExplained } from './named.js';
import { isOwnToken, readOwnToken } from './own-token.js';
import { paged } from './paged.js';
import type { Parts } from './parts.js';
import { mayOperate, mustOperate, reachTask, standingOf } from './permitted.js';
import { reachLease } from './reach-lease.js';
import { getRevocation } from './receipt.js';
import { notFound, recordingRefusals } from './refusal.js';
import { spokenFor } from './spoken-for.js';

export async function getTask(parts: Parts, caller: Caller, name: string): Promise<TaskRecord> {
  return recordingRefusals(
    parts,
    caller,
    { action: 'get_task', task: name },
    async () => (await reachTask(parts, caller, name)).task,
  );
}

/** Operators see all tasks, anybody else those they opened or that name them. */
export async function listTasks(
  parts: Parts,
  caller: Caller,
  filter: { agent?: string; opener?: string; live?: boolean; cursor?: string; limit: number },
): Promise<Page<TaskRecord>> {
  return recordingRefusals(parts, caller, { action: 'list_tasks' }, async () => {
    mustBeName(currentBundle(parts), 'agent', filter.agent);
    mustBeName(currentBundle(parts), 'opener', filter.opener);
    const read = (own: typeof filter) => paged(parts, caller, 'tasks', own, parts.views.tasks);
    if (mayOperate(parts, caller, 'view')) return read(filter);
    const { agent: _, opener: __, ...rest } = filter;
    const own = caller.principal.kind === 'agent' ? { agent: caller.name } : { opener: caller.name };
    const page = await read({ ...rest, ...own });
    // A token of ours speaks for its own task only.
    return caller.token ? { ...page, items: page.items.filter((task) => standingOf(caller, [task], false)) } : page;
  });
}

/** A lease, and why it is worth nothing if it is. */
export interface LeaseView {
  lease: LeaseRecord;
  dead?: DeadBecause | 'epoch' | 'tainted-key';
}

/** For the agent that holds it, the opener of its task, and operators. */
export async function getLease(parts: Parts, caller: Caller, id: string): Promise<LeaseView> {
  return recordingRefusals(parts, caller, { action: 'get_lease', lease: id }, async () => {
    const found = await reachLease(parts, caller, id);
    const dead =
      deadBecause(found.lease, { ...found, revoked: false }, parts.clock.now()) ?? deadAsToken(parts, found.lease);
    return { lease: found.lease, ...(dead && { dead }) };
  });
}

/** What verifiers refuse a token for without a word in its record: nobody enumerates what a new epoch or a tainted key kills. */
function deadAsToken(parts: Parts, { kind, position, keyId }: LeaseRecord): LeaseView['dead'] {
  if (kind !== 'token') return undefined;
  if (epochOf(position) < epochOf(parts.feed.position())) return 'epoch';
  return keyId !== undefined && parts.keys.byKid(keyId)?.state === 'tainted' ? 'tainted-key' : undefined;
}

export async function listLeases(
  parts: Parts,
  caller: Caller,
  filter: Omit<Parameters<Parts['views']['leases']>[0], 'backend'>,
): Promise<Page<LeaseRecord>> {
  return recordingRefusals(parts, caller, { action: 'list_leases' }, async () => {
    const read = (own: typeof filter) => paged(parts, caller, 'leases', own, parts.views.leases);
    mustBeName(currentBundle(parts), 'agent', filter.agent);
    if (filter.task !== undefined && refIn(filter.task) === undefined) mustBeId('tsk', 'task', filter.task);
    if (mayOperate(parts, caller, 'view')) {
      return read(
        filter.task === undefined ? filter : { ...filter, task: await findTaskId(parts, filter.task, caller) },
      );
    }
    if (filter.task !== undefined) {
      const reach = await reachTask(parts, caller, filter.task);
      const own = reach.standing === 'opener' ? {} : { agent: caller.name };
      return read({ ...filter, task: reach.task.id, ...own });
    }
    // A token of ours speaks for its own task only.
    const task = spokenFor(caller)?.taskId;
    return read({ ...filter, agent: caller.name, ...(task !== undefined && { task }) });
  });
}

export async function listRevocations(
  parts: Parts,
  caller: Caller,
  page: { cursor?: string; limit: number },
): Promise<Page<RevocationRecord>> {
  return recordingRefusals(parts, caller, { action: 'list_revocations' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    return paged(parts, caller, 'revocations', page, parts.views.revocations);
  });
}

/** Newest first: the one that was just set is looked for most. */
export async function listLocks(parts: Parts, caller: Caller): Promise<LockRecord[]> {
  return recordingRefusals(parts, caller, { action: 'list_locks' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    const locks = await parts.views.locks(parts.clock.now());
    return [...locks].sort((a, b) => b.createdAtMs - a.createdAtMs);
  });
}

export async function readAudit(parts: Parts, caller: Caller, filter: AuditFilter): Promise<Page<AuditRecord>> {
  return recordingRefusals(parts, caller, { action: 'read_audit' }, async () => {
    mustOperate(parts, caller, 'audit', { bound: false });
    mustBeName(currentBundle(parts), 'agent', filter.agent);
    mustBeId('tsk', 'task', filter.task);
    mustBeId('lse', 'lease', filter.lease);
    return paged(parts, caller, 'audit', filter, (own) => parts.auditLog.read(own));
  });
}

export async function activeBundle(
  parts: Parts,
  caller: Caller,
): Promise<{
  digest: string;
  files: Record<string, string>;
  history: { digest: string; activatedAtMs: number; active: boolean }[];
}> {
  return recordingRefusals(parts, caller, { action: 'get_bundle' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    const active = await parts.views.activeBundle();
    if (!active) throw new BrokerError('unavailable', 'No bundle is active yet.', { retryAfterSeconds: 1 });
    return { ...active, history: await parts.views.bundles() };
  });
}

/** Why something is as it is: a record by its id, with what the task or lease behind it looks like now. */
export interface Explanation {
  record?: AuditRecord;
  task?: TaskRecord;
  lease?: LeaseView;
  lock?: LockRecord;
  revocation?: RevocationRecord;
  /** In words, most telling first. */
  because: string[];
}

/** Explains a decision id, a lease, a task, a lock, a revocation or a token, to those who may know: auditors, operators, and whom the record is about. */
export async function why(parts: Parts, caller: Caller, subject: string): Promise<Explanation> {
  return recordingRefusals(parts, caller, { action: 'why' }, async () => {
    if (isId('dec', subject)) return whyRecord(parts, caller, subject);
    if (isId('lse', subject)) return whyLease(parts, caller, subject);
    if (isId('lck', subject)) return whyLock(parts, caller, subject);
    if (isOwnToken(parts, subject)) return whyToken(parts, caller, subject);
    if (subject.startsWith('ref:') || isId('tsk', subject)) {
      const task = await getTask(parts, caller, subject);
      return { task, because: [taskWords(task)] };
    }
    if (isId('rev', subject)) return whyRevocation(parts, caller, subject);
    throw notFound(
      'record',
      'neither a decision, a lease, a task, a lock, a revocation nor a token',
      notExplained(subject),
    );
  });
}

async function whyRecord(parts: Parts, caller: Caller, id: string): Promise<Explanation> {
  const found = await parts.auditLog.find(id);
  const mayKnow =
    found &&
    (mayOperate(parts, caller, 'audit') || found.actor.workload === caller.name || found.actor.person === caller.name);
  if (!found || !mayKnow) throw notFound('record', id);
  const because = [...(found.reasons ?? [])];
  if (found.policyIds && found.policyIds.length > 0) because.push(`determined by ${found.policyIds.join(', ')}`);
  const miss = found.detail?.['nearest_miss'];
  if (typeof miss === 'string') because.push(`nearest miss: ${miss}`);
  if (found.code !== undefined) because.push(`answered ${found.code}`);
  return { record: found, because };
}

async function whyLease(parts: Parts, caller: Caller, id: string): Promise<Explanation> {
  const lease = await getLease(parts, caller, id);
  const task = lease.lease.taskId === undefined ? undefined : await parts.views.task(lease.lease.taskId);
  const because = lease.dead === undefined ? ['the lease is live'] : [leaseWords(lease, task)];
  if (task && isTerminal(task.state) && !because.includes(taskWords(task))) {
    // Moved by the drain, it was the end that killed it; otherwise it was dead before.
    if (lease.lease.revokedReason === (task.endReason ?? task.state)) because.unshift(taskWords(task));
    else because.push(taskWords(task));
  }
  const record = mayOperate(parts, caller, 'audit') ? await givenBy(parts, lease.lease) : undefined;
  if (record?.policyIds && record.policyIds.length > 0) because.push(`given by ${record.policyIds.join(', ')}`);
  return { ...(record && { record }), lease, ...(task && { task }), because };
}

/** For operators: others learn of a lock when it refuses them. Of one that was lifted only the audit log knows. */
async function whyLock(parts: Parts, caller: Caller, id: string): Promise<Explanation> {
  const lock = mayOperate(parts, caller, 'view') ? await parts.views.lock(id) : undefined;
  if (!lock) throw notFound('lock', id);
  const isOver = lock.expiresAtMs !== undefined && lock.expiresAtMs <= parts.clock.now();
  const until = lock.expiresAtMs === undefined ? 'until two people lift it' : `until ${timeWords(lock.expiresAtMs)}`;
  const because = [
    `${lock.by} set it at ${timeWords(lock.createdAtMs)}: ${lock.reason}`,
    isOver
      ? `it expired at ${timeWords(lock.expiresAtMs)}`
      : `nothing new is given to what it names ${lock.system ? 'until the key is trusted again' : until}`,
  ];
  if (lock.liftRequestedBy !== undefined) {
    because.push(`${lock.liftRequestedBy} asked to lift it at ${timeWords(lock.liftRequestedAtMs)}`);
  }
  return { lock, because };
}

/** For operators, as with locks. */
async function whyRevocation(parts: Parts, caller: Caller, id: string): Promise<Explanation> {
  const { revocation, readers } = await getRevocation(parts, caller, id);
  const { by, createdAtMs, reason, selector, lockId, found, done } = revocation;
  const what = Object.entries(selector).map(([member, value]) => `${member}=${value}`);
  const because = [
    `${by} revoked ${what.join(' and ')} at ${timeWords(createdAtMs)}: ${reason}`,
    'every token of it that is older was dead at once',
  ];
  if (lockId !== undefined) because.push(`it came with lock ${lockId}, which forbids new grants as long as it holds`);
  const hit = found && `it hit ${counted(found.leases, 'token')} and ${counted(found.credentials, 'credential')}`;
  if (hit) because.push(done ? hit : `${hit} so far, and is still being counted`);
  const silent = readers.filter(({ acknowledged }) => !acknowledged).map(({ name }) => name);
  if (silent.length > 0) because.push(`not acknowledged by ${silent.join(', ')}`);
  return { revocation, because };
}

/** The record of the grant, when it is still among the latest. */
async function givenBy(parts: Parts, lease: LeaseRecord): Promise<AuditRecord | undefined> {
  const type = lease.kind === 'token' ? 'token.minted' : 'credential.issued';
  return (await parts.auditLog.read({ lease: lease.id, type, limit: 1 })).items[0];
}

async function whyToken(parts: Parts, caller: Caller, token: string): Promise<Explanation> {
  let id: string;
  try {
    id = (await readOwnToken(parts, token)).claims.jti;
  } catch {
    throw notFound('record', 'not a genuine token, or expired');
  }
  return whyLease(parts, caller, id);
}

function timeWords(ms: EpochMs | undefined): string {
  return ms === undefined ? 'an unknown time' : new Date(ms).toISOString();
}

function taskWords(task: TaskRecord): string {
  const by = task.endedBy === undefined ? '' : ` by ${task.endedBy}`;
  const at = task.endedAtMs === undefined ? '' : ` at ${new Date(task.endedAtMs).toISOString()}`;
  return `the task is ${task.state}${by}${at}${task.endReason === undefined ? '' : `: ${task.endReason}`}`;
}

function leaseWords({ lease, dead }: LeaseView, task: TaskRecord | undefined): string {
  switch (dead) {
    case 'task':
    case 'suspended':
      return task ? taskWords(task) : 'its task is over';
    case 'expired':
      return `it expired at ${new Date(lease.expiresAtMs).toISOString()}`;
    case 'cut':
      return 'its task was suspended or its context changed after it was given; what came before stays dead';
    case 'epoch':
      return 'the epoch was raised after it was given: tokens of earlier epochs are dead';
    case 'tainted-key':
      return `the key that signed it is tainted: ${lease.keyId}`;
    case 'lease-above':
      return 'a token above it was revoked';
    default:
      return `it was revoked${lease.revokedReason === undefined ? '' : `: ${lease.revokedReason}`}`;
  }
}
