import { z } from 'zod';
import { boundsConfig } from '../bounds.js';

const file = z.string().min(1).max(4096);

/** https, or http on a loopback address; nothing in it that would be sent along unseen. */
function isEndpoint(text: string): boolean {
  if (text.length > 2_048 || !URL.canParse(text)) return false;
  const url = new URL(text);
  const isLoopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname);
  const isSafe = url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback);
  return isSafe && url.hash === '' && url.username === '' && url.password === '';
}

const endpoint = z
  .string()
  .refine(isEndpoint, 'has to be an https URL (http on a loopback address only) without user and fragment');

const issuer = endpoint.refine((text) => !text.includes('?'), 'has no query');

const authentication = z
  .discriminatedUnion('method', [
    z.strictObject({
      method: z
        .literal('private_key_jwt')
        .describe('A JWT signed by our own keys, which the upstream has as jwks_uri.'),
    }),
    z.strictObject({
      method: z.enum(['client_secret_basic', 'client_secret_post']).describe('A secret shared with the upstream.'),
      secret_file: file.describe('File with the secret; read at every use.'),
    }),
    z.strictObject({
      method: z.literal('none').describe('The assertion of the grant is all the upstream asks for.'),
    }),
  ])
  .default({ method: 'private_key_jwt' });

export const oauthConfig = z.strictObject({
  kind: z.literal('oauth').describe('An authorization server that gives its own tokens for ours.'),
  issuer: issuer.describe('Its issuer, exactly as it writes it. What we sign for it has this audience.'),
  metadata: z
    .enum(['oauth', 'oidc', 'none'])
    .default('oauth')
    .describe(
      'Where its endpoints are looked up: RFC 8414 metadata, OpenID configuration, or nowhere (`endpoints` has them).',
    ),
  endpoints: z
    .strictObject({
      token: endpoint.optional().describe('Token endpoint.'),
      revocation: endpoint.optional().describe('Revocation endpoint (RFC 7009).'),
      introspection: endpoint.optional().describe('Introspection endpoint (RFC 7662).'),
    })
    .prefault({})
    .describe('Endpoints by hand; they win. Metadata may name endpoints at the origin of the issuer only.'),
  client_id: z
    .string()
    .regex(/^[\x20-\x7E]{1,512}$/, 'has to be 1 to 512 printable characters')
    .describe('Who we are there.'),
  authentication: authentication.describe('How we prove it.'),
  introspects: z
    .boolean()
    .default(false)
    .describe(
      'The upstream, and the APIs behind it, ask by introspection whether a token still counts: only then is a revocation `instant`, and confirmed by asking.',
    ),
  assertion_ttl_seconds: z
    .int()
    .min(2)
    .max(300)
    .default(10)
    .describe('Life of what we sign for it. A request that was held up longer is refused by the upstream.'),
  leeway_seconds: z
    .int()
    .min(0)
    .max(300)
    .default(60)
    .describe('How long APIs may take a token past its end, for clocks that differ.'),
  ca_file: file.optional().describe('PEM file with the only authorities for connections to it.'),
  ...boundsConfig({ issuesMax: 64, revocationsMax: 64 }),
});

export type OauthConfig = z.output<typeof oauthConfig>;

/** RFC 6749 section 3.3. */
const scope = z
  .string()
  .max(1_024)
  .regex(/^[\x21\x23-\x5B\x5D-\x7E]+(?: [\x21\x23-\x5B\x5D-\x7E]+)*$/, 'must be scopes with single spaces between');

/** RFC 8707: an absolute URI without a fragment. */
const resource = z
  .string()
  .max(512)
  .refine((text) => URL.canParse(text) && !text.includes('#') && /^[\x21-\x7E]+$/.test(text), {
    message: 'must be an absolute URI without a fragment',
  });

const printable = z.string().regex(/^[\x20-\x7E]{1,512}$/, 'must be 1 to 512 printable characters');

export const oauthSettings = z.strictObject({
  grant: z
    .enum(['token-exchange', 'jwt-bearer', 'client-credentials'])
    .default('token-exchange')
    .describe('RFC 8693 or RFC 7523: in the name of the agent. client-credentials: in our own.'),
  scope: scope.optional().describe('Scopes to ask for.'),
  resource: resource.optional().describe('The API it is for (RFC 8707).'),
  audience: printable.optional().describe('The same by another name, for upstreams that want it (RFC 8693).'),
  tokens: z
    .enum(['opaque', 'jwt', 'jwt-introspected'])
    .default('opaque')
    .describe(
      'What the upstream gives. A `jwt` is believed by APIs that ask nobody, and can only expire; say `jwt-introspected` when all of them introspect it.',
    ),
  token_ttl_seconds_max: z
    .int()
    .min(1)
    .max(86_400)
    .default(3_600)
    .describe('A token that lives longer is refused and taken back.'),
  canary_subject: printable.optional().describe('In whose name the check asks for a token; absent: our client_id.'),
});

export type OauthSettings = z.output<typeof oauthSettings>;
