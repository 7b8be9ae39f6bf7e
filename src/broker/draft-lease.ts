import type { WorkloadDeclaration } from '../core/agent.js';
import type { Resource } from '../core/bundle.js';
import { type Actor, TASK_DETAIL_TYPE, type TaskClaims } from '../core/claims.js';
import type { Limits } from '../core/decision.js';
import { BrokerError } from '../core/errors.js';
import { newId } from '../core/ids.js';
import type { LeaseRecord } from '../core/lease.js';
import { scopeOf } from '../core/scope.js';
import { factsAbove, ownFacts } from '../core/selector.js';
import type { TaskRecord } from '../core/task.js';
import { shortest } from '../core/time.js';
import type { Reading } from '../state/stores.js';
import type { Parts } from './parts.js';
import { type Requester, requesterPerson } from './requester.js';

/** Longest life of a token that only its own expiry ends (a cloud that merely trusts our signature). */
const EXPIRY_ONLY_TTL_MS_MAX = 60_000;

export interface Grant {
  requester: Requester & { agent: NonNullable<Requester['agent']> };
  /** As the bundle of the reading declares the agent: what was known when the request came may be an older one. */
  declaration: WorkloadDeclaration;
  reading: Reading;
  resource: Resource;
  tools: string[];
  limits: Limits;
  /** Whether policies say something about single calls of these tools: then a tool has to ask about each. */
  constrainsCalls: boolean;
}

/** The lease of a decided grant and the claims its token will carry: nothing lives longer than the shortest thing it hangs on. */
export function draftLease(parts: Parts, grant: Grant, nowMs: number): { lease: LeaseRecord; claims: TaskClaims } {
  const { requester, declaration, reading, resource, tools, limits, constrainsCalls } = grant;
  const { agent, person, parent } = requester;
  const task = reading.tasks[reading.tasks.length - 1] as TaskRecord;
  const ttlMs = shortest(
    parts.settings.ttlMsDefault,
    limits.ttlMsMax,
    parts.settings.ttlMsMax,
    resource.enforcement === 'expiry-only' ? EXPIRY_ONLY_TTL_MS_MAX : undefined,
  );
  const deadlines = reading.tasks.map((one) => one.deadlineMs);
  const endMs = shortest(
    nowMs + ttlMs,
    agent.expiresAtMs,
    person?.expiresAtMs,
    parent && parent.claims.exp * 1000,
    ...deadlines,
  );
  const iat = Math.floor(nowMs / 1000);
  const exp = Math.floor(endMs / 1000);
  if (exp <= iat) throw new BrokerError('task_over', 'The task is over.', { reason: 'less than a second is left' });

  const personName = requesterPerson(requester);
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
    owner: declaration.owner,
    team: declaration.team,
    environment: declaration.environment,
    resource: resource.resource,
    tools,
    position: reading.position,
    generations: reading.tasks.map((one) => one.generation),
    bundle: reading.bundle,
    keyId: parts.keys.active().kid,
    identityKeyId: agent.keyId,
    proof: agent.proof,
    binding: requester.binding,
    state: 'active',
    createdAtMs: nowMs,
    expiresAtMs: exp * 1000,
  };
  const proven = task.onBehalfOf?.proven ? task.onBehalfOf.name : undefined;
  const sub = parent?.claims.sub ?? personName ?? proven ?? agent.spiffeId;
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
      ...(constrainsCalls && { call: true as const }),
    },
  };
  return { lease, claims };
}

/** `act` names who acts now when that is not `sub`; what was said of earlier actors stays below it (RFC 8693 section 4.1). */
function actorOf(sub: string, agent: string, parent: TaskClaims | undefined): Actor | undefined {
  if (parent?.act) return { sub: agent, act: parent.act };
  return sub === agent ? undefined : { sub: agent };
}

/** What selectors can name beyond the plain claims: of the token itself, and of every task and lease above it. */
function selectorHashes(parts: Parts, lease: LeaseRecord, reading: Reading): string[] {
  const facts = ownFacts(lease);
  for (const above of reading.leases) facts.push(...factsAbove(above));
  for (const task of reading.tasks) {
    facts.push(['opener', task.opener]);
    if (task.onBehalfOf) facts.push(['on_behalf_of', task.onBehalfOf.name]);
  }
  return [...new Set(facts.map(([kind, value]) => parts.selectorHash(kind, value)))];
}
