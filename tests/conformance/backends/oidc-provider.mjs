// The real upstream: npm's oidc-provider, with the two grants it does not have (RFC 8693, RFC 7523) added as its documentation says. It is told by
// messages: {do: 'count'} answers how many tokens live, {do: 'hang'} leaves every request unanswered, {do: 'refuse'} stops listening, {do: 'serve'} is as before.
import { createServer } from 'node:http';
import { createLocalJWKSet, jwtVerify } from 'jose';
import Provider, { errors } from 'oidc-provider';

const { ISSUER: issuer, OUR_ISSUER: ourIssuer, OUR_JWKS: ourJwks, CLIENT_SECRET: clientSecret } = process.env;
const keys = createLocalJWKSet(JSON.parse(ourJwks));

/** Every token there is, by its kind and id. */
const tokens = new Map();

class Memory {
  constructor(kind) {
    this.kind = kind;
  }
  async upsert(id, payload, expiresInSeconds) {
    tokens.set(`${this.kind}:${id}`, { payload, endsAtMs: Date.now() + expiresInSeconds * 1000 });
  }
  async find(id) {
    return tokens.get(`${this.kind}:${id}`)?.payload;
  }
  async consume() {}
  async destroy(id) {
    tokens.delete(`${this.kind}:${id}`);
  }
  async revokeByGrantId() {}
}

const client = (id, method) => ({
  client_id: id,
  grant_types: ['client_credentials', TOKEN_EXCHANGE, JWT_BEARER],
  redirect_uris: [],
  response_types: [],
  token_endpoint_auth_method: method,
  ...(method === 'private_key_jwt'
    ? { token_endpoint_auth_signing_alg: 'ES256', jwks: JSON.parse(ourJwks) }
    : { client_secret: clientSecret }),
});

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const JWT_API = 'https://jwt.example';

const provider = new Provider(issuer, {
  adapter: Memory,
  clients: [
    client('mayfly', 'private_key_jwt'),
    client('mayfly-basic', 'client_secret_basic'),
    client('api', 'client_secret_post'),
  ],
  scopes: ['read', 'short'],
  enabledJWA: { clientAuthSigningAlgValues: ['ES256'] },
  ttl: { ClientCredentials: (_ctx, token) => (token.scope?.includes('short') ? 2 : 300) },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    revocation: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_ctx, resource) => ({
        scope: 'read short',
        ...(resource === JWT_API && { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
      }),
    },
  },
});

/** Gives a token of its own for an assertion of ours. */
const forAssertion = (parameter) => async (ctx) => {
  const { client, params } = ctx.oidc;
  let subject;
  try {
    const { payload } = await jwtVerify(params[parameter], keys, {
      issuer: ourIssuer,
      audience: issuer,
      requiredClaims: ['exp', 'jti', 'sub'],
    });
    subject = payload.sub;
  } catch {
    throw new errors.InvalidGrant(`not accepted: ${params[parameter]}`);
  }
  if (subject.includes('unknown')) throw new errors.InvalidGrant(`nobody here is called ${subject}`);
  const token = new provider.ClientCredentials({ client, scope: params.scope });
  if (params.resource) {
    const { ResourceServer } = provider;
    token.resourceServer = new ResourceServer(params.resource, {
      scope: 'read short',
      ...(params.resource === JWT_API && { accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
    });
    token.aud = params.resource;
  }
  ctx.body = {
    access_token: await token.save(),
    expires_in: token.expiration,
    token_type: 'Bearer',
    ...(token.scope && { scope: token.scope }),
    ...(parameter === 'subject_token' && { issued_token_type: 'urn:ietf:params:oauth:token-type:access_token' }),
  };
};
const common = ['scope', 'resource', 'audience'];
provider.registerGrantType(TOKEN_EXCHANGE, forAssertion('subject_token'), [
  ...common,
  'subject_token',
  'subject_token_type',
  'requested_token_type',
]);
provider.registerGrantType(JWT_BEARER, forAssertion('assertion'), [...common, 'assertion']);

let isHanging = false;
const answer = provider.callback();
const server = createServer((request, response) => {
  if (!isHanging) answer(request, response);
});
const listen = (then) => server.listen(Number(new URL(issuer).port), '127.0.0.1', then);
const count = () => {
  const nowMs = Date.now();
  return [...tokens].filter(([name, { endsAtMs }]) => name.startsWith('ClientCredentials:') && endsAtMs > nowMs).length;
};
listen(() => process.send({ done: 'up' }));
process.on('message', ({ do: what }) => {
  const done = () => process.send({ done: what, count: count() });
  isHanging = what === 'hang' || (what === 'count' && isHanging);
  if (what !== 'count') server.closeAllConnections();
  if (what === 'refuse') server.close(done);
  else if (what === 'serve' && !server.listening) listen(done);
  else done();
});
process.on('disconnect', () => process.exit(0));
