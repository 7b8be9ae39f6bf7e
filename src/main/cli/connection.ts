import { join } from 'node:path';
import { type DevelopmentBroker, developmentBroker } from '../../client/development-broker.js';
import { certificateOf, checkCertificateAddress } from '../../client/environment.js';
import { type CertificateIdentity, type ClientIdentity, Mayfly } from '../../client/mayfly.js';
import { jwtFile, namedFile } from '../../client/named-file.js';
import { UsageError } from './output.js';

export interface ConnectionFlags {
  as?: string;
}

/** The broker that is spoken to, and who speaks. */
export interface Connection {
  mayfly: Mayfly;
  url: string;
  issuer: string;
  identity: ClientIdentity;
}

export function dataDir(): string {
  return process.env['MAYFLY_DATA'] || '.data';
}

/** The development broker that runs on this data folder; undefined when none does. */
export function devRuntime(): DevelopmentBroker | undefined {
  return developmentBroker(dataDir());
}

/**
 * The development broker as the development operator (or `--as`), unless the environment names another broker and an identity:
 * `MAYFLY_ADDR`, with `MAYFLY_JWT_SVID_FILE`, `MAYFLY_CERT_FILE` and `MAYFLY_KEY_FILE`, or `MAYFLY_PERSON_TOKEN_FILE`. An empty variable is as good as none.
 */
export async function connect(flags: ConnectionFlags): Promise<Connection> {
  const { MAYFLY_ADDR: address, MAYFLY_ISSUER: namedIssuer, MAYFLY_CA_FILE: ca } = process.env;
  const runtime = address ? undefined : devRuntime();
  const url = address || runtime?.url;
  if (url === undefined) {
    throw new UsageError(
      `No broker found: start one with npm start, or set MAYFLY_ADDR (looked for ${join(dataDir(), 'runtime.json')}).`,
    );
  }
  if (address) checkAddress(address);
  const issuer = namedIssuer || (runtime?.issuer ?? url);
  checkOneIdentity(flags.as);
  const identity = fileIdentity(url) ?? (await developmentIdentity(flags.as ?? 'operator-1'));
  return {
    mayfly: new Mayfly({ url, issuer, identity, ...(ca && { ca: namedFile('MAYFLY_CA_FILE', ca) }) }),
    url,
    issuer,
    identity,
  };
}

function checkAddress(address: string): void {
  if (/^https?:\/\//.test(address) && URL.canParse(address)) return;
  throw new UsageError(
    `MAYFLY_ADDR: ${address} is not an address such as http://127.0.0.1:7117 or https://mayfly.example.`,
  );
}

async function developmentIdentity(as: string): Promise<ClientIdentity> {
  const { devIdentity } = await import('./dev-identity.js');
  return devIdentity(as, dataDir());
}

const IDENTITY_FILES = ['MAYFLY_JWT_SVID_FILE', 'MAYFLY_PERSON_TOKEN_FILE', 'MAYFLY_CERT_FILE', 'MAYFLY_KEY_FILE'];

/** Nobody acts as somebody else than the command line says. */
function checkOneIdentity(as: string | undefined): void {
  const set = IDENTITY_FILES.filter((variable) => process.env[variable]);
  if (as === undefined || set.length === 0) return;
  throw new UsageError(
    `Nothing was done: --as ${as} is one identity and ${set.join(', ')} another: leave --as out, or unset ${set.join(' and ')}.`,
  );
}

function fileIdentity(url: string): ClientIdentity | undefined {
  const { MAYFLY_JWT_SVID_FILE: jwt, MAYFLY_PERSON_TOKEN_FILE: person } = process.env;
  const certificate = certificateOf(process.env);
  if (jwt) return { bearer: async () => jwtFile('MAYFLY_JWT_SVID_FILE', jwt) };
  if (person) return { person: async () => jwtFile('MAYFLY_PERSON_TOKEN_FILE', person) };
  if (!certificate) return undefined;
  checkCertificateAddress(url);
  // Read again at each connection; a file that is not there is said now, as what it is.
  return tried(certificate);
}

function tried(certificate: CertificateIdentity): CertificateIdentity {
  void [certificate.cert, certificate.key];
  return certificate;
}

/** Commander collects a repeated option into a list. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}
