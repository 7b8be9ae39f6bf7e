import type { Bundle, Resource } from '../core/bundle.js';
import { type Actor, TASK_DETAIL_TYPE, type TaskClaims } from '../core/claims.js';
import type { Decision } from '../core/decision.js';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import { type DeadBecause, deadBecause, type LeaseRecord } from '../core/lease.js';
import { isWithin, scopeOf } from '../core/scope.js';
import { Secret } from '../core/secret.js';
import { factsAbove, ownFacts } from '../core/selector.js';
import type { TaskRecord } from '../core/task.js';
import { shortest } from '../core/time.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import type { Reading, Refusal } from '../state/stores.js';
import { principalOf } from './authenticate.js';
import type { Caller } from './caller.js';
import { findTaskId, readTaskNamed, type TaskNamed } from './find-task.js';
import { lockOn } from './locked.js';
import { mintOperatorToken } from './mint-operator-token.js';
import { openOwnTask } from './open-own-task.js';
import type { Parts } from './parts.js';
import { allOf, mintContext, principalEntity, toolEntity } from './questions.js';
import { notFound, record, recordingRefusals } from './refusal.js';
import { type Requester, readRequester, requesterName, type TokenRequest } from './requester.js';

export interface MintRequest extends TokenRequest {
  resources: string[];
  audiences: string[];
  scope?: string;
  /** Parsed JSON. */
  authorizationDetails?: unknown;
}

export interface Minted {
  accessToken: Secret<string>;
  tokenType: 'Bearer' | 'DPoP';
  expiresInSeconds: number;
  scope: string;
  authorizationDetails: unknown[];
  leaseId: string;
  issuedTokenType: string;
}

/** Who asks, proven and declared, before the task is known. */
interface Asking {
  requester: Requester & { agent: NonNullable<Requester['agent']> };
  caller: Caller;
  named: TaskNamed;
  audience: string | undefined;
}

/** What would be given, as far as it does not need policy's limits. */
interface Draft {
  reading: Reading;
  policy: PreparedPolicy;
  task: TaskRecord;
  resource: Resource;
  tools: string[];
  decision: Decision;
  lease: LeaseRecord;
  claims: TaskClaims;
}

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const READS_MAX = 3;

/**
 * Mints a token for one task: who asks → read → may they → commit → sign. A commit that finds the world changed since the read says
 * *stale*, and everything is read and decided again, three times at most. Nothing is signed before its lease is in the store, and the
 * lease carries the position that was read before the decision, so that no stop in between can be slipped past.
 */
export async function mint(parts: Parts, request: MintRequest): Promise<Minted> {
  const requester = await readRequester(parts, request);
  if (!requester.agent) return mintOperatorToken(parts, request, requester);
  const asking = introduce(parts, request, { ...requester, agent: requester.agent });
  const about = { action: 'mint', ...(asking.audience && { resource: asking.audience }) };
  return recordingRefusals(parts, asking.caller, about, async () => {
    const taskId = await nameTask(parts, asking);
    for (let reads = 0; reads < READS_MAX; reads++) {
      const draft = await decide(parts, asking, taskId);
      const outcome = await parts.ledger.commitLease({
        lease: draft.lease,
        basis: {
          position: draft.reading.position,
          bundle: draft.reading.bundle,
          generations: draft.lease.generations,
        },
        quotas: parts.settings.quotas,
        nowMs: parts.clock.now(),
        audit: record(parts, 'token.minted', asking.caller, mintedRecord(asking, draft)),
      });
      if (outcome.outcome === 'committed') return sign(parts, asking, draft);
      if (outcome.outcome !== 'stale') throw refusedCommit(outcome);
    }
    throw new BrokerError('unavailable', 'The task keeps changing; try again.', { retryAfterSeconds: 1 });
  });
}

/** Who? A declared, unretired workload whose proof has some life left. */
function introduce(parts: Parts, request: MintRequest, requester: Asking['requester']): Asking {
  const { agent } = requester;
  const policy = parts.policies.current();
  if (!policy) throw new BrokerError('unavailable', 'No bundle is loaded yet.', { retryAfterSeconds: 1 });
  const principal = principalOf(policy.bundle, agent);
  if (!principal || principal.kind === 'tool' || principal.kind === 'person') {
    const miss = policy.nearestMiss({
      principal: { type: 'Agent', id: agent.spiffeId, attributes: {} },
      action: 'mint',
      resource: { type: 'Installation', id: 'mayfly', attributes: {} },
      context: {},
    });
    throw new BrokerError('denied', 'This workload may not have task tokens.', {
      reason: `undeclared: ${requesterName(requester)}`,
      hint: miss ?? 'The agent is not declared in the active bundle, or is retired.',
    });
  }
  if (agent.expiresAtMs - parts.clock.now() < parts.settings.identityLeftMsMin) {
    throw new BrokerError('subject_rejected', 'The identity is about to expire.', {
      hint: `Fetch a new SVID: at least ${parts.settings.identityLeftMsMin / 1000} s of life are needed.`,
    });
  }
  const caller: Caller = {
    principal,
    name: agent.spiffeId,
    bound: requester.binding !== 'none',
    binding: requester.binding,
    requestId: request.evidence.requestId,
    ...(request.evidence.traceId && { traceId: request.evidence.traceId }),
  };
  return {
    requester,
    caller,
    named: readTaskNamed(request.scope, request.authorizationDetails),
    audience: audienceOf(request),
  };
}

/** `resource` (RFC 8707) or `audience` (RFC 8693): exactly one place the token is for, or the task's only one. */
function audienceOf(request: MintRequest): string | undefined {
  const named = [...new Set([...request.resources, ...request.audiences])];
  if (named.length > 1) {
    throw new BrokerError('target_invalid', 'A token is for exactly one resource.', { field: 'resource' });
  }
  return named[0];
}

/** Which task? Named, implied by the token that is passed on, or opened now by the agent itself. */
async function nameTask(parts: Parts, asking: Asking): Promise<string> {
  const { named, requester, caller } = asking;
  const implied = requester.parent?.lease?.taskId;
  if (named.open) {
    if (requester.parent) throw new BrokerError('invalid_request', 'A token that is passed on already has its task.');
    return openOwnTask(parts, caller, named.open);
  }
  const stated = named.name === undefined ? undefined : await findTaskId(parts, named.name, caller.name);
  if (implied !== undefined && stated !== undefined && implied !== stated) {
    throw new BrokerError('invalid_request', 'The subject_token belongs to another task.', {
      field: 'authorization_details',
    });
  }
  const taskId = stated ?? implied;
  if (taskId === undefined) {
    throw new BrokerError(
      'details_invalid',
      'Name the task: authorization_details with its identifier, or scope=task:<id>.',
      {
        field: 'authorization_details',
      },
    );
  }
  return taskId;
}

/** Read, then: may they? Everything the token will say is decided here, on one reading. */
async function decide(parts: Parts, asking: Asking, taskId: string): Promise<Draft> {
  const nowMs = parts.clock.now();
  const { requester, caller } = asking;
  const { parent, person, agent } = requester;
  const parentPath = parent?.lease ? [...parent.lease.path.filter((id) => id.startsWith('lse_')), parent.lease.id] : [];
  const reading = await parts.ledger.read({ taskId, leaseIds: parentPath, nowMs });
  const task = reading?.tasks[reading.tasks.length - 1];
  if (!reading || !task) throw notFound('task', `no task ${taskId}`);
  const policy = parts.policies.of(reading.bundle);
  const principal = principalOf(policy.bundle, agent);
  if (!principal)
    throw new BrokerError('denied', 'This workload may not have task tokens.', { reason: 'no longer declared' });
  // Not yours looks exactly like not there. Who was handed a token of the task may be anybody policy lets it be handed to.
  if (!parent && !task.agents.includes(agent.spiffeId))
    throw notFound('task', `${agent.spiffeId} is not named in ${taskId}`);
  checkAlive(reading.tasks, nowMs);
  if (parent) await checkParent(parts, parent, reading);

  const resource = resourceOf(parts, policy.bundle, task, asking.audience);
  const askedFor = toolsAskedFor(
    asking,
    principal.kind === 'agent' || principal.kind === 'orchestrator' ? principal.declaration.tools : [],
    task,
    resource,
  );
  const onBehalfOf = person ? { name: caller.name, proven: true } : task.onBehalfOf;
  const context = mintContext({
    tasks: reading.tasks,
    environment:
      principal.kind === 'agent' || principal.kind === 'orchestrator' ? principal.declaration.environment : '',
    resource,
    binding: requester.binding,
    proof: agent.proof,
    ttlSecondsRequested: parts.settings.ttlMsDefault / 1000,
    ...(onBehalfOf && {
      onBehalfOf: {
        subject: person ? `${person.issuer}#${person.subject}` : onBehalfOf.name,
        proven: onBehalfOf.proven,
      },
    }),
    ...(parent?.lease && { delegator: { agent: parent.lease.agent, tools: parent.lease.tools } }),
  });
  const question = (tool: string) => ({
    principal: principalEntity(principal, nowMs),
    action: parent ? ('delegate' as const) : ('mint' as const),
    resource: toolEntity(tool, resource),
    context,
  });
  const decisions = new Map(askedFor.tools.map((tool) => [tool, policy.decide(question(tool))]));
  const tools = askedFor.named
    ? askedFor.tools
    : askedFor.tools.filter((tool) => decisions.get(tool)?.effect === 'allow');
  const decision = allOf(
    (tools.length > 0 ? tools : askedFor.tools).map((tool) => decisions.get(tool) as Decision),
    policy.bundle,
  );
  if (decision.effect !== 'allow') {
    const refused = askedFor.tools.find((tool) => decisions.get(tool)?.effect !== 'allow') as string;
    throw deniedBy(decision, policy.nearestMiss(question(refused)), `${question(refused).action} ${refused}`);
  }
  if (decision.limits.binding && decision.limits.binding !== 'any' && decision.limits.binding !== requester.binding) {
    throw new BrokerError('denied', 'Policy wants this token bound to a key.', {
      policyIds: decision.policyIds,
      hint: decision.limits.binding === 'dpop' ? 'Send a DPoP proof.' : 'Connect with an X.509-SVID.',
    });
  }
  const draft = draftLease(parts, asking, { reading, policy, task, resource, tools, decision }, nowMs);
  const lock = lockOn(parts, reading, draft.lease, draft.claims, parent);
  if (lock) {
    throw new BrokerError('denied', 'A lock forbids new grants here.', {
      reason: `lock ${lock.id}`,
      hint: `Lock ${lock.id}: ${lock.reason}`,
    });
  }
  return draft;
}

function checkAlive(tasks: readonly TaskRecord[], nowMs: number): void {
  for (const task of tasks) {
    const dead = deadTask(task, nowMs);
    if (dead === 'task')
      throw new BrokerError('task_over', 'The task is over.', { reason: `${task.id} ${task.state}` });
    if (dead === 'suspended') {
      throw new BrokerError('task_suspended', 'The task is suspended.', { hint: 'Its opener may resume it.' });
    }
  }
}

function deadTask(task: TaskRecord, nowMs: number): DeadBecause | undefined {
  if (task.state === 'suspended') return 'suspended';
  return task.state !== 'active' || task.deadlineMs <= nowMs ? 'task' : undefined;
}

/** A parent token is judged only when this broker's own table has reached the fence that was read. */
async function checkParent(parts: Parts, parent: NonNullable<Requester['parent']>, reading: Reading): Promise<void> {
  const nowMs = parts.clock.now();
  await parts.feed.reached(reading.fence, 1_000);
  const lease = reading.leases[reading.leases.length - 1];
  const above = reading.leases.slice(0, -1);
  const revoked = parts.feed.table().find(parent.claims, parent.kid) !== undefined;
  const dead = lease ? deadBecause(lease, { tasks: reading.tasks, leases: above, revoked }, nowMs) : 'lease';
  if (dead) throw new BrokerError('subject_rejected', 'The subject_token was not accepted.', { reason: dead });
}

function resourceOf(parts: Parts, bundle: Bundle, task: TaskRecord, audience: string | undefined): Resource {
  const { issuer } = parts.settings;
  const named = audience ?? (task.scope.resources.length === 1 ? task.scope.resources[0] : undefined);
  if (named === undefined) {
    throw new BrokerError('target_invalid', 'Say which resource the token is for.', {
      field: 'resource',
      hint: `This task has: ${task.scope.resources.join(', ') || 'none'}.`,
    });
  }
  if (named === issuer) return issuerAsResource(issuer, task);
  const resource = bundle.resources.get(named);
  if (!resource || !task.scope.resources.includes(named)) {
    throw new BrokerError('target_invalid', 'The resource is not one of this task.', { field: 'resource' });
  }
  return resource;
}

/** A token for Mayfly itself: what may be narrowed and passed on to another agent of the task. */
function issuerAsResource(issuer: string, task: TaskRecord): Resource {
  return {
    resource: issuer,
    description: 'Mayfly itself',
    owners: [],
    tools: task.scope.tools,
    toolArguments: new Map(),
    enforcement: 'introspection',
    sensitivity: 'internal',
  };
}

/** The tools asked for by name, or else every tool that task, resource, declaration and delegator have in common. */
function toolsAskedFor(
  asking: Asking,
  declared: readonly string[],
  task: TaskRecord,
  resource: Resource,
): { tools: string[]; named: boolean } {
  const within = asking.requester.parent?.lease?.tools;
  const { tools: named } = asking.named;
  if (named) {
    const outside = named.find((tool) => !task.scope.tools.includes(tool) || !resource.tools.includes(tool));
    if (outside !== undefined) {
      throw new BrokerError('scope_invalid', `The tool ${outside} is not one of this task at this resource.`, {
        field: 'scope',
        hint: `It has: ${task.scope.tools.filter((tool) => resource.tools.includes(tool)).join(', ') || 'none'}.`,
      });
    }
    if (within && !isWithin(named, within)) {
      throw new BrokerError('scope_invalid', 'Delegation only ever narrows.', { field: 'scope' });
    }
    return { tools: [...named].sort(), named: true };
  }
  const tools = task.scope.tools.filter(
    (tool) => resource.tools.includes(tool) && declared.includes(tool) && (!within || within.includes(tool)),
  );
  if (tools.length === 0) {
    throw new BrokerError('scope_invalid', 'No tool of this task at this resource is declared for this agent.', {
      field: 'scope',
    });
  }
  return { tools: tools.sort(), named: false };
}

export function deniedBy(decision: Decision, miss: string | undefined, what: string): BrokerError {
  if (decision.effect === 'ask') {
    return new BrokerError('denied', 'Policy wants a human to approve this, and approvals cannot be given here yet.', {
      policyIds: decision.policyIds,
      reason: `${what}: needs ${decision.limits.approval}`,
    });
  }
  return new BrokerError('denied', 'Policy does not allow it.', {
    policyIds: decision.policyIds,
    reason: [what, ...decision.errors].join('; '),
    ...(miss !== undefined && { hint: miss }),
  });
}

function draftLease(parts: Parts, asking: Asking, found: Omit<Draft, 'lease' | 'claims'>, nowMs: number): Draft {
  const { reading, task, resource, tools, decision } = found;
  const { requester, caller } = asking;
  const { agent, person, parent } = requester;
  const ttlMs = shortest(
    parts.settings.ttlMsDefault,
    decision.limits.ttlMsMax,
    parts.settings.ttlMsMax,
    resource.enforcement === 'expiry-only' ? 60_000 : undefined,
  );
  const endMs = shortest(
    nowMs + ttlMs,
    agent.expiresAtMs,
    person?.expiresAtMs,
    parent && parent.claims.exp * 1000,
    ...reading.tasks.map((one) => one.deadlineMs),
  );
  const iat = Math.floor(nowMs / 1000);
  const exp = Math.floor(endMs / 1000);
  if (exp <= iat) throw new BrokerError('task_over', 'The task is over.', { reason: 'less than a second is left' });
  const declaration =
    caller.principal.kind === 'agent' || caller.principal.kind === 'orchestrator'
      ? caller.principal.declaration
      : undefined;
  const personName = person ? `${person.issuer}#${person.subject}` : undefined;
  const onBehalfOf = personName ?? task.onBehalfOf?.name;
  const path = [...task.path, ...reading.leases.map((lease) => lease.id)];
  const lease: LeaseRecord = {
    id: newId('lse', parts.settings.cell, nowMs),
    kind: 'token',
    taskId: task.id,
    path,
    agent: agent.spiffeId,
    actors: parent?.lease ? [...parent.lease.actors, parent.lease.agent] : [],
    ...(onBehalfOf !== undefined && { onBehalfOf }),
    opener: task.opener,
    ...(declaration && { owner: declaration.owner, team: declaration.team, environment: declaration.environment }),
    resource: resource.resource,
    tools,
    position: reading.position,
    generations: reading.tasks.map((one) => one.generation),
    bundle: reading.bundle,
    keyId: parts.keys.active().kid,
    identityKeyId: agent.keyId,
    binding: requester.binding,
    state: 'active',
    createdAtMs: nowMs,
    expiresAtMs: exp * 1000,
  };
  const sub = parent?.claims.sub ?? personName ?? (task.onBehalfOf?.proven ? task.onBehalfOf.name : agent.spiffeId);
  const act = actorOf(sub, agent.spiffeId, parent?.claims);
  const claims: TaskClaims = {
    iss: parts.settings.issuer,
    sub,
    aud: resource.resource,
    client_id: agent.spiffeId,
    iat,
    exp,
    jti: lease.id,
    scope: scopeOf(tools),
    authorization_details: [{ type: TASK_DETAIL_TYPE, identifier: task.id }],
    ...(act && { act }),
    ...(requester.confirmation && { cnf: requester.confirmation }),
    mayfly: {
      cell: parts.settings.cell,
      path,
      pos: reading.position,
      sel: selectorHashes(parts, lease, reading),
      bundle: reading.bundle,
      ...(decision.limits.callsMax !== undefined && { call: true as const }),
    },
  };
  return { ...found, lease, claims };
}

/** `act` names who acts now when that is not `sub`; what was said of earlier actors stays below it (RFC 8693 section 4.1). */
function actorOf(sub: string, agent: string, parent: TaskClaims | undefined): Actor | undefined {
  if (sub === agent && !parent?.act) return undefined;
  return parent?.act ? { sub: agent, act: parent.act } : { sub: agent };
}

/** What selectors can name beyond the plain claims: of the token itself, and of every task and lease above it. */
function selectorHashes(parts: Parts, lease: LeaseRecord, reading: Reading): string[] {
  const facts = [...ownFacts(lease), ...reading.leases.flatMap(factsAbove)];
  for (const task of reading.tasks) {
    facts.push(['opener', task.opener]);
    if (task.onBehalfOf) facts.push(['on_behalf_of', task.onBehalfOf.name]);
  }
  return [...new Set(facts.map(([kind, value]) => parts.selectorHash(kind, value)))];
}

function mintedRecord(asking: Asking, draft: Draft) {
  const { lease, decision, task } = draft;
  return {
    task: task.id,
    generation: task.generation,
    lease: lease.id,
    action: asking.requester.parent ? 'delegate' : 'mint',
    ...(lease.resource && { resource: lease.resource }),
    effect: 'allow' as const,
    bundle: lease.bundle,
    policyIds: decision.policyIds,
    detail: {
      tools: lease.tools,
      expires_at: new Date(lease.expiresAtMs).toISOString(),
      binding: lease.binding,
      on_behalf_of: lease.onBehalfOf,
      actors: lease.actors,
    },
  };
}

/** The lease is in the store: now, and only now, there is a token. */
function sign(parts: Parts, asking: Asking, draft: Draft): Minted {
  const key = parts.keys.byKid(draft.lease.keyId as string);
  if (!key) throw new BrokerError('unavailable', 'The signing key moved; try again.', { retryAfterSeconds: 1 });
  const token = parts.signer.sign(key, 'at+jwt', draft.claims);
  return {
    accessToken: new Secret(token),
    tokenType: asking.requester.binding === 'dpop' ? 'DPoP' : 'Bearer',
    expiresInSeconds: draft.claims.exp - draft.claims.iat,
    scope: draft.claims.scope,
    authorizationDetails: draft.claims.authorization_details,
    leaseId: draft.lease.id,
    issuedTokenType: ACCESS_TOKEN,
  };
}

/** Why the store would not write it, in the caller's words. */
export function refusedCommit(refusal: Exclude<Refusal, { outcome: 'stale' }>): BrokerError {
  switch (refusal.outcome) {
    case 'quota':
      return new BrokerError('quota_exceeded', `The quota of live leases per ${refusal.by} is used up.`, {
        retryAfterSeconds: 10,
      });
    case 'suspended':
      return new BrokerError('task_suspended', 'The task is suspended.', { hint: 'Its opener may resume it.' });
    case 'not_found':
      return notFound('task', refusal.by);
    case 'not_live':
    case 'parent_expired':
      return new BrokerError('subject_rejected', 'The subject_token was not accepted.', {
        reason: `${refusal.outcome} ${refusal.by}`,
      });
    case 'over':
    case 'too_late':
      return new BrokerError('task_over', 'The task is over.', { reason: refusal.by });
  }
}
