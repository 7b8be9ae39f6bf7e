import { createPublicKey, type JsonWebKey, verify, X509Certificate } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer } from 'node:tls';
import {
  DEV_PEOPLE,
  type DevTrustDomain,
  devSpiffeId,
  openDevTrustDomain,
} from '../../../../src/main/dev/trust-domain.js';

const NOW = Date.parse('2026-11-01T12:00:00Z');
const clock = { now: () => NOW };

let dataDir: string;
let domain: DevTrustDomain;
beforeEach(async () => {
  dataDir = mkdtempSync(join(tmpdir(), 'mayfly-trust-'));
  domain = await openDevTrustDomain(dataDir, clock);
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

interface Jwk extends JsonWebKey {
  use: string;
  kid?: string;
  x5c?: string[];
}

function bundle(): { spiffe_sequence: number; spiffe_refresh_hint: number; keys: Jwk[] } {
  return JSON.parse(readFileSync(domain.bundlePath, 'utf8'));
}

/** Checks a token with one public key, and returns what it says. */
function read(token: string, key: Jwk) {
  const [head, body, signature] = token.split('.') as [string, string, string];
  const isSigned = verify(
    'sha256',
    Buffer.from(`${head}.${body}`),
    { key: createPublicKey({ key, format: 'jwk' }), dsaEncoding: 'ieee-p1363' },
    Buffer.from(signature, 'base64url'),
  );
  const decode = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString());
  return { isSigned, header: decode(head), claims: decode(body) };
}

const jwtKey = () => bundle().keys.find(({ use }) => use === 'jwt-svid') as Jwk;

describe('the files', () => {
  it('are 0600 in a 0700 folder, and nothing half made is left', () => {
    const dir = join(dataDir, 'dev');
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    const files = readdirSync(dir).sort();
    expect(files).toEqual(['bundle.json', 'ca.pem', 'keys.json', 'people.jwks.json']);
    for (const file of files) expect([file, statSync(join(dir, file)).mode & 0o777]).toEqual([file, 0o600]);
  });

  it('are made once: a later opening signs with the same keys and leaves the bundle untouched', async () => {
    const before = { bundle: readFileSync(domain.bundlePath, 'utf8'), inode: statSync(domain.bundlePath).ino };
    const again = await openDevTrustDomain(dataDir, { now: () => NOW + 1_000_000 });
    expect(readFileSync(domain.bundlePath, 'utf8')).toBe(before.bundle);
    expect(statSync(domain.bundlePath).ino).toBe(before.inode);
    expect(read(again.jwtSvid({ path: '/agent/a', audience: 'x', ttlSeconds: 60 }), jwtKey()).isSigned).toBe(true);
  });

  it('two openings at once end up with the same keys', async () => {
    const other = join(dataDir, 'other');
    const [one, two, three] = await Promise.all([1, 2, 3].map(() => openDevTrustDomain(other, clock)));
    expect(two?.caPem).toBe(one?.caPem);
    expect(three?.caPem).toBe(one?.caPem);
    expect(readFileSync(join(other, 'dev/ca.pem'), 'utf8')).toBe(one?.caPem);
    expect(readdirSync(join(other, 'dev')).sort()).toEqual(['bundle.json', 'ca.pem', 'keys.json', 'people.jwks.json']);
  });

  it('a lost bundle is written again from the keys', async () => {
    const before = readFileSync(domain.bundlePath, 'utf8');
    rmSync(domain.bundlePath);
    await openDevTrustDomain(dataDir, clock);
    expect(readFileSync(domain.bundlePath, 'utf8')).toBe(before);
  });

  it('permissions that became too wide are narrowed', async () => {
    chmodSync(join(dataDir, 'dev/keys.json'), 0o644);
    await openDevTrustDomain(dataDir, clock);
    expect(statSync(join(dataDir, 'dev/keys.json')).mode & 0o777).toBe(0o600);
  });

  it.each([
    ['no JSON', () => '{"sequence": 1'],
    ['a missing key', () => '{"sequence": 1}'],
    [
      'an unreadable key',
      (text: string) => JSON.stringify({ ...JSON.parse(text), jwtKeyPem: '-----BEGIN PRIVATE KEY-----\nx' }),
    ],
  ])('damaged keys (%s) are named in one line and never replaced', async (_, damage) => {
    const file = join(dataDir, 'dev/keys.json');
    const damaged = damage(readFileSync(file, 'utf8'));
    writeFileSync(file, damaged);
    await expect(openDevTrustDomain(dataDir, clock)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^The development keys in .*keys\.json are damaged \([^\n]*$/),
    });
    expect(readFileSync(file, 'utf8')).toBe(damaged);
  });

  it('a data folder that is a file is one clear line', async () => {
    const file = join(dataDir, 'file');
    writeFileSync(file, '');
    await expect(openDevTrustDomain(file, clock)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/^The development keys in .* cannot be read or written \(ENOTDIR\): [^\n]*$/),
    });
  });
});

describe('the bundle', () => {
  it('holds one key of each use, and nothing private', () => {
    const { keys, spiffe_sequence, spiffe_refresh_hint } = bundle();
    expect(keys.map(({ use }) => use).sort()).toEqual(['jwt-svid', 'x509-svid']);
    expect(spiffe_sequence).toBe(NOW / 1_000);
    expect(spiffe_refresh_hint).toBeGreaterThan(0);
    for (const key of keys) expect(Object.keys(key)).not.toContain('d');
  });

  it('SPF-X-8: the X.509 entry has no kid and exactly one certificate, the authority', () => {
    const entry = bundle().keys.find(({ use }) => use === 'x509-svid') as Jwk;
    expect(entry.kid).toBeUndefined();
    expect(entry.x5c).toHaveLength(1);
    const certificate = new X509Certificate(Buffer.from(entry.x5c?.[0] as string, 'base64'));
    expect(certificate.fingerprint256).toBe(new X509Certificate(domain.caPem).fingerprint256);
    expect(certificate.publicKey.export({ format: 'jwk' })).toMatchObject({ x: entry['x'], y: entry['y'] });
  });

  it('the JWT entry has the kid that the tokens name', () => {
    const token = domain.jwtSvid({ path: '/agent/a', audience: 'x', ttlSeconds: 60 });
    expect(read(token, jwtKey()).header.kid).toBe(jwtKey().kid);
  });

  it('a trust domain that was made anew has a higher sequence and other keys', async () => {
    const before = bundle();
    rmSync(join(dataDir, 'dev'), { recursive: true });
    domain = await openDevTrustDomain(dataDir, { now: () => NOW + 60_000 });
    expect(bundle().spiffe_sequence).toBeGreaterThan(before.spiffe_sequence);
    expect(jwtKey().kid).not.toBe(before.keys.find(({ use }) => use === 'jwt-svid')?.kid);
  });
});

describe('a JWT-SVID', () => {
  it('says who, for whom and how long, and nothing else', () => {
    const token = domain.jwtSvid({ path: '/agent/refunds', audience: 'https://mayfly.example', ttlSeconds: 300 });
    const { isSigned, header, claims } = read(token, jwtKey());
    expect(isSigned).toBe(true);
    expect(header).toEqual({ alg: 'ES256', kid: expect.any(String), typ: 'JWT' });
    expect(claims).toEqual({
      sub: 'spiffe://dev.mayfly/agent/refunds',
      aud: ['https://mayfly.example'],
      iat: NOW / 1_000,
      exp: NOW / 1_000 + 300,
    });
  });

  it.each(['', '/', 'agent/a', '/agent/', '//a', '/a/../b', '/a b', '/a%20', 'x.evil/a', '/é'])(
    'is not made for the path %j',
    (path) => {
      expect(() => domain.jwtSvid({ path, audience: 'x', ttlSeconds: 60 })).toThrow(
        expect.objectContaining({ code: 'invalid_request' }),
      );
    },
  );

  it.each([0, -1, 1.5, Number.NaN, 86_401])('is not made for %p seconds', (ttlSeconds) => {
    expect(() => domain.jwtSvid({ path: '/a', audience: 'x', ttlSeconds })).toThrow(
      expect.objectContaining({ code: 'invalid_request' }),
    );
  });
});

describe('an X.509-SVID', () => {
  it('SPF-X-1 to SPF-X-5: one URI SAN with a path, no authority, critical digitalSignature alone, both extended usages', async () => {
    const { certificatePem, keyPem } = await domain.x509Svid({ path: '/agent/a', ttlSeconds: 600 });
    const certificate = new X509Certificate(certificatePem);
    expect(certificate.subjectAltName).toBe('URI:spiffe://dev.mayfly/agent/a');
    expect(certificate.ca).toBe(false);
    expect(certificate.subject).toBe('O=dev.mayfly');
    expect(certificate.keyUsage?.sort()).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
    // Key usage 2.5.29.15, critical, BIT STRING with only the first bit set.
    expect(certificate.raw.toString('hex')).toContain('0603551d0f0101ff040403020780');
    expect(certificate.publicKey.equals(createPublicKey(keyPem))).toBe(true);
  });

  it('SPF-X-6: it is signed by the authority of the bundle, and by no other', async () => {
    const { certificatePem } = await domain.x509Svid({ path: '/agent/a', ttlSeconds: 600 });
    const certificate = new X509Certificate(certificatePem);
    const authority = new X509Certificate(domain.caPem);
    expect(certificate.checkIssued(authority)).toBe(true);
    expect(certificate.verify(authority.publicKey)).toBe(true);
    const stranger = await openDevTrustDomain(join(dataDir, 'stranger'), clock);
    expect(certificate.verify(new X509Certificate(stranger.caPem).publicKey)).toBe(false);
  });

  it('SPF-X-7: the authority signs certificates, has no path in its ID and cannot be an identity', () => {
    const authority = new X509Certificate(domain.caPem);
    expect(authority.ca).toBe(true);
    expect(authority.subjectAltName).toBe('URI:spiffe://dev.mayfly');
    expect(authority.raw.toString('hex')).toContain('0603551d0f0101ff040403020106');
  });

  it('lives as long as asked, counted from now', async () => {
    const { certificatePem } = await domain.x509Svid({ path: '/agent/a', ttlSeconds: 600 });
    const certificate = new X509Certificate(certificatePem);
    expect(Date.parse(certificate.validTo)).toBe(NOW + 600_000);
    expect(Date.parse(certificate.validFrom)).toBeLessThanOrEqual(NOW);
  });

  it('has a fresh key and serial number each time', async () => {
    const [one, two] = await Promise.all([1, 2].map(() => domain.x509Svid({ path: '/agent/a', ttlSeconds: 600 })));
    expect(one?.keyPem).not.toBe(two?.keyPem);
    const serials = [one, two].map((svid) => new X509Certificate(svid?.certificatePem as string).serialNumber);
    expect(new Set(serials).size).toBe(2);
    for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/);
  });

  it('is refused for a bad path or lifetime', async () => {
    await expect(domain.x509Svid({ path: '/', ttlSeconds: 600 })).rejects.toMatchObject({ code: 'invalid_request' });
    await expect(domain.x509Svid({ path: '/a', ttlSeconds: 0 })).rejects.toMatchObject({ code: 'invalid_request' });
  });
});

describe("a person's token", () => {
  const request = {
    subject: 'operator-1',
    groups: ['mayfly-operators'],
    audience: 'https://mayfly.example',
    ttlSeconds: 300,
  };
  const peopleKey = () => JSON.parse(readFileSync(domain.peopleIssuer.jwksPath, 'utf8')).keys[0] as Jwk;

  it('comes from the people issuer, with groups and the time of the login', () => {
    const { isSigned, header, claims } = read(domain.personToken(request), peopleKey());
    expect(isSigned).toBe(true);
    expect(header.kid).toBe(peopleKey().kid);
    expect(claims).toMatchObject({
      iss: domain.peopleIssuer.issuer,
      sub: 'operator-1',
      aud: 'https://mayfly.example',
      groups: ['mayfly-operators'],
      auth_time: NOW / 1_000,
      exp: NOW / 1_000 + 300,
    });
  });

  it('is signed by a key that is in no bundle of workloads, and the other way round', () => {
    expect(read(domain.personToken(request), jwtKey()).isSigned).toBe(false);
    const svid = domain.jwtSvid({ path: '/agent/a', audience: 'x', ttlSeconds: 60 });
    expect(read(svid, peopleKey()).isSigned).toBe(false);
    expect(JSON.stringify(peopleKey())).not.toContain('"d"');
  });

  it('there are two operators, so that a second person can be tried', () => {
    const operators = DEV_PEOPLE.filter(({ groups }) => (groups as readonly string[]).includes('mayfly-operators'));
    expect(new Set(operators.map(({ subject }) => subject)).size).toBe(2);
  });
});

describe("the broker's TLS", () => {
  it('serves its names and addresses over TLS 1.3 to whoever trusts the authority, and asks for SVIDs', async () => {
    const live = await openDevTrustDomain(join(dataDir, 'live'));
    const { certPem, keyPem } = await live.tlsServer(['localhost', '127.0.0.1', '::1']);
    expect(new X509Certificate(certPem).subjectAltName).toBe(
      'URI:spiffe://dev.mayfly/mayfly/broker, DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
    );
    const server = createServer({
      cert: certPem,
      key: keyPem,
      ca: live.caPem,
      requestCert: true,
      minVersion: 'TLSv1.3',
    });
    const seen = new Promise<string | undefined>((resolve, reject) => {
      server.once('secureConnection', (socket) => {
        resolve(socket.authorized ? socket.getPeerX509Certificate()?.subjectAltName : undefined);
        socket.end();
      });
      server.once('tlsClientError', reject);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const svid = await live.x509Svid({ path: '/agent/a', ttlSeconds: 60 });
    const socket = connect({ host: '127.0.0.1', port, ca: live.caPem, cert: svid.certificatePem, key: svid.keyPem });
    socket.resume();
    expect(await seen).toBe('URI:spiffe://dev.mayfly/agent/a');
    await new Promise((resolve) => socket.once('close', resolve));
    await new Promise((resolve) => server.close(resolve));
  });
});

describe('a path of the command line', () => {
  it('becomes a SPIFFE ID of the development trust domain', () => {
    expect(devSpiffeId('/orchestrator/story')).toBe('spiffe://dev.mayfly/orchestrator/story');
  });
});
