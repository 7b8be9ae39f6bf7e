import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClientIdentity } from './identity.js';
import { InvalidRequest } from './mayfly-error.js';

/** What the environment says about the broker and about who we are (see `Mayfly.fromEnv`). */
export function environmentOptions(environment: NodeJS.ProcessEnv): {
  url: string;
  issuer?: string;
  identity?: ClientIdentity;
  ca?: string | Buffer;
} {
  const certFile = environment['MAYFLY_CERT_FILE'];
  const keyFile = environment['MAYFLY_KEY_FILE'];
  const svidFile = environment['MAYFLY_JWT_SVID_FILE'];
  const caFile = environment['MAYFLY_CA_FILE'];
  const issuer = environment['MAYFLY_ISSUER'];
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw misconfigured('MAYFLY_CERT_FILE and MAYFLY_KEY_FILE come together.');
  }
  const identity: ClientIdentity | undefined =
    certFile !== undefined && keyFile !== undefined
      ? certificateFrom(certFile, keyFile)
      : svidFile !== undefined
        ? { bearer: async () => (await readFile(svidFile, 'utf8')).trim() }
        : undefined;
  return {
    url: environment['MAYFLY_ADDR'] ?? developmentAddress(environment['MAYFLY_DATA'] ?? '.data'),
    ...(issuer === undefined ? {} : { issuer }),
    ...(identity === undefined ? {} : { identity }),
    ...(caFile === undefined ? {} : { ca: readFileSync(caFile) }),
  };
}

/** Read at each use: whoever rotates the SVID replaces the files. */
function certificateFrom(certFile: string, keyFile: string): ClientIdentity {
  return {
    get cert() {
      return readFileSync(certFile, 'utf8');
    },
    get key() {
      return readFileSync(keyFile, 'utf8');
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
