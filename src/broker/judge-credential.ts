import { findWorkload } from '../core/bundle.js';
import { BrokerError } from '../core/errors.js';
import type { LeaseRecord } from '../core/lease.js';
import { parseSpiffeId } from '../core/spiffe-id.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import { mayRead } from './may-read.js';
import type { Parts } from './parts.js';
import { workloadEntity } from './questions.js';

/**
 * A live credential under today's rules: undefined while it would be handed out again, else why not. It cannot be shortened or relabelled at its
 * holder, so a tighter limit or a fact that moved ends it, and its holder asks anew.
 */
export function judgeCredential(
  parts: Parts,
  policy: PreparedPolicy,
  lease: LeaseRecord,
  tasks: readonly TaskRecord[],
): string | undefined {
  const nowMs = parts.clock.now();
  const task = tasks.at(-1);
  if (!task || tasks.some((one) => isTerminal(one.state) || one.state === 'suspended')) return 'its task is not active';
  const id = parseSpiffeId(lease.agent);
  const declaration = id && findWorkload(policy.bundle, id);
  if (!id || !declaration || declaration.retired) return 'its agent is no longer declared';
  const { owner, team, environment } = declaration;
  if (lease.owner !== owner || lease.team !== team || lease.environment !== environment)
    return 'its agent is declared otherwise now';
  const leftMs = lease.expiresAtMs - nowMs;
  try {
    const { secret, ttlMsMax, untilMsMax } = mayRead(parts, {
      name: lease.secret ?? '',
      policy,
      principal: workloadEntity(id, declaration, nowMs),
      declaration,
      tasks,
      binding: lease.binding,
      proof: lease.proof ?? 'jwt-svid',
      ttlMsRequested: leftMs,
      onBehalfOf: task.onBehalfOf && { subject: task.onBehalfOf.name, proven: task.onBehalfOf.proven },
    });
    if (secret.backend !== lease.backend || secret.sensitivity !== lease.sensitivity) {
      return 'its secret is declared otherwise now';
    }
    if (leftMs > ttlMsMax || lease.expiresAtMs > untilMsMax) return 'policy allows a shorter life now';
    return undefined;
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error;
    const { policyIds, reason } = error.detail;
    if (error.code === 'denied')
      return `policy denies it now (${policyIds?.join(', ') || reason || 'nothing permits it'})`;
    return reason ?? error.message;
  }
}
