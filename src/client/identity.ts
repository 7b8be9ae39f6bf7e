import { X509Certificate } from 'node:crypto';
import { parseSpiffeId, type SpiffeId } from '../core/spiffe-id.js';
import type { TransportTls } from './transport.js';

/**
 * Who this process is, as its platform says it. A bearer provider is asked anew whenever an identity is needed (a JWT-SVID or OIDC
 * token for that audience), so it may cache and rotate as it likes. A certificate pair is read anew for each request.
 */
export type ClientIdentity = BearerIdentity | CertificateIdentity | PersonIdentity;

export interface BearerIdentity {
  /** A JWT whose one audience is this. */
  bearer(audience: string): Promise<string>;
}

/** An X.509-SVID, PEM. Getters are welcome. */
export interface CertificateIdentity {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
}

/** A person, by a token of a registered people issuer. It is exchanged for a five-minute operator token, bound to a key made here. */
export interface PersonIdentity {
  person(audience: string): Promise<string>;
}

export const NO_IDENTITY = 'No identity: set MAYFLY_JWT_SVID_FILE, or MAYFLY_CERT_FILE and MAYFLY_KEY_FILE.';

export function isPerson(identity: ClientIdentity): identity is PersonIdentity {
  return 'person' in identity;
}

export function isCertificate(identity: ClientIdentity): identity is CertificateIdentity {
  return 'cert' in identity;
}

/** The SPIFFE ID this identity will show, read without verifying: for naming oneself, never for trusting. */
export async function spiffeIdOf(identity: ClientIdentity, audience: string): Promise<SpiffeId | undefined> {
  if (isCertificate(identity)) {
    const names = new X509Certificate(identity.cert).subjectAltName?.split(', ') ?? [];
    const uris = names.filter((name) => name.startsWith('URI:')).map((name) => name.slice('URI:'.length));
    return uris.length === 1 ? parseSpiffeId(uris[0]) : undefined;
  }
  if (isPerson(identity)) return undefined;
  const payload = (await identity.bearer(audience)).split('.')[1] ?? '';
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    return parseSpiffeId(Object(claims).sub);
  } catch {
    return undefined;
  }
}

/** What TLS shows and trusts for this identity; the certificate is read again for each request. */
export function tlsOf(identity: ClientIdentity | undefined, ca: string | Buffer | undefined): TransportTls {
  return {
    ca,
    get cert() {
      return identity && isCertificate(identity) ? identity.cert : undefined;
    },
    get key() {
      return identity && isCertificate(identity) ? identity.key : undefined;
    },
  };
}
