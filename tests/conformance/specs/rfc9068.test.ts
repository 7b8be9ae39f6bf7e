import { createLocalJWKSet, errors, jwtVerify } from 'jose';
import { nodeFetch } from '../../../src/client/transport.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { ProofMaker } from '../../fakes/issuer.js';
import { type Knock, knockAt, ORDERS, REFUNDS } from '../../fakes/knock.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

/* RFC 9068, JWT access tokens: section 2 as another library reads it, and section 4 where we are the resource ourselves (`/v1`). */

const PUBLISHED_MS = 121_000;

let clock: VirtualClock;
let door: FakeDoor;
let knock: Knock;
let task: string;

beforeEach(async () => {
  clock = new VirtualClock(Date.now());
  door = await openFakeDoor({ clock });
  knock = knockAt(door);
  task = await knock.task();
});
afterEach(() => door.close());

const mint = (more = {}) => knock.minted(knock.exchange('/agent/refunds', task, more));

/** What a resource server does that knows nothing but the issuer: keys from the JWKS, then all checks of section 4. */
async function verify(token: string, audience = ORDERS) {
  const { body } = await knock.api('GET', '/.well-known/jwks.json', undefined);
  return jwtVerify(token, createLocalJWKSet(body), {
    issuer: door.url,
    audience,
    typ: 'at+jwt',
    algorithms: ['ES256', 'RS256'],
    requiredClaims: ['iss', 'exp', 'aud', 'sub', 'client_id', 'iat', 'jti'],
    currentDate: new Date(clock.now()),
  });
}

describe('section 2: the token', () => {
  it('2.1 its header: typ at+jwt, an asymmetric algorithm, the kid of a published key, and nothing else', async () => {
    const { token, header } = await mint();
    expect(header).toEqual({ typ: 'at+jwt', alg: 'ES256', kid: expect.any(String) });
    expect((await verify(token)).protectedHeader).toEqual(header);
  });

  it('2.2 its claims: all that are required, one audience, times in whole seconds', async () => {
    const { token, claims, answer } = await mint();
    expect((await verify(token)).payload).toEqual(claims);
    const nowSeconds = Math.floor(clock.now() / 1000);
    expect(claims).toEqual({
      iss: door.url,
      sub: REFUNDS,
      aud: ORDERS,
      client_id: REFUNDS,
      iat: nowSeconds,
      exp: nowSeconds + answer.body.expires_in,
      jti: answer.body.lease_id,
      scope: 'orders.read orders.refund',
      authorization_details: [{ type: 'urn:mayfly:task', identifier: task }],
      mayfly: {
        cell: 'a',
        path: [task],
        pos: expect.stringMatching(/^\d+-\d+-\d+$/),
        sel: expect.arrayContaining([expect.stringMatching(/^[\w-]{16}$/)]),
        bundle: expect.stringMatching(/^sha256:/),
        call: true,
      },
    });
  });

  it('2.2 each token has a jti of its own', async () => {
    const ids = new Set<string>();
    for (let round = 0; round < 5; round++) ids.add((await mint()).claims['jti']);
    expect(ids.size).toBe(5);
  });

  it('2.2.3 scope means something at the audience: no tool of another resource is in it', async () => {
    const { claims } = await mint({ scope: 'orders.read' });
    expect(claims['scope']).toBe('orders.read');
    const { status, body } = await knock.token(
      knock.exchange('/agent/refunds', task, { scope: 'sandbox.orders.read' }),
    );
    expect([status, body.error]).toEqual([400, 'invalid_scope']);
  });

  it('3 who sends no resource gets the only one of the task, and never several', async () => {
    expect((await mint({ resource: undefined })).claims['aud']).toBe(ORDERS);
  });

  it('2.1 RS256 is there for those who read nothing else, and a rotation refuses no token', async () => {
    const before = await mint();
    const operator = await knock.operator('operator-1');
    const { body: key } = await operator('POST', '/v1/keys', { alg: 'RS256' });
    clock.advance(PUBLISHED_MS);
    const again = await knock.operator('operator-1');
    expect((await again('POST', `/v1/keys/${key.kid}/activate`)).status).toBe(200);
    const after = await mint();
    expect(after.header).toEqual({ typ: 'at+jwt', alg: 'RS256', kid: key.kid });
    await verify(after.token);
    await verify(before.token);
    expect((await knock.introspect(before.token)).body.active).toBe(true);
  });
});

describe('section 4: another library refuses', () => {
  it.each([
    ['another audience', (token: string) => verify(token, 'https://other.example')],
    ['a touched claim', (token: string) => verify(withClaims(token, { scope: 'everything' }))],
    ['the same content as an ID token', (token: string) => verify(withHeader(token, { typ: 'JWT' }))],
    ['the same content without a signature', (token: string) => verify(withHeader(token, { alg: 'none' }))],
  ])('%s', async (_, use) => {
    await expect(use((await mint()).token)).rejects.toThrow(errors.JOSEError);
  });

  it('an expired one', async () => {
    const { token } = await mint();
    clock.advance(301_000);
    await expect(verify(token)).rejects.toThrow(errors.JWTExpired);
  });

  it('one whose key was tainted', async () => {
    const { token, header } = await mint();
    const operator = await knock.operator('operator-1');
    await operator('POST', `/v1/keys/${header['kid']}/taint`, { reason: 'drill' });
    await expect(verify(token)).rejects.toThrow(errors.JWKSNoMatchingKey);
    expect((await knock.introspect(token)).body).toEqual({ active: false });
  });
});

describe('section 4: at /v1, where the audience is this issuer', () => {
  const read = (token: string, headers = {}) =>
    knock.api('GET', `/v1/tasks/${task}`, undefined, undefined, { authorization: `Bearer ${token}`, ...headers });

  it('a token of the task, for this issuer, reads its task and changes nothing', async () => {
    const { token } = await mint({ resource: door.url });
    expect((await read(token)).status).toBe(200);
    const completed = await knock.api(
      'POST',
      `/v1/tasks/${task}/complete`,
      undefined,
      {},
      {
        authorization: `Bearer ${token}`,
      },
    );
    expect(completed.status).toBe(403);
  });

  it('401 invalid_token: a token for a tool, a dead one, a touched one, one under another typ', async () => {
    const { token } = await mint({ resource: door.url });
    const forTool = (await mint()).token;
    const dead = (await mint({ resource: door.url })).token;
    await knock.post(
      '/oauth2/revoke',
      { token: dead },
      { headers: { authorization: `Bearer ${knock.svid('/agent/refunds')}` } },
    );
    for (const bad of [forTool, dead, withClaims(token, { scope: 'x' }), withHeader(token, { typ: 'JWT' })]) {
      const { status, headers } = await read(bad);
      expect(status).toBe(401);
      expect(headers.get('www-authenticate')).toMatch(/^Bearer [^,]*, error="invalid_token"/);
    }
  });

  it('RFC 9449 section 7.2: a bound token sent as Bearer, or with another key’s proof, is refused', async () => {
    const [own, other] = [new ProofMaker(), new ProofMaker()];
    const form = knock.exchange('/agent/refunds', task, { resource: door.url });
    const { token: accessToken } = await knock.minted(form, { headers: { dpop: knock.proof(own) } });
    const path = `/v1/tasks/${task}`;
    const proven = (maker: ProofMaker, more = {}) => ({
      authorization: `DPoP ${accessToken}`,
      dpop: knock.proof(maker, path, { htm: 'GET', accessToken, ...more }),
    });
    expect((await read(accessToken, proven(own))).status).toBe(200);
    const used = proven(own);
    expect([(await read(accessToken, used)).status, (await read(accessToken, used)).status]).toEqual([200, 401]);
    for (const headers of [
      {},
      { authorization: `DPoP ${accessToken}` },
      proven(other),
      proven(own, { htm: 'POST' }),
      proven(own, { htu: `${door.url}/v1/tasks` }),
      proven(own, { accessToken: 'another' }),
      proven(own, { iat: Math.floor(clock.now() / 1000) - 600 }),
    ]) {
      const { status, headers: answered } = await read(accessToken, headers);
      expect(status).toBe(401);
      expect(answered.get('www-authenticate')).toMatch(
        /DPoP .*error="invalid_(token|dpop_proof)"|Bearer .*error="invalid_token"/,
      );
    }
  });

  it('RFC 8705 section 3: a certificate-bound token counts on a connection with that certificate alone', async () => {
    const over = async () => {
      const { certificatePem, keyPem } = await door.trustDomain.x509Svid({ path: '/agent/refunds', ttlSeconds: 600 });
      return nodeFetch({ ca: door.trustDomain.caPem, cert: certificatePem, key: keyPem });
    };
    const [own, rotated] = [await over(), await over()];
    const form = { grant_type: 'client_credentials', client_id: REFUNDS, scope: `task:${task}`, resource: door.url };
    const minted = await own(`${door.mtlsUrl}/oauth2/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(form).toString(),
    });
    const { access_token: token } = (await minted.json()) as { access_token: string };
    const address = `${door.mtlsUrl}/v1/tasks/${task}`;
    const headers = { authorization: `Bearer ${token}` };
    expect((await own(address, { headers })).status).toBe(200);
    expect((await rotated(address, { headers })).status).toBe(401);
    expect((await read(token)).status).toBe(401);
  });
});

function withClaims(token: string, claims: object): string {
  const [head, body, signature] = token.split('.') as [string, string, string];
  const changed = { ...JSON.parse(Buffer.from(body, 'base64url').toString()), ...claims };
  return [head, Buffer.from(JSON.stringify(changed)).toString('base64url'), signature].join('.');
}

function withHeader(token: string, header: object): string {
  const [head, body, signature] = token.split('.') as [string, string, string];
  const changed = { ...JSON.parse(Buffer.from(head, 'base64url').toString()), ...header };
  return [Buffer.from(JSON.stringify(changed)).toString('base64url'), body, signature].join('.');
}
