import { z } from 'zod';
import { authorizationServerMetadata, JWKS_MAX_AGE_SECONDS, jwks } from '../../../broker/metadata.js';
import type { Parts } from '../../../broker/parts.js';
import { DPOP_ALGORITHMS } from '../../../core/dpop.js';
import { defineRoute, type Reply } from '../route.js';

/** A key is published for longer than this before it signs. */
const CACHED = { 'cache-control': `public, max-age=${JWKS_MAX_AGE_SECONDS}` };

const metadataReply = z.looseObject({ issuer: z.string() });

const serveMetadata = (parts: Parts): Reply => ({
  status: 200,
  headers: CACHED,
  body: authorizationServerMetadata(parts),
});

export const metadata = [
  defineRoute({
    method: 'GET',
    path: '/.well-known/oauth-authorization-server',
    auth: 'none',
    summary: 'Authorization server metadata (RFC 8414)',
    reply: { 200: metadataReply },
    errors: [],
    handle: serveMetadata,
  }),
  defineRoute({
    method: 'GET',
    path: '/.well-known/openid-configuration',
    auth: 'none',
    summary: 'The same metadata, for whatever trusts OpenID Connect issuers',
    reply: { 200: metadataReply },
    errors: [],
    handle: serveMetadata,
  }),
  defineRoute({
    method: 'GET',
    path: '/.well-known/jwks.json',
    auth: 'none',
    summary: 'The keys that task tokens are signed with',
    reply: { 200: z.looseObject({ keys: z.array(z.looseObject({ kid: z.string() })) }) },
    errors: [],
    handle: (parts) => ({
      status: 200,
      headers: { ...CACHED, 'content-type': 'application/jwk-set+json' },
      body: jwks(parts),
    }),
  }),
  defineRoute({
    method: 'GET',
    path: '/.well-known/oauth-protected-resource',
    auth: 'none',
    summary: 'What the API under /v1 takes (RFC 9728)',
    reply: { 200: z.looseObject({ resource: z.string() }) },
    errors: [],
    handle: ({ settings }) => ({
      status: 200,
      headers: CACHED,
      body: {
        resource: settings.issuer,
        authorization_servers: [settings.issuer],
        bearer_methods_supported: ['header'],
        dpop_signing_alg_values_supported: [...DPOP_ALGORITHMS],
        tls_client_certificate_bound_access_tokens: true,
        resource_name: 'Mayfly',
      },
    }),
  }),
];
