import type { WorkloadDeclaration } from '../core/agent.js';
import { BrokerError } from '../core/errors.js';
import type { LeaseRecord } from '../core/lease.js';
import type { TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import type { Reading } from '../state/stores.js';
import type { Caller } from './caller.js';
import type { SecretAllowed } from './may-read.js';

/** Making one takes some of its life, and ends are whole seconds: what is shorter would be over before anybody could use it. */
export const CREDENTIAL_LIFE_MS_MIN = 5_000;

export interface CredentialGrant {
  leaseId: string;
  caller: Caller;
  declaration: WorkloadDeclaration;
  reading: Reading;
  allowed: SecretAllowed;
  nowMs: EpochMs;
}

/**
 * The lease of a decided credential. Asked for with the caller's own identity its parent is the task; asked for with a token it also hangs on
 * that token's leases. It may outlive the identity and the token it was asked with, never the task.
 */
export function draftCredential(grant: CredentialGrant): LeaseRecord {
  const { leaseId, caller, declaration, reading, allowed, nowMs } = grant;
  const task = reading.tasks.at(-1) as TaskRecord;
  const { secret, backend, settings, revocability } = allowed;
  const parent = reading.leases.at(-1);
  const expiresAtMs = Math.floor(endOf(allowed, nowMs) / 1_000) * 1_000;
  const identity = caller.principal.identity;
  const onBehalfOf = parent?.onBehalfOf ?? task.onBehalfOf?.name;
  return {
    id: leaseId,
    kind: 'credential',
    taskId: task.id,
    path: [...task.path, ...reading.leases.map((lease) => lease.id)],
    agent: caller.principal.kind === 'person' ? caller.name : caller.principal.identity.spiffeId,
    actors: parent?.actors ?? [],
    ...(onBehalfOf !== undefined && { onBehalfOf }),
    opener: task.opener,
    owner: declaration.owner,
    team: declaration.team,
    environment: declaration.environment,
    tools: [],
    secret: secret.name,
    backend: backend.name,
    sensitivity: secret.sensitivity,
    revocability,
    handle: backend.plan({ leaseId, settings }),
    position: reading.position,
    generations: reading.tasks.map((one) => one.generation),
    bundle: reading.bundle,
    ...(identity.keyId !== '' && { identityKeyId: identity.keyId }),
    proof: identity.proof,
    binding: caller.binding,
    state: 'pending',
    createdAtMs: nowMs,
    expiresAtMs,
  };
}

function endOf({ ttlMsMax, untilMsMax }: SecretAllowed, nowMs: EpochMs): EpochMs {
  if (untilMsMax - nowMs < CREDENTIAL_LIFE_MS_MIN) {
    throw new BrokerError('task_over', 'The task is about to be over.', {
      reason: `less than ${CREDENTIAL_LIFE_MS_MIN / 1_000} s are left of it, or of the exception for its secret`,
    });
  }
  if (ttlMsMax < CREDENTIAL_LIFE_MS_MIN) {
    throw new BrokerError('denied', 'Policy or the secret’s declaration allow too short a life to be of use.', {
      reason: `${ttlMsMax} ms are allowed`,
    });
  }
  return Math.min(nowMs + ttlMsMax, untilMsMax);
}
