import { z } from 'zod';
import { introspect } from '../../../broker/introspect.js';
import { mint } from '../../../broker/mint.js';
import { revokeToken } from '../../../broker/revoke-token.js';
import { BrokerError } from '../../../core/errors.js';
import { JsonRefused, parseStrictJson } from '../../../core/strict-json.js';
import { defineRoute, form, type Reply } from '../route.js';
import { defined, NOTHING } from '../wire.js';

/** Tokens are bounded by the body; this keeps one parameter from being the whole of it. */
const token = z
  .string()
  .min(1)
  .max(16 * 1024);
const uri = z.string().min(1).max(2048);
const NO_STORE = { 'cache-control': 'no-store', pragma: 'no-cache' };

/** Unknown parameters are ignored (RFC 6749 section 3.2): a form's schema is not a strict one. */
const tokenForm = z.object({
  grant_type: z.string().min(1).max(128),
  subject_token: token.optional(),
  subject_token_type: uri.optional(),
  actor_token: token.optional(),
  actor_token_type: uri.optional(),
  assertion: token.optional(),
  client_assertion: token.optional(),
  client_assertion_type: uri.optional(),
  client_id: uri.optional(),
  resource: z.array(uri).max(16).optional(),
  audience: z.array(uri).max(16).optional(),
  scope: z.string().max(4096).optional(),
  requested_token_type: uri.optional(),
  authorization_details: z
    .string()
    .max(16 * 1024)
    .optional()
    .meta({ description: 'JSON: `[{"type":"urn:mayfly:task","identifier":"tsk_a_…"}]`' }),
});

const tokenRoute = defineRoute({
  method: 'POST',
  path: '/oauth2/token',
  hot: true,
  auth: 'none',
  summary: 'A token for one task (RFC 8693 token exchange, client_credentials, RFC 7523 jwt-bearer)',
  body: form(tokenForm),
  reply: {
    200: z.strictObject({
      access_token: z.string(),
      issued_token_type: z.string(),
      token_type: z.enum(['Bearer', 'DPoP']),
      expires_in: z.int(),
      scope: z.string(),
      authorization_details: z.array(z.unknown()).optional(),
      lease_id: z.string(),
    }),
  },
  errors: [
    'identity_rejected',
    'subject_rejected',
    'grant_rejected',
    'denied',
    'not_found',
    'task_over',
    'task_suspended',
    'scope_invalid',
    'target_invalid',
    'details_invalid',
    'dpop_invalid',
    'dpop_nonce_required',
    'grant_type_unsupported',
    'token_type_unsupported',
    'approval_pending',
    'quota_exceeded',
    'unavailable',
  ],
  handle: async (parts, { body, evidence }): Promise<Reply> => {
    const minted = await mint(parts, {
      evidence: evidence(),
      grantType: body.grant_type,
      resources: body.resource ?? [],
      audiences: body.audience ?? [],
      ...defined({
        subjectToken: body.subject_token,
        subjectTokenType: body.subject_token_type,
        actorToken: body.actor_token,
        actorTokenType: body.actor_token_type,
        assertion: body.assertion,
        clientAssertion: body.client_assertion,
        clientAssertionType: body.client_assertion_type,
        clientId: body.client_id,
        scope: body.scope,
        requestedTokenType: body.requested_token_type,
        authorizationDetails: detailsOf(body.authorization_details),
      }),
    });
    const details = minted.authorizationDetails;
    return {
      status: 200,
      headers: NO_STORE,
      body: {
        access_token: minted.accessToken.expose(),
        issued_token_type: minted.issuedTokenType,
        token_type: minted.tokenType,
        expires_in: minted.expiresInSeconds,
        scope: minted.scope,
        ...(details.length > 0 && { authorization_details: details }),
        lease_id: minted.leaseId,
      },
      note: { leaseId: minted.leaseId },
    };
  },
});

/** RFC 9396 section 5: what cannot be read as details has an error of its own. */
function detailsOf(json: string | undefined): unknown {
  if (json === undefined) return undefined;
  try {
    return parseStrictJson(json);
  } catch (error) {
    if (!(error instanceof JsonRefused)) throw error;
    throw new BrokerError('details_invalid', `authorization_details is not acceptable JSON: ${error.message}.`, {
      field: 'authorization_details',
    });
  }
}

/** What a client sends to say who it is, beside the token it asks about (RFC 7662 section 2.1, RFC 7009 section 2.1). */
const aboutToken = z.object({
  token,
  token_type_hint: z.string().min(1).max(128).optional(),
  client_id: uri.optional(),
  client_assertion: token.optional(),
  client_assertion_type: uri.optional(),
});

/** `client_id` beside a proof has to name whoever proved itself. */
function checkClientId(stated: string | undefined, proven: string): void {
  if (stated === undefined || stated === proven) return;
  throw new BrokerError('identity_rejected', 'The identity was not accepted.', {
    reason: 'client_id is another one',
    field: 'client_id',
  });
}

const introspectRoute = defineRoute({
  method: 'POST',
  path: '/oauth2/introspect',
  hot: true,
  auth: 'caller',
  summary: 'Whether a token is alive (RFC 7662); for the owners of its audience',
  body: form(aboutToken),
  reply: { 200: z.looseObject({ active: z.boolean() }) },
  errors: [],
  handle: async (parts, { body, caller }) => {
    checkClientId(body.client_id, caller.name);
    return { status: 200, headers: NO_STORE, body: await introspect(parts, caller, { token: body.token }) };
  },
});

const revokeRoute = defineRoute({
  method: 'POST',
  path: '/oauth2/revoke',
  auth: 'caller',
  summary: 'Gives up one token (RFC 7009); for its holder',
  body: form(aboutToken),
  reply: { 200: NOTHING },
  errors: [],
  handle: async (parts, { body, caller }) => {
    checkClientId(body.client_id, caller.name);
    // A hint is a hint: there is one kind of token here, and all of them are looked through (RFC 7009 section 2.1).
    await revokeToken(parts, caller, { token: body.token });
    return { status: 200 };
  },
});

/** Named in the metadata because clients insist on one; there is nobody to send a browser to. */
const authorizeRoute = defineRoute({
  method: 'GET',
  path: '/oauth2/authorize',
  auth: 'none',
  summary: 'Always refuses: there is no interactive authorization here',
  reply: {},
  errors: ['response_type_unsupported'],
  anyQuery: true,
  handle: () => {
    throw new BrokerError('response_type_unsupported', 'There is no interactive authorization here.', {
      hint: 'Exchange a workload identity at /oauth2/token.',
    });
  },
});

export const oauth = [tokenRoute, introspectRoute, revokeRoute, authorizeRoute];
