import { createHash, type KeyObject } from 'node:crypto';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { type Middleware, requireTask, type TaskRequest, type TaskResponse } from '../../../src/client/express.js';
import { nodeFetch } from '../../../src/client/transport.js';
import { createVerifier, type Verifier } from '../../../src/client/verifier.js';
import { FakeIssuer } from '../../fakes/issuer.js';
import { certificateAuthority, type IssuedCertificate, keyPair } from '../../fakes/issuing.js';

/*
 * RFC 8705, certificate-bound access tokens: section 3 at a protected resource, over real mutual TLS. (Client authentication by
 * certificate, section 2, is the door's: tests/http/tls.test.ts.)
 */

const AUDIENCE = 'https://orders.example';
const pem = (key: KeyObject) => key.export({ type: 'pkcs8', format: 'pem' }) as string;
const thumbprint = ({ certificate }: IssuedCertificate) =>
  createHash('sha256').update(certificate.raw).digest('base64url');

let issuer: FakeIssuer;
let verifier: Verifier;
let server: Server;
let url: string;
let authority: IssuedCertificate;
let agent: IssuedCertificate;
let other: IssuedCertificate;

beforeAll(async () => {
  const validNow = { notBeforeMs: Date.now() - 60_000, notAfterMs: Date.now() + 3_600_000 };
  authority = await certificateAuthority('dev.mayfly', validNow);
  const issue = (number: number, more: object) =>
    authority.issue({ ...validNow, key: keyPair('ES256', number), ...more });
  const tool = await issue(1, { dnsNames: ['localhost'], uris: ['spiffe://dev.mayfly/tool/orders'] });
  agent = await issue(2, { uris: ['spiffe://dev.mayfly/agent/refunds'] });
  // The same workload after its SVID was rotated.
  other = await issue(3, { uris: ['spiffe://dev.mayfly/agent/refunds'] });

  issuer = await new FakeIssuer().start();
  verifier = createVerifier({
    issuer: issuer.url,
    audience: AUDIENCE,
    identity: { bearer: async () => 'svid' },
    clock: { now: () => issuer.nowMs },
    elapsedMs: () => 0,
  });
  await verifier.ready();
  const guard: Middleware = requireTask({ verifier });
  server = createServer(
    {
      cert: tool.certificate.toString(),
      key: pem(tool.privateKey),
      ca: authority.certificate.toString(),
      requestCert: true,
      rejectUnauthorized: false,
    },
    (request, response) =>
      guard(request as unknown as TaskRequest, response as unknown as TaskResponse, () => response.end('{}')),
  );
  await new Promise<void>((resolve) => server.listen(0, 'localhost', resolve));
  url = `https://localhost:${(server.address() as AddressInfo).port}/orders/42`;
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await verifier.close();
  await issuer.stop();
});

function as(certificate: IssuedCertificate | undefined) {
  const ca = authority.certificate.toString();
  return nodeFetch(
    certificate ? { ca, cert: certificate.certificate.toString(), key: pem(certificate.privateKey) } : { ca },
  );
}

async function statusOf(certificate: IssuedCertificate | undefined, token: string, headers: object = {}) {
  const response = await as(certificate)(url, { headers: { authorization: `Bearer ${token}`, ...headers } });
  await response.text();
  return { status: response.status, challenge: response.headers.get('www-authenticate') };
}

const bound = (to: string) => issuer.mint(issuer.claims({ cnf: { 'x5t#S256': to } }));

describe('section 3: a token bound to a certificate', () => {
  it('is taken over a connection with that certificate, as Bearer', async () => {
    expect((await statusOf(agent, bound(thumbprint(agent)))).status).toBe(200);
  });

  it('401 invalid_token over a connection with another certificate of the same workload', async () => {
    const { status, challenge } = await statusOf(other, bound(thumbprint(agent)));
    expect(status).toBe(401);
    expect(challenge).toContain('Bearer error="invalid_token"');
  });

  it('401 over a connection without a certificate', async () => {
    expect((await statusOf(undefined, bound(thumbprint(agent)))).status).toBe(401);
  });

  it('401 when the certificate is only claimed in a header', async () => {
    const headers = {
      'x-forwarded-client-cert': `Hash=${createHash('sha256').update(agent.certificate.raw).digest('hex')}`,
      'x-ssl-client-cert': agent.certificate.toString().replaceAll('\n', ' '),
      'client-cert': `:${agent.certificate.raw.toString('base64')}:`,
    };
    expect((await statusOf(undefined, bound(thumbprint(agent)), headers)).status).toBe(401);
  });

  it('401 under the DPoP scheme', async () => {
    const response = await as(agent)(url, { headers: { authorization: `DPoP ${bound(thumbprint(other))}` } });
    expect(response.status).toBe(401);
    await response.text();
  });
});

describe('section 3.1: the thumbprint', () => {
  it('is SHA-256 of the DER in base64url without padding; no other spelling of it is taken', async () => {
    const digest = createHash('sha256').update(agent.certificate.raw).digest();
    const spellings = [`${digest.toString('base64url')}=`, digest.toString('base64'), digest.toString('hex')];
    for (const spelling of spellings.filter((one) => one !== thumbprint(agent))) {
      expect((await statusOf(agent, bound(spelling))).status).toBe(401);
    }
  });

  it('of the key instead of the certificate is not taken', async () => {
    const spki = agent.certificate.publicKey.export({ type: 'spki', format: 'der' });
    const ofKey = createHash('sha256').update(spki).digest('base64url');
    expect((await statusOf(agent, bound(ofKey))).status).toBe(401);
  });
});

it('a token that is not bound is taken over any connection', async () => {
  expect((await statusOf(undefined, issuer.mint())).status).toBe(200);
});

it('the client trusts no server that its CA did not sign', async () => {
  const stranger = await certificateAuthority('other.example');
  const fetch = nodeFetch({ ca: stranger.certificate.toString() });
  await expect(fetch(url)).rejects.toThrow();
});

it('a certificate that is replaced is shown from the next request on', async () => {
  let current = agent;
  const fetch = nodeFetch({
    ca: authority.certificate.toString(),
    get cert() {
      return current.certificate.toString();
    },
    get key() {
      return pem(current.privateKey);
    },
  });
  const status = async (token: string) => {
    const response = await fetch(url, { headers: { authorization: `Bearer ${token}` } });
    await response.text();
    return response.status;
  };
  expect(await status(bound(thumbprint(agent)))).toBe(200);
  current = other;
  expect(await status(bound(thumbprint(other)))).toBe(200);
  expect(await status(bound(thumbprint(agent)))).toBe(401);
});
