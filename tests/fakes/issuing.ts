import 'reflect-metadata';
import { constants, generateKeyPairSync, type KeyObject, sign, webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';

/** Issuers for tests: they sign whatever they are told to, right or wrong. */

export const NOW_MS = Date.UTC(2026, 10, 22, 12, 0, 0);
export const NOW_SECONDS = NOW_MS / 1000;

export type Json = Record<string, unknown>;

const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

export interface JwtAuthority {
  kid: string;
  alg: string;
  privateKey: KeyObject;
  /** The public key with its kid, without `use`. */
  jwk: Json;
  sign(payload: unknown, header?: Json): string;
  /** Signs segments as they are given, base64url already. */
  signSegments(header: string, payload: string): string;
}

/** Key pairs are slow to make (RSA above all), so each kind is made once per test file and number. */
const keyPairs = new Map<string, { publicKey: KeyObject; privateKey: KeyObject }>();

export function keyPair(alg: string, number = 0): { publicKey: KeyObject; privateKey: KeyObject } {
  const curve = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }[alg];
  const id = `${curve ?? 'rsa'}${number}`;
  let pair = keyPairs.get(id);
  if (!pair) {
    pair = curve
      ? generateKeyPairSync('ec', { namedCurve: curve })
      : generateKeyPairSync('rsa', { modulusLength: 2048 });
    keyPairs.set(id, pair);
  }
  return pair;
}

export function signBytes(alg: string, privateKey: KeyObject, input: string): Buffer {
  const hash = `sha${alg.slice(2)}`;
  if (alg.startsWith('ES')) return sign(hash, Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' });
  if (alg.startsWith('PS')) {
    const { RSA_PKCS1_PSS_PADDING: padding, RSA_PSS_SALTLEN_DIGEST: saltLength } = constants;
    return sign(hash, Buffer.from(input), { key: privateKey, padding, saltLength });
  }
  return sign(hash, Buffer.from(input), privateKey);
}

export function jwtAuthority({ alg = 'ES256', kid = 'key-1', number = 0 } = {}): JwtAuthority {
  const { publicKey, privateKey } = keyPair(alg, number);
  const signSegments = (header: string, payload: string) => {
    const input = `${header}.${payload}`;
    return `${input}.${signBytes(alg, privateKey, input).toString('base64url')}`;
  };
  return {
    kid,
    alg,
    privateKey,
    jwk: { ...publicKey.export({ format: 'jwk' }), kid },
    sign: (payload, header = {}) => signSegments(encode({ alg, kid, typ: 'JWT', ...header }), encode(payload)),
    signSegments,
  };
}

/** What a certificate says; everything can be wrong. */
export interface CertificateRequest {
  uris?: string[];
  dnsNames?: string[];
  emails?: string[];
  sanCritical?: boolean;
  subject?: string;
  isCa?: boolean;
  pathLength?: number;
  noBasicConstraints?: boolean;
  /** Key usage bits, `null` for no extension. */
  keyUsage?: number | null;
  keyUsageCritical?: boolean;
  /** OIDs, `null` for no extension. */
  extendedKeyUsage?: string[] | null;
  extra?: x509.Extension[];
  notBeforeMs?: number;
  notAfterMs?: number;
  key?: { publicKey: KeyObject; privateKey: KeyObject };
}

export interface IssuedCertificate {
  certificate: X509Certificate;
  privateKey: KeyObject;
  /** Signs another certificate with this one's key, whether it may or not. */
  issue(request: CertificateRequest): Promise<IssuedCertificate>;
}

export const USAGE = x509.KeyUsageFlags;
export const BOTH_EKU = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'];

export function extension(oid: string, critical: boolean, der: Buffer): x509.Extension {
  return new x509.Extension(oid, critical, new Uint8Array(der));
}

/** A self-signed authority with a key of its own. */
export async function certificateAuthority(
  trustDomain: string,
  request: CertificateRequest = {},
): Promise<IssuedCertificate> {
  return make(caRequest(trustDomain, request), undefined);
}

export function caRequest(trustDomain: string, request: CertificateRequest = {}): CertificateRequest {
  return {
    uris: [`spiffe://${trustDomain}`],
    subject: `O=${trustDomain}`,
    isCa: true,
    keyUsage: USAGE.keyCertSign | USAGE.cRLSign,
    extendedKeyUsage: null,
    notBeforeMs: NOW_MS - 86_400_000,
    notAfterMs: NOW_MS + 86_400_000,
    key: generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    ...request,
  };
}

async function make(request: CertificateRequest, parent: IssuedCertificate | undefined): Promise<IssuedCertificate> {
  const key = request.key ?? keyPair('ES256');
  const signingKey = parent?.privateKey ?? key.privateKey;
  const algorithm = webAlgorithm(signingKey);
  const issuer = parent ? new x509.X509Certificate(parent.certificate.raw) : undefined;
  const made = await x509.X509CertificateGenerator.create({
    serialNumber: '01',
    subject: request.subject ?? 'CN=workload',
    issuer: issuer?.subjectName ?? request.subject ?? 'CN=workload',
    notBefore: new Date(request.notBeforeMs ?? NOW_MS - 60_000),
    notAfter: new Date(request.notAfterMs ?? NOW_MS + 3_600_000),
    publicKey: await webKey(key.publicKey, webAlgorithm(key.privateKey)),
    signingKey: await webKey(signingKey, algorithm),
    signingAlgorithm: algorithm,
    extensions: extensionsOf(request),
  });
  const issued: IssuedCertificate = {
    certificate: new X509Certificate(Buffer.from(made.rawData)),
    privateKey: key.privateKey,
    issue: (next) => make(next, issued),
  };
  return issued;
}

function extensionsOf(request: CertificateRequest): x509.Extension[] {
  const { keyUsage = USAGE.digitalSignature, extendedKeyUsage = BOTH_EKU } = request;
  const names: x509.JsonGeneralNames = [
    ...(request.uris ?? []).map((value) => ({ type: 'url' as const, value })),
    ...(request.dnsNames ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(request.emails ?? []).map((value) => ({ type: 'email' as const, value })),
  ];
  const list: x509.Extension[] = [];
  if (!request.noBasicConstraints) {
    list.push(new x509.BasicConstraintsExtension(request.isCa ?? false, request.pathLength, true));
  }
  if (keyUsage !== null) list.push(new x509.KeyUsagesExtension(keyUsage, request.keyUsageCritical ?? true));
  if (extendedKeyUsage !== null) list.push(new x509.ExtendedKeyUsageExtension(extendedKeyUsage));
  if (names.length > 0) list.push(new x509.SubjectAlternativeNameExtension(names, request.sanCritical ?? false));
  return [...list, ...(request.extra ?? [])];
}

type WebAlgorithm = webcrypto.EcKeyImportParams & webcrypto.RsaHashedImportParams;

function webAlgorithm(key: KeyObject): WebAlgorithm {
  if (key.asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' } as WebAlgorithm;
  if (key.asymmetricKeyType === 'ed25519') return { name: 'Ed25519' } as WebAlgorithm;
  const curve = key.asymmetricKeyDetails?.namedCurve;
  const names: Record<string, [string, string]> = {
    prime256v1: ['P-256', 'SHA-256'],
    secp384r1: ['P-384', 'SHA-384'],
    secp521r1: ['P-521', 'SHA-512'],
  };
  const [namedCurve, hash] = names[curve ?? ''] ?? ['P-256', 'SHA-256'];
  return { name: 'ECDSA', namedCurve, hash } as WebAlgorithm;
}

const webKeys = new WeakMap<KeyObject, Promise<webcrypto.CryptoKey>>();

function webKey(key: KeyObject, algorithm: WebAlgorithm): Promise<webcrypto.CryptoKey> {
  let known = webKeys.get(key);
  if (!known) {
    const isPrivate = key.type === 'private';
    const der = key.export({ type: isPrivate ? 'pkcs8' : 'spki', format: 'der' } as never) as unknown as Buffer;
    const format = isPrivate ? 'pkcs8' : 'spki';
    known = webcrypto.subtle.importKey(format, der, algorithm, true, [isPrivate ? 'sign' : 'verify']);
    webKeys.set(key, known);
  }
  return known;
}

/** A SPIFFE bundle document. */
export function bundleDocument(
  { jwt = [], x509: authorities = [] }: { jwt?: JwtAuthority[]; x509?: IssuedCertificate[] },
  more: Json = {},
): string {
  const keys = [
    ...jwt.map(({ jwk }) => ({ ...jwk, use: 'jwt-svid' })),
    ...authorities.map(({ certificate }) => ({
      ...certificate.publicKey.export({ format: 'jwk' }),
      use: 'x509-svid',
      x5c: [certificate.raw.toString('base64')],
    })),
  ];
  return JSON.stringify({ keys, ...more });
}
