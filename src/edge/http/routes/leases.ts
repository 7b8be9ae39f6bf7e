import { z } from 'zod';
import { getLease, listLeases } from '../../../broker/look-up.js';
import { defineRoute, type Route } from '../route.js';
import { defined } from '../wire.js';
import { leaseOnWire, leaseShape } from './lease-shape.js';
import { idParams, name, pageOf, pageOnWire, pageQuery, taskName } from './shapes.js';

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
      state: z.enum(['pending', 'active', 'revoking', 'revoked', 'abandoned']).optional(),
    }),
    reply: { 200: pageOf(leaseShape) },
    errors: ['not_found', 'denied'],
    handle: async (parts, { caller, query }) => {
      const { limit, ...filter } = query;
      const page = await listLeases(parts, caller, { limit, ...defined(filter) });
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
];
