import { constants, type KeyObject, verify } from 'node:crypto';
import { JsonRefused, parseStrictObject } from './strict-json.js';
import type { EpochMs } from './time.js';

/** Why a JWS was not taken. The kinds are for code and counters, the message for operators; neither is for the caller. */
export type JwsRefusal = 'size' | 'spelling' | 'header' | 'algorithm' | 'kid' | 'payload' | 'times' | 'signature';

export class JwsRefused extends Error {
  readonly kind: JwsRefusal;
  /** Set for times only: what an honest caller can fix. */
  readonly hint?: string;

  constructor(kind: JwsRefusal, reason: string, hint?: string) {
    super(reason);
    this.name = 'JwsRefused';
    this.kind = kind;
    if (hint !== undefined) this.hint = hint;
  }
}

/** The header members anybody here may ask for. `kid` and `jwk` must be there when they are allowed; `typ` and `x5t` may. */
export interface JwsHeaderMembers {
  alg: string;
  kid: string;
  typ?: string;
  jwk: Record<string, unknown>;
  /** Some OIDC issuers add it. It is never looked at. */
  x5t?: string;
}

export type JwsHeaderName = keyof JwsHeaderMembers;

export interface JwsProfile<Name extends JwsHeaderName = 'alg' | 'kid' | 'typ'> {
  /** Default 8192, in bytes of the whole text. */
  bytesMax?: number;
  /** The header may hold these and nothing else. Default `alg`, `kid`, `typ`. */
  headerNames?: readonly Name[];
  /** Shape of an acceptable `kid`. Default: what Mayfly gives its own keys. */
  kid?: RegExp;
  /** Acceptable `alg` values, looked at before anything is done with the token. Default: all nine asymmetric ones. */
  algorithms?: ReadonlySet<string>;
}

export interface CompactJws<Name extends JwsHeaderName = 'alg' | 'kid' | 'typ'> {
  header: Pick<JwsHeaderMembers, Name | 'alg'>;
  payload: Record<string, unknown>;
  /** What the signature is over. */
  signingInput: string;
  signature: Buffer;
}

/** Kids of our own keys. */
export const OWN_KID = /^[A-Za-z0-9_-]{1,64}$/;
/** Kids of other people's keys: visible ASCII. They are looked up in a Map, never used as a path or in a query. */
export const FOREIGN_KID = /^[\x21-\x7e]{1,256}$/;

const BYTES_MAX = 8192;
const HEADER_BYTES_MAX = 512;
/** With a public key in it, such as a DPoP proof has. */
const HEADER_WITH_KEY_BYTES_MAX = 2048;
const HEADER_DEPTH_MAX = 2;
const HEADER_NAMES = ['alg', 'kid', 'typ'] as const;
const BASE64URL = /^[A-Za-z0-9_-]+$/;
/** The last second of the year 9999. */
const EPOCH_SECONDS_MAX = 253_402_300_799;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Reads a compact JWS whose payload is a JSON object, and takes exactly one spelling of it. Everything that
 * libraries are lax about is refused here, before any key is looked up: size first, then three segments of
 * canonical base64url, UTF-8 without BOM or NUL, JSON without duplicate names, a header that holds the allowed
 * names and nothing else (so no `crit`, `b64`, `jku`, `x5c`), and `iat`, `nbf`, `exp` that are bounded integers.
 * Nothing is verified yet. Throws JwsRefused.
 */
export function parseCompactJws<Name extends JwsHeaderName = 'alg' | 'kid' | 'typ'>(
  text: string,
  profile: JwsProfile<Name> = {},
): CompactJws<Name> {
  const { header, payload, signingInput, signature } = splitCompactJws(text, profile);
  const claims = parseObject('payload', payload);
  for (const name of ['iat', 'nbf', 'exp']) {
    if (claims[name] !== undefined && !isEpochSeconds(claims[name])) {
      throw new JwsRefused('payload', `${name} is no integer of seconds`);
    }
  }
  return { header, payload: claims, signingInput, signature };
}

/** `parseCompactJws` without reading the payload: its bytes as they were signed. */
export function splitCompactJws<Name extends JwsHeaderName = 'alg' | 'kid' | 'typ'>(
  text: string,
  profile: JwsProfile<Name> = {},
): Omit<CompactJws<Name>, 'payload'> & { payload: Buffer } {
  // `length` counts UTF-16 units and is never more than the bytes; the alphabet below makes them equal.
  if (text.length > (profile.bytesMax ?? BYTES_MAX)) throw new JwsRefused('size', 'the token is too long');
  const first = text.indexOf('.');
  const second = text.indexOf('.', first + 1);
  if (first < 0 || second < 0 || text.indexOf('.', second + 1) >= 0) {
    throw new JwsRefused('spelling', 'not three segments');
  }
  const names: readonly JwsHeaderName[] = profile.headerNames ?? HEADER_NAMES;
  const headerBytesMax = names.includes('jwk') ? HEADER_WITH_KEY_BYTES_MAX : HEADER_BYTES_MAX;
  if (first > Math.ceil((headerBytesMax * 4) / 3)) throw new JwsRefused('size', 'the header is too long');
  const header = readHeader(decodeSegment(text.slice(0, first)), profile);
  return {
    header,
    payload: decodeSegment(text.slice(first + 1, second)),
    signingInput: text.slice(0, second),
    signature: decodeSegment(text.slice(second + 1)),
  };
}

export function isEpochSeconds(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= EPOCH_SECONDS_MAX;
}

export interface TimeRules {
  /** How far our clock may be behind the issuer's: applies to `iat` and `nbf`. It never lengthens a life. */
  skewMs: number;
  /** Longest `exp - iat`. */
  lifeMsMax: number;
  /** Longest time since `iat`. */
  ageMsMax?: number;
}

/**
 * Checks `iat`, `nbf` and `exp` of a payload that `parseCompactJws` read. `iat` and `exp` have to be there: without
 * them nobody knows how long the token lives in all. Ended means `now >= exp`, with no grace. Throws JwsRefused.
 */
export function checkTimes(
  payload: Record<string, unknown>,
  nowMs: EpochMs,
  rules: TimeRules,
): { issuedAtMs: EpochMs; expiresAtMs: EpochMs; notBeforeMs: EpochMs } {
  const { iat, nbf, exp } = payload;
  if (!isEpochSeconds(exp)) throw new JwsRefused('times', 'exp is missing');
  if (!isEpochSeconds(iat)) throw new JwsRefused('times', 'iat is missing');
  if (nbf !== undefined && !isEpochSeconds(nbf)) throw new JwsRefused('times', 'nbf is no integer of seconds');
  const issuedAtMs = iat * 1000;
  const expiresAtMs = exp * 1000;
  const notBeforeMs = Math.max(issuedAtMs, nbf === undefined ? 0 : nbf * 1000);
  if (nowMs >= expiresAtMs) throw new JwsRefused('times', 'expired', 'The token has expired: fetch a new one.');
  if (expiresAtMs <= issuedAtMs) throw new JwsRefused('times', 'exp is not after iat');
  if (issuedAtMs > nowMs + rules.skewMs) {
    throw new JwsRefused('times', 'iat is in the future', 'The token was issued in the future: check the clocks.');
  }
  if (notBeforeMs > nowMs + rules.skewMs) {
    throw new JwsRefused('times', 'nbf is in the future', 'The token is not valid yet: check the clocks.');
  }
  if (expiresAtMs - issuedAtMs > rules.lifeMsMax) {
    const seconds = Math.floor(rules.lifeMsMax / 1000);
    throw new JwsRefused('times', `lives longer than ${seconds} s`, `The token may live ${seconds} s at most.`);
  }
  if (rules.ageMsMax !== undefined && nowMs - issuedAtMs > rules.ageMsMax) {
    throw new JwsRefused('times', 'issued too long ago', 'The token is too old: fetch a new one.');
  }
  return { issuedAtMs, expiresAtMs, notBeforeMs };
}

interface Algorithm {
  hash: 'sha256' | 'sha384' | 'sha512';
  keyType: 'ec' | 'rsa';
  /** The curve's name in Node, for `ec`. */
  curve?: string;
  signatureBytes?: number;
  pss?: true;
}

/** The asymmetric algorithms of RFC 7518 that SPIFFE allows (SPF-J-2). There is no symmetric one and no `none`. */
export const JWS_ALGORITHMS = {
  ES256: { hash: 'sha256', keyType: 'ec', curve: 'prime256v1', signatureBytes: 64 },
  ES384: { hash: 'sha384', keyType: 'ec', curve: 'secp384r1', signatureBytes: 96 },
  ES512: { hash: 'sha512', keyType: 'ec', curve: 'secp521r1', signatureBytes: 132 },
  RS256: { hash: 'sha256', keyType: 'rsa' },
  RS384: { hash: 'sha384', keyType: 'rsa' },
  RS512: { hash: 'sha512', keyType: 'rsa' },
  PS256: { hash: 'sha256', keyType: 'rsa', pss: true },
  PS384: { hash: 'sha384', keyType: 'rsa', pss: true },
  PS512: { hash: 'sha512', keyType: 'rsa', pss: true },
} as const satisfies Record<string, Algorithm>;

export type JwsAlgorithm = keyof typeof JWS_ALGORITHMS;

export function isJwsAlgorithm(text: string): text is JwsAlgorithm {
  return Object.hasOwn(JWS_ALGORITHMS, text);
}

/**
 * True when the signature is right under this key. The algorithm has to be one the key was admitted for (see
 * `admitKey`), so a token never chooses how it is verified.
 */
export function verifyJws(
  jws: { header: { alg: string }; signingInput: string; signature: Buffer },
  key: { key: KeyObject; algorithms: ReadonlySet<JwsAlgorithm> },
): boolean {
  const { alg } = jws.header;
  if (!isJwsAlgorithm(alg) || !key.algorithms.has(alg)) return false;
  const algorithm: Algorithm = JWS_ALGORITHMS[alg];
  if (algorithm.signatureBytes !== undefined && jws.signature.length !== algorithm.signatureBytes) return false;
  return verify(algorithm.hash, Buffer.from(jws.signingInput, 'latin1'), keyInput(key.key, algorithm), jws.signature);
}

function keyInput(key: KeyObject, algorithm: Algorithm) {
  if (algorithm.keyType === 'ec') return { key, dsaEncoding: 'ieee-p1363' as const };
  if (algorithm.pss) {
    return { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  }
  return { key, padding: constants.RSA_PKCS1_PADDING };
}

function decodeSegment(segment: string): Buffer {
  if (!BASE64URL.test(segment)) throw new JwsRefused('spelling', 'not base64url');
  const bytes = Buffer.from(segment, 'base64url');
  // The last character of a segment has spare bits; only the spelling with zeros there is taken.
  if (bytes.toString('base64url') !== segment) throw new JwsRefused('spelling', 'not canonical base64url');
  return bytes;
}

function parseObject(part: 'header' | 'payload', bytes: Buffer, depthMax?: number): Record<string, unknown> {
  let text: string;
  try {
    text = utf8.decode(bytes);
  } catch {
    throw new JwsRefused(part, `the ${part} is not UTF-8`);
  }
  try {
    return parseStrictObject(text, depthMax === undefined ? {} : { depthMax });
  } catch (error) {
    if (error instanceof JsonRefused) throw new JwsRefused(part, `the ${part}: ${error.message}`);
    throw error;
  }
}

function readHeader<Name extends JwsHeaderName>(
  bytes: Buffer,
  profile: JwsProfile<Name>,
): Pick<JwsHeaderMembers, Name | 'alg'> {
  const header = parseObject('header', bytes, HEADER_DEPTH_MAX);
  const allowed: readonly string[] = profile.headerNames ?? HEADER_NAMES;
  for (const name of Object.keys(header)) {
    if (!allowed.includes(name)) throw new JwsRefused('header', `the header may not hold ${JSON.stringify(name)}`);
  }
  const { alg, kid, typ, jwk, x5t } = header;
  if (typeof alg !== 'string') throw new JwsRefused('algorithm', 'alg is missing');
  if (!(profile.algorithms ? profile.algorithms.has(alg) : isJwsAlgorithm(alg))) {
    throw new JwsRefused('algorithm', 'the algorithm is not acceptable');
  }
  if (allowed.includes('kid') && !(typeof kid === 'string' && (profile.kid ?? OWN_KID).test(kid))) {
    throw new JwsRefused('kid', kid === undefined ? 'kid is missing' : 'kid has the wrong shape');
  }
  if (allowed.includes('jwk') && !(typeof jwk === 'object' && jwk !== null && !Array.isArray(jwk))) {
    throw new JwsRefused('header', 'jwk is missing or no object');
  }
  for (const optional of [typ, x5t]) {
    if (optional !== undefined && typeof optional !== 'string')
      throw new JwsRefused('header', 'typ or x5t is no string');
  }
  return header as unknown as Pick<JwsHeaderMembers, Name | 'alg'>;
}
