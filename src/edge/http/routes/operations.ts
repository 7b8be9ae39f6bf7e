import { z } from 'zod';
import { checkHealth, recentHealth } from '../../../broker/check-health.js';
import { recover } from '../../../broker/recover.js';
import { BrokerError, ERRORS, type ErrorCode } from '../../../core/errors.js';
import { defineRoute, json, type Route } from '../route.js';
import { reason, text } from './shapes.js';

const readiness = z.strictObject({
  ready: z.boolean(),
  checks: z.array(z.strictObject({ name: z.string(), ok: z.boolean() })),
});

export const operations: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/',
    auth: 'none',
    summary: 'What this is, and where to go on',
    reply: { 200: z.looseObject({ name: z.literal('mayfly') }) },
    errors: [],
    handle: ({ settings: { issuer } }) => ({
      status: 200,
      body: {
        name: 'mayfly',
        says: 'Short-lived tokens for one task each; they are dead the moment the task ends.',
        issuer,
        metadata: `${issuer}/.well-known/oauth-authorization-server`,
        token_endpoint: `${issuer}/oauth2/token`,
        tasks: `${issuer}/v1/tasks`,
        api: `${issuer}/openapi.json`,
        ready: `${issuer}/readyz`,
      },
    }),
  }),
  defineRoute({
    method: 'GET',
    path: '/livez',
    auth: 'none',
    summary: 'The process answers',
    reply: { 200: z.strictObject({ live: z.literal(true) }) },
    errors: [],
    handle: () => ({ status: 200, body: { live: true } }),
  }),
  defineRoute({
    method: 'GET',
    path: '/readyz',
    auth: 'none',
    summary: 'It can grant: 503 with what is wrong while it cannot',
    reply: { 200: readiness, 503: readiness },
    errors: [],
    handle: async (parts) => {
      const lines = await recentHealth(parts);
      const isReady = lines.every((line) => line.ok || line.optional) && parts.health.grantsClosed() === undefined;
      // Names only: details are for those who may ask (GET /v1/health).
      const checks = lines.map(({ name, ok }) => ({ name, ok }));
      return { status: isReady ? 200 : 503, body: { ready: isReady, checks } };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/health',
    auth: 'caller',
    summary: 'Every check with its detail and advice; for people',
    reply: {
      200: z.strictObject({
        grants_closed: z.string().optional(),
        checks: z.array(
          z.strictObject({
            name: z.string(),
            ok: z.boolean(),
            detail: z.string(),
            advice: z.string().optional(),
            absent: z
              .literal(true)
              .optional()
              .meta({ description: 'Nothing is broken: this broker was never given it' }),
          }),
        ),
      }),
    },
    errors: ['denied'],
    handle: async (parts, { caller }) => {
      if (caller.principal.kind !== 'person') {
        throw new BrokerError('denied', 'The state of the installation is for people.');
      }
      const closed = parts.health.grantsClosed();
      return {
        status: 200,
        body: {
          ...(closed !== undefined && { grants_closed: closed }),
          checks: (await checkHealth(parts)).map(({ vital: _, optional: __, ...line }) => line),
        },
      };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/recover',
    auth: 'bound',
    summary: 'The store may have forgotten: every token of earlier epochs is dead',
    body: json(z.strictObject({ reason })),
    reply: { 200: z.strictObject({ epoch: z.int() }) },
    errors: [],
    handle: async (parts, { caller, body }) => {
      const { epoch } = await recover(parts, caller, { reason: body.reason });
      return { status: 200, body: { epoch } };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/errors/{code}',
    auth: 'none',
    summary: 'What a problem’s type URL points at',
    params: z.strictObject({ code: text(64) }),
    reply: {
      200: z.strictObject({
        code: z.string(),
        title: z.string(),
        status: z.int(),
        oauth_error: z.string(),
        oauth_status: z.int(),
        exit_code: z.int(),
      }),
    },
    errors: ['not_found'],
    handle: (_, { params }) => {
      if (!Object.hasOwn(ERRORS, params.code)) throw new BrokerError('not_found', 'There is no such error.');
      const row = ERRORS[params.code as ErrorCode];
      return {
        status: 200,
        headers: { 'cache-control': 'public, max-age=3600' },
        body: {
          code: params.code,
          title: row.title,
          status: row.status,
          oauth_error: row.oauth,
          oauth_status: row.oauthStatus,
          exit_code: row.exit,
        },
      };
    },
  }),
];
