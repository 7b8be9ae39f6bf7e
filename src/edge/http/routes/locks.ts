import { z } from 'zod';
import { liftLock, lock } from '../../../broker/lock.js';
import { listLocks } from '../../../broker/look-up.js';
import { onlyOnce } from '../only-once.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, milliseconds, NOTHING } from '../wire.js';
import { lockOnWire, lockShape, revokedOnWire, revokedShape } from './revocation-shape.js';
import { durationSeconds, idParams, reason, selector } from './shapes.js';

export const locks: readonly Route[] = [
  // As with revocations: the verb asks for a bound identity unless it is a dry run.
  defineRoute({
    method: 'POST',
    path: '/v1/locks',
    auth: 'caller',
    summary:
      'Stop: revokes everything a selector names and forbids new grants until lifted. Acting needs a bound identity',
    body: json(
      z.strictObject({ selector, reason, expires_in: durationSeconds.optional(), dry_run: z.boolean().default(false) }),
    ),
    reply: { 201: revokedShape, 200: revokedShape.meta({ description: 'What it would hit; nothing was done' }) },
    errors: ['denied', 'not_found', 'key_reused', 'conflict'],
    handle: (parts, request) =>
      onlyOnce(parts, request, 'POST /v1/locks', {
        first: async () => {
          const { dry_run: dryRun, reason, selector, expires_in: expiresIn } = request.body;
          const made = await lock(parts, request.caller, {
            selector: defined(selector),
            reason,
            dryRun,
            ...defined({ expiresInMs: milliseconds(expiresIn) }),
          });
          return { status: made.lock ? 201 : 200, body: revokedOnWire(made) };
        },
        mayStillSee: async () => void (await listLocks(parts, request.caller)),
      }),
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/locks',
    auth: 'caller',
    summary: 'Locks that hold now',
    reply: { 200: z.strictObject({ items: z.array(lockShape) }) },
    errors: ['denied', 'not_found'],
    handle: async (parts, { caller }) => ({
      status: 200,
      body: { items: (await listLocks(parts, caller)).map(lockOnWire) },
    }),
  }),
  defineRoute({
    method: 'DELETE',
    path: '/v1/locks/{id}',
    auth: 'bound',
    summary: 'Lifts a lock; needs two people',
    params: idParams,
    reply: {
      202: z
        .strictObject({ id: z.string(), state: z.literal('requested') })
        .meta({ description: 'You are the first: a second person repeats it within 15 minutes' }),
      204: NOTHING,
    },
    errors: ['not_found'],
    handle: async (parts, { caller, params }) => {
      const outcome = await liftLock(parts, caller, { id: params.id });
      if (outcome === 'lifted') return { status: 204 };
      return { status: 202, body: { id: params.id, state: outcome } };
    },
  }),
];
