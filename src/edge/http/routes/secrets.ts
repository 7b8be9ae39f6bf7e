import { z } from 'zod';
import { issue } from '../../../broker/issue.js';
import { issueAgain } from '../../../broker/issue-again.js';
import { listSecrets } from '../../../broker/list-secrets.js';
import { BrokerError } from '../../../core/errors.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, milliseconds, seconds } from '../wire.js';
import { revocabilityOnWire, revocabilityShape } from './revocability-shape.js';
import { durationSeconds, pageOf, pageOnWire, pageQuery, taskName, text, texts } from './shapes.js';

const KEY = /^[\x21-\x7e]{1,255}$/;

export const secrets: readonly Route[] = [
  defineRoute({
    method: 'POST',
    path: '/v1/secrets/{name}',
    hot: true,
    auth: 'caller',
    summary:
      'A credential made for a task: it dies with the task. Repeated with its Idempotency-Key, the first one is revoked and another issued',
    params: z.strictObject({ name: text(128) }),
    body: json(
      z.strictObject({
        task: taskName.optional().meta({ description: 'Absent only with a token of the task' }),
        ttl_seconds: durationSeconds
          .optional()
          .meta({ description: '5 at least; at most as long as policy, secret and task allow' }),
      }),
      { optional: true },
    ),
    reply: {
      200: z.strictObject({
        request_id: z.string(),
        lease_id: z.string(),
        lease_duration: z.int().positive().meta({ description: 'Seconds' }),
        renewable: z.boolean(),
        data: z.record(z.string(), z.union([z.string(), z.number()])).meta({ description: 'The secret, by field' }),
        warnings: texts.optional(),
        task: z.string(),
        revocability: revocabilityShape,
        replaces: z.string().optional().meta({ description: 'The lease of the repeated request, revoked' }),
      }),
    },
    errors: [
      'denied',
      'not_found',
      'task_over',
      'task_suspended',
      'quota_exceeded',
      'conflict',
      'key_reused',
      'token_refused',
      'unavailable',
    ],
    handle: async (parts, { caller, params, body, bodyDigest, header, requestId }) => {
      const request = defined({ secret: params.name, task: body.task, ttlMs: milliseconds(body.ttl_seconds) });
      const key = header('idempotency-key');
      if (key !== undefined && !KEY.test(key)) {
        throw new BrokerError('invalid_request', 'An Idempotency-Key is 1 to 255 visible characters.', {
          field: 'idempotency-key',
        });
      }
      const issued = await (key === undefined
        ? issue(parts, caller, request)
        : issueAgain(parts, caller, request, { key, bodyDigest: bodyDigest() }));
      return {
        status: 200,
        headers: { 'cache-control': 'no-store' },
        note: { lease: issued.leaseId, secret: params.name },
        body: defined({
          request_id: requestId,
          lease_id: issued.leaseId,
          lease_duration: seconds(issued.lifeMs),
          renewable: issued.renewable,
          data: issued.data.expose(),
          warnings: issued.warnings.length > 0 ? issued.warnings : undefined,
          task: issued.taskId,
          revocability: revocabilityOnWire(issued.revocability),
          replaces: issued.replaces,
        }),
      };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/secrets',
    auth: 'caller',
    summary: 'Declared secrets you may see, and whether they can be had now',
    query: z.strictObject(pageQuery),
    reply: {
      200: pageOf(
        z.strictObject({
          name: z.string(),
          backend: z.string(),
          kind: z.string().optional(),
          sensitivity: z.string(),
          ttl_seconds_max: z.int(),
          revocability: revocabilityShape.optional(),
          open: z.boolean(),
          problem: z.string().optional().meta({ description: 'Why it is closed; for operators' }),
        }),
      ),
    },
    errors: ['denied', 'unavailable'],
    handle: async (parts, { caller, query }) => {
      const page = await listSecrets(parts, caller, { limit: query.limit, ...defined({ cursor: query.cursor }) });
      return {
        status: 200,
        body: pageOnWire(page, (one) =>
          defined({
            name: one.name,
            backend: one.backend,
            kind: one.kind,
            sensitivity: one.sensitivity,
            ttl_seconds_max: seconds(one.ttlMsMax),
            revocability: one.revocability && revocabilityOnWire(one.revocability),
            open: one.open,
            problem: one.problem,
          }),
        ),
      };
    },
  }),
];
