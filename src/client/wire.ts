import type { Selector } from '../core/selector.js';
import type { TaskState } from '../core/task.js';

/*
 * What the broker's JSON looks like, member for member as it is on the wire (snake_case; `/openapi.json` is the reference). The keys of `context`
 * and `params` belong to their users.
 */

export interface TaskBody {
  type?: string;
  params?: Record<string, unknown>;
  purpose: string;
  ref?: string;
  agents?: string[];
  scope?: { tools?: string[]; resources?: string[]; secrets?: string[] };
  context?: Record<string, unknown>;
  ttl_seconds?: number;
  heartbeat_seconds?: number;
  on_silence?: 'suspend' | 'end';
  on_context_change?: 're-evaluate' | 'revoke';
  /** A task's id, or `ref:<ref>`. */
  parent?: string;
  on_behalf_of?: string;
  on_behalf_of_token?: string;
}

export interface TaskReply {
  id: string;
  ref?: string;
  type?: string;
  params: Record<string, unknown>;
  purpose: string;
  risk: 'low' | 'medium' | 'high';
  /** Ids from the root to this task. */
  path: string[];
  parent?: string;
  state: TaskState;
  generation: number;
  opener: string;
  opener_kind: 'agent' | 'orchestrator' | 'person';
  self_opened: boolean;
  on_behalf_of?: { name: string; proven: boolean };
  agents: string[];
  scope: { tools: string[]; resources: string[]; secrets: string[] };
  context: Record<string, unknown>;
  created_at: string;
  deadline: string;
  heartbeat_seconds?: number;
  last_heartbeat_at?: string;
  on_silence: 'suspend' | 'end';
  on_context_change: 're-evaluate' | 'revoke';
  bundle: string;
  ended_at?: string;
  ended_by?: string;
  end_reason?: string;
}

export interface OpenedReply extends TaskReply {
  /** Context keys that no task type declares: no policy sees them. */
  warnings?: string[];
}

/** The end of a ref that its opener has not opened yet is kept for 16 minutes. */
export interface KeptEnd {
  ref: string;
  kept: true;
}

export interface TaskEvent {
  kind: string;
  task: TaskReply;
}

export interface Page<Item> {
  items: Item[];
  next_cursor?: string;
}

export interface PageQuery {
  cursor?: string;
  limit?: number;
}

export interface TokenReply {
  access_token: string;
  issued_token_type: string;
  token_type: 'Bearer' | 'DPoP';
  expires_in: number;
  scope: string;
  authorization_details?: unknown[];
  lease_id: string;
}

export interface LeaseReply {
  id: string;
  kind: 'token' | 'credential';
  state: 'pending' | 'active' | 'revoking' | 'revoked' | 'abandoned';
  dead_because?: string;
  task?: string;
  path: string[];
  agent: string;
  actors: string[];
  on_behalf_of?: string;
  opener?: string;
  owner?: string;
  team?: string;
  environment?: string;
  resource?: string;
  tools: string[];
  secret?: string;
  backend?: string;
  sensitivity?: string;
  revocability?: RevocabilityReply;
  renewable?: boolean;
  replaces?: string;
  /** Credentials on their way out: attempts so far, what was wrong with the last one, when the next is. */
  attempts?: number;
  last_problem?: string;
  next_attempt_at?: string;
  /** How its death is known; what is left of it that nobody can use. */
  evidence?: string;
  residue?: string;
  /** Until when it may still work at its backend, or `unbounded`. */
  residual?: string;
  binding: 'none' | 'dpop' | 'mtls';
  bundle: string;
  key?: string;
  identity_key?: string;
  position: string;
  created_at: string;
  expires_at: string;
  revoked_at?: string;
  revoked_reason?: string;
}

export interface RevocabilityReply {
  kind: 'instant' | 'eventual' | 'expiry-only' | 'rotate-only';
  within_seconds?: number;
  ttl_seconds_max?: number;
}

export interface SecretBody {
  /** A task's id, or `ref:<ref>`. */
  task: string;
  ttl_seconds?: number;
}

/** A credential for a task, in the words of Vault. */
export interface SecretReply {
  request_id: string;
  lease_id: string;
  /** Seconds. */
  lease_duration: number;
  renewable: boolean;
  data: Record<string, string | number>;
  warnings?: string[];
  task: string;
  revocability: RevocabilityReply;
  /** The lease that was revoked for this one: the request was repeated. */
  replaces?: string;
}

export interface RenewalReply {
  request_id: string;
  lease_id: string;
  lease_duration: number;
  renewable: boolean;
}

/** A declared secret, and whether it can be had now. */
export interface SecretSummary {
  name: string;
  backend: string;
  kind?: string;
  sensitivity: string;
  ttl_seconds_max: number;
  revocability?: RevocabilityReply;
  open: boolean;
  problem?: string;
}

export interface BackendReply {
  name: string;
  kind: string;
  state: 'up' | 'down' | 'degraded';
  breaker: 'closed' | 'open';
  problem?: string;
  pending: number;
  active: number;
  revoking: number;
  stuck: number;
  /** When what is there was last compared with the leases; absent where it cannot be listed. */
  reconciled_at?: string;
  /** Found then, though nobody stood for them, and revoked. */
  orphans?: number;
  orphans_ever?: number;
  /** Leases whose credential was not there then. */
  lost?: number;
  secrets: { name: string; open: boolean; problem?: string }[];
}

export interface PreviewReply {
  agents: string[];
  tasks: string[];
  leases: number;
  credentials: number;
  resources: { resource: string; leases: number; enforcement: string; residual_seconds_max: number }[];
  /** The count stopped at its limit: there is more. */
  at_least: boolean;
}

export interface RevocationReply {
  id: string;
  selector: Selector;
  reason: string;
  by: string;
  lock?: string;
  created_at: string;
  position?: string;
  done: boolean;
  finished_at?: string;
  found?: { leases: number; tasks: number; agents: number; credentials: number };
  /** Where what was hit can only expire, and when the last of it does. */
  remains?: { resource: string; until: string }[];
  /** Enforcement points: who acknowledged it, and who is silent. */
  readers?: { name: string; resources: string[]; acknowledged: boolean }[];
  /** A signed JWT: what was revoked, who acknowledged, what remains. */
  receipt?: string;
}

export interface LockReply {
  id: string;
  selector: Selector;
  reason: string;
  by: string;
  system: boolean;
  created_at: string;
  expires_at?: string;
  lift_requested_by?: string;
  lift_requested_at?: string;
}

/** `revocation` and `lock` are absent in a dry run. */
export interface RevokedReply {
  preview: PreviewReply;
  revocation?: RevocationReply;
  lock?: LockReply;
  warnings: string[];
  /** Those of the warnings that say what the selector names and the broker does not know. */
  unknown?: string[];
}

export interface KeyReply {
  kid: string;
  alg: 'ES256' | 'RS256';
  state: 'prepare' | 'active' | 'retiring' | 'tainted';
  created_at: string;
  activated_at?: string;
  retired_at?: string;
  public_jwk: Record<string, string>;
}

export interface FeedReaderReply {
  name: string;
  resources: string[];
  position: string;
  acknowledged_at: string;
}

export interface AuditReply {
  id: string;
  at: string;
  type: string;
  actor: Record<string, unknown>;
  task?: string;
  lease?: string;
  action?: string;
  resource?: string;
  effect?: 'allow' | 'deny' | 'ask';
  code?: string;
  detail?: Record<string, unknown>;
  [member: string]: unknown;
}

export interface AuditQuery extends PageQuery {
  agent?: string;
  task?: string;
  lease?: string;
  type?: string;
  /** RFC 3339. */
  from?: string;
  to?: string;
}

export interface BundleReply {
  digest: string;
  files: Record<string, string>;
  history: { digest: string; activated_at: string; active: boolean }[];
}

/** What judging live leases again would make of them; at most 1,000 of those that die are named. */
export interface VerdictsReply {
  kept: number;
  dying: number;
  revoked: { lease: string; agent: string; reason: string }[];
  /** The count stopped at its limit: there is more. */
  at_least: boolean;
}

export interface BundlePreviewReply {
  digest: string;
  changes: { added: string[]; changed: string[]; removed: string[] };
  leases: VerdictsReply;
}

export interface ReadinessReply {
  ready: boolean;
  checks: { name: string; ok: boolean }[];
}

export interface HealthReply {
  grants_closed?: string;
  checks: { name: string; ok: boolean; detail: string; advice?: string; absent?: true }[];
}
