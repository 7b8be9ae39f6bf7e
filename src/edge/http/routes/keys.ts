import { z } from 'zod';
import { activateKey, listKeys, prepareKey, taintKey } from '../../../broker/rotate-keys.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, instant } from '../wire.js';
import { moment, reason, text } from './shapes.js';

const keyShape = z.strictObject({
  kid: z.string(),
  alg: z.string(),
  state: z.enum(['prepare', 'active', 'retiring', 'tainted']),
  created_at: moment,
  activated_at: moment.optional(),
  retired_at: moment.optional(),
});

type RingKey = Awaited<ReturnType<typeof listKeys>>[number];

/** Only what is public: the private half never has a place to leave by. */
function keyOnWire(key: RingKey): z.output<typeof keyShape> {
  return defined({
    kid: key.kid,
    alg: key.alg,
    state: key.state,
    created_at: instant(key.createdAtMs),
    activated_at: instant(key.activatedAtMs),
    retired_at: instant(key.retiredAtMs),
  });
}

const kidParams = z.strictObject({ kid: text(256) });

export const keys: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/keys',
    auth: 'caller',
    summary: 'The signing keys and their states',
    reply: { 200: z.strictObject({ items: z.array(keyShape) }) },
    errors: ['denied'],
    handle: async (parts, { caller }) => ({
      status: 200,
      body: { items: (await listKeys(parts, caller)).map(keyOnWire) },
    }),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/keys',
    auth: 'bound',
    summary: 'Prepares a key: published, not yet used',
    body: json(z.strictObject({ alg: z.enum(['ES256', 'RS256']).default('ES256') }), { optional: true }),
    reply: { 201: keyShape },
    errors: ['conflict'],
    handle: async (parts, { caller, body }) => ({
      status: 201,
      body: keyOnWire(await prepareKey(parts, caller, { alg: body.alg })),
    }),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/keys/{kid}/activate',
    auth: 'bound',
    summary: 'A prepared key signs from now on; the one before retires',
    params: kidParams,
    body: json(z.strictObject({}), { optional: true }),
    reply: { 200: keyShape },
    errors: ['not_found', 'conflict'],
    handle: async (parts, { caller, params }) => ({
      status: 200,
      body: keyOnWire(await activateKey(parts, caller, { kid: params.kid })),
    }),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/keys/{kid}/taint',
    auth: 'bound',
    summary: 'A key is no longer to be believed: its tokens are dead at once',
    params: kidParams,
    body: json(z.strictObject({ reason })),
    reply: { 200: keyShape },
    errors: ['not_found', 'conflict'],
    handle: async (parts, { caller, params, body }) => ({
      status: 200,
      body: keyOnWire(await taintKey(parts, caller, { kid: params.kid, reason: body.reason })),
    }),
  }),
];
