import { findWorkload, type Resource } from '../core/bundle.js';
import type { LeaseRecord } from '../core/lease.js';
import { isWithin } from '../core/scope.js';
import { parseSpiffeId } from '../core/spiffe-id.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import type { Parts } from './parts.js';
import { allOf, mintContext, toolEntity, workloadEntity } from './questions.js';
import { mayflyItself } from './scope-asked-for.js';

/**
 * A live token lease under today's rules: undefined while everything that was signed into it would be given again, else why not. A signed
 * token cannot be shortened, bound or relabelled afterwards, so a tighter limit or a fact that moved ends it, and its holder mints again.
 */
export function judge(
  parts: Parts,
  policy: PreparedPolicy,
  lease: LeaseRecord,
  above: { tasks: readonly TaskRecord[]; leases: readonly LeaseRecord[] },
): string | undefined {
  const nowMs = parts.clock.now();
  const { bundle } = policy;
  const { tasks } = above;
  const task = tasks.at(-1);
  // An operator token has no task; what it may do is asked of policy at every use.
  if (!task) return undefined;
  if (tasks.some((one) => isTerminal(one.state) || one.state === 'suspended')) return 'its task is not active';
  const id = parseSpiffeId(lease.agent);
  const declaration = id && findWorkload(bundle, id);
  if (!id || !declaration || declaration.retired) return 'its agent is no longer declared';
  const { owner, team, environment } = declaration;
  if (lease.owner !== owner || lease.team !== team || lease.environment !== environment)
    return 'its agent is declared otherwise now';
  const resource = resourceOf(parts, policy, lease, task);
  if (!resource || !isWithin(lease.tools, resource.tools)) return 'its resource is declared otherwise now';

  const delegator = above.leases.at(-1);
  const context = mintContext({
    tasks,
    bundle,
    environment,
    resource,
    binding: lease.binding,
    proof: lease.proof ?? 'jwt-svid',
    ttlSecondsRequested: parts.settings.ttlMsDefault / 1000,
    onBehalfOf: onBehalfOf(lease, task),
    delegator: delegator && { agent: delegator.agent, tools: delegator.tools },
  });
  const principal = workloadEntity(id, declaration, nowMs);
  const action = delegator ? 'delegate' : 'mint';
  const questions = lease.tools.map(
    (tool) => ({ principal, action, resource: toolEntity(tool, resource), context }) as const,
  );
  const decision = allOf(
    questions.map((question) => policy.decide(question)),
    bundle,
  );
  if (decision.effect !== 'allow')
    return `policy denies it now (${decision.policyIds.join(', ') || 'nothing permits it'})`;
  const { ttlMsMax, binding, callsMax } = decision.limits;
  if (ttlMsMax !== undefined && lease.expiresAtMs - lease.createdAtMs > ttlMsMax)
    return 'policy allows a shorter life now';
  if (binding !== undefined && binding !== lease.binding && !(binding === 'any' && lease.binding !== 'none')) {
    return 'policy wants it bound now';
  }
  // Whether `call` stands in a token is not in its lease; what policies begin to say of single calls ends what may lack the mark.
  const constrainsCalls = callsMax !== undefined || questions.some((question) => policy.constrainsCalls(question));
  return constrainsCalls && lease.bundle !== bundle.digest ? 'policy constrains its calls now' : undefined;
}

function resourceOf(parts: Parts, policy: PreparedPolicy, lease: LeaseRecord, task: TaskRecord): Resource | undefined {
  if (lease.resource === undefined) return undefined;
  return lease.resource === parts.settings.issuer
    ? mayflyItself(lease.resource, task)
    : policy.bundle.resources.get(lease.resource);
}

function onBehalfOf(lease: LeaseRecord, task: TaskRecord): { subject: string; proven: boolean } | undefined {
  if (lease.onBehalfOf === undefined) return undefined;
  // A name that is not the task's came with that person's own token.
  return {
    subject: lease.onBehalfOf,
    proven: task.onBehalfOf?.name === lease.onBehalfOf ? task.onBehalfOf.proven : true,
  };
}
