import { X509Certificate } from 'node:crypto';
import { admitKey, KeyRefused, type VerificationKey } from '../../core/jwk.js';
import { FOREIGN_KID } from '../../core/jws.js';
import { JsonRefused, parseStrictObject } from '../../core/strict-json.js';
import { factsOf } from './certificate-facts.js';
import { DerRefused, readAll } from './der.js';

/** The keys a document holds, before they are anybody's. */
export interface BundleContent {
  sequence?: number;
  refreshHintMs?: number;
  jwtKeys: Map<string, VerificationKey>;
  x509Authorities: X509Certificate[];
  /** Entries that were left out, and why. */
  ignored: string[];
}

/** A document that is no bundle at all: nothing of it is taken. */
export class BundleRefused extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'BundleRefused';
  }
}

const KEYS_MAX = 1000;
const DEPTH_MAX = 8;

/**
 * Reads a SPIFFE bundle (SPIFFE_Trust_Domain_and_Bundle.md section 4). `keys` has to be there and may be empty (SPF-B-1); elements
 * of unknown type or use, or malformed ones, are left out and the rest is kept (SPF-B-2); a number past 2^53 or a member
 * named twice refuses the document (SPF-B-4, SPF-B-5).
 */
export function readSpiffeBundle(text: string): BundleContent {
  return readBundleObject(parse(text));
}

/** The bundle of one trust domain out of a bundle map `{"trust_domains": {name: bundle}}` (SPF-B-5). */
export function readSpiffeBundleMap(text: string, trustDomain: string): BundleContent {
  const { trust_domains: domains } = parse(text);
  if (!isObject(domains)) throw new BundleRefused('trust_domains is missing');
  const bundle = Object.hasOwn(domains, trustDomain) ? domains[trustDomain] : undefined;
  if (!isObject(bundle)) throw new BundleRefused('the bundle map does not hold this trust domain');
  return readBundleObject(bundle);
}

/**
 * Reads a JWK Set whose keys all sign JWTs because of where it came from: an OIDC issuer's, or the Workload API's JWT
 * bundle. `use` may be absent, or one of `uses`. A document with a private or secret key is refused whole:
 * somebody published what must never be published.
 */
export function readJwks(text: string, uses: readonly string[]): BundleContent {
  const content = empty();
  for (const jwk of elements(parse(text))) {
    if (jwk['use'] !== undefined && !uses.includes(jwk['use'] as string)) content.ignored.push('a key of another use');
    else addJwtKey(jwk, content);
  }
  return content;
}

/** The certificates that stand one after another in DER, as the Workload API sends a bundle. */
export function readDerCertificates(bytes: Buffer): BundleContent {
  const content = empty();
  try {
    for (const certificate of readAll(bytes)) addAuthority(certificate.whole, content);
  } catch (error) {
    if (error instanceof DerRefused) throw new BundleRefused('not a sequence of certificates');
    throw error;
  }
  return content;
}

function parse(text: string): Record<string, unknown> {
  try {
    return parseStrictObject(text, { depthMax: DEPTH_MAX });
  } catch (error) {
    if (error instanceof JsonRefused) throw new BundleRefused(`the bundle: ${error.message}`);
    throw error;
  }
}

function readBundleObject(bundle: Record<string, unknown>): BundleContent {
  const content = empty();
  for (const jwk of elements(bundle)) {
    if (jwk['use'] === 'jwt-svid') addJwtKey(jwk, content);
    else if (jwk['use'] === 'x509-svid') addX509Entry(jwk, content);
    else content.ignored.push('a key of unknown or missing use');
  }
  const sequence = wholeNumber(bundle, 'spiffe_sequence');
  const hint = wholeNumber(bundle, 'spiffe_refresh_hint');
  if (sequence !== undefined) content.sequence = sequence;
  if (hint !== undefined) content.refreshHintMs = hint * 1000;
  return content;
}

function elements(bundle: Record<string, unknown>): Record<string, unknown>[] {
  const { keys } = bundle;
  if (!Array.isArray(keys)) throw new BundleRefused('keys is missing');
  if (keys.length > KEYS_MAX) throw new BundleRefused(`more than ${KEYS_MAX} keys`);
  if (!keys.every(isObject)) throw new BundleRefused('an element of keys is no object');
  return keys;
}

function addJwtKey(jwk: Record<string, unknown>, content: BundleContent): void {
  const { kid } = jwk;
  if (typeof kid !== 'string' || !FOREIGN_KID.test(kid)) {
    content.ignored.push('a JWT key without a usable kid');
    return;
  }
  if (content.jwtKeys.has(kid)) throw new BundleRefused('two keys of the same kid');
  try {
    content.jwtKeys.set(kid, admitKey(jwk));
  } catch (error) {
    if (!(error instanceof KeyRefused)) throw error;
    if (error.isPrivate) throw new BundleRefused(error.message);
    content.ignored.push(`key ${kid}: ${error.message}`);
  }
}

/** SPF-X-8: an entry without `x5c` is left out; of several values only the first one counts. */
function addX509Entry(jwk: Record<string, unknown>, content: BundleContent): void {
  const { x5c } = jwk;
  const first = Array.isArray(x5c) ? x5c[0] : undefined;
  if (typeof first !== 'string') {
    content.ignored.push('an X.509 entry without x5c');
    return;
  }
  addAuthority(Buffer.from(first, 'base64'), content);
}

function addAuthority(der: Buffer, content: BundleContent): void {
  try {
    const certificate = new X509Certificate(der);
    // An authority that could never be in a path is reported here, where somebody looks, and not at the first refused agent.
    if (!factsOf(certificate).isCa) throw new BundleRefused('no CA');
    content.x509Authorities.push(certificate);
  } catch (error) {
    content.ignored.push(`an X.509 authority: ${error instanceof Error ? error.message : 'malformed'}`);
  }
}

function wholeNumber(bundle: Record<string, unknown>, name: string): number | undefined {
  const value = bundle[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw new BundleRefused(`${name} is no whole number`);
  return value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function empty(): BundleContent {
  return { jwtKeys: new Map(), x509Authorities: [], ignored: [] };
}
