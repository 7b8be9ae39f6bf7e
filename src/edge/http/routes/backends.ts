import { z } from 'zod';
import { type BackendView, checkBackend, listBackends } from '../../../broker/look-at-backends.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, instant } from '../wire.js';
import { moment, name } from './shapes.js';

const count = z.int().min(0);

const backendShape = z.strictObject({
  name: z.string(),
  kind: z.string(),
  state: z.enum(['up', 'down', 'degraded']).meta({ description: 'degraded: not all of its secrets can be had' }),
  breaker: z.enum(['closed', 'open']).meta({ description: 'open: it does not answer, and is only tried now and then' }),
  problem: z.string().optional(),
  pending: count,
  active: count,
  revoking: count,
  stuck: count.meta({ description: 'Of those revoking: not dead after six attempts' }),
  reconciled_at: moment.optional().meta({
    description: 'When what is there was last compared with the leases, every 15 s; absent where it cannot be listed',
  }),
  orphans: count.optional().meta({ description: 'Found then: there, and nobody stood for them. They are revoked' }),
  orphans_ever: count.optional().meta({ description: 'In all comparisons so far' }),
  lost: count.optional().meta({ description: 'Leases whose credential was not there then' }),
  secrets: z.array(z.strictObject({ name: z.string(), open: z.boolean(), problem: z.string().optional() })),
});

function backendOnWire({ secrets, reconciled, ...view }: BackendView): z.output<typeof backendShape> {
  const each = secrets.map(({ name, problem }) => defined({ name, open: problem === undefined, problem }));
  const last = defined({
    reconciled_at: instant(reconciled?.atMs),
    orphans: reconciled?.orphans,
    orphans_ever: reconciled?.orphansEver,
    lost: reconciled?.lost,
  });
  return { ...view, ...last, secrets: each };
}

export const backends: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/backends',
    auth: 'caller',
    summary: 'Where credentials come from, whether it answers, and what is under way there',
    reply: { 200: z.strictObject({ items: z.array(backendShape) }) },
    errors: ['denied'],
    handle: async (parts, { caller }) => {
      const items = await listBackends(parts, caller);
      return { status: 200, body: { items: items.map(backendOnWire) } };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/backends/{name}/check',
    auth: 'caller',
    summary: 'Try every secret of a backend on the real thing, now',
    params: z.strictObject({ name }),
    body: json(z.strictObject({})),
    reply: { 200: backendShape },
    errors: ['denied', 'not_found'],
    handle: async (parts, { caller, params }) => ({
      status: 200,
      body: backendOnWire(await checkBackend(parts, caller, params.name)),
    }),
  }),
];
