import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { certificateOf } from '../../client/environment.js';
import { type CertificateIdentity, type ClientIdentity, Mayfly } from '../../client/mayfly.js';
import { namedFile } from '../../client/named-file.js';
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
  return process.env['MAYFLY_DATA'] ?? '.data';
}

/** The development broker that runs on this data folder; undefined when none does. */
export function devRuntime(): { url: string; mtls_url: string; issuer: string; pid: number } | undefined {
  try {
    return JSON.parse(readFileSync(join(dataDir(), 'runtime.json'), 'utf8'));
  } catch {
    return undefined;
  }
}

/**
 * The development broker as the development operator (or `--as`), unless the environment names another broker and an identity:
 * `MAYFLY_ADDR`, with `MAYFLY_JWT_SVID_FILE`, `MAYFLY_CERT_FILE` and `MAYFLY_KEY_FILE`, or `MAYFLY_PERSON_TOKEN_FILE`.
 */
export async function connect(flags: ConnectionFlags): Promise<Connection> {
  const runtime = devRuntime();
  const url = process.env['MAYFLY_ADDR'] ?? runtime?.url;
  if (url === undefined) {
    throw new UsageError(
      `No broker found: start one with npm start, or set MAYFLY_ADDR (looked for ${join(dataDir(), 'runtime.json')}).`,
    );
  }
  checkAddress(process.env['MAYFLY_ADDR']);
  const issuer = process.env['MAYFLY_ISSUER'] ?? (process.env['MAYFLY_ADDR'] ? url : runtime?.issuer) ?? url;
  const identity = fileIdentity() ?? (await developmentIdentity(flags.as ?? 'operator-1'));
  const ca = process.env['MAYFLY_CA_FILE'];
  return {
    mayfly: new Mayfly({ url, issuer, identity, ...(ca !== undefined && { ca: namedFile('MAYFLY_CA_FILE', ca) }) }),
    url,
    issuer,
    identity,
  };
}

function checkAddress(address: string | undefined): void {
  if (address === undefined || (/^https?:\/\//.test(address) && URL.canParse(address))) return;
  throw new UsageError(
    `MAYFLY_ADDR: ${address} is not an address such as http://127.0.0.1:7117 or https://mayfly.example.`,
  );
}

async function developmentIdentity(as: string): Promise<ClientIdentity> {
  const { devIdentity } = await import('./dev-identity.js');
  return devIdentity(as, dataDir());
}

function fileIdentity(): ClientIdentity | undefined {
  const { MAYFLY_JWT_SVID_FILE: jwt, MAYFLY_PERSON_TOKEN_FILE: person } = process.env;
  const certificate = certificateOf(process.env);
  const textOf = (variable: string, path: string) => namedFile(variable, path).toString('utf8').trim();
  if (jwt) return { bearer: async () => textOf('MAYFLY_JWT_SVID_FILE', jwt) };
  if (person) return { person: async () => textOf('MAYFLY_PERSON_TOKEN_FILE', person) };
  // Read again at each connection; a file that is not there is said now, as what it is.
  return certificate && tried(certificate);
}

function tried(certificate: CertificateIdentity): CertificateIdentity {
  void [certificate.cert, certificate.key];
  return certificate;
}

/** Commander collects a repeated option into a list. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}
