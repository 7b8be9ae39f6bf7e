import * as oauth from 'oauth4webapi';
import { nodeFetch } from '../../../src/client/transport.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import {
  ACCESS_TOKEN,
  EXCHANGE,
  ID_TOKEN,
  JWT,
  JWT_BEARER,
  JWT_SPIFFE,
  type Knock,
  knockAt,
  LEDGER,
  ORDERS,
  REFUNDS,
  withColleagues,
} from '../../fakes/knock.js';

/*
 * oauth4webapi, a client that others wrote and that knows nothing of us, as it is: what it finds, sends and checks is what the RFCs say.
 * The only thing it is taught is the client assertion of the SPIFFE draft, through the hook it has for that.
 */

const TOOL = 'spiffe://dev.mayfly/tool/orders';

let door: FakeDoor;
let knock: Knock;
let issuer: URL;
let as: oauth.AuthorizationServer;
let task: string;
const insecure = { [oauth.allowInsecureRequests]: true };

beforeAll(async () => {
  door = await openFakeDoor({ bundle: withColleagues });
  knock = knockAt(door);
  issuer = new URL(door.url);
  as = await discover('oauth2');
  task = await knock.task({ agents: [REFUNDS, LEDGER] });
});
afterAll(() => door.close());

async function discover(algorithm: 'oauth2' | 'oidc'): Promise<oauth.AuthorizationServer> {
  const response = await oauth.discoveryRequest(issuer, { algorithm, ...insecure });
  return oauth.processDiscoveryResponse(issuer, response);
}

/** `spiffe_jwt`: the SVID of that path as client assertion. */
const spiffeJwt =
  (path: string): oauth.ClientAuth =>
  (_server, client, body) => {
    body.set('client_id', client.client_id);
    body.set('client_assertion_type', JWT_SPIFFE);
    body.set('client_assertion', knock.svid(path));
  };
const agent: oauth.Client = { client_id: REFUNDS };
const tool: oauth.Client = { client_id: TOOL };
const wanted = (more: Record<string, string> = {}) => ({
  resource: ORDERS,
  scope: `task:${task} orders.read`,
  ...more,
});

async function exchange(
  parameters: Record<string, string>,
  options: Partial<oauth.TokenEndpointRequestOptions> = {},
  client = agent,
  auth = oauth.None(),
) {
  const response = await oauth.genericTokenEndpointRequest(as, client, auth, EXCHANGE, parameters, {
    ...insecure,
    ...options,
  });
  return oauth.processGenericTokenEndpointResponse(as, client, response);
}
const ownSvid = () => ({ subject_token: knock.svid('/agent/refunds'), subject_token_type: JWT });

async function introspect(token: string): Promise<oauth.IntrospectionResponse> {
  const response = await oauth.introspectionRequest(as, tool, spiffeJwt('/tool/orders'), token, insecure);
  return oauth.processIntrospectionResponse(as, tool, response);
}

/** What a resource server made with this library does with a request: all of RFC 9068 section 4, and RFC 9449 section 7 when bound. */
function atResource(headers: Record<string, string>): Promise<oauth.JWTAccessTokenClaims> {
  return oauth.validateJwtAccessToken(as, new Request(`${ORDERS}/42`, { headers }), ORDERS, insecure);
}

it.each(['oauth2', 'oidc'] as const)('discovers the metadata by %s', async (algorithm) => {
  expect(await discover(algorithm)).toMatchObject({ issuer: door.url, token_endpoint: `${door.url}/oauth2/token` });
});

it('token exchange with a JWT-SVID; a resource server takes the token by RFC 9068', async () => {
  const minted = await exchange({ ...ownSvid(), ...wanted() });
  expect(minted).toMatchObject({ token_type: 'bearer', issued_token_type: ACCESS_TOKEN, scope: 'orders.read' });
  const claims = await atResource({ authorization: `Bearer ${minted.access_token}` });
  expect(claims).toMatchObject({ sub: REFUNDS, client_id: REFUNDS, jti: minted['lease_id'] });
});

it('token exchange on behalf of a person, and passed on to another agent', async () => {
  const forPerson = await exchange({
    subject_token: knock.person('alice'),
    subject_token_type: ID_TOKEN,
    actor_token: knock.svid('/agent/refunds'),
    actor_token_type: JWT,
    ...wanted({ resource: door.url }),
  });
  const passed = await exchange(
    { subject_token: forPerson.access_token, subject_token_type: ACCESS_TOKEN, resource: ORDERS },
    {},
    { client_id: LEDGER },
    spiffeJwt('/agent/ledger'),
  );
  expect(await atResource({ authorization: `Bearer ${passed.access_token}` })).toMatchObject({
    sub: 'https://people.dev.mayfly#alice',
    act: { sub: LEDGER, act: { sub: REFUNDS } },
  });
});

it('client_credentials with spiffe_jwt', async () => {
  const response = await oauth.clientCredentialsGrantRequest(
    as,
    agent,
    spiffeJwt('/agent/refunds'),
    wanted(),
    insecure,
  );
  const minted = await oauth.processClientCredentialsResponse(as, agent, response);
  expect(await atResource({ authorization: `Bearer ${minted.access_token}` })).toMatchObject({ client_id: REFUNDS });
});

it('client_credentials with spiffe_x509, at the alias for mTLS', async () => {
  const { certificatePem, keyPem } = await door.trustDomain.x509Svid({ path: '/agent/refunds', ttlSeconds: 600 });
  const overMtls = nodeFetch({ ca: door.trustDomain.caPem, cert: certificatePem, key: keyPem });
  const client = { ...agent, use_mtls_endpoint_aliases: true };
  const used: string[] = [];
  const response = await oauth.clientCredentialsGrantRequest(as, client, oauth.TlsClientAuth(), wanted(), {
    [oauth.customFetch]: (url, { body, ...init }) => {
      used.push(url);
      return overMtls(url, { method: init.method, headers: init.headers, body: String(body) });
    },
  });
  const minted = await oauth.processClientCredentialsResponse(as, client, response);
  expect(used).toEqual([`${door.mtlsUrl}/oauth2/token`]);
  expect(await introspect(minted.access_token)).toMatchObject({
    active: true,
    cnf: { 'x5t#S256': expect.any(String) },
  });
});

it('the jwt-bearer grant', async () => {
  const parameters = wanted({ assertion: knock.svid('/agent/refunds') });
  const response = await oauth.genericTokenEndpointRequest(as, agent, oauth.None(), JWT_BEARER, parameters, insecure);
  const minted = await oauth.processGenericTokenEndpointResponse(as, agent, response);
  expect(await atResource({ authorization: `Bearer ${minted.access_token}` })).toMatchObject({ client_id: REFUNDS });
});

it('DPoP: the token is bound to the key, and a resource server refuses it without a proof', async () => {
  const keyPair = await oauth.generateKeyPair('ES256');
  const DPoP = oauth.DPoP(agent, keyPair);
  const minted = await exchange({ ...ownSvid(), ...wanted() }, { DPoP });
  expect(minted.token_type).toBe('dpop');
  let seen: Record<string, string> = {};
  await oauth.protectedResourceRequest(minted.access_token, 'GET', new URL(`${ORDERS}/42`), undefined, undefined, {
    DPoP,
    [oauth.customFetch]: async (_url, { headers }) => {
      seen = headers;
      return new Response('{}');
    },
  });
  expect(await atResource(seen)).toMatchObject({ cnf: { jkt: await DPoP.calculateThumbprint() } });
  const { dpop: _, ...bare } = seen;
  await expect(atResource(bare)).rejects.toThrow();
  await expect(atResource({ authorization: `Bearer ${minted.access_token}` })).rejects.toThrow();
});

it('introspection by the owner of the audience, revocation by the holder', async () => {
  const minted = await exchange({ ...ownSvid(), ...wanted() });
  expect(await introspect(minted.access_token)).toMatchObject({ active: true, scope: 'orders.read', aud: ORDERS });
  const response = await oauth.revocationRequest(as, agent, spiffeJwt('/agent/refunds'), minted.access_token, insecure);
  await oauth.processRevocationResponse(response);
  expect(await introspect(minted.access_token)).toEqual({ active: false });
});

it('reads our refusals: the error, its text, and the challenge of a failed authentication', async () => {
  await expect(exchange({ ...ownSvid(), ...wanted({ resource: 'https://unknown.example' }) })).rejects.toMatchObject({
    error: 'invalid_target',
    error_description: expect.any(String),
    status: 400,
  });
  const stranger: oauth.ClientAuth = (_server, _client, body) => {
    body.set('client_assertion_type', JWT_SPIFFE);
    body.set('client_assertion', 'x');
  };
  const refused = await oauth.clientCredentialsGrantRequest(as, agent, stranger, wanted(), insecure);
  await expect(oauth.processClientCredentialsResponse(as, agent, refused)).rejects.toMatchObject({
    code: oauth.WWW_AUTHENTICATE_CHALLENGE,
    status: 401,
    cause: [{ scheme: 'bearer' }, { scheme: 'dpop' }],
  });
});
