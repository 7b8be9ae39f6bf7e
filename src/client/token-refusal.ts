/**
 * Why a token was not taken at an enforcement point, by what its caller hears (RFC 6750 section 3.1, RFC 9449 section 7.1):
 * `token_missing`, `token_refused`, `dpop_invalid`, `dpop_nonce_required` are 401, `scope_insufficient` and `denied` 403,
 * `invalid_request` 400, `unavailable` 503. `misconfigured` is 503 too: the token is good, and the tool cannot do what it wants.
 */
export type TokenRefusalCode =
  | 'token_missing'
  | 'invalid_request'
  | 'token_refused'
  | 'dpop_invalid'
  | 'dpop_nonce_required'
  | 'scope_insufficient'
  | 'denied'
  | 'unavailable'
  | 'misconfigured';

/** For logs, counters and tests. */
export type TokenRefusalReason =
  | 'missing'
  | 'two-tokens'
  | 'size'
  | 'spelling'
  | 'header'
  | 'algorithm'
  | 'kid'
  | 'payload'
  | 'times'
  | 'signature'
  | 'audience'
  | 'cell'
  | 'expired'
  | 'revoked'
  | 'position-ahead'
  | 'not-ready'
  | 'stale'
  | 'unbound'
  | 'binding'
  | 'dpop'
  | 'dpop-replay'
  | 'dpop-nonce'
  | 'decision-point-missing'
  | 'decision-point'
  | 'denied'
  | 'tool';

const CALLER_HEARS: Record<TokenRefusalCode, string> = {
  token_missing: 'A token is needed.',
  invalid_request: 'The request is malformed.',
  token_refused: 'The token is refused.',
  dpop_invalid: 'The DPoP proof was not accepted.',
  dpop_nonce_required: 'The DPoP proof needs the nonce sent with this reply.',
  scope_insufficient: 'The token does not carry this tool.',
  denied: 'This call is not allowed.',
  unavailable: 'Tokens cannot be checked right now.',
  misconfigured: 'This server is not set up to take this token; the token is not at fault.',
};

/** An error with two faces: `message` is for the caller and gives nothing away, `reason` and `detail` are for the tool's own log. */
export class TokenRefusal extends Error {
  readonly code: TokenRefusalCode;
  readonly reason: TokenRefusalReason;
  readonly detail: string;

  constructor(code: TokenRefusalCode, reason: TokenRefusalReason, detail: string, cause?: unknown) {
    super(CALLER_HEARS[code], cause === undefined ? undefined : { cause });
    this.name = 'TokenRefusal';
    this.code = code;
    this.reason = reason;
    this.detail = detail;
  }
}
