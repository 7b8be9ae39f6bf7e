import type { Position } from './position.js';
import type { EpochMs } from './time.js';

/**
 * The life of a task:
 *
 *     active ⇄ suspended
 *        \       /
 *     completed | failed | cancelled | expired | silent | revoked
 *
 * The first terminal state wins and nothing leaves it.
 */
export type TaskState = 'active' | 'suspended' | TerminalState;
export type TerminalState = 'completed' | 'failed' | 'cancelled' | 'expired' | 'silent' | 'revoked';

const TERMINAL: readonly TaskState[] = ['completed', 'failed', 'cancelled', 'expired', 'silent', 'revoked'];

export function isTerminal(state: TaskState): state is TerminalState {
  return TERMINAL.includes(state);
}

/** The deepest path: a root task and four below it. */
export const PATH_DEPTH_MAX = 5;

/** What a task may use at most; a child's is within its parent's. */
export interface TaskScope {
  tools: string[];
  resources: string[];
  secrets: string[];
}

export interface OnBehalfOf {
  /** A person's `<issuer>#<subject>`, or whatever the opener asserted. */
  name: string;
  /** True only when a person's own token proved it; an asserted one never becomes `sub`. */
  proven: boolean;
}

/** What is fixed when a task is opened. */
export interface TaskCharter {
  id: string;
  /** Ids from the root to this task; the last is its own. At most PATH_DEPTH_MAX. */
  path: string[];
  /** The opener's own id for it, unique per opener. */
  ref?: string;
  /** A declared type; absent for an untyped task. */
  type?: string;
  params: Record<string, unknown>;
  purpose: string;
  risk: 'low' | 'medium' | 'high';
  /** `nameOf` of who opened it. */
  opener: string;
  openerKind: 'agent' | 'orchestrator' | 'person';
  onBehalfOf?: OnBehalfOf;
  /** SPIFFE IDs of the agents that may get something for it. */
  agents: string[];
  scope: TaskScope;
  /** True when an agent opened it for itself: its context is untrusted. */
  selfOpened: boolean;
  createdAtMs: EpochMs;
  deadlineMs: EpochMs;
  heartbeatMs?: number;
  onSilence: 'suspend' | 'end';
  onContextChange: 're-evaluate' | 'revoke';
  /** The bundle it was opened under. */
  bundle: string;
}

/** A task as the store has it: its charter and what changes. */
export interface TaskRecord extends TaskCharter {
  state: TaskState;
  /** Raised by every context change, suspension and resumption. */
  generation: number;
  /** The task's own context; the effective one is the path's, merged (core/context.ts). */
  context: Record<string, unknown>;
  /** The position of the last end, suspension or revoking context change: older leases at or below are dead. */
  cutAt?: Position;
  lastHeartbeatMs?: EpochMs;
  /** The latest expiry of any token minted at or below it. */
  liveUntilMs: EpochMs;
  endedAtMs?: EpochMs;
  endReason?: string;
  endedBy?: string;
}

const REF = /^ref:([\x21-\x7e]{1,200})$/;

/** The `<ref>` of `ref:<ref>`, which names a task by its opener's own id; undefined when the name has another form. */
export function refIn(name: string): string | undefined {
  return REF.exec(name)?.[1];
}
