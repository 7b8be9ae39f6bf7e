import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type IdentityConfigInput, identityConfig } from '../../../../src/plugins/identity/config.js';
import { createIdentity } from '../../../../src/plugins/identity/identity.js';
import { fetchDocument } from '../../../../src/plugins/identity/sources/fetch-document.js';
import { bundleDocument, certificateAuthority, jwtAuthority } from '../../../fakes/issuing.js';
import { VirtualClock } from '../../../fakes/virtual-clock.js';
import { handTimer, until } from './hand-timer.js';

const authority = jwtAuthority();
const other = jwtAuthority({ kid: 'key-2', number: 1 });
const clock = new VirtualClock(Date.now());
const nowSeconds = Math.floor(clock.now() / 1000);
const BROKER = 'https://mayfly.example';

let folder: string;
let caFile: string;
let server: Server;
let origin: string;
let answer: RequestListener;
const seen: IncomingMessage[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-identity-'));
  const validity = { notBeforeMs: clock.now() - 60_000, notAfterMs: clock.now() + 600_000 };
  const ca = await certificateAuthority('tls.example', validity);
  const tls = await ca.issue({ dnsNames: ['localhost'], ...validity });
  caFile = join(folder, 'ca.pem');
  writeFileSync(caFile, ca.certificate.toString());
  server = createServer(
    { key: tls.privateKey.export({ type: 'pkcs8', format: 'pem' }), cert: tls.certificate.toString() },
    (request: IncomingMessage, response: ServerResponse) => {
      seen.push(request);
      answer(request, response);
    },
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `https://localhost:${(server.address() as AddressInfo).port}`;
});

beforeEach(() => {
  seen.length = 0;
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

const say = (body: string | Buffer, status = 200, headers: Record<string, string> = {}): RequestListener => {
  return (_request, response) => void response.writeHead(status, headers).end(body);
};

describe('fetching a document', () => {
  const get = (more = {}) => fetchDocument(`${origin}/bundle`, { caFile, ...more });

  it('answers the body of a 200', async () => {
    answer = say('{"keys":[]}');
    expect(await get()).toBe('{"keys":[]}');
    expect(seen[0]?.headers.authorization).toBeUndefined();
  });

  it.each([201, 204, 304, 400, 401, 404, 500, 503])('a %i is a failure', async (status) => {
    answer = say('', status);
    await expect(get()).rejects.toThrow(`status ${status}`);
  });

  it('a server that the CA file does not vouch for is a failure', async () => {
    answer = say('{"keys":[]}');
    await expect(fetchDocument(`${origin}/bundle`)).rejects.toThrow();
  });

  it('more bytes than allowed is a failure, also without a content-length', async () => {
    answer = (_request, response) => {
      response.writeHead(200);
      for (let part = 0; part < 20; part += 1) response.write('x'.repeat(100));
      response.end();
    };
    await expect(get({ bytesMax: 1000 })).rejects.toThrow('too large');
    expect(await get({ bytesMax: 2000 })).toHaveLength(2000);
  });

  it('bytes that are not UTF-8 are a failure', async () => {
    answer = say(Buffer.from([0x7b, 0xff, 0x7d]));
    await expect(get()).rejects.toThrow('not UTF-8');
  });

  it('an answer that is cut short is a failure', async () => {
    answer = (_request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{', () => response.destroy());
    };
    await expect(get()).rejects.toThrow();
  });

  it('no answer in time is a failure', async () => {
    answer = () => {};
    await expect(get({ timeoutMs: 50 })).rejects.toThrow('no answer in time');
  });

  it('an answer that never ends is a failure', async () => {
    answer = (_request, response) => {
      response.writeHead(200);
      response.write('{');
    };
    await expect(get({ timeoutMs: 200 })).rejects.toThrow();
  });

  it('follows a redirect to https', async () => {
    answer = (request, response) =>
      request.url === '/bundle'
        ? say('', 302, { location: '/other' })(request, response)
        : say('{}')(request, response);
    expect(await get()).toBe('{}');
    expect(seen.map((request) => request.url)).toEqual(['/bundle', '/other']);
  });

  it.each([
    ['to http', 'http://localhost/bundle'],
    ['to a file', 'file:///etc/passwd'],
    ['with a user', 'https://user:word@localhost/bundle'],
    ['to nowhere', 'https://'],
  ])('a redirect %s is a failure', async (_name, location) => {
    answer = say('', 302, { location });
    await expect(get()).rejects.toThrow();
    expect(seen).toHaveLength(1);
  });

  it('redirects in circles end', async () => {
    answer = say('', 307, { location: '/bundle' });
    await expect(get()).rejects.toThrow('too many redirects');
    expect(seen).toHaveLength(4);
  });

  it('a token from a file is sent, read anew each time, and never follows a redirect', async () => {
    const tokenFile = join(folder, 'token');
    answer = say('{}');
    writeFileSync(tokenFile, 'first\n');
    await get({ tokenFile });
    writeFileSync(tokenFile, 'second\n');
    await get({ tokenFile });
    expect(seen.map(({ headers }) => headers.authorization)).toEqual(['Bearer first', 'Bearer second']);
    answer = say('', 302, { location: '/other' });
    await expect(get({ tokenFile })).rejects.toThrow('redirect');
    expect(seen).toHaveLength(3);
  });

  it('http is not spoken', async () => {
    await expect(fetchDocument('http://localhost/')).rejects.toThrow('https');
  });
});

async function identityOf(config: IdentityConfigInput) {
  const timer = handTimer();
  const made = await createIdentity(identityConfig.parse(config), { clock, issuer: BROKER, setTimer: timer.setTimer });
  return { ...made, timer };
}

const svid = (from = authority) =>
  from.sign({ sub: 'spiffe://prod.example/a', aud: BROKER, iat: nowSeconds, exp: nowSeconds + 300 });

describe('a bundle from a file', () => {
  const path = () => join(folder, 'bundle.json');
  const config = (): IdentityConfigInput => ({
    trust_domains: [{ name: 'prod.example', source: { kind: 'file', path: path() } }],
  });

  it('is read at the start and again when it changed', async () => {
    writeFileSync(path(), bundleDocument({ jwt: [authority] }));
    const { proof, bundles, timer } = await identityOf(config());
    expect(await proof.jwt(svid())).toMatchObject({ spiffeId: 'spiffe://prod.example/a' });
    expect(timer.delays()).toEqual([2_000]);
    writeFileSync(path(), bundleDocument({ jwt: [other] }));
    await bundles.refresh();
    await expect(proof.jwt(svid())).rejects.toMatchObject({ code: 'identity_rejected' });
    expect(await proof.jwt(svid(other))).toMatchObject({ keyId: 'prod.example#key-2' });
    await bundles.close();
  });

  it.each([
    ['gone', undefined],
    ['half written', '{"keys":[{"kty'],
    ['empty', ''],
    ['too large', `{"keys":[]${' '.repeat(1024 * 1024)}}`],
  ])('that is %s later on changes nothing', async (_name, text) => {
    writeFileSync(path(), bundleDocument({ jwt: [authority] }));
    const { proof, bundles } = await identityOf(config());
    if (text === undefined) rmSync(path());
    else writeFileSync(path(), text);
    await bundles.refresh();
    expect(bundles.status()).toMatchObject([{ ok: false, keys: 1, problem: expect.any(String) }]);
    expect(await proof.jwt(svid())).toMatchObject({ spiffeId: 'spiffe://prod.example/a' });
    await bundles.close();
  });

  it('that was never there leaves its domain unavailable, and keeps nobody from starting', async () => {
    rmSync(path(), { force: true });
    const { proof, bundles } = await identityOf(config());
    await expect(proof.jwt(svid())).rejects.toMatchObject({ code: 'unavailable' });
    writeFileSync(path(), bundleDocument({ jwt: [authority] }));
    await bundles.refresh();
    expect(await proof.jwt(svid())).toMatchObject({ spiffeId: 'spiffe://prod.example/a' });
    await bundles.close();
  });

  it('may be a bundle map, of which its own domain is taken', async () => {
    const map = `{ "trust_domains" : {"prod.example":${bundleDocument({ jwt: [authority] })},"other.example":${bundleDocument({ jwt: [other] })}}}`;
    writeFileSync(path(), map);
    const { bundles } = await identityOf(config());
    expect(bundles.keyIds()).toEqual(['prod.example#key-1']);
    await bundles.close();
  });
});

describe('a bundle from an https_web endpoint', () => {
  it('is fetched at the start and at the hint, and a failure changes nothing', async () => {
    answer = say(bundleDocument({ jwt: [authority] }, { spiffe_refresh_hint: 30 }));
    const { proof, bundles, timer } = await identityOf({
      trust_domains: [
        { name: 'prod.example', source: { kind: 'https_web', url: `${origin}/bundle`, ca_file: caFile } },
      ],
    });
    expect(timer.delays()).toEqual([30_000]);
    answer = say('', 500);
    await bundles.refresh();
    expect(bundles.status()).toMatchObject([{ name: 'prod.example', ok: false, problem: 'status 500' }]);
    expect(await proof.jwt(svid())).toMatchObject({ keyId: 'prod.example#key-1' });
    answer = say(bundleDocument({ jwt: [other] }));
    await bundles.refresh();
    await expect(proof.jwt(svid())).rejects.toMatchObject({ code: 'identity_rejected' });
    await bundles.close();
  });
});

it('an endpoint that does not answer holds up the start for 5 s, and closing for nothing', async () => {
  answer = () => {};
  const timer = handTimer();
  const config = identityConfig.parse({
    trust_domains: [{ name: 'prod.example', source: { kind: 'https_web', url: `${origin}/bundle`, ca_file: caFile } }],
  });
  const starting = createIdentity(config, { clock, issuer: BROKER, setTimer: timer.setTimer });
  await until(() => seen.length === 1 && timer.delays().length === 1);
  expect(timer.delays()).toEqual([5_000]);
  timer.fireNext();
  const { bundles } = await starting;
  expect(bundles.status()).toMatchObject([{ ok: false, keys: 0 }]);
  await bundles.close();
});

describe('the keys of an OIDC issuer', () => {
  const issuerOf = (keys: object, issuer = `${origin}/tenant`): IdentityConfigInput => ({
    oidc_issuers: [{ issuer, kind: 'people', keys: keys as { jwks_file: string }, algorithms: ['ES256'] }],
  });
  const jwks = JSON.stringify({ keys: [authority.jwk] });

  it('through discovery, from the registered issuer', async () => {
    answer = (request, response) =>
      request.url === '/tenant/.well-known/openid-configuration'
        ? say(JSON.stringify({ issuer: `${origin}/tenant`, jwks_uri: `${origin}/keys` }))(request, response)
        : say(jwks)(request, response);
    const { bundles } = await identityOf(issuerOf({ discovery: true, ca_file: caFile }));
    expect(bundles.keyIds()).toEqual([`${origin}/tenant#key-1`]);
    expect(seen.map(({ url }) => url)).toEqual(['/tenant/.well-known/openid-configuration', '/keys']);
    await bundles.close();
  });

  it.each([
    ['names another issuer', () => ({ issuer: `${origin}/other`, jwks_uri: `${origin}/keys` })],
    ['names the issuer with a slash', () => ({ issuer: `${origin}/tenant/`, jwks_uri: `${origin}/keys` })],
    ['has no jwks_uri', () => ({ issuer: `${origin}/tenant` })],
    ['has a jwks_uri of http', () => ({ issuer: `${origin}/tenant`, jwks_uri: 'http://localhost/keys' })],
    ['is a list', () => []],
  ])('metadata that %s gives no keys', async (_name, metadata) => {
    answer = (request, response) =>
      say(request.url?.includes('.well-known') ? JSON.stringify(metadata()) : jwks)(request, response);
    const { bundles } = await identityOf(issuerOf({ discovery: true, ca_file: caFile }));
    expect(bundles.keyIds()).toEqual([]);
    expect(bundles.status()).toMatchObject([{ ok: false, problem: expect.any(String) }]);
    await bundles.close();
  });

  it('from a jwks_uri with a CA and a token, as inside a cluster', async () => {
    const tokenFile = join(folder, 'sa-token');
    writeFileSync(tokenFile, 'service-account');
    answer = (request, response) =>
      say(jwks, request.headers.authorization === 'Bearer service-account' ? 200 : 401)(request, response);
    const { bundles } = await identityOf(
      issuerOf(
        { jwks_uri: `${origin}/openid/v1/jwks`, ca_file: caFile, token_file: tokenFile },
        'https://kubernetes.default.svc',
      ),
    );
    expect(bundles.keyIds()).toEqual(['https://kubernetes.default.svc#key-1']);
    await bundles.close();
  });

  it('from a file, without any network', async () => {
    const path = join(folder, 'jwks.json');
    writeFileSync(path, jwks);
    const { bundles } = await identityOf(issuerOf({ jwks_file: path }));
    expect(bundles.keyIds()).toEqual([`${origin}/tenant#key-1`]);
    expect(seen).toEqual([]);
    await bundles.close();
  });

  it('nothing is fetched because a token says so', async () => {
    const path = join(folder, 'jwks.json');
    writeFileSync(path, jwks);
    const { proof, bundles } = await identityOf(issuerOf({ jwks_file: path }, 'https://staff.example'));
    answer = say(jwks);
    for (const claims of [{ iss: `${origin}/tenant` }, { iss: 'https://staff.example', jku: `${origin}/keys` }]) {
      const token = other.sign({ ...claims, sub: 'a', aud: BROKER, iat: nowSeconds, exp: nowSeconds + 60 });
      await expect(proof.jwt(token)).rejects.toMatchObject({ code: 'identity_rejected' });
    }
    const headed = other.sign(
      { iss: 'https://staff.example', sub: 'a' },
      { jku: `${origin}/keys`, x5u: `${origin}/x` },
    );
    await expect(proof.jwt(headed)).rejects.toMatchObject({ code: 'identity_rejected' });
    expect(seen).toEqual([]);
    await bundles.close();
  });
});

it('the broker cannot register itself as an issuer', async () => {
  const config = identityConfig.parse({ oidc_issuers: [{ issuer: BROKER, kind: 'people', keys: { jwks_file: 'x' } }] });
  await expect(createIdentity(config, { clock, issuer: BROKER })).rejects.toThrow('oidc_issuers');
});
