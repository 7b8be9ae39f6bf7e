import { createPrivateKey, X509Certificate } from 'node:crypto';

/**
 * Whether a private key is the one of a certificate (of a chain: of its first), both in PEM. Throws what node:crypto throws when the text is none
 * of that. TLS says of a pair that is none only that the connection failed.
 */
export function isKeyOf(keyPem: string, certificatePem: string): boolean {
  return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(keyPem));
}
