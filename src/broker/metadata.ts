import { DPOP_ALGORITHMS } from '../core/dpop.js';
import type { PublicJwk } from '../plugins/signers/contract.js';
import type { Parts } from './parts.js';

/** Seconds that a JWKS may be cached; a key is published for longer than this before it signs. */
export const JWKS_MAX_AGE_SECONDS = 60;

/**
 * RFC 8414 metadata, also served as OpenID metadata, so that whatever trusts OIDC takes our tokens. There is no interactive authorization here:
 * `authorization_endpoint` always refuses, and `response_types_supported` says so, because widely used clients want both members there.
 */
export function authorizationServerMetadata(parts: Parts): Record<string, unknown> {
  const { issuer, mtlsIssuer } = parts.settings;
  const methods = ['spiffe_jwt', 'spiffe_x509'];
  const endpoints = (base: string) => ({
    token_endpoint: `${base}/oauth2/token`,
    introspection_endpoint: `${base}/oauth2/introspect`,
    revocation_endpoint: `${base}/oauth2/revoke`,
  });
  return {
    issuer,
    authorization_endpoint: `${issuer}/oauth2/authorize`,
    response_types_supported: ['none'],
    ...endpoints(issuer),
    jwks_uri: `${issuer}/.well-known/jwks.json`,
    grant_types_supported: [
      'urn:ietf:params:oauth:grant-type:token-exchange',
      'client_credentials',
      'urn:ietf:params:oauth:grant-type:jwt-bearer',
    ],
    token_endpoint_auth_methods_supported: methods,
    introspection_endpoint_auth_methods_supported: methods,
    revocation_endpoint_auth_methods_supported: methods,
    authorization_details_types_supported: ['urn:mayfly:task'],
    dpop_signing_alg_values_supported: [...DPOP_ALGORITHMS],
    tls_client_certificate_bound_access_tokens: true,
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256', 'RS256'],
    ...(mtlsIssuer !== undefined && { mtls_endpoint_aliases: endpoints(mtlsIssuer) }),
  };
}

/** Keys that may verify: prepared, active and retiring ones. A tainted key is not among them. */
export function jwks(parts: Parts): { keys: PublicJwk[] } {
  return {
    keys: parts.keys
      .all()
      .filter((key) => key.state !== 'tainted')
      .map((key) => key.publicJwk),
  };
}
