import type { Evidence, Handle, Revocability } from './credential.js';
import { isBefore, type Position } from './position.js';
import { isTerminal, type TaskRecord } from './task.js';
import type { EpochMs } from './time.js';

/**
 * The record of one thing given out.
 *
 *     credential: pending → active → revoking → revoked
 *                 pending → revoking            revoking → abandoned (an operator's word, with a reason)
 *     token:      active → revoked              (its expiry is a fact, not a move, and needs nobody)
 */
export type LeaseState = 'pending' | 'active' | 'revoking' | 'revoked' | 'abandoned';

export interface LeaseRecord {
  id: string;
  kind: 'token' | 'credential';
  /** Absent for an operator token. */
  taskId?: string;
  /** Ids above it, root to parent: tasks, then (delegated) the leases above. */
  path: string[];
  /** SPIFFE ID of the agent that holds it; for an operator token the person's name. */
  agent: string;
  /** Everybody it passed through, first delegator first; the agent itself excluded. */
  actors: string[];
  onBehalfOf?: string;
  opener?: string;
  owner?: string;
  team?: string;
  environment?: string;
  /** The audience (tokens). */
  resource?: string;
  tools: string[];
  /** Credentials: the declared name, the backend that issues it, how well it can be taken back, and how to find it there. */
  secret?: string;
  backend?: string;
  sensitivity?: 'public' | 'internal' | 'confidential' | 'restricted';
  revocability?: Revocability;
  handle?: Handle;
  renewable?: boolean;
  /** The lease that this one stands in for: its request was repeated. */
  replaces?: string;
  /** Past it nothing may be made for this credential. Gone once it was committed: whoever has it may still be about to be made. */
  intentDeadlineMs?: EpochMs;
  /** The position its minter had read before it decided. A renewal keeps it. */
  position: Position;
  /** The generations of the tasks on its path, root first, as decided under. */
  generations: number[];
  bundle: string;
  /** `kid` of our key that signed it (tokens). */
  keyId?: string;
  /** The key that signed the identity it was obtained with (core/identity.ts). */
  identityKeyId?: string;
  /** The kind of proof it was obtained with (core/identity.ts): policy may look at it again. */
  proof?: string;
  binding: 'none' | 'dpop' | 'mtls';
  state: LeaseState;
  createdAtMs: EpochMs;
  expiresAtMs: EpochMs;
  revokedAtMs?: EpochMs;
  revokedReason?: string;
  /** Credentials: since when it ought to be dead; attempts begun so far, the last problem, when the next is due. */
  revokingAtMs?: EpochMs;
  attempts?: number;
  lastProblem?: string;
  nextAttemptMs?: EpochMs;
  stuck?: true;
  /** How its death is known, once it is; and what is left of it that nobody can use. */
  evidence?: Evidence;
  residue?: string;
}

/** Whether it is a person's token for this broker itself: it belongs to no task. */
export function isOperatorToken({ kind, taskId }: LeaseRecord): boolean {
  return kind === 'token' && taskId === undefined;
}

/** Whether it is over by its own state, whatever became of what is above it. What is being revoked may still work. */
export function isClosed({ state }: LeaseRecord): boolean {
  return state === 'revoked' || state === 'abandoned';
}

/** So many failed attempts make a credential stuck: shown, with its owner and what is still exposed. Attempts go on for ever all the same. */
export const STUCK_ATTEMPTS = 6;

/** Why a lease is not worth anything, or undefined while it is. The one function every reader uses. */
export type DeadBecause = 'expired' | 'lease' | 'task' | 'suspended' | 'lease-above' | 'cut' | 'revocation';

export interface AboveLease {
  /** The tasks of its path, root first. */
  tasks: TaskRecord[];
  /** The leases above it, outermost first. */
  leases: LeaseRecord[];
  /** True when a revocation entry newer than its position matches it (core/revocations.ts). */
  revoked: boolean;
}

/**
 * A lease's effective state is its own and that of every task and lease above it; it is also dead when its position is older
 * than a revocation that matches it, or than the last cut (suspension, revoking context change, end) on its path.
 * A lease above that merely expired does not kill a credential below it; a token never outlives it anyway.
 */
export function deadBecause(lease: LeaseRecord, above: AboveLease, nowMs: EpochMs): DeadBecause | undefined {
  if (lease.state !== 'active' && lease.state !== 'pending') return 'lease';
  if (lease.expiresAtMs <= nowMs) return 'expired';
  for (const task of above.tasks) {
    if (isTerminal(task.state) || task.deadlineMs <= nowMs) return 'task';
    if (task.state === 'suspended') return 'suspended';
    if (task.cutAt && isBefore(lease.position, task.cutAt)) return 'cut';
  }
  if (above.leases.some((parent) => parent.state !== 'active')) return 'lease-above';
  return above.revoked ? 'revocation' : undefined;
}
