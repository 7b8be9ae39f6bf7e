import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isKeyOf } from '../core/certificate-key.js';
import { BrokerError } from '../core/errors.js';

export interface PairFiles {
  cert_file: string;
  key_file: string;
}

/** A certificate and its key, read now. `invalid_request` with the setting and the file when one is none, and with both when they are no pair. */
export function readPair(at: string, { cert_file, key_file }: PairFiles): { cert: string; key: string } {
  const cert = readPem(`${at}.cert_file`, cert_file, 'certificate');
  const key = readPem(`${at}.key_file`, key_file, 'private key');
  if (isKeyOf(key, cert)) return { cert, key };
  throw new BrokerError(
    'invalid_request',
    `${at}.key_file: ${key_file} is not the key of the certificate in ${at}.cert_file, ${cert_file}: name two that belong together.`,
  );
}

/** What the file holds is not shown: it may be a key where a certificate belongs. */
function readPem(setting: string, path: string, kind: 'certificate' | 'private key'): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const { code = 'no reason was given' } = cause as NodeJS.ErrnoException;
    throw new BrokerError('invalid_request', `${setting}: ${path} cannot be read (${code}).`, { cause });
  }
  try {
    if (kind === 'certificate') new X509Certificate(text);
    else createPrivateKey(text);
  } catch {
    throw new BrokerError('invalid_request', `${setting}: ${path} holds no ${kind} in PEM.`);
  }
  return text;
}
