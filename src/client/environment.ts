import { isKeyOf } from '../core/certificate-key.js';
import { developmentBroker } from './development-broker.js';
import { type BearerIdentity, type CertificateIdentity, NO_IDENTITY } from './identity.js';
import { InvalidRequest } from './mayfly-error.js';
import { jwtFile, namedFile, pemFile } from './named-file.js';

const ROTATION_MS_MAX = 5_000;

/** What the environment says about the broker and about who we are (see `Mayfly.fromEnv`). An empty variable says nothing. */
export function environmentOptions(environment: NodeJS.ProcessEnv): {
  url: string;
  issuer?: string;
  identity?: BearerIdentity | CertificateIdentity;
  ca?: string | Buffer;
} {
  const svidFile = environment['MAYFLY_JWT_SVID_FILE'];
  const caFile = environment['MAYFLY_CA_FILE'];
  const issuer = environment['MAYFLY_ISSUER'] || undefined;
  const certificate = certificateOf(environment);
  const identity: BearerIdentity | CertificateIdentity | undefined =
    certificate ?? (svidFile ? { bearer: async () => jwtFile('MAYFLY_JWT_SVID_FILE', svidFile) } : undefined);
  const url = environment['MAYFLY_ADDR'] || developmentAddress(environment['MAYFLY_DATA'] || '.data');
  if (certificate) checkCertificateAddress(url);
  return {
    url,
    ...(issuer === undefined ? {} : { issuer }),
    ...(identity === undefined ? {} : { identity }),
    ...(caFile ? { ca: namedFile('MAYFLY_CA_FILE', caFile) } : {}),
  };
}

/** What a tool's verifier has to know of its broker; its `audience` is the tool's own. */
export interface ToolBroker {
  issuer: string;
  url: string;
  identity: BearerIdentity | CertificateIdentity;
  ca?: string | Buffer;
}

/**
 * The broker and the tool's own identity as the environment names them: `MAYFLY_ADDR` (or the development broker of `MAYFLY_DATA`), and
 * `MAYFLY_JWT_SVID_FILE`, or `MAYFLY_CERT_FILE` with `MAYFLY_KEY_FILE`; `MAYFLY_CA_FILE`, `MAYFLY_ISSUER` where needed. Throws when there is
 * no identity. Files are read anew when they are used.
 */
export function brokerFromEnv(environment: NodeJS.ProcessEnv = process.env): ToolBroker {
  const { url, issuer, identity, ca } = environmentOptions(environment);
  if (!identity) throw misconfigured(NO_IDENTITY);
  return { issuer: issuer ?? url.replace(/\/$/, ''), url, identity, ...(ca === undefined ? {} : { ca }) };
}

/**
 * Read at each use: whoever rotates the SVID replaces the files, one after the other. While they do not belong
 * together the pair there was goes on, for as long as that can take. As text, which is the same as long as the file is.
 */
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
  const read = () => {
    const pair = { cert: readCertificate(), key: readKey() };
    // TLS would tell of two that are no pair as of a broker that does not answer.
    if (!isSame(pair, last) && !isKeyOf(pair.key, pair.cert)) throw noPair(certFile, keyFile);
    return pair;
  };
  let last: Pair | undefined;
  let brokenAtMs: number | undefined;
  const current = (): Pair => {
    try {
      last = read();
      brokenAtMs = undefined;
    } catch (error) {
      brokenAtMs ??= performance.now();
      if (!last || performance.now() - brokenAtMs > ROTATION_MS_MAX) throw error;
    }
    return last;
  };
  return {
    get cert() {
      return current().cert;
    },
    get key() {
      return current().key;
    },
  };
}

interface Pair {
  cert: string;
  key: string;
}

function isSame(pair: Pair, last: Pair | undefined): boolean {
  return pair.cert === last?.cert && pair.key === last.key;
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
  const broker = developmentBroker(dataDir);
  if (broker) return broker.url;
  throw misconfigured(`No broker: set MAYFLY_ADDR, or run mayfly dev (looked into ${dataDir}/runtime.json).`);
}

function misconfigured(message: string): InvalidRequest {
  return new InvalidRequest({ code: 'invalid_request', status: 0, message });
}
