import { X509Certificate } from 'node:crypto';
import { parseSpiffeId, type SpiffeId } from '../core/spiffe-id.js';

/**
 * Who this process is, as its platform says it. A bearer provider is asked anew whenever an identity is needed (a JWT-SVID or OIDC
 * token for that audience), so it may cache and rotate as it likes. A certificate pair is read anew for each request.
 */
export type ClientIdentity = BearerIdentity | CertificateIdentity;

export interface BearerIdentity {
  /** A JWT whose one audience is this. */
  bearer(audience: string): Promise<string>;
}

/** An X.509-SVID, PEM. Getters are welcome. */
export interface CertificateIdentity {
  readonly cert: string | Buffer;
  readonly key: string | Buffer;
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
  const payload = (await identity.bearer(audience)).split('.')[1] ?? '';
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    return parseSpiffeId(Object(claims).sub);
  } catch {
    return undefined;
  }
}
