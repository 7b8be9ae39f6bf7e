import { createHash, type KeyObject, type X509Certificate } from 'node:crypto';
import type { ProvenWorkload } from '../../core/identity.js';
import { parseSpiffeId, parseTrustDomain, type SpiffeId, trustDomainOf } from '../../core/spiffe-id.js';
import type { EpochMs } from '../../core/time.js';
import { type CertificateFacts, EXTENDED_USAGE, factsOf } from './certificate-facts.js';
import type { PeerCertificates, TrustBundle } from './contract.js';
import { DerRefused } from './der.js';
import { refuse } from './refusal.js';

export interface X509Rules {
  bundle: TrustBundle;
  nowMs: EpochMs;
  /** Take a leaf whose extended key usage lacks serverAuth or clientAuth, as some CAs issue them (SPF-X-4). */
  lenientEku: boolean;
}

/** The proven workload, and since when it is valid: what memory has to check again. */
export interface VerifiedX509 {
  identity: ProvenWorkload;
  notBeforeMs: EpochMs;
}

const CHAIN_LENGTH_MAX = 8;
const SIGNATURE_CHECKS_MAX = 32;
const RSA_BITS_MIN = 2048;
const SIGNATURE_ALGORITHMS = new Set([
  '1.2.840.10045.4.3.2', // ecdsa-with-SHA256, 384, 512
  '1.2.840.10045.4.3.3',
  '1.2.840.10045.4.3.4',
  '1.2.840.113549.1.1.11', // sha256, 384, 512 WithRSAEncryption
  '1.2.840.113549.1.1.12',
  '1.2.840.113549.1.1.13',
  '1.2.840.113549.1.1.10', // RSASSA-PSS
  '1.3.101.112', // Ed25519
]);

/** The SPIFFE ID a leaf claims, so that the bundle of its trust domain can be looked up. Nothing is proven by it. */
export function claimedSpiffeId(leaf: X509Certificate): SpiffeId {
  const uris = read(leaf).alternativeNames?.uris ?? [];
  if (uris.length !== 1) refuse(`SPF-X-1: ${uris.length} URI names in the certificate, not one`);
  const id = parseSpiffeId(uris[0]);
  if (!id) {
    const root = uris[0]?.startsWith('spiffe://') && parseTrustDomain(uris[0].slice('spiffe://'.length));
    refuse(root ? 'SPF-X-3: the SPIFFE ID has no path' : 'SPF-ID: the URI name is no SPIFFE ID');
  }
  return id;
}

/**
 * Validates an X.509-SVID (X509-SVID.md sections 2 to 5; RFC 5280 section 6) with the authorities of one trust domain
 * and no others: roots from its bundle, intermediates from the peer. Dates count for every certificate of the path,
 * the authority included, and the proof ends with the first of them. Throws `identity_rejected`.
 */
export function verifyX509Svid(peer: PeerCertificates, rules: X509Rules): VerifiedX509 {
  const id = claimedSpiffeId(peer.leaf);
  const domain = trustDomainOf(id);
  if (domain !== rules.bundle.trustDomain) refuse('SPF-B-6: the bundle belongs to another trust domain');
  const leaf = read(peer.leaf);
  checkLeaf(leaf, rules.lenientEku);
  checkCommon(peer.leaf, leaf, rules.nowMs);
  const path = findPath(peer, id, rules);
  const all = [peer.leaf, ...path].map(read);
  const authority = all.at(-1) as CertificateFacts;
  return {
    identity: {
      kind: 'workload',
      proof: 'x509-svid',
      spiffeId: id,
      trustDomain: domain,
      expiresAtMs: Math.min(...all.map((one) => one.notAfterMs)),
      keyId: x509KeyId(domain, authority),
      certificateThumbprint: createHash('sha256').update(peer.leaf.raw).digest('base64url'),
      attributes: {},
    },
    notBeforeMs: Math.max(...all.map((one) => one.notBeforeMs)),
  };
}

/** The key id of an X.509 authority: its trust domain and the hash of its public key, so that it outlives a re-issued certificate. */
export function x509KeyId(trustDomain: string, authority: Pick<CertificateFacts, 'publicKeyInfo'>): string {
  return `${trustDomain}#${createHash('sha256').update(authority.publicKeyInfo).digest('base64url')}`;
}

function read(certificate: X509Certificate): CertificateFacts {
  try {
    return factsOf(certificate);
  } catch (error) {
    if (error instanceof DerRefused) refuse(`the certificate is malformed: ${error.message}`);
    throw error;
  }
}

function checkLeaf(leaf: CertificateFacts, lenientEku: boolean): void {
  if (leaf.isCa) refuse('SPF-X-2: the leaf is a CA');
  const usage = leaf.keyUsage;
  if (!usage) refuse('SPF-X-2: the leaf has no key usage');
  if (!usage.critical) refuse('SPF-X-2: the key usage is not critical');
  if (!usage.digitalSignature) refuse('SPF-X-2: the key usage lacks digitalSignature');
  if (usage.keyCertSign || usage.crlSign) refuse('SPF-X-2: the leaf may sign certificates or revocation lists');
  const extended = leaf.extendedKeyUsage;
  if (extended) {
    const both = extended.includes(EXTENDED_USAGE.serverAuth) && extended.includes(EXTENDED_USAGE.clientAuth);
    const either = extended.includes(EXTENDED_USAGE.serverAuth) || extended.includes(EXTENDED_USAGE.clientAuth);
    if (lenientEku ? !either : !both) refuse('SPF-X-4: the extended key usage lacks serverAuth or clientAuth');
  }
  if (leaf.subjectIsEmpty && !leaf.alternativeNames?.critical) {
    refuse('SPF-X-5: the subject is empty and the alternative name is not critical');
  }
}

/** What holds for every certificate of a path. */
function checkCommon(certificate: X509Certificate, one: CertificateFacts, nowMs: EpochMs): void {
  if (one.unknownCritical.length > 0) refuse(`SPF-X-6: an unknown critical extension ${one.unknownCritical[0]}`);
  if (nowMs < one.notBeforeMs) refuse('SPF-X-6: a certificate is not valid yet');
  if (nowMs >= one.notAfterMs)
    refuse('SPF-X-6: a certificate has expired', 'The certificate has expired: fetch a new one.');
  if (!SIGNATURE_ALGORITHMS.has(one.signatureAlgorithm))
    refuse('SPF-X-6: a signature algorithm is too weak or unknown');
  const key = certificate.publicKey;
  if (key.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS_MIN) {
    refuse('SPF-X-6: an RSA key is too short');
  }
}

/** SPF-X-7, and what RFC 5280 asks of a CA that has `below` intermediates under it. Answers a reason, so that another path can be tried. */
function caProblem(
  certificate: X509Certificate,
  id: SpiffeId,
  below: CertificateFacts[],
  nowMs: EpochMs,
): string | undefined {
  const ca = read(certificate);
  if (!ca.isCa) return 'SPF-X-7: a signing certificate is no CA';
  if (!ca.keyUsage?.keyCertSign) return 'SPF-X-7: a signing certificate lacks keyCertSign';
  if (ca.pathLengthMax !== undefined && below.length - 1 > ca.pathLengthMax) return 'SPF-X-6: the path is too long';
  for (const uri of ca.alternativeNames?.uris ?? []) {
    if (!uri.startsWith('spiffe:')) continue;
    if (uri !== `spiffe://${trustDomainOf(id)}`)
      return 'SPF-X-7: a signing certificate has a path or is of another trust domain';
  }
  if (ca.nameConstraints && below.some((one) => !satisfies(one, ca))) return 'SPF-X-6: a name constraint is violated';
  try {
    checkCommon(certificate, ca, nowMs);
  } catch (error) {
    return reasonOf(error);
  }
  return undefined;
}

/** Name constraints: on URIs they are evaluated (the host is the trust domain); any other kind refuses who has such a name. */
function satisfies(one: CertificateFacts, ca: CertificateFacts): boolean {
  const constraints = ca.nameConstraints;
  if (!constraints) return true;
  const names = one.alternativeNames;
  if (constraints.onOthers && (!one.subjectIsEmpty || (names && names.dnsNames.length + names.others > 0)))
    return false;
  for (const uri of names?.uris ?? []) {
    const host = /^[a-z][a-z0-9+.-]*:\/\/([a-z0-9._-]+)(?:\/|$)/.exec(uri)?.[1];
    if (host === undefined) return false;
    if (constraints.excludedUris.some((constraint) => covers(constraint, host))) return false;
    if (
      constraints.permittedUris.length > 0 &&
      !constraints.permittedUris.some((constraint) => covers(constraint, host))
    ) {
      return false;
    }
  }
  return true;
}

/** RFC 5280, 4.2.1.10: `.example.org` covers what lies below it, `example.org` that host alone. */
function covers(constraint: string, host: string): boolean {
  const name = constraint.toLowerCase();
  return name.startsWith('.') ? host.endsWith(name) : host === name;
}

/** Depth first from the leaf to an authority of the bundle; bounded in length and in signatures looked at. */
function findPath(peer: PeerCertificates, id: SpiffeId, rules: X509Rules): X509Certificate[] {
  if (peer.chain.length > CHAIN_LENGTH_MAX) refuse('SPF-X-6: too many certificates');
  const authorities = rules.bundle.x509Authorities;
  if (authorities.length === 0) refuse('SPF-B-3: the bundle has no X.509 authorities');
  let checks = 0;
  let problem = 'SPF-X-6: no path to an authority of the trust domain';
  const signed = (child: X509Certificate, parent: X509Certificate): boolean => {
    if (!read(child).issuer.equals(read(parent).subject)) return false;
    checks += 1;
    if (checks > SIGNATURE_CHECKS_MAX) refuse('SPF-X-6: too many signatures to check');
    return hasSignatureOf(child, parent.publicKey);
  };
  const extend = (path: X509Certificate[]): X509Certificate[] | undefined => {
    const child = path.at(-1) as X509Certificate;
    const below = path.map(read);
    for (const [roots, candidates] of [
      [true, authorities],
      [false, peer.chain],
    ] as const) {
      for (const candidate of candidates) {
        if (path.includes(candidate) || !signed(child, candidate)) continue;
        const wrong = caProblem(candidate, id, below, rules.nowMs);
        if (wrong) {
          problem = wrong;
          continue;
        }
        const longer = [...path, candidate];
        const found = roots ? longer : extend(longer);
        if (found) return found;
      }
    }
    return undefined;
  };
  const found = extend([peer.leaf]);
  if (!found) refuse(problem);
  return found.slice(1);
}

function hasSignatureOf(child: X509Certificate, key: KeyObject): boolean {
  try {
    return child.verify(key);
  } catch {
    return false;
  }
}

function reasonOf(error: unknown): string {
  return (error as { detail?: { reason?: string } }).detail?.reason ?? String(error);
}
