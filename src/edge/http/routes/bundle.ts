import { z } from 'zod';
import { activateBundle, previewBundle } from '../../../broker/activate-bundle.js';
import { activeBundle } from '../../../broker/look-up.js';
import { defineRoute, json, type Route } from '../route.js';
import { defined, instant } from '../wire.js';
import { moment, texts } from './shapes.js';
import { verdictsOnWire, verdictsShape } from './verdicts-shape.js';

const BUNDLE_BYTES_MAX = 1024 * 1024;
const FILES_MAX = 1_000;
const files = z
  .record(z.string().min(1).max(256), z.string())
  .refine((all) => Object.keys(all).length <= FILES_MAX, { message: `at most ${FILES_MAX} files` })
  .meta({ description: 'Path below config/ to content' });

export const bundle: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/bundle',
    auth: 'caller',
    summary: 'The active bundle, and those before it',
    reply: {
      200: z.strictObject({
        digest: z.string(),
        files,
        history: z.array(z.strictObject({ digest: z.string(), activated_at: moment, active: z.boolean() })),
      }),
    },
    errors: ['denied', 'not_found'],
    handle: async (parts, { caller }) => {
      const { digest, files, history } = await activeBundle(parts, caller);
      const past = history.map(({ activatedAtMs, ...one }) => ({ ...one, activated_at: instant(activatedAtMs) }));
      return { status: 200, body: { digest, files, history: past } };
    },
  }),
  defineRoute({
    method: 'PUT',
    path: '/v1/bundle',
    auth: 'bound',
    summary: 'Policies, agents, task types and resources become the active version; every live lease is judged again',
    body: json(z.strictObject({ files }), { bytesMax: BUNDLE_BYTES_MAX }),
    reply: {
      200: z.strictObject({ digest: z.string(), previous: z.string().optional(), changed: z.boolean() }),
    },
    errors: ['bundle_invalid', 'conflict'],
    handle: async (parts, { caller, body }) => {
      const { digest, previous, changed } = await activateBundle(parts, caller, body);
      return { status: 200, body: defined({ digest, previous, changed }) };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/bundle/preview',
    auth: 'caller',
    summary: 'What a bundle would change, and which live leases it would revoke',
    body: json(z.strictObject({ files }), { bytesMax: BUNDLE_BYTES_MAX }),
    reply: {
      200: z.strictObject({
        digest: z.string(),
        changes: z.strictObject({ added: texts, changed: texts, removed: texts }),
        leases: verdictsShape,
      }),
    },
    errors: ['bundle_invalid', 'denied'],
    handle: async (parts, { caller, body }) => {
      const { digest, changes, verdicts } = await previewBundle(parts, caller, { files: body.files });
      return { status: 200, body: { digest, changes, leases: verdictsOnWire(verdicts) } };
    },
  }),
];
