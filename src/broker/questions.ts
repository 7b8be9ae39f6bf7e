import type { Principal, WorkloadDeclaration } from '../core/agent.js';
import type { Bundle, Resource, SecretDeclaration } from '../core/bundle.js';
import { effectiveContext } from '../core/context.js';
import type { Revocability } from '../core/credential.js';
import type { Decision, PolicyEntity } from '../core/decision.js';
import { nameOf } from '../core/identity.js';
import { strictest } from '../core/limits.js';
import { stricterSensitivity } from '../core/sensitivity.js';
import { pathOf, type SpiffeId, trustDomainOf } from '../core/spiffe-id.js';
import type { TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';

/** What the bundle declares about a workload that may hold tokens; undefined for tools and persons. */
export function declarationOf(principal: Principal): WorkloadDeclaration | undefined {
  return principal.kind === 'agent' || principal.kind === 'orchestrator' ? principal.declaration : undefined;
}

/** Policy's picture of who is asking. The three identities stay apart: this is the workload or the person, never a mix. */
export function principalEntity(principal: Principal, nowMs: EpochMs): PolicyEntity {
  if (principal.kind === 'person') {
    const { issuer, subject, roles } = principal.identity;
    return { type: 'Person', id: nameOf(principal.identity), attributes: { issuer, subject, roles } };
  }
  const { spiffeId } = principal.identity;
  if (principal.kind === 'tool') {
    return {
      type: 'ToolOwner',
      id: spiffeId,
      attributes: {
        spiffeId,
        path: pathOf(spiffeId),
        trustDomain: trustDomainOf(spiffeId),
        resources: principal.resources,
      },
    };
  }
  return workloadEntity(spiffeId, principal.declaration, nowMs);
}

export function workloadEntity(spiffeId: SpiffeId, declaration: WorkloadDeclaration, nowMs: EpochMs): PolicyEntity {
  const { role, owner, team, riskTier, environment, model, tools, labels, reviewBy } = declaration;
  return {
    type: role === 'agent' ? 'Agent' : 'Orchestrator',
    id: spiffeId,
    attributes: {
      spiffeId,
      path: pathOf(spiffeId),
      trustDomain: trustDomainOf(spiffeId),
      owner,
      team,
      riskTier,
      environment,
      ...(model !== undefined && { model }),
      tools,
      labels,
      reviewOverdue: reviewBy !== undefined && Date.parse(reviewBy) <= nowMs,
      retired: declaration.retired,
    },
  };
}

/** The tool as policy's resource, with what is known of the audience it belongs to. */
export function toolEntity(tool: string, resource: Resource): PolicyEntity {
  return {
    type: 'Tool',
    id: tool,
    attributes: { name: tool, api: resource.resource, sensitivity: resource.sensitivity },
  };
}

/** A secret as policy's resource: how well it can be taken back is its backend's word. */
export function secretEntity(secret: SecretDeclaration, revocability: Revocability): PolicyEntity {
  const { name, backend, sensitivity } = secret;
  return { type: 'Secret', id: name, attributes: { name, backend, sensitivity, revocability: revocability.kind } };
}

/** What policy sees of a task: its own charter under the effective context of its path. */
export function taskView(tasks: readonly TaskRecord[], bundle: Bundle): Record<string, unknown> {
  const own = tasks[tasks.length - 1] as TaskRecord;
  return {
    id: own.id,
    type: own.type ?? 'untyped',
    params: own.params,
    purpose: own.purpose,
    risk: own.risk,
    tools: own.scope.tools,
    agents: own.agents,
    generation: own.generation,
    selfOpened: tasks.some((task) => task.selfOpened),
    opener: own.opener,
    depth: tasks.length,
    context: effectiveContext(tasks, bundle.taskTypes),
  };
}

export interface Circumstances {
  tasks: readonly TaskRecord[];
  bundle: Bundle;
  /** The agent's declared environment; what an orchestrator's task says of its own comes first. */
  environment: string;
  binding: 'none' | 'dpop' | 'mtls';
  proof: string;
  ttlSecondsRequested: number;
  onBehalfOf: { subject: string; proven: boolean } | undefined;
}

export interface MintCircumstances extends Circumstances {
  resource: Resource;
  delegator: { agent: string; tools: string[] } | undefined;
}

/** The circumstances of a mint or a delegation, the same for every tool asked for. */
export function mintContext(of: MintCircumstances): Record<string, unknown> {
  return {
    audience: of.resource.resource,
    enforcement: of.resource.enforcement,
    ...situation(of, of.resource.sensitivity),
    ...(of.delegator && { delegator: of.delegator }),
  };
}

/** The circumstances of handing a secret to an agent. */
export function readContext(of: Circumstances, secret: SecretDeclaration): Record<string, unknown> {
  return situation(of, secret.sensitivity);
}

function situation(of: Circumstances, sensitivity: string): Record<string, unknown> {
  const said = effectiveContext(of.tasks, of.bundle.taskTypes);
  // What an agent says of the task it opened for itself is untrusted: its declared environment counts.
  const environment = of.tasks.some((task) => task.selfOpened) ? undefined : said['environment'];
  return {
    task: taskView(of.tasks, of.bundle),
    environment: typeof environment === 'string' ? environment : of.environment,
    dataSensitivity: stricterSensitivity(sensitivity, said['data_sensitivity']),
    binding: of.binding,
    proof: of.proof,
    ttlSecondsRequested: of.ttlSecondsRequested,
    ...(of.onBehalfOf && { onBehalfOf: of.onBehalfOf }),
  };
}

/** Several decisions about one grant: any deny denies, any ask asks, and of each limit the strictest holds. */
export function allOf(decisions: readonly Decision[], bundle: Bundle): Decision {
  const denying = decisions.filter((decision) => decision.effect === 'deny');
  const asking = decisions.filter((decision) => decision.effect === 'ask');
  const telling = denying.length > 0 ? denying : decisions;
  const limits = strictest(decisions.map((decision) => decision.limits));
  const policyIds = new Set<string>();
  for (const decision of telling) for (const id of decision.policyIds) policyIds.add(id);
  const errors: string[] = [];
  for (const decision of decisions) errors.push(...decision.errors);
  if (!limits)
    errors.push('the tools asked for cannot be in one token: their policies want it bound in different ways');
  const isDenied = denying.length > 0 || decisions.length === 0 || !limits;
  return {
    effect: isDenied ? 'deny' : asking.length > 0 ? 'ask' : 'allow',
    policyIds: [...policyIds],
    limits: limits ?? {},
    errors,
    bundle: bundle.digest,
    volatile: decisions.some((decision) => decision.volatile),
  };
}
