import * as client from 'openid-client';
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
  ORDERS,
  partOf,
  REFUNDS,
} from '../../fakes/knock.js';

/* openid-client as it is, the way an application uses it. The door asks for DPoP nonces here: this client answers them by itself. */

const TOOL = 'spiffe://dev.mayfly/tool/orders';

let door: FakeDoor;
let knock: Knock;
let agent: client.Configuration;
let tool: client.Configuration;
let task: string;

beforeAll(async () => {
  door = await openFakeDoor({ settings: { dpopNonceRequired: true } });
  knock = knockAt(door);
  task = await knock.task();
  agent = await discover(REFUNDS, spiffeJwt('/agent/refunds'));
  tool = await discover(TOOL, spiffeJwt('/tool/orders'));
});
afterAll(() => door.close());

const spiffeJwt =
  (path: string): client.ClientAuth =>
  (_server, { client_id: id }, body) => {
    body.set('client_id', id);
    body.set('client_assertion_type', JWT_SPIFFE);
    body.set('client_assertion', knock.svid(path));
  };

function discover(
  id: string,
  auth: client.ClientAuth,
  metadata?: Partial<client.ClientMetadata>,
  customFetch?: client.CustomFetch,
): Promise<client.Configuration> {
  return client.discovery(new URL(door.url), id, metadata, auth, {
    algorithm: 'oauth2',
    execute: [client.allowInsecureRequests],
    ...(customFetch && { [client.customFetch]: customFetch }),
  });
}

const wanted = (more: Record<string, string> = {}) => ({
  resource: ORDERS,
  scope: `task:${task} orders.read`,
  ...more,
});
const ownSvid = () => ({ subject_token: knock.svid('/agent/refunds'), subject_token_type: JWT });

it('discovers what there is', () => {
  expect(agent.serverMetadata()).toMatchObject({
    issuer: door.url,
    grant_types_supported: expect.arrayContaining([EXCHANGE, 'client_credentials', JWT_BEARER]),
  });
});

it('token exchange, introspection, revocation', async () => {
  const minted = await client.genericGrantRequest(agent, EXCHANGE, { ...ownSvid(), ...wanted() });
  expect(minted).toMatchObject({ token_type: 'bearer', issued_token_type: ACCESS_TOKEN, scope: 'orders.read' });
  expect(minted.expiresIn()).toBeGreaterThan(290);
  expect(await client.tokenIntrospection(tool, minted.access_token)).toMatchObject({
    active: true,
    client_id: REFUNDS,
  });
  await client.tokenRevocation(agent, minted.access_token);
  expect(await client.tokenIntrospection(tool, minted.access_token)).toEqual({ active: false });
});

it('client_credentials with spiffe_jwt, and the jwt-bearer grant', async () => {
  expect(partOf((await client.clientCredentialsGrant(agent, wanted())).access_token, 1)).toMatchObject({
    sub: REFUNDS,
  });
  const bare = await discover(REFUNDS, client.None());
  const minted = await client.genericGrantRequest(
    bare,
    JWT_BEARER,
    wanted({ assertion: knock.svid('/agent/refunds') }),
  );
  expect(partOf(minted.access_token, 1)).toMatchObject({ sub: REFUNDS });
});

it('client_credentials with spiffe_x509: the library’s own mTLS authentication is all it takes', async () => {
  const { certificatePem, keyPem } = await door.trustDomain.x509Svid({ path: '/agent/refunds', ttlSeconds: 600 });
  const overMtls = nodeFetch({ ca: door.trustDomain.caPem, cert: certificatePem, key: keyPem });
  const config = await discover(
    REFUNDS,
    client.TlsClientAuth(),
    { use_mtls_endpoint_aliases: true },
    (url, { body, method, headers }) => overMtls(url, { method, headers, ...(body != null && { body: String(body) }) }),
  );
  const minted = await client.clientCredentialsGrant(config, wanted());
  expect(partOf(minted.access_token, 1)).toMatchObject({ sub: REFUNDS, cnf: { 'x5t#S256': expect.any(String) } });
});

it('DPoP: it is asked for a nonce, sends it, and gets a bound token', async () => {
  const DPoP = client.getDPoPHandle(agent, await client.randomDPoPKeyPair('ES256'));
  const minted = await client.genericGrantRequest(agent, EXCHANGE, { ...ownSvid(), ...wanted() }, { DPoP });
  expect(minted.token_type).toBe('dpop');
  expect(partOf(minted.access_token, 1)).toMatchObject({ cnf: { jkt: await DPoP.calculateThumbprint() } });
});

it('a person’s operator token, with which the API is then called', async () => {
  const config = await discover('console', client.None());
  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  const person = { subject_token: knock.person('operator-1', ['mayfly-operators']), subject_token_type: ID_TOKEN };
  const minted = await client.genericGrantRequest(config, EXCHANGE, person, { DPoP });
  const locks = new URL(`${door.url}/v1/locks`);
  const body = JSON.stringify({ selector: { agent: REFUNDS }, reason: 'drill' });
  const headers = new Headers({ 'content-type': 'application/json' });
  const call = () => client.fetchProtectedResource(config, minted.access_token, locks, 'POST', body, headers, { DPoP });
  expect((await call()).status).toBe(201);
  await expect(client.genericGrantRequest(agent, EXCHANGE, { ...ownSvid(), ...wanted() })).rejects.toMatchObject({
    error: 'access_denied',
  });
});
