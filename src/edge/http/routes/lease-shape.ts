import { z } from 'zod';
import type { LeaseRecord } from '../../../core/lease.js';
import { defined, instant } from '../wire.js';
import { revocabilityOnWire, revocabilityShape } from './revocability-shape.js';
import { moment, texts } from './shapes.js';

export const leaseShape = z.strictObject({
  id: z.string(),
  kind: z.enum(['token', 'credential']),
  state: z.enum(['pending', 'active', 'revoking', 'revoked', 'abandoned']).meta({ description: 'Its own state' }),
  dead_because: z
    .enum(['expired', 'lease', 'task', 'suspended', 'lease-above', 'cut', 'revocation', 'epoch', 'tainted-key'])
    .optional()
    .meta({ description: 'Why it is worth nothing, whatever its own state; absent while it is alive, and in lists' }),
  task: z.string().optional(),
  path: texts.meta({ description: 'Ids above it: tasks, then (delegated) leases' }),
  agent: z.string(),
  actors: texts,
  on_behalf_of: z.string().optional(),
  opener: z.string().optional(),
  owner: z.string().optional(),
  team: z.string().optional(),
  environment: z.string().optional(),
  resource: z.string().optional(),
  tools: texts,
  secret: z.string().optional(),
  backend: z.string().optional(),
  sensitivity: z.string().optional(),
  revocability: revocabilityShape.optional(),
  renewable: z.boolean().optional(),
  replaces: z.string().optional(),
  attempts: z.int().optional().meta({ description: 'At revoking it, so far' }),
  last_problem: z.string().optional(),
  next_attempt_at: moment.optional(),
  stuck: z.boolean().optional(),
  evidence: z
    .enum(['confirmed', 'verified-dead', 'not-probed', 'expired', 'unbounded'])
    .optional()
    .meta({ description: 'How its death is known' }),
  residue: z.string().optional().meta({ description: 'What is left of a dead one that nobody can use' }),
  residual: z
    .string()
    .optional()
    .meta({ description: 'Until when it may still work though it was ended: a moment, or `unbounded`' }),
  binding: z.enum(['none', 'dpop', 'mtls']),
  bundle: z.string(),
  key: z.string().optional().meta({ description: '`kid` of the key that signed the token' }),
  identity_key: z.string().optional(),
  position: z.string(),
  created_at: moment,
  expires_at: moment,
  revoked_at: moment.optional(),
  revoked_reason: z.string().optional(),
});

export function leaseOnWire(lease: LeaseRecord): z.output<typeof leaseShape> {
  return defined({
    id: lease.id,
    kind: lease.kind,
    state: lease.state,
    task: lease.taskId,
    path: lease.path,
    agent: lease.agent,
    actors: lease.actors,
    on_behalf_of: lease.onBehalfOf,
    opener: lease.opener,
    owner: lease.owner,
    team: lease.team,
    environment: lease.environment,
    resource: lease.resource,
    tools: lease.tools,
    secret: lease.secret,
    backend: lease.backend,
    sensitivity: lease.sensitivity,
    revocability: lease.revocability && revocabilityOnWire(lease.revocability),
    renewable: lease.renewable,
    replaces: lease.replaces,
    attempts: lease.attempts,
    last_problem: lease.lastProblem,
    next_attempt_at: instant(lease.nextAttemptMs),
    stuck: lease.stuck,
    evidence: lease.evidence,
    residue: lease.residue,
    residual: residualOf(lease),
    binding: lease.binding,
    bundle: lease.bundle,
    key: lease.keyId,
    identity_key: lease.identityKeyId,
    position: lease.position,
    created_at: instant(lease.createdAtMs),
    expires_at: instant(lease.expiresAtMs),
    revoked_at: instant(lease.revokedAtMs),
    revoked_reason: lease.revokedReason,
  });
}

/** What is being revoked may work until its backend says otherwise, or its own end; what only a rotation kills has none. */
function residualOf({ kind, state, evidence, revocability, expiresAtMs }: LeaseRecord): string | undefined {
  if (kind !== 'credential' || (state !== 'revoking' && state !== 'abandoned')) return undefined;
  return evidence === 'unbounded' || revocability?.kind === 'rotate-only' ? 'unbounded' : instant(expiresAtMs);
}
