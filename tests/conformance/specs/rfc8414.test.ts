import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { JWT_SPIFFE, type Knock, knockAt } from '../../fakes/knock.js';

/* RFC 8414, authorization server metadata: what we say of ourselves is complete, and true. And RFC 7517: the keys. */

const PATHS = ['/.well-known/oauth-authorization-server', '/.well-known/openid-configuration'];

let door: FakeDoor;
let knock: Knock;
let metadata: Record<string, unknown>;

beforeAll(async () => {
  door = await openFakeDoor();
  knock = knockAt(door);
  metadata = (await knock.api('GET', PATHS[0] as string, undefined)).body;
});
afterAll(() => door.close());

it.each(PATHS)('section 3: %s answers anybody with the same JSON, that may be kept for a while', async (path) => {
  const { status, headers, body } = await knock.api('GET', path, undefined);
  expect(status).toBe(200);
  expect(headers.get('content-type')).toMatch(/^application\/json/);
  expect(headers.get('cache-control')).toBe('public, max-age=60');
  expect(body).toEqual(metadata);
});

it('section 3.3: issuer is the address that it was found under, letter for letter', () => {
  expect(metadata['issuer']).toBe(door.url);
});

it('section 3.2: nothing is an empty list, and nothing is null', () => {
  for (const [name, value] of Object.entries(metadata)) {
    expect([name, value]).not.toEqual([name, []]);
    expect([name, value]).not.toEqual([name, null]);
  }
});

it('section 2: what is required is there, and what widely used clients insist on', () => {
  expect(metadata).toMatchObject({
    response_types_supported: ['none'],
    authorization_endpoint: `${door.url}/oauth2/authorize`,
    grant_types_supported: [
      'urn:ietf:params:oauth:grant-type:token-exchange',
      'client_credentials',
      'urn:ietf:params:oauth:grant-type:jwt-bearer',
    ],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: expect.arrayContaining(['RS256']),
    authorization_details_types_supported: ['urn:mayfly:task'],
    tls_client_certificate_bound_access_tokens: true,
  });
  expect(metadata).not.toHaveProperty('code_challenge_methods_supported');
});

it('section 2: the authentication methods are those of the SPIFFE draft, at all three endpoints', () => {
  for (const endpoint of ['token', 'introspection', 'revocation']) {
    expect(metadata[`${endpoint}_endpoint_auth_methods_supported`]).toEqual(['spiffe_jwt', 'spiffe_x509']);
  }
});

it('RFC 8705 section 5: the aliases for mTLS are endpoints of the other listener', () => {
  expect(metadata['mtls_endpoint_aliases']).toEqual({
    token_endpoint: `${door.mtlsUrl}/oauth2/token`,
    introspection_endpoint: `${door.mtlsUrl}/oauth2/introspect`,
    revocation_endpoint: `${door.mtlsUrl}/oauth2/revoke`,
  });
});

it('every endpoint that is named is there', async () => {
  for (const name of ['token_endpoint', 'introspection_endpoint', 'revocation_endpoint']) {
    const path = new URL(metadata[name] as string).pathname;
    expect([name, (await knock.post(path, {})).status]).not.toEqual([name, 404]);
  }
});

it('every grant that is named is supported, and none besides', async () => {
  const asked = ['password', 'refresh_token', 'urn:ietf:params:oauth:grant-type:saml2-bearer', 'implicit'];
  const errorOf = async (grant: string) => (await knock.token({ grant_type: grant })).body.error;
  for (const grant of metadata['grant_types_supported'] as string[]) {
    expect(await errorOf(grant)).not.toBe('unsupported_grant_type');
  }
  for (const grant of asked) expect(await errorOf(grant)).toBe('unsupported_grant_type');
});

it('every DPoP algorithm that is named is asymmetric', () => {
  const algorithms = metadata['dpop_signing_alg_values_supported'] as string[];
  expect(algorithms).toContain('ES256');
  for (const algorithm of algorithms) expect(algorithm).toMatch(/^(ES|PS|RS)(256|384|512)$|^EdDSA$|^Ed25519$/);
});

it('RFC 6749 section 4.1.2.1: the authorization endpoint always refuses', async () => {
  for (const query of [
    '',
    '?response_type=code&client_id=x&redirect_uri=https://evil.example',
    '?response_type=none',
  ]) {
    const { status, body, headers } = await knock.api('GET', `/oauth2/authorize${query}`, undefined);
    expect([status, body.error, headers.get('location')]).toEqual([400, 'unsupported_response_type', null]);
  }
});

describe('RFC 7517: the JWK set', () => {
  const read = async () => (await knock.api('GET', '/.well-known/jwks.json', undefined)).body.keys;

  it('holds public keys to verify signatures with, each by its kid, and no private member', async () => {
    const { status, headers } = await knock.api('GET', '/.well-known/jwks.json', undefined);
    expect([status, headers.get('content-type')]).toEqual([200, 'application/jwk-set+json']);
    const keys = await read();
    expect(keys.length).toBeGreaterThan(0);
    for (const key of keys) {
      expect(key).toMatchObject({ kid: expect.any(String), use: 'sig', alg: expect.stringMatching(/^(ES|RS)256$/) });
      for (const secret of ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']) expect(key).not.toHaveProperty(secret);
    }
    expect(new Set(keys.map(({ kid }: { kid: string }) => kid)).size).toBe(keys.length);
  });

  it('shows a prepared key before it signs, and a tainted one never again', async () => {
    const before = await read();
    const operator = await knock.operator('operator-1');
    const prepared = await operator('POST', '/v1/keys', { alg: 'RS256' });
    expect(prepared.status).toBe(201);
    const kids = async () => (await read()).map(({ kid }: { kid: string }) => kid);
    expect(await kids()).toEqual([...before.map(({ kid }: { kid: string }) => kid), prepared.body.kid]);
    const task = await knock.task();
    const { header } = await knock.minted(knock.exchange('/agent/refunds', task));
    expect(header['kid']).toBe(before[0].kid);
    await operator('POST', `/v1/keys/${before[0].kid}/taint`, { reason: 'drill' });
    expect(await kids()).not.toContain(before[0].kid);
  });
});

it('RFC 9728: the API says which tokens it takes, and from whom', async () => {
  const { body } = await knock.api('GET', '/.well-known/oauth-protected-resource', undefined);
  expect(body).toMatchObject({
    resource: door.url,
    authorization_servers: [door.url],
    bearer_methods_supported: ['header'],
  });
  const { headers } = await knock.post('/oauth2/introspect', {
    token: 'x',
    client_assertion: 'x',
    client_assertion_type: JWT_SPIFFE,
  });
  expect(headers.get('www-authenticate')).toContain(
    `resource_metadata="${door.url}/.well-known/oauth-protected-resource"`,
  );
});
