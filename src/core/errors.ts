/**
 * Every way Mayfly says no, in one table: the HTTP status under `/v1`, the name and status at the OAuth
 * endpoints, and the exit code of the command line (docs/reference/errors.md is generated from it).
 */
export const ERRORS = {
  invalid_request: {
    status: 400,
    oauth: 'invalid_request',
    oauthStatus: 400,
    exit: 1,
    title: 'The request is malformed',
  },
  identity_rejected: {
    status: 401,
    oauth: 'invalid_client',
    oauthStatus: 401,
    exit: 3,
    title: 'The identity was not accepted',
  },
  subject_rejected: {
    status: 400,
    oauth: 'invalid_request',
    oauthStatus: 400,
    exit: 3,
    title: 'The subject or actor token was not accepted',
  },
  grant_rejected: {
    status: 400,
    oauth: 'invalid_grant',
    oauthStatus: 400,
    exit: 3,
    title: 'The assertion was not accepted',
  },
  denied: { status: 403, oauth: 'access_denied', oauthStatus: 400, exit: 3, title: 'Policy does not allow it' },
  not_found: {
    status: 404,
    oauth: 'invalid_authorization_details',
    oauthStatus: 400,
    exit: 2,
    title: 'There is no such thing',
  },
  task_over: {
    status: 409,
    oauth: 'invalid_authorization_details',
    oauthStatus: 400,
    exit: 3,
    title: 'The task is over',
  },
  task_suspended: {
    status: 409,
    oauth: 'invalid_authorization_details',
    oauthStatus: 400,
    exit: 3,
    title: 'The task is suspended',
  },
  scope_invalid: {
    status: 400,
    oauth: 'invalid_scope',
    oauthStatus: 400,
    exit: 3,
    title: 'The scope cannot be granted',
  },
  target_invalid: {
    status: 400,
    oauth: 'invalid_target',
    oauthStatus: 400,
    exit: 3,
    title: 'The resource is not known here',
  },
  details_invalid: {
    status: 400,
    oauth: 'invalid_authorization_details',
    oauthStatus: 400,
    exit: 1,
    title: 'The authorization_details are malformed',
  },
  // At a resource a proof is part of the credentials: 401 with a challenge (RFC 9449 sections 7.1 and 9).
  dpop_invalid: {
    status: 401,
    oauth: 'invalid_dpop_proof',
    oauthStatus: 400,
    exit: 3,
    title: 'The DPoP proof was not accepted',
  },
  dpop_nonce_required: {
    status: 401,
    oauth: 'use_dpop_nonce',
    oauthStatus: 400,
    exit: 3,
    title: 'The DPoP proof needs the nonce sent with this reply',
  },
  grant_type_unsupported: {
    status: 400,
    oauth: 'unsupported_grant_type',
    oauthStatus: 400,
    exit: 1,
    title: 'The grant type is not supported',
  },
  token_type_unsupported: {
    status: 400,
    oauth: 'unsupported_token_type',
    oauthStatus: 400,
    exit: 1,
    title: 'The token type is not supported',
  },
  response_type_unsupported: {
    status: 400,
    oauth: 'unsupported_response_type',
    oauthStatus: 400,
    exit: 1,
    title: 'There is no interactive authorization here',
  },
  token_refused: { status: 401, oauth: 'invalid_token', oauthStatus: 401, exit: 3, title: 'The token is refused' },
  scope_insufficient: {
    status: 403,
    oauth: 'insufficient_scope',
    oauthStatus: 403,
    exit: 3,
    title: 'The token does not carry this tool',
  },
  approval_pending: {
    status: 202,
    oauth: 'authorization_pending',
    oauthStatus: 400,
    exit: 4,
    title: 'A human has to approve this',
  },
  conflict: {
    status: 409,
    oauth: 'invalid_request',
    oauthStatus: 400,
    exit: 2,
    title: 'It conflicts with what is there',
  },
  generation_mismatch: {
    status: 412,
    oauth: 'invalid_request',
    oauthStatus: 400,
    exit: 2,
    title: 'The task changed meanwhile',
  },
  key_reused: {
    status: 422,
    oauth: 'invalid_request',
    oauthStatus: 400,
    exit: 2,
    title: 'The Idempotency-Key was used for another request',
  },
  quota_exceeded: {
    status: 429,
    oauth: 'temporarily_unavailable',
    oauthStatus: 429,
    exit: 2,
    title: 'A quota is used up',
  },
  too_large: { status: 413, oauth: 'invalid_request', oauthStatus: 413, exit: 1, title: 'The request is too large' },
  method_not_allowed: {
    status: 405,
    oauth: 'invalid_request',
    oauthStatus: 405,
    exit: 1,
    title: 'The method is not allowed here',
  },
  unsupported_media_type: {
    status: 415,
    oauth: 'invalid_request',
    oauthStatus: 415,
    exit: 1,
    title: 'The media type is not accepted here',
  },
  bundle_invalid: {
    status: 400,
    oauth: 'invalid_request',
    oauthStatus: 400,
    exit: 1,
    title: 'The bundle does not validate',
  },
  unavailable: {
    status: 503,
    oauth: 'temporarily_unavailable',
    oauthStatus: 503,
    exit: 2,
    title: 'Mayfly cannot decide right now',
  },
  internal: { status: 500, oauth: 'server_error', oauthStatus: 500, exit: 2, title: 'Something went wrong inside' },
} as const;

export type ErrorCode = keyof typeof ERRORS;

export interface ErrorDetail {
  /** For operators and the audit log; never for the caller. */
  reason?: string;
  /** What the caller can do about it; shown to the caller. */
  hint?: string;
  /** The offending field by its wire name; shown to the caller. */
  field?: string;
  /** The recorded decision that explains a refusal (`mayfly why`); shown to the caller. */
  decisionId?: string;
  policyIds?: string[];
  /** What policy was asked and what was nearest to permitting it: for the record of the refusal, which `mayfly why` shows. */
  asked?: { inputs: Record<string, unknown>; nearestMiss?: string };
  /** Several named problems at once, such as those of a bundle; shown to the caller. */
  problems?: string[];
  retryAfterSeconds?: number;
  /** A fresh DPoP nonce that goes into the `DPoP-Nonce` header (RFC 9449, section 8). */
  dpopNonce?: string;
  cause?: unknown;
}

/** An error with two faces: `message` is for the caller, `detail.reason` and `cause` are for us. */
export class BrokerError extends Error {
  readonly code: ErrorCode;
  readonly detail: ErrorDetail;

  constructor(code: ErrorCode, publicMessage: string, detail: ErrorDetail = {}) {
    super(publicMessage, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = 'BrokerError';
    this.code = code;
    this.detail = detail;
  }
}

/** A programmer's mistake: it fails the request loudly and is never caught to carry on. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
