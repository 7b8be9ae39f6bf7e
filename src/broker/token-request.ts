import { BrokerError } from '../core/errors.js';
import type { Secret } from '../core/secret.js';
import type { Evidence } from './caller.js';

export const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';

/** A token request as the door read it (RFC 8693, RFC 6749 section 4.4, RFC 7523). */
export interface TokenRequest {
  evidence: Evidence;
  grantType: string;
  subjectToken?: string;
  subjectTokenType?: string;
  actorToken?: string;
  actorTokenType?: string;
  assertion?: string;
  clientAssertion?: string;
  clientAssertionType?: string;
  clientId?: string;
  requestedTokenType?: string;
}

export interface MintRequest extends TokenRequest {
  resources: string[];
  audiences: string[];
  scope?: string;
  /** Parsed JSON. */
  authorizationDetails?: unknown;
}

export interface Minted {
  accessToken: Secret<string>;
  tokenType: 'Bearer' | 'DPoP';
  expiresInSeconds: number;
  scope: string;
  authorizationDetails: unknown[];
  leaseId: string;
  issuedTokenType: string;
}

/** `resource` (RFC 8707) or `audience` (RFC 8693): exactly one place the token is for, or the task's only one. */
export function audienceOf(request: MintRequest): string | undefined {
  const named = [...new Set([...request.resources, ...request.audiences])];
  if (named.length > 1) {
    throw new BrokerError('target_invalid', 'A token is for exactly one resource.', { field: 'resource' });
  }
  return named[0];
}
