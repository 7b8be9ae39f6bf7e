import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CertificateIdentity, ClientIdentity } from './identity.js';
import { InvalidRequest } from './mayfly-error.js';
import { namedFile } from './named-file.js';

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
  const identity: ClientIdentity | undefined =
    certificateOf(environment) ??
    (svidFile
      ? { bearer: async () => namedFile('MAYFLY_JWT_SVID_FILE', svidFile).toString('utf8').trim() }
      : undefined);
  return {
    url: environment['MAYFLY_ADDR'] ?? developmentAddress(environment['MAYFLY_DATA'] ?? '.data'),
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
  return {
    get cert() {
      return namedFile('MAYFLY_CERT_FILE', certFile).toString('utf8');
    },
    get key() {
      return namedFile('MAYFLY_KEY_FILE', keyFile).toString('utf8');
    },
  };
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
