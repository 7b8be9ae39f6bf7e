import type { EpochMs } from './time.js';

/** The kinds of audit record (docs/reference/audit-events.md is generated from this list). */
export const AUDIT_TYPES = {
  'task.opened': 'A task was opened.',
  'task.ended': 'A task reached its terminal state.',
  'task.suspended': 'A task was suspended; all that was given for it is dead.',
  'task.resumed': 'A suspended task goes on; everything is decided anew.',
  'task.context_changed': "A task's context changed and its generation rose.",
  'task.drained': 'Everything below an ended task was moved.',
  'token.minted': 'A task token was minted.',
  'token.revoked': 'One token was revoked by its owner or holder.',
  'credential.intended': 'A credential is about to be issued.',
  'credential.issued': 'A backend issued a credential and its lease became active.',
  'credential.renewed': 'A credential lives longer, decided anew.',
  'credential.revoking': 'A credential is being revoked.',
  'credential.revoked': 'A credential is dead, confirmed by its backend.',
  'credential.abandon_requested': 'A first operator asked to give up on a credential.',
  'credential.orphan': 'A backend had something under our names that no live lease answers for; it is revoked.',
  'credential.lost': 'A credential was believed alive and its backend does not have it.',
  'credential.abandoned': 'An operator gave up on a credential, with a reason.',
  'lease.re_evaluated': "A live lease was judged again under today's rules.",
  'leases.revoked': 'A page of leases was moved by a drain or a revocation.',
  'request.refused': 'A request was refused: denied by policy, not found, or not proven.',
  'call.decided': 'A tool call was decided.',
  'revocation.applied': 'A selector was revoked.',
  'revocation.finished': 'The enumeration behind a revocation is done.',
  'lock.set': 'A selector was revoked and new grants for it are forbidden.',
  'lock.lift_requested': 'A first person asked to lift a lock.',
  'lock.lifted': 'A lock was lifted.',
  'bundle.activated': 'A bundle became the active one.',
  'key.moved': 'A signing key changed its state.',
  'key.tainted_use': 'A token signed by a tainted key was presented.',
  'epoch.raised': 'The store may have forgotten: every earlier token is dead.',
  'feed.acknowledged': 'An enforcement point acknowledged a revocation.',
  'audit.dropped': 'Unauthenticated refusals were counted instead of written one by one.',
} as const;

export type AuditType = keyof typeof AUDIT_TYPES;

/** One record. It is written by the same script as the change it describes; the script adds `pos`. */
export interface AuditRecord {
  /** `dec_…`: what a refusal shows to its caller and `mayfly why` explains. */
  id: string;
  atMs: EpochMs;
  type: AuditType;
  /** Three identities, never mixed, and the whole actor chain: who had the token first stands first, who holds it now last. */
  actor: { workload?: string; person?: string; model?: string; onBehalfOf?: string; chain?: string[]; proof?: string };
  task?: string;
  generation?: number;
  lease?: string;
  action?: string;
  resource?: string;
  argumentsDigest?: string;
  effect?: 'allow' | 'deny' | 'ask';
  code?: string;
  bundle?: string;
  policyIds?: string[];
  reasons?: string[];
  requestId?: string;
  traceId?: string;
  detail?: Record<string, unknown>;
}
