import { z } from 'zod';
import { type Explanation, readAudit, why } from '../../../broker/look-up.js';
import { AUDIT_TYPES, type AuditRecord, type AuditType } from '../../../core/audit.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, instant } from '../wire.js';
import { leaseOnWire, leaseShape } from './lease-shape.js';
import { lockOnWire, lockShape, revocationOnWire, revocationShape } from './revocation-shape.js';
import { anyRecord, idParams, moment, name, pageOf, pageOnWire, pageQuery, text, texts } from './shapes.js';
import { taskOnWire, taskShape } from './task-shape.js';

const auditType = z.enum(Object.keys(AUDIT_TYPES) as [AuditType, ...AuditType[]]);

const recordShape = z.strictObject({
  id: z.string(),
  at: moment,
  type: auditType,
  actor: z.strictObject({
    workload: z.string().optional(),
    person: z.string().optional(),
    model: z.string().optional(),
    on_behalf_of: z.string().optional(),
    chain: texts.optional(),
    proof: z.string().optional(),
  }),
  task: z.string().optional(),
  generation: z.int().optional(),
  lease: z.string().optional(),
  action: z.string().optional(),
  resource: z.string().optional(),
  arguments_digest: z.string().optional(),
  effect: z.enum(['allow', 'deny', 'ask']).optional(),
  code: z.string().optional(),
  bundle: z.string().optional(),
  policy_ids: texts.optional(),
  reasons: texts.optional(),
  request_id: z.string().optional(),
  trace_id: z.string().optional(),
  position: z.string().optional(),
  detail: anyRecord.optional(),
});

function recordOnWire(record: AuditRecord & { pos?: string }): z.output<typeof recordShape> {
  const { actor } = record;
  return defined({
    id: record.id,
    at: instant(record.atMs),
    type: record.type,
    actor: defined({
      workload: actor.workload,
      person: actor.person,
      model: actor.model,
      on_behalf_of: actor.onBehalfOf,
      chain: actor.chain,
      proof: actor.proof,
    }),
    task: record.task,
    generation: record.generation,
    lease: record.lease,
    action: record.action,
    resource: record.resource,
    arguments_digest: record.argumentsDigest,
    effect: record.effect,
    code: record.code,
    bundle: record.bundle,
    policy_ids: record.policyIds,
    reasons: record.reasons,
    request_id: record.requestId,
    trace_id: record.traceId,
    position: record.pos,
    detail: record.detail,
  });
}

const explanationShape = z.strictObject({
  because: texts.meta({ description: 'In words, most telling first' }),
  record: recordShape.optional(),
  task: taskShape.optional(),
  lease: leaseShape.optional(),
  lock: lockShape.optional(),
  revocation: revocationShape.optional(),
});

function explanationOnWire({
  because,
  record,
  task,
  lease,
  lock,
  revocation,
}: Explanation): z.output<typeof explanationShape> {
  return defined({
    because,
    record: record && recordOnWire(record),
    task: task && taskOnWire(task),
    lease: lease && { ...leaseOnWire(lease.lease), ...(lease.dead && { dead_because: lease.dead }) },
    lock: lock && lockOnWire(lock),
    revocation: revocation && revocationOnWire(revocation),
  });
}

export const audit: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/audit',
    auth: 'caller',
    summary: 'The audit log, newest first',
    query: z.strictObject({
      ...pageQuery,
      agent: name.optional(),
      task: text(64).optional(),
      lease: text(64).optional(),
      type: auditType.optional(),
      from: moment.optional(),
      to: moment.optional(),
    }),
    reply: { 200: pageOf(recordShape) },
    errors: ['denied'],
    handle: async (parts, { caller, query }) => {
      const { limit, cursor, agent, task, lease, type, from, to } = query;
      const times = { fromMs: from ? Date.parse(from) : undefined, toMs: to ? Date.parse(to) : undefined };
      const page = await readAudit(parts, caller, {
        limit,
        ...defined({ cursor, agent, task, lease, type, ...times }),
      });
      return { status: 200, body: pageOnWire(page, recordOnWire) };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/decisions/{id}',
    auth: 'caller',
    summary: 'Why: one decision with its inputs, and the nearest miss',
    params: idParams,
    reply: { 200: explanationShape },
    errors: ['not_found'],
    handle: async (parts, { caller, params }) => ({
      status: 200,
      body: explanationOnWire(await why(parts, caller, params.id)),
    }),
  }),
  // A token has no place in a URL, where logs and histories keep it.
  defineRoute({
    method: 'POST',
    path: '/v1/why',
    auth: 'caller',
    summary: 'Why: a decision, a lease, a task, a lock, a revocation, or a token',
    body: json(z.strictObject({ about: text(16 * 1024) })),
    reply: { 200: explanationShape },
    errors: ['not_found'],
    handle: async (parts, { caller, body }) => ({
      status: 200,
      body: explanationOnWire(await why(parts, caller, body.about)),
    }),
  }),
];
