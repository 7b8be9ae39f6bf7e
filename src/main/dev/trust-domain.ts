import 'reflect-metadata';
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type JsonWebKey,
  type KeyObject,
  randomBytes,
  randomUUID,
  sign,
  webcrypto,
} from 'node:crypto';
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join, resolve } from 'node:path';
import * as x509 from '@peculiar/x509';
import { BrokerError } from '../../core/errors.js';
import { parseSpiffeId, type SpiffeId } from '../../core/spiffe-id.js';
import { type Clock, systemClock } from '../../core/time.js';

export const DEV_TRUST_DOMAIN = 'dev.mayfly';
export const DEV_PEOPLE_ISSUER = 'https://people.dev.mayfly';

/** The people of `mayfly dev`: two operators, so that what needs a second person can be tried, and an auditor. */
export const DEV_PEOPLE = [
  { subject: 'operator-1', groups: ['mayfly-operators'] },
  { subject: 'operator-2', groups: ['mayfly-operators'] },
  { subject: 'auditor-1', groups: ['mayfly-auditors'] },
] as const;

const TTL_SECONDS_MAX = 86_400;
const CA_TTL_MS = 10 * 365 * 86_400_000;
const TLS_TTL_MS = 90 * 86_400_000;
/** A certificate begins a little in the past, so that it is good at once on a machine whose clock is a little behind. */
const BACKDATE_MS = 10_000;
const REFRESH_HINT_SECONDS = 60;
const SIGNING: webcrypto.EcKeyImportParams & webcrypto.EcdsaParams = {
  name: 'ECDSA',
  namedCurve: 'P-256',
  hash: 'SHA-256',
};

export interface DevTrustDomain {
  name: typeof DEV_TRUST_DOMAIN;
  /** The SPIFFE bundle (SPIFFE_Trust_Domain_and_Bundle.md, section 4) as a JSON file. */
  bundlePath: string;
  /** Whose tokens stand for people, and where its keys are, as a JWK set in a file. */
  peopleIssuer: { issuer: string; jwksPath: string };
  /** The certificate authority of X.509-SVIDs and of the broker's TLS. */
  caPem: string;
  caPath: string;
  /** A JWT-SVID for `spiffe://dev.mayfly<path>`. Throws `invalid_request` for a bad path or lifetime, as do the others. */
  jwtSvid(request: { path: string; audience: string; ttlSeconds: number }): string;
  /** An X.509-SVID with a fresh key; `certificatePem` is the leaf (the authority signs it directly). */
  x509Svid(request: { path: string; ttlSeconds: number }): Promise<{ certificatePem: string; keyPem: string }>;
  /** What a person's identity provider would hand out. */
  personToken(request: { subject: string; groups: readonly string[]; audience: string; ttlSeconds: number }): string;
  /** The broker's TLS certificate for these names and addresses: an X.509-SVID as well, `/mayfly/broker`. */
  tlsServer(hosts: readonly string[]): Promise<{ certPem: string; keyPem: string }>;
}

/** What is secret of a trust domain, in one file: it is there whole or not at all. */
interface Keys {
  sequence: number;
  jwtKeyPem: string;
  peopleKeyPem: string;
  caKeyPem: string;
  caPem: string;
}

/**
 * The trust domain of `mayfly dev`: an issuer of workload identities and one of people's tokens, whose keys are files in
 * `DIR/dev` (0600 in a 0700 folder). They are made on first use and read again afterwards; two processes that begin at
 * once end up with the same. Whoever can read the folder can be anybody, so nothing but development may trust it.
 *
 * Throws BrokerError('unavailable') with one line when the folder cannot be used or holds something else.
 */
export async function openDevTrustDomain(dataDir: string, clock: Clock = systemClock): Promise<DevTrustDomain> {
  const dir = join(resolve(dataDir), 'dev');
  const keys = await openKeys(dir, clock);
  const jwtKey = createPrivateKey(keys.jwtKeyPem);
  const peopleKey = createPrivateKey(keys.peopleKeyPem);
  const caKey = createPrivateKey(keys.caKeyPem);
  const ca = new x509.X509Certificate(keys.caPem);
  const caCryptoKey = await importKey(caKey);

  const bundlePath = join(dir, 'bundle.json');
  const jwksPath = join(dir, 'people.jwks.json');
  const caPath = join(dir, 'ca.pem');
  publish(bundlePath, {
    spiffe_sequence: keys.sequence,
    spiffe_refresh_hint: REFRESH_HINT_SECONDS,
    keys: [
      { use: 'x509-svid', ...publicJwk(caKey), x5c: [Buffer.from(ca.rawData).toString('base64')] },
      { use: 'jwt-svid', kid: keyIdOf(jwtKey), ...publicJwk(jwtKey) },
    ],
  });
  publish(jwksPath, { keys: [{ use: 'sig', alg: 'ES256', kid: keyIdOf(peopleKey), ...publicJwk(peopleKey) }] });
  publish(caPath, keys.caPem);

  const issue = async (id: SpiffeId, ttlMs: number, otherNames: x509.JsonGeneralNames) => {
    const now = clock.now();
    const { privateKey, publicKey } = newKeyPair();
    const subjectKey = await webcrypto.subtle.importKey('spki', publicKey, SIGNING, true, ['verify']);
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: newSerialNumber(),
      subject: `O=${DEV_TRUST_DOMAIN}`,
      issuer: ca.subject,
      notBefore: new Date(now - BACKDATE_MS),
      notAfter: new Date(now + ttlMs),
      publicKey: subjectKey,
      signingKey: caCryptoKey,
      signingAlgorithm: SIGNING,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth, x509.ExtendedKeyUsage.clientAuth]),
        new x509.SubjectAlternativeNameExtension([{ type: 'url', value: id }, ...otherNames]),
        await x509.SubjectKeyIdentifierExtension.create(subjectKey),
        await x509.AuthorityKeyIdentifierExtension.create(await importPublicKey(caKey)),
      ],
    });
    return { certPem: `${certificate.toString('pem')}\n`, keyPem: privateKey };
  };

  return {
    name: DEV_TRUST_DOMAIN,
    bundlePath,
    peopleIssuer: { issuer: DEV_PEOPLE_ISSUER, jwksPath },
    caPem: keys.caPem,
    caPath,
    jwtSvid: ({ path, audience, ttlSeconds }) => {
      const { iat, exp } = lifetime(clock, ttlSeconds);
      return signJwt(jwtKey, { sub: devSpiffeId(path), aud: [audience], iat, exp });
    },
    x509Svid: async ({ path, ttlSeconds }) => {
      lifetime(clock, ttlSeconds);
      const { certPem, keyPem } = await issue(devSpiffeId(path), ttlSeconds * 1_000, []);
      return { certificatePem: certPem, keyPem };
    },
    personToken: ({ subject, groups, audience, ttlSeconds }) => {
      const { iat, exp } = lifetime(clock, ttlSeconds);
      const claims = { iss: DEV_PEOPLE_ISSUER, sub: subject, aud: audience, iat, exp, auth_time: iat, groups };
      return signJwt(peopleKey, { ...claims, jti: randomUUID() });
    },
    tlsServer: (hosts) =>
      issue(
        devSpiffeId('/mayfly/broker'),
        TLS_TTL_MS,
        hosts.map((host) => ({ type: isIP(host) ? 'ip' : 'dns', value: host })),
      ),
  };
}

/** `spiffe://dev.mayfly/agent/x` for `/agent/x`. */
export function devSpiffeId(path: string): SpiffeId {
  const id = parseSpiffeId(`spiffe://${DEV_TRUST_DOMAIN}${path}`);
  if (id && path.startsWith('/')) return id;
  throw new BrokerError('invalid_request', `${JSON.stringify(path)} is no path of a SPIFFE ID.`, {
    hint: 'It looks like /agent/refunds: letters, digits, ".", "_" and "-" between single slashes.',
    field: 'path',
  });
}

function lifetime(clock: Clock, ttlSeconds: number): { iat: number; exp: number } {
  if (!Number.isInteger(ttlSeconds) || ttlSeconds < 1 || ttlSeconds > TTL_SECONDS_MAX) {
    throw new BrokerError('invalid_request', `A development identity lives 1 to ${TTL_SECONDS_MAX} whole seconds.`, {
      field: 'ttl_seconds',
    });
  }
  const iat = Math.floor(clock.now() / 1_000);
  return { iat, exp: iat + ttlSeconds };
}

function signJwt(key: KeyObject, claims: Record<string, unknown>): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const input = `${encode({ alg: 'ES256', kid: keyIdOf(key), typ: 'JWT' })}.${encode(claims)}`;
  return `${input}.${sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

async function openKeys(dir: string, clock: Clock): Promise<Keys> {
  const file = join(dir, 'keys.json');
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    chmodSync(dir, 0o700);
    if (!existsSync(file)) {
      const made = `${file}.${randomUUID()}`;
      writeFileSync(made, `${JSON.stringify(await newKeys(clock), null, 2)}\n`, { mode: 0o600, flush: true });
      try {
        // Unlike a rename, a link never replaces: whoever comes second takes the first one's keys.
        linkSync(made, file);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      } finally {
        rmSync(made);
      }
    }
    chmodSync(file, 0o600);
    return readKeys(readFileSync(file, 'utf8'));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new BrokerError(
      'unavailable',
      code === undefined
        ? `The development keys in ${file} are damaged (${message}): remove ${dir} to begin with new ones.`
        : `The development keys in ${dir} cannot be read or written (${code}): choose another folder with --data.`,
      { cause: error },
    );
  }
}

function readKeys(text: string): Keys {
  const keys = JSON.parse(text) as Partial<Keys>;
  const { sequence, jwtKeyPem, peopleKeyPem, caKeyPem, caPem } = keys;
  const pems = [jwtKeyPem, peopleKeyPem, caKeyPem, caPem];
  if (
    !Number.isSafeInteger(sequence) ||
    pems.some((pem) => typeof pem !== 'string' || !pem.startsWith('-----BEGIN '))
  ) {
    throw new SyntaxError('a key is missing');
  }
  for (const pem of [jwtKeyPem, peopleKeyPem, caKeyPem]) {
    try {
      createPrivateKey(pem as string);
    } catch {
      // The parser's own error may quote what it read, and carries a code as if the file system had failed.
      throw new SyntaxError('a key cannot be read');
    }
  }
  return keys as Keys;
}

async function newKeys(clock: Clock): Promise<Keys> {
  const now = clock.now();
  const caKeyPem = newKeyPair().privateKey;
  const caKey = createPrivateKey(caKeyPem);
  const publicKey = await importPublicKey(caKey);
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    name: `CN=${DEV_TRUST_DOMAIN}, O=Mayfly development`,
    notBefore: new Date(now - BACKDATE_MS),
    notAfter: new Date(now + CA_TTL_MS),
    keys: { privateKey: await importKey(caKey), publicKey },
    signingAlgorithm: SIGNING,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `spiffe://${DEV_TRUST_DOMAIN}` }]),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
    ],
  });
  return {
    // A bundle of a trust domain that was made anew must not look older than the one before it.
    sequence: Math.floor(now / 1_000),
    jwtKeyPem: newKeyPair().privateKey,
    peopleKeyPem: newKeyPair().privateKey,
    caKeyPem,
    caPem: `${ca.toString('pem')}\n`,
  };
}

/** A fresh P-256 pair: the private key as PKCS#8 PEM, the public one as SPKI DER. */
function newKeyPair(): { privateKey: string; publicKey: Buffer } {
  return generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'der' },
  });
}

/** 16 random bytes, positive and without a leading zero byte (RFC 5280, section 4.1.2.2). */
function newSerialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return bytes.toString('hex');
}

function importKey(key: KeyObject): Promise<webcrypto.CryptoKey> {
  return webcrypto.subtle.importKey('pkcs8', key.export({ type: 'pkcs8', format: 'der' }), SIGNING, false, ['sign']);
}

function importPublicKey(key: KeyObject): Promise<webcrypto.CryptoKey> {
  const der = createPublicKey(key).export({ type: 'spki', format: 'der' });
  return webcrypto.subtle.importKey('spki', der, SIGNING, true, ['verify']);
}

function publicJwk(key: KeyObject): JsonWebKey {
  const { kty, crv, x, y } = createPublicKey(key).export({ format: 'jwk' });
  return { kty, crv, x, y } as JsonWebKey;
}

/** RFC 7638. */
function keyIdOf(key: KeyObject): string {
  const { kty, crv, x, y } = publicJwk(key);
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
}

/** Writes a file that others read while we write: they see the old one or the new one, and an equal one stays as it is. */
function publish(file: string, content: string | object): void {
  const text = typeof content === 'string' ? content : `${JSON.stringify(content, null, 2)}\n`;
  if (existsSync(file) && readFileSync(file, 'utf8') === text) return;
  const made = `${file}.${randomUUID()}`;
  writeFileSync(made, text, { mode: 0o600, flush: true });
  renameSync(made, file);
}
