import type { WorkloadDeclaration } from '../core/agent.js';
import { asRecorded } from '../core/as-recorded.js';
import type { SecretDeclaration } from '../core/bundle.js';
import type { Revocability } from '../core/credential.js';
import type { Decision, PolicyEntity } from '../core/decision.js';
import { BrokerError } from '../core/errors.js';
import { REVOCABILITY } from '../core/limits.js';
import { type StandingException, standingException } from '../core/standing-exception.js';
import type { TaskRecord } from '../core/task.js';
import { shortest } from '../core/time.js';
import type { Backend } from '../plugins/backends/contract.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import type { Parts } from './parts.js';
import { readContext, secretEntity } from './questions.js';
import { deniedBy, notFound } from './refusal.js';

/** Who asks for a secret, for which task, how. */
export interface SecretAsked {
  name: string;
  policy: PreparedPolicy;
  principal: PolicyEntity;
  declaration: WorkloadDeclaration;
  tasks: readonly TaskRecord[];
  binding: 'none' | 'dpop' | 'mtls';
  proof: string;
  ttlMsRequested?: number;
  onBehalfOf: { subject: string; proven: boolean } | undefined;
}

/** A secret that may be handed out: from where, for how long, on whose word. */
export interface SecretAllowed {
  secret: SecretDeclaration;
  backend: Backend;
  settings: Record<string, unknown>;
  revocability: Revocability;
  decision: Decision;
  /** The longest life of the credential, and what its end can be at the latest. */
  ttlMsMax: number;
  untilMsMax: number;
  exception?: StandingException;
}

/** A value that only its rotation kills, held by us: nobody gets it without somebody who answers for it. */
const STANDING = 'static';

/**
 * May they read it? The task has to have the secret, policy has to allow it, and what its backend cannot take back is handed out only where
 * policy says so in as many words. A grant and a renewal are decided by this, and a credential that lives is judged again by it.
 */
export function mayRead(parts: Parts, asked: SecretAsked): SecretAllowed {
  const { name, policy, declaration, tasks } = asked;
  const task = tasks.at(-1) as TaskRecord;
  const secret = policy.bundle.secrets.get(name);
  // What its task does not have is, for an agent, not there.
  if (!secret || !task.scope.secrets.includes(name))
    throw notFound('secret', `${asRecorded('name', name)} for ${task.id}`);
  const backend = parts.backends.get(secret.backend);
  if (!backend) throw closed(`this broker has no backend ${secret.backend}`);
  const settings = backend.secretSettings.safeParse(secret.settings);
  if (!settings.success) throw closed(`the settings of ${name} are not what ${secret.backend} takes`);

  const revocability = backend.revocability(settings.data);
  const ttlMs = asked.ttlMsRequested ?? secret.ttlMsMax;
  const question = {
    principal: asked.principal,
    action: 'read',
    resource: secretEntity(secret, revocability),
    context: readContext(
      {
        tasks,
        bundle: policy.bundle,
        environment: declaration.environment,
        binding: asked.binding,
        proof: asked.proof,
        ttlSecondsRequested: Math.floor(ttlMs / 1_000),
        onBehalfOf: asked.onBehalfOf,
      },
      secret,
    ),
  } as const;
  const decision = policy.decide(question);
  if (decision.effect !== 'allow') throw deniedBy(decision, policy.nearestMiss(question), `read ${name}`, question);
  const { limits, policyIds } = decision;
  const denied = (reason: string, hint: string) => new BrokerError('denied', hint, { reason, policyIds });
  const { binding } = limits;
  if (binding !== undefined && binding !== asked.binding && !(binding === 'any' && asked.binding !== 'none')) {
    throw denied(`needs binding ${binding}`, 'Policy wants this secret asked for with a bound identity.');
  }
  const worst = limits.revocability ?? 'expiry-only';
  if (REVOCABILITY.indexOf(revocability.kind) > REVOCABILITY.indexOf(worst)) {
    throw denied(
      `${revocability.kind}, and policy allows ${worst}`,
      'Policy does not allow a secret that cannot be taken back that well.',
    );
  }
  const exception = backend.kind === STANDING ? exceptionOf(parts, asked) : undefined;
  return {
    secret,
    backend,
    settings: settings.data,
    revocability,
    decision,
    ttlMsMax: shortest(
      ttlMs,
      secret.ttlMsMax,
      limits.ttlMsMax,
      revocability.kind === 'expiry-only' ? revocability.ttlMsMax : undefined,
    ),
    untilMsMax: shortest(...tasks.map((one) => one.deadlineMs), exception?.untilMs),
    ...(exception && { exception }),
  };
}

function exceptionOf(parts: Parts, { declaration, name }: SecretAsked): StandingException {
  const exception = standingException(declaration, name, parts.clock.now());
  if (exception) return exception;
  throw new BrokerError(
    'denied',
    'A standing secret is handed out only under a declared exception that has not ended.',
    {
      reason: `no standing exception for ${name}`,
    },
  );
}

/** Nobody can have it now, and it is nobody's fault who asks. */
export function closed(reason: string): BrokerError {
  return new BrokerError('unavailable', 'This secret cannot be had right now.', { reason, retryAfterSeconds: 5 });
}
