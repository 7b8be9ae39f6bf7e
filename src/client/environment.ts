import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isKeyOf } from '../core/certificate-key.js';
import type { CertificateIdentity, ClientIdentity } from './identity.js';
import { InvalidRequest } from './mayfly-error.js';
import { jwtFile, namedFile, pemFile } from './named-file.js';

/** What the environment says about the broker and about who we are (see `Mayfly.fromEnv`). */
export function environmentOptions(environment: NodeJS.ProcessEnv): {
  url: string;
  issuer?: string;
  identity?: ClientIdentity;
  ca?: string | Buffer;
} {
  const svidFile = environment['MAYFLY_JWT_SVID_FILE'];
  const caFile = environment['MAYFLY_CA_FILE'];
  const issuer = environment['MAYFLY_ISSUER'];
  const certificate = certificateOf(environment);
  const identity: ClientIdentity | undefined =
    certificate ?? (svidFile ? { bearer: async () => jwtFile('MAYFLY_JWT_SVID_FILE', svidFile) } : undefined);
  const url = environment['MAYFLY_ADDR'] ?? developmentAddress(environment['MAYFLY_DATA'] ?? '.data');
  if (certificate) checkCertificateAddress(url);
  return {
    url,
    ...(issuer === undefined ? {} : { issuer }),
    ...(identity === undefined ? {} : { identity }),
    ...(caFile ? { ca: namedFile('MAYFLY_CA_FILE', caFile) } : {}),
  };
}

/** Read at each use: whoever rotates the SVID replaces the files. As text, which is the same as long as the file is. */
export function certificateOf(environment: NodeJS.ProcessEnv): CertificateIdentity | undefined {
  const { MAYFLY_CERT_FILE: certFile, MAYFLY_KEY_FILE: keyFile } = environment;
  if (!certFile && !keyFile) return undefined;
  if (!certFile || !keyFile) {
    const [set, missing] = certFile ? ['MAYFLY_CERT_FILE', 'MAYFLY_KEY_FILE'] : ['MAYFLY_KEY_FILE', 'MAYFLY_CERT_FILE'];
    throw misconfigured(
      `${set} is set and ${missing} is not: a certificate is shown with its key, so set both or none.`,
    );
  }
  const readCertificate = pemFile('MAYFLY_CERT_FILE', certFile, 'certificate');
  const readKey = pemFile('MAYFLY_KEY_FILE', keyFile, 'private key');
  let fitting = '';
  return {
    get cert() {
      return readCertificate();
    },
    // Read after the certificate, whenever both are: a pair that is none would be told as a broker that does not answer.
    get key() {
      const key = readKey();
      const certificate = readCertificate();
      if (`${certificate}${key}` !== fitting && !isKeyOf(key, certificate)) throw noPair(certFile, keyFile);
      fitting = `${certificate}${key}`;
      return key;
    },
  };
}

function noPair(certFile: string, keyFile: string): InvalidRequest {
  return misconfigured(
    `MAYFLY_KEY_FILE: ${keyFile} is not the key of the certificate in MAYFLY_CERT_FILE, ${certFile}: name two that belong together.`,
  );
}

/** TLS shows a certificate; without TLS the caller would be nobody, and be told of a missing identity. */
export function checkCertificateAddress(url: string): void {
  if (!url.startsWith('http:')) return;
  throw misconfigured(
    `MAYFLY_CERT_FILE: a certificate needs an https address, and ${url} is none: set MAYFLY_ADDR to the mTLS address, such as mtls_url of runtime.json.`,
  );
}

/** Where `mayfly dev` is up, as it wrote it down. */
function developmentAddress(dataDir: string): string {
  try {
    const { url } = JSON.parse(readFileSync(join(dataDir, 'runtime.json'), 'utf8')) as { url?: unknown };
    if (typeof url === 'string') return url;
  } catch {
    // Said below: there is none, or it is not readable.
  }
  throw misconfigured(`No broker: set MAYFLY_ADDR, or run mayfly dev (looked into ${dataDir}/runtime.json).`);
}

function misconfigured(message: string): InvalidRequest {
  return new InvalidRequest({ code: 'invalid_request', status: 0, message });
}
