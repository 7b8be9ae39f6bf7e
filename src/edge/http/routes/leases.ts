import { z } from 'zod';
import { abandon } from '../../../broker/abandon.js';
import { giveBack } from '../../../broker/give-back.js';
import { getLease, listLeases } from '../../../broker/look-up.js';
import { renew } from '../../../broker/renew.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, milliseconds, NOTHING, seconds } from '../wire.js';
import { leaseOnWire, leaseShape } from './lease-shape.js';
import { durationSeconds, idParams, name, pageOf, pageOnWire, pageQuery, reason, taskName } from './shapes.js';

export const leases: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/leases',
    auth: 'caller',
    summary: 'Leases that are not past their end, of those you may see',
    query: z.strictObject({
      ...pageQuery,
      task: taskName.optional(),
      agent: name.optional(),
      state: z.enum(['pending', 'active', 'revoking', 'revoked', 'abandoned', 'stuck']).optional().meta({
        description: '`stuck`: not dead after six attempts, or something is left of it',
      }),
      live: z.enum(['true', 'false']).optional().meta({
        description: '`true`: not over by their own state (pending, active, revoking); `false`: revoked or abandoned',
      }),
      given_for: z.enum(['task', 'operator']).optional().meta({
        description: '`operator`: operator tokens, which a person gets for a few minutes at a time and for no task',
      }),
    }),
    reply: { 200: pageOf(leaseShape) },
    errors: ['not_found', 'denied'],
    handle: async (parts, { caller, query }) => {
      const { limit, live, given_for: givenFor, ...filter } = query;
      const page = await listLeases(parts, caller, {
        limit,
        ...defined({ ...filter, live: live && live === 'true', givenFor }),
      });
      return { status: 200, body: pageOnWire(page, leaseOnWire) };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/leases/{id}',
    auth: 'caller',
    summary: 'One lease, and whether it is worth anything',
    params: idParams,
    reply: { 200: leaseShape },
    errors: ['not_found'],
    handle: async (parts, { caller, params }) => {
      const { lease, dead } = await getLease(parts, caller, params.id);
      return { status: 200, body: { ...leaseOnWire(lease), ...(dead && { dead_because: dead }) } };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/leases/{id}/renew',
    hot: true,
    auth: 'caller',
    summary: 'Longer life for a credential you hold, decided anew',
    params: idParams,
    body: json(z.strictObject({ increment_seconds: durationSeconds.optional() }), { optional: true }),
    reply: {
      200: z.strictObject({
        request_id: z.string(),
        lease_id: z.string(),
        lease_duration: z.int().positive().meta({ description: 'Seconds' }),
        renewable: z.boolean(),
      }),
    },
    errors: ['denied', 'not_found', 'conflict', 'task_over', 'task_suspended', 'unavailable'],
    handle: async (parts, { caller, params, body, requestId }) => {
      const renewed = await renew(parts, caller, {
        lease: params.id,
        ...defined({ incrementMs: milliseconds(body.increment_seconds) }),
      });
      return {
        status: 200,
        body: {
          request_id: requestId,
          lease_id: renewed.leaseId,
          lease_duration: seconds(renewed.lifeMs),
          renewable: renewed.renewable,
        },
      };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/leases/{id}/revoke',
    auth: 'caller',
    summary: 'One lease, before its task is over: by its holder, the opener of its task, or an operator',
    params: idParams,
    body: json(z.strictObject({}), { optional: true }),
    reply: { 202: z.strictObject({ lease_id: z.string(), state: leaseShape.shape.state }) },
    errors: ['denied', 'not_found'],
    handle: async (parts, { caller, params }) => {
      const { id, state } = await giveBack(parts, caller, params.id);
      return { status: 202, body: { lease_id: id, state } };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/leases/{id}/abandon',
    auth: 'caller',
    summary: 'Give up on a credential that cannot be revoked; a second operator repeats it within 15 minutes',
    params: idParams,
    body: json(z.strictObject({ reason })),
    reply: { 202: z.strictObject({ lease_id: z.string(), state: z.literal('requested') }), 204: NOTHING },
    errors: ['denied', 'not_found', 'conflict'],
    handle: async (parts, { caller, params, body }) => {
      const state = await abandon(parts, caller, { lease: params.id, reason: body.reason });
      return state === 'requested' ? { status: 202, body: { lease_id: params.id, state } } : { status: 204 };
    },
  }),
];
