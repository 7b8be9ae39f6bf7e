import type { LeaseRecord } from '../core/lease.js';
import type { Observe } from '../core/observe.js';
import type { Position } from '../core/position.js';
import type { TaskRecord } from '../core/task.js';
import type { Clock } from '../core/time.js';
import type { Encryption } from './encryption.js';
import type { Keys } from './keys.js';
import type { Memory } from './memory.js';
import type { Line } from './redis.js';
import type { Basis, LockRecord, Refusal } from './stores.js';
import type { TaskRecords } from './task-record.js';
import { fieldOf, secondOf, type TokenRecords } from './token-record.js';

/** What ledger, views and feed share: one broker's hold on one cell. */
export interface Cell {
  line: Line;
  keys: Keys;
  clock: Clock;
  observe: Observe;
  limits: Limits;
  encryption: Encryption;
  tasks: TaskRecords;
  tokens: TokenRecords;
  memory: Memory;
  locks: { version: string; records: LockRecord[] };
}

export interface Limits {
  /** Longest life of any token; records of tokens are kept a little longer. */
  tokenTtlMsMax: number;
  /** How long an ended task, a closed credential is still shown. */
  retentionMs: number;
  /** How long lists (of tasks, revocations) go back. */
  listMs: number;
  /** Feed entries above which the oldest quarter becomes one cut-off. */
  feedEntriesMax: number;
  bundlesMax: number;
  /** A broker whose clock is further from Redis' is not ready. */
  clockSkewMsMax: number;
  /** Age of the oldest record not yet moved to a file, past which grants close. */
  auditBacklogMsMax: number;
  /** Share of Redis' memory past which grants close. */
  memoryShareMax: number;
  /** How often at least everything due is looked for. */
  sweepEveryMs: number;
}

export const LIMITS: Limits = {
  tokenTtlMsMax: 900_000,
  retentionMs: 7 * 86_400_000,
  listMs: 40 * 86_400_000,
  feedEntriesMax: 200_000,
  bundlesMax: 50,
  clockSkewMsMax: 5_000,
  auditBacklogMsMax: 60_000,
  memoryShareMax: 0.8,
  sweepEveryMs: 500,
};

/** Expiries of token leases are counted in slots of this length. */
export const SLOT_MS = 15_000;
/** How long entries and records outlive what they are about: skew between clocks. */
export const SKEW_MS = 60_000;
const RECORD_MARGIN_MS = 120_000;

export const isTaskId = (id: string) => id.startsWith('tsk_');
export const isLeaseId = (id: string) => id.startsWith('lse_');

/** Ids from the root to the task; undefined when there is no such task. */
export async function pathOf(cell: Cell, taskId: string): Promise<string[] | undefined> {
  return (await pathsOf(cell, [taskId]))[0];
}

/** Ids from the root to each of a page of tasks. A path never changes: those that this broker knows are not asked for. */
export async function pathsOf(cell: Cell, taskIds: readonly string[]): Promise<(string[] | undefined)[]> {
  const known = taskIds.map((id) => cell.tasks.charterOf(id)?.path);
  const unknown = taskIds.filter((_, at) => !known[at]);
  if (unknown.length === 0) return known;
  const keys = unknown.map((id) => cell.keys.task(id));
  const paths = ((await cell.line.run('paths', keys, [])) as (string | null)[]).values();
  return known.map((path) => path ?? paths.next().value?.split(','));
}

/** A reply of scripts that grant: what came to pass, or why not. */
export function refusalOf([outcome, by]: string[]): Refusal {
  if (outcome === 'stale') return { outcome, because: by as 'fence' | 'generation' | 'bundle' | 'epoch' };
  return { outcome, by } as Refusal;
}

export function basisWords(basis: Basis): [Position, string] {
  return [basis.position, basis.bundle];
}

/** How long the record of a token lease is kept, counted from now. */
export function recordLifeMs(cell: Cell, lease: LeaseRecord, nowMs: number): number {
  const secondEndsMs = (secondOf(lease.id) + 1) * 1_000;
  return Math.max(secondEndsMs + cell.limits.tokenTtlMsMax, lease.expiresAtMs) + RECORD_MARGIN_MS - nowMs;
}

/** How long the record of a task is kept, counted from now. */
export function taskLifeMs(cell: Cell, task: { deadlineMs: number }, nowMs: number): number {
  return Math.max(task.deadlineMs - nowMs, 0) + cell.limits.retentionMs;
}

/**
 * Whether a lease's id is one of this cell. The place of a token is made of what is behind the cell's name: under another name it would be found as
 * well, and whatever was done to it would be done, and told, under that name.
 */
export function isOwnLease({ keys }: Pick<Cell, 'keys'>, leaseId: string): boolean {
  return leaseId.startsWith(`lse_${keys.cell}_`);
}

/** Where a token lease of this cell is: the key of its second, its field. */
export function tokenPlace(cell: Cell, leaseId: string): [key: string, field: string] {
  return [cell.keys.tokensAt(secondOf(leaseId)), fieldOf(leaseId)];
}

/** The locks that a script sent because they changed, or those known already. Expired ones are left out. */
export function locksOf(cell: Cell, version: string, changed: string[] | null, nowMs: number): LockRecord[] {
  if (changed) cell.locks = { version, records: changed.map((signed) => readLock(cell, signed)) };
  const byMs = cell.line.earlierMs(nowMs);
  return cell.locks.records.filter((lock) => lock.expiresAtMs === undefined || lock.expiresAtMs > byMs);
}

export function readLock(cell: Cell, signed: string): LockRecord {
  return JSON.parse(cell.encryption.verify('lock', 'locks', signed)) as LockRecord;
}

export function writeLock(cell: Cell, lock: LockRecord): string {
  return cell.encryption.sign('lock', 'locks', JSON.stringify(lock));
}

export function rootOf(task: Pick<TaskRecord, 'path'>): string {
  return task.path[0] as string;
}
