import { TASK_DETAIL_TYPE, type TaskClaims } from '../core/claims.js';
import type { Decision } from '../core/decision.js';
import { BrokerError } from '../core/errors.js';
import { deadBecause, type LeaseRecord } from '../core/lease.js';
import { Secret } from '../core/secret.js';
import type { TaskRecord } from '../core/task.js';
import type { Reading } from '../state/stores.js';
import { principalOf } from './authenticate.js';
import type { Caller } from './caller.js';
import { draftLease, type Grant } from './draft-lease.js';
import { findTaskId, readTaskNamed, type TaskNamed } from './find-task.js';
import { lockOn } from './locked.js';
import { mintOperatorToken } from './mint-operator-token.js';
import { giveUpOwnTask, openOwnTask } from './open-own-task.js';
import type { Parts } from './parts.js';
import { allOf, declarationOf, mintContext, principalEntity, toolEntity } from './questions.js';
import { recordingStrangers } from './record-strangers.js';
import { deniedBy, notFound, record, recordingRefusals, refusedCommit } from './refusal.js';
import { type Requester, readRequester, refusedAs, requesterName, requesterPerson } from './requester.js';
import { resourceAskedFor, toolsAskedFor } from './scope-asked-for.js';
import { checkTasks } from './spoken-for.js';
import { ACCESS_TOKEN_TYPE, audienceOf, type Minted, type MintRequest } from './token-request.js';

/** Who asks, proven and declared, and what they ask for. */
interface Asking {
  requester: Grant['requester'];
  caller: Caller;
  named: TaskNamed;
  audience: string | undefined;
}

interface Draft {
  reading: Reading;
  decision: Decision;
  lease: LeaseRecord;
  claims: TaskClaims;
}

const READS_MAX = 3;

/**
 * Mints a token for one task: who asks → read → may they → commit → sign. A commit that finds the world changed since the read says
 * *stale*, and everything is read and decided again, three times at most. Nothing is signed before its lease is in the store, and the
 * lease carries the position that was read before the decision, so that no stop in between can be slipped past.
 */
export async function mint(parts: Parts, request: MintRequest): Promise<Minted> {
  const { requester, asking } = await recordingStrangers(parts, request.evidence, async () => {
    const who = await readRequester(parts, request);
    return { requester: who, asking: who.agent && introduce(parts, request, { ...who, agent: who.agent }) };
  });
  if (!asking) return mintOperatorToken(parts, request, requester);
  const about = { action: 'mint', ...(asking.audience && { resource: asking.audience }) };
  return recordingRefusals(parts, asking.caller, about, async () => {
    const { taskId, isNew } = await nameTask(parts, asking);
    try {
      return await grantIn(parts, asking, taskId);
    } catch (error) {
      if (isNew) await giveUpOwnTask(parts, asking.caller, taskId);
      throw error;
    }
  });
}

async function grantIn(parts: Parts, asking: Asking, taskId: string): Promise<Minted> {
  for (let reads = 0; reads < READS_MAX; reads++) {
    const draft = await decide(parts, asking, taskId);
    const { lease, reading } = draft;
    const outcome = await parts.ledger.commitLease({
      lease,
      basis: { position: reading.position, bundle: reading.bundle, generations: lease.generations },
      quotas: parts.settings.quotas,
      nowMs: parts.clock.now(),
      audit: record(parts, 'token.minted', asking.caller, mintedRecord(asking, draft)),
    });
    if (outcome.outcome === 'committed') return sign(parts, asking, draft);
    if (outcome.outcome !== 'stale') throw refusedCommit(outcome);
  }
  throw new BrokerError('unavailable', 'The task keeps changing; try again.', { retryAfterSeconds: 1 });
}

/** Who? A declared, unretired workload whose proof has some life left. */
function introduce(parts: Parts, request: MintRequest, requester: Grant['requester']): Asking {
  const { agent } = requester;
  const policy = parts.policies.current();
  if (!policy) throw new BrokerError('unavailable', 'No bundle is loaded yet.', { retryAfterSeconds: 1 });
  const principal = principalOf(policy.bundle, agent);
  if (!principal || !declarationOf(principal)) {
    const hint = policy.nearestMiss({
      principal: { type: 'Agent', id: agent.spiffeId, attributes: {} },
      action: 'mint',
      resource: { type: 'Installation', id: 'mayfly', attributes: {} },
      context: {},
    });
    throw new BrokerError('denied', 'This workload may not have task tokens.', {
      reason: `undeclared: ${requesterName(requester)}`,
      asked: {
        inputs: { principal: agent.spiffeId, action: 'mint' },
        ...(hint !== undefined && { nearestMiss: hint }),
      },
      hint: hint ?? 'The agent is not declared in the active bundle, or is retired.',
    });
  }
  if (agent.expiresAtMs - parts.clock.now() < parts.settings.identityLeftMsMin) {
    throw new BrokerError(refusedAs(request), 'The identity is about to expire.', {
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
  const named = readTaskNamed(request.scope, request.authorizationDetails);
  return { requester, caller, named, audience: audienceOf(request) };
}

/** Which task? Named, implied by the token that is passed on, or opened now by the agent itself. */
async function nameTask(parts: Parts, asking: Asking): Promise<{ taskId: string; isNew: boolean }> {
  const { named, requester, caller } = asking;
  const implied = requester.parent?.lease?.taskId;
  if (named.open) {
    if (!implied) return openOwnTask(parts, caller, named.open);
    throw new BrokerError('invalid_request', 'A token that is passed on already has its task.');
  }
  const stated = named.name === undefined ? undefined : await findTaskId(parts, named.name, caller);
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
  if (implied !== undefined && taskId !== implied) {
    throw new BrokerError('invalid_request', 'The subject_token belongs to another task.', {
      field: 'authorization_details',
    });
  }
  return { taskId, isNew: false };
}

/** Read, then: may they? Everything the token will say is decided here, on one reading. */
async function decide(parts: Parts, asking: Asking, taskId: string): Promise<Draft> {
  const nowMs = parts.clock.now();
  const { requester } = asking;
  const { parent, agent } = requester;
  const reading = await parts.ledger.read({ taskId, leaseIds: leasePathOf(parent?.lease), nowMs });
  const task = reading?.tasks.at(-1);
  // Not yours looks exactly like not there. A token of the task may be handed to anybody policy lets it be handed to.
  if (!reading || !task || !(parent || task.agents.includes(agent.spiffeId))) {
    throw notFound('task', `${agent.spiffeId} asked for ${taskId}`);
  }
  const policy = parts.policies.of(reading.bundle);
  const principal = principalOf(policy.bundle, agent);
  const declaration = principal && declarationOf(principal);
  if (!declaration)
    throw new BrokerError('denied', 'This workload may not have task tokens.', { reason: 'no longer declared' });
  checkTasks(reading.tasks, nowMs);
  checkPerson(requester, task);
  if (parent) await checkParent(parts, parent, reading, nowMs);

  const resource = resourceAskedFor(parts, policy.bundle, task, asking.audience);
  const delegated = parent?.lease?.tools;
  const asked = toolsAskedFor(asking.named.tools, { task, resource, declared: declaration.tools, delegated });
  const context = mintContext({
    tasks: reading.tasks,
    bundle: policy.bundle,
    environment: declaration.environment,
    resource,
    binding: requester.binding,
    proof: agent.proof,
    ttlSecondsRequested: parts.settings.ttlMsDefault / 1000,
    onBehalfOf: onBehalfOf(requester, task),
    delegator: parent?.lease && { agent: parent.lease.agent, tools: parent.lease.tools },
  });
  const entity = principalEntity(principal, nowMs);
  const action = parent ? 'delegate' : 'mint';
  const decisions = asked.tools.map((tool) => {
    const question = { principal: entity, action, resource: toolEntity(tool, resource), context } as const;
    return { tool, question, decision: policy.decide(question) };
  });
  const refused = decisions.filter((one) => one.decision.effect !== 'allow');
  const given = decisions.filter((one) => one.decision.effect === 'allow');
  const first = refused[0];
  if (first && (asked.named || given.length === 0)) {
    throw deniedBy(first.decision, policy.nearestMiss(first.question), `${action} ${first.tool}`, first.question);
  }
  const decision = allOf(
    given.map((one) => one.decision),
    policy.bundle,
  );
  if (decision.effect !== 'allow') throw deniedBy(decision, undefined, action);
  checkBinding(decision, requester.binding);
  const tools = given.map((one) => one.tool);
  const constrainsCalls =
    decision.limits.callsMax !== undefined || given.some((one) => policy.constrainsCalls(one.question));
  const draft = draftLease(
    parts,
    { requester, declaration, reading, resource, tools, limits: decision.limits, constrainsCalls },
    nowMs,
  );
  const lock = lockOn(parts, reading, draft.lease, draft.claims);
  if (lock) {
    throw new BrokerError('denied', 'A lock forbids new grants here.', {
      reason: `lock ${lock.id}`,
      hint: `Lock ${lock.id}: ${lock.reason}`,
    });
  }
  return { reading, decision, ...draft };
}

/** The leases a delegated token hangs on: those above the parent, and the parent. */
function leasePathOf(parent: LeaseRecord | undefined): string[] {
  return parent ? [...parent.path.filter((id) => id.startsWith('lse_')), parent.id] : [];
}

/** A parent token is judged only when this broker's own table has reached the fence that was read. */
async function checkParent(
  parts: Parts,
  parent: NonNullable<Requester['parent']>,
  reading: Reading,
  nowMs: number,
): Promise<void> {
  await parts.feed.reached(reading.fence, 1_000);
  const lease = reading.leases.at(-1);
  const revoked = parts.feed.table().find(parent.claims, parent.kid) !== undefined;
  const above = { tasks: reading.tasks, leases: reading.leases.slice(0, -1), revoked };
  const dead = lease ? deadBecause(lease, above, nowMs) : 'lease';
  if (dead) throw new BrokerError('subject_rejected', 'The subject_token was not accepted.', { reason: dead });
}

/** One piece of work is done for one person: what alice's token opened is not continued with bob's. */
function checkPerson(requester: Requester, task: TaskRecord): void {
  const person = requesterPerson(requester);
  if (person === undefined || !task.onBehalfOf?.proven || task.onBehalfOf.name === person) return;
  throw new BrokerError('subject_rejected', 'The task is on behalf of somebody else.', {
    reason: `${person}, and the task is for ${task.onBehalfOf.name}`,
  });
}

function onBehalfOf(requester: Requester, task: TaskRecord): { subject: string; proven: boolean } | undefined {
  const person = requesterPerson(requester);
  if (person !== undefined) return { subject: person, proven: true };
  return task.onBehalfOf && { subject: task.onBehalfOf.name, proven: task.onBehalfOf.proven };
}

function checkBinding(decision: Decision, binding: Requester['binding']): void {
  const wanted = decision.limits.binding;
  if (wanted === undefined || wanted === binding || (wanted === 'any' && binding !== 'none')) return;
  throw new BrokerError('denied', 'Policy wants this token bound to a key.', {
    policyIds: decision.policyIds,
    hint: wanted === 'mtls' ? 'Connect with an X.509-SVID.' : 'Send a DPoP proof.',
  });
}

function mintedRecord(asking: Asking, { lease, decision, claims }: Draft) {
  return {
    generation: lease.generations.at(-1) as number,
    lease: lease.id,
    action: asking.requester.parent ? 'delegate' : 'mint',
    effect: 'allow' as const,
    bundle: lease.bundle,
    policyIds: decision.policyIds,
    detail: {
      tools: lease.tools,
      expires_at: new Date(lease.expiresAtMs).toISOString(),
      binding: lease.binding,
      sub: claims.sub,
    },
    ...(lease.taskId && { task: lease.taskId }),
    ...(lease.resource && { resource: lease.resource }),
    ...(lease.onBehalfOf && { onBehalfOf: lease.onBehalfOf }),
    ...(lease.actors.length > 0 && { chain: [...lease.actors, lease.agent] }),
  };
}

/** The lease is in the store: now, and only now, there is a token. */
function sign(parts: Parts, asking: Asking, { lease, claims }: Draft): Minted {
  const key = parts.keys.byKid(lease.keyId as string);
  if (!key || key.state === 'tainted') {
    throw new BrokerError('unavailable', 'The signing key moved; try again.', { retryAfterSeconds: 1 });
  }
  return {
    accessToken: new Secret(parts.signer.sign(key, 'at+jwt', claims)),
    tokenType: asking.requester.binding === 'dpop' ? 'DPoP' : 'Bearer',
    expiresInSeconds: claims.exp - claims.iat,
    scope: claims.scope,
    authorizationDetails: [{ type: TASK_DETAIL_TYPE, identifier: lease.taskId }],
    leaseId: lease.id,
    issuedTokenType: ACCESS_TOKEN_TYPE,
  };
}
