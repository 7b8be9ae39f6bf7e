import { asRecorded } from '../core/as-recorded.js';
import { type Bundle, findWorkload, nearestWorkload, type TaskType } from '../core/bundle.js';
import { effectiveContext, loosened, type TaskContext } from '../core/context.js';
import type { PolicyQuestion } from '../core/decision.js';
import { BrokerError } from '../core/errors.js';
import { nameOf } from '../core/identity.js';
import { newId } from '../core/ids.js';
import { paramProblems } from '../core/params.js';
import { isWithin } from '../core/scope.js';
import { parseSpiffeId } from '../core/spiffe-id.js';
import {
  isTerminal,
  type OnBehalfOf,
  PATH_DEPTH_MAX,
  type TaskCharter,
  type TaskRecord,
  type TaskScope,
} from '../core/task.js';
import { shortest } from '../core/time.js';
import type { Reading } from '../state/stores.js';
import type { Caller } from './caller.js';
import { mustBeWellFormed } from './context-problem.js';
import { lockForbidding } from './locked.js';
import { openingWarnings } from './opening-warnings.js';
import type { Parts } from './parts.js';
import { reachTask } from './permitted.js';
import { principalEntity, taskView } from './questions.js';
import { deniedBy, record, recordingRefusals, refusedCommit } from './refusal.js';
import { mustBeSameCharter } from './same-charter.js';

export interface StartTaskRequest {
  type?: string;
  params: Record<string, unknown>;
  purpose: string;
  ref?: string;
  agents: string[];
  scope?: Partial<TaskScope>;
  context: TaskContext;
  ttlMs?: number;
  heartbeatMs?: number;
  onSilence?: 'suspend' | 'end';
  onContextChange?: 're-evaluate' | 'revoke';
  /** Task id or `ref:…`. */
  parent?: string;
  /** A person's token: proves on whose behalf. */
  onBehalfOfToken?: string;
  /** A name nobody proved: recorded as asserted, never a `sub`. */
  onBehalfOf?: string;
}

const READS_MAX = 3;

/**
 * Opens a task: who → under which parent → is it well-formed and within its type and parent → may they → write. Repeating it with the same
 * `ref` brings the task that is there, whatever its state; asking for another one by it is a conflict. `warnings`: what they should hear now.
 */
export async function startTask(
  parts: Parts,
  caller: Caller,
  request: StartTaskRequest,
): Promise<{ task: TaskRecord; created: boolean; warnings: string[] }> {
  const about = { action: 'open', ...(request.type && { resource: asRecorded('name', request.type) }) };
  return recordingRefusals(parts, caller, about, async () => {
    const onBehalfOf = await readOnBehalfOf(parts, caller, request);
    for (let reads = 0; reads < READS_MAX; reads++) {
      const nowMs = parts.clock.now();
      const parent = request.parent === undefined ? undefined : await reachTask(parts, caller, request.parent);
      const reading = parent?.reading ?? (await parts.ledger.read({ nowMs }));
      if (!reading) throw new BrokerError('unavailable', 'The store is not ready.', { retryAfterSeconds: 1 });
      const policy = parts.policies.of(reading.bundle);
      const charter = draftCharter(parts, caller, request, policy.bundle, reading, onBehalfOf);
      checkLocks(reading, caller, nowMs);
      const question: PolicyQuestion = {
        principal: principalEntity(caller.principal, nowMs),
        action: 'open',
        resource: {
          type: 'TaskType',
          id: charter.type ?? 'untyped',
          attributes: { type: charter.type ?? 'untyped', risk: charter.risk },
        },
        context: openContext(charter, request, reading.tasks, policy.bundle),
      };
      const decision = policy.decide(question);
      if (decision.effect !== 'allow') {
        throw deniedBy(decision, policy.nearestMiss(question), `open ${charter.type ?? 'untyped'}`, question);
      }
      const outcome = await parts.ledger.startTask({
        charter: {
          ...charter,
          deadlineMs: shortest(charter.deadlineMs, decision.limits.ttlMsMax && nowMs + decision.limits.ttlMsMax),
        },
        context: request.context,
        basis: {
          position: reading.position,
          bundle: reading.bundle,
          generations: reading.tasks.map((task) => task.generation),
        },
        quotas: parts.settings.quotas,
        nowMs,
        audit: record(parts, 'task.opened', caller, {
          task: charter.id,
          generation: 0,
          action: 'open',
          effect: 'allow',
          bundle: reading.bundle,
          policyIds: decision.policyIds,
          ...(charter.onBehalfOf && { onBehalfOf: charter.onBehalfOf.name }),
          detail: {
            type: charter.type,
            purpose: charter.purpose,
            agents: charter.agents,
            scope: charter.scope,
            ref: charter.ref,
            on_behalf_of: onBehalfOf,
            parent: reading.tasks.at(-1)?.id,
          },
        }),
      });
      if ('task' in outcome) {
        if (outcome.outcome === 'exists') mustBeSameCharter(outcome.task, charter, request.scope);
        const told = { ...outcome.task, context: request.context };
        const warnings = openingWarnings(policy.bundle, told, reading, nowMs);
        return { task: outcome.task, created: outcome.outcome === 'opened', warnings };
      }
      if (outcome.outcome !== 'stale') throw refusedCommit(outcome);
    }
    throw new BrokerError('unavailable', 'The world keeps changing; try again.', { retryAfterSeconds: 1 });
  });
}

/** A person's token proves it; anything else is an assertion and stays one. */
async function readOnBehalfOf(
  parts: Parts,
  caller: Caller,
  request: StartTaskRequest,
): Promise<OnBehalfOf | undefined> {
  if (request.onBehalfOfToken !== undefined) {
    const person = await parts.identity.personJwt(request.onBehalfOfToken);
    if (person.mayAct && !person.mayAct.includes(caller.name)) {
      throw new BrokerError('denied', 'That person did not let you act for them.', {
        field: 'on_behalf_of_token',
        reason: 'may_act',
      });
    }
    if (parts.clock.now() - person.issuedAtMs > parts.settings.personTokenAgeMsMax) {
      throw new BrokerError('denied', 'That person’s token is too old.', {
        field: 'on_behalf_of_token',
        hint: 'Fetch a new one.',
      });
    }
    return { name: nameOf(person), proven: true };
  }
  if (request.onBehalfOf !== undefined) return { name: request.onBehalfOf, proven: false };
  return undefined;
}

function draftCharter(
  parts: Parts,
  caller: Caller,
  request: StartTaskRequest,
  bundle: Bundle,
  reading: Reading,
  onBehalfOf: OnBehalfOf | undefined,
): TaskCharter {
  const nowMs = parts.clock.now();
  const { tasks } = reading;
  const parent = tasks.at(-1);
  checkParent(tasks, nowMs);
  const type = typeOf(bundle, request);
  const scope = scopeOf(request, type, parent);
  checkContext(request, tasks, type, bundle);
  const agents = [...new Set(request.agents)];
  for (const [at, agent] of agents.entries()) checkAgent(bundle, agent, at);
  const ttlMs = shortest(request.ttlMs ?? parts.settings.taskTtlMsDefault, type?.ttlMsMax, parts.settings.taskTtlMsMax);
  const id = newId('tsk', parts.settings.cell, nowMs);
  const { principal } = caller;
  return {
    id,
    path: [...(parent?.path ?? []), id],
    ...(request.ref !== undefined && { ref: request.ref }),
    ...(type && { type: type.type }),
    params: request.params,
    purpose: request.purpose,
    risk: type?.risk ?? 'medium',
    opener: caller.name,
    openerKind: principal.kind === 'person' ? 'person' : principal.kind === 'orchestrator' ? 'orchestrator' : 'agent',
    ...((onBehalfOf ?? parent?.onBehalfOf) && { onBehalfOf: (onBehalfOf ?? parent?.onBehalfOf) as OnBehalfOf }),
    agents,
    scope,
    selfOpened: principal.kind === 'agent',
    createdAtMs: nowMs,
    deadlineMs: shortest(nowMs + ttlMs, parent?.deadlineMs),
    ...(request.heartbeatMs !== undefined && { heartbeatMs: request.heartbeatMs }),
    onSilence: request.onSilence ?? 'suspend',
    onContextChange: request.onContextChange ?? 're-evaluate',
    bundle: bundle.digest,
  };
}

function checkParent(tasks: readonly TaskRecord[], nowMs: number): void {
  if (tasks.length >= PATH_DEPTH_MAX) {
    throw new BrokerError('invalid_request', `A path is at most ${PATH_DEPTH_MAX} tasks deep.`, { field: 'parent' });
  }
  if (tasks.some((task) => isTerminal(task.state) || task.deadlineMs <= nowMs)) {
    throw new BrokerError('task_over', 'The parent task is over.', { field: 'parent' });
  }
  if (tasks.some((task) => task.state === 'suspended')) {
    throw new BrokerError('task_suspended', 'The parent task is suspended.', { field: 'parent' });
  }
}

function typeOf(bundle: Bundle, request: StartTaskRequest): TaskType | undefined {
  if (request.type === undefined) return undefined;
  const type = bundle.taskTypes.get(request.type);
  if (!type) {
    throw new BrokerError('invalid_request', `type: ${request.type} is not a declared task type.`, {
      field: 'type',
      hint: `Declared: ${[...bundle.taskTypes.keys()].join(', ') || 'none'}.`,
    });
  }
  const problems = paramProblems(type, request.params);
  if (problems.length > 0)
    throw new BrokerError('invalid_request', problems[0] as string, { field: 'params', problems });
  return type;
}

/** What was asked for, else all that type and parent have; never more than either. */
function scopeOf(request: StartTaskRequest, type: TaskType | undefined, parent: TaskRecord | undefined): TaskScope {
  const members = ['tools', 'resources', 'secrets'] as const;
  const scope: TaskScope = { tools: [], resources: [], secrets: [] };
  for (const member of members) {
    const outer =
      type && parent
        ? type[member].filter((value) => parent.scope[member].includes(value))
        : (type ?? parent?.scope)?.[member];
    const asked = request.scope?.[member];
    if (asked && outer && !isWithin(asked, outer)) {
      const outside = asked.find((value) => !outer.includes(value));
      throw new BrokerError(
        'invalid_request',
        `scope.${member}: ${outside} is not within the task type and the parent task.`,
        {
          field: `scope.${member}`,
          hint: `There is: ${outer.join(', ') || 'none'}.`,
        },
      );
    }
    scope[member] = [...new Set(asked ?? outer ?? [])].sort();
  }
  return scope;
}

function checkContext(
  request: StartTaskRequest,
  tasks: readonly TaskRecord[],
  type: TaskType | undefined,
  bundle: Bundle,
): void {
  mustBeWellFormed(request.context, type, bundle);
  const [key] = loosened(effectiveContext(tasks, bundle.taskTypes), request.context, type);
  if (key !== undefined) {
    throw new BrokerError('invalid_request', `context.${key}: a child task may only tighten what its parents say.`, {
      field: `context.${key}`,
    });
  }
}

function checkAgent(bundle: Bundle, agent: string, at: number): void {
  const id = parseSpiffeId(agent);
  const declaration = id && findWorkload(bundle, id);
  if (declaration && !declaration.retired) return;
  const near = nearestWorkload(bundle, agent);
  throw new BrokerError('invalid_request', `agents.${at}: ${id ? 'not a declared agent' : 'not a SPIFFE ID'}.`, {
    field: `agents.${at}`,
    ...(near !== undefined && { hint: `Did you mean ${near}?` }),
  });
}

/** A locked opener opens nothing. */
function checkLocks(reading: Reading, caller: Caller, nowMs: number): void {
  const { principal } = caller;
  const declaration =
    principal.kind === 'agent' || principal.kind === 'orchestrator' ? principal.declaration : undefined;
  const lock = lockForbidding(reading.locks, nowMs, {
    path: reading.tasks.map((task) => task.id),
    agent: caller.name,
    opener: caller.name,
    ...(declaration && { owner: declaration.owner, team: declaration.team, environment: declaration.environment }),
    identityKeyId: principal.identity.keyId,
    position: reading.position,
    bundle: reading.bundle,
  });
  if (lock)
    throw new BrokerError('denied', 'A lock forbids new grants here.', {
      reason: `lock ${lock.id}`,
      hint: `Lock ${lock.id}: ${lock.reason}`,
    });
}

function openContext(
  charter: TaskCharter,
  request: StartTaskRequest,
  above: readonly TaskRecord[],
  bundle: Bundle,
): Record<string, unknown> {
  const { onBehalfOf } = charter;
  return {
    task: {
      type: charter.type ?? 'untyped',
      params: charter.params,
      purpose: charter.purpose,
      ...charter.scope,
      agents: charter.agents,
      ttlSeconds: Math.floor((charter.deadlineMs - charter.createdAtMs) / 1000),
      context: effectiveContext(
        [...above, { ...(charter.type !== undefined && { type: charter.type }), context: request.context }],
        bundle.taskTypes,
      ),
      ...(onBehalfOf && { onBehalfOf: { subject: onBehalfOf.name, proven: onBehalfOf.proven } }),
    },
    ...(above.length > 0 && { parent: taskView(above, bundle) }),
    selfOpened: charter.selfOpened,
  };
}
