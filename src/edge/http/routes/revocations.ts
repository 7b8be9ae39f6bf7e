import { z } from 'zod';
import { listRevocations } from '../../../broker/look-up.js';
import { getRevocation } from '../../../broker/receipt.js';
import { revoke } from '../../../broker/revoke.js';
import { onlyOnce } from '../only-once.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined } from '../wire.js';
import { revocationOnWire, revocationShape, revokedOnWire, revokedShape } from './revocation-shape.js';
import { idParams, pageOf, pageOnWire, pageQuery, reason, selector, texts } from './shapes.js';

export const revocations: readonly Route[] = [
  // Anybody who may look may ask what a selector would hit; acting on it needs a bound identity, which the verb checks.
  defineRoute({
    method: 'POST',
    path: '/v1/revocations',
    auth: 'caller',
    summary: 'Revokes everything a selector names, at once; `dry_run` previews. Acting needs a bound identity',
    body: json(z.strictObject({ selector, reason, dry_run: z.boolean().default(false) })),
    reply: { 201: revokedShape, 200: revokedShape.meta({ description: 'What it would hit; nothing was done' }) },
    errors: ['denied', 'not_found', 'key_reused', 'conflict'],
    handle: (parts, request) =>
      onlyOnce(parts, request, 'POST /v1/revocations', {
        first: async () => {
          const { dry_run: dryRun, reason, selector } = request.body;
          const made = await revoke(parts, request.caller, { selector: defined(selector), reason, dryRun });
          const { revocation } = made;
          return {
            status: revocation ? 201 : 200,
            ...(revocation && { headers: { location: `/v1/revocations/${revocation.id}` } }),
            body: revokedOnWire(made),
          };
        },
        mayStillSee: async () => void (await listRevocations(parts, request.caller, { limit: 1 })),
      }),
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/revocations',
    auth: 'caller',
    summary: 'Revocations, newest first',
    query: z.strictObject(pageQuery),
    reply: { 200: pageOf(revocationShape) },
    errors: ['denied', 'not_found'],
    handle: async (parts, { caller, query }) => {
      const page = await listRevocations(parts, caller, { limit: query.limit, ...defined({ cursor: query.cursor }) });
      return { status: 200, body: pageOnWire(page, revocationOnWire) };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/revocations/{id}',
    auth: 'caller',
    summary: 'One revocation: its progress, and the signed receipt',
    params: idParams,
    reply: {
      200: revocationShape.extend({
        readers: z
          .array(z.strictObject({ name: z.string(), resources: texts, acknowledged: z.boolean() }))
          .meta({ description: 'Enforcement points: who acknowledged it, and who is silent' }),
        receipt: z.string().meta({ description: 'A JWT that says all of this, signed' }),
      }),
    },
    errors: ['not_found'],
    handle: async (parts, { caller, params }) => {
      const { revocation, readers, receipt } = await getRevocation(parts, caller, params.id);
      return { status: 200, body: { ...revocationOnWire(revocation), readers, receipt } };
    },
  }),
];
