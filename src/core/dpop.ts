import { createHash, createPublicKey, type KeyObject, timingSafeEqual, verify } from 'node:crypto';
import { admitKey, KeyRefused } from './jwk.js';
import { type CompactJws, isJwsAlgorithm, JwsRefused, parseCompactJws, verifyJws } from './jws.js';
import type { EpochMs } from './time.js';

/** What a proof may be signed with; advertised as `dpop_signing_alg_values_supported` and in challenges (`algs`). */
export const DPOP_ALGORITHMS = ['ES256', 'ES384', 'RS256', 'PS256', 'EdDSA', 'Ed25519'] as const;

/** How far `iat` may be from now, either way, when nobody configured otherwise. */
export const DPOP_WINDOW_MS = 300_000;

/** The first check of RFC 9449 section 4.3 that failed. For counters and logs; the caller hears `invalid_dpop_proof`. */
export type DpopRefusal =
  | 'malformed'
  | 'typ'
  | 'algorithm'
  | 'key'
  | 'signature'
  | 'claims'
  | 'method'
  | 'url'
  | 'nonce'
  | 'times'
  | 'access-token'
  | 'binding';

export class DpopRefused extends Error {
  readonly reason: DpopRefusal;

  constructor(reason: DpopRefusal, message: string) {
    super(message);
    this.name = 'DpopRefused';
    this.reason = reason;
  }
}

export interface DpopCheck {
  /** The `DPoP` header's whole value. Two headers arrive joined by a comma, and are refused by their spelling. */
  proof: string;
  /** The request's method, compared exactly. */
  method: string;
  /** The request's absolute URL as the server knows it; query and fragment do not count. */
  url: string;
  nowMs: EpochMs;
  windowMs?: number;
  /** At a resource: the token the proof comes with, by its exact bytes (`ath`). */
  accessToken?: string;
  /** At a resource: `cnf.jkt` of that token. */
  jkt?: string;
  /** When a nonce is demanded: whether this one is one of ours. Undefined is a proof without. */
  nonce?: (given: string | undefined) => boolean;
}

export interface DpopProof {
  /** RFC 7638 thumbprint of the key, for `cnf.jkt`. */
  jkt: string;
  jti: string;
  /** Seconds. */
  iat: number;
  /**
   * Names this proof and no other, whatever its spelling: a hash of `jti`, `htu` and `jkt` (ECDSA signatures and their text are
   * malleable). The caller takes each once until `replayUntilMs`, after which the proof is too old anyway.
   */
  replayKey: string;
  replayUntilMs: EpochMs;
}

const JTI_LENGTH_MAX = 256;
const HEADER_NAMES = ['alg', 'typ', 'jwk'] as const;

/**
 * Checks a DPoP proof as RFC 9449 section 4.3 lists it, but for the replay of its `jti`, which needs a memory and so is the caller's.
 * Throws DpopRefused with the first reason; `nonce` is the one that an honest client repairs (`use_dpop_nonce`).
 */
export function verifyDpop(check: DpopCheck): DpopProof {
  const jws = parse(check.proof);
  if (jws.header.typ !== 'dpop+jwt') throw new DpopRefused('typ', 'typ is not dpop+jwt');
  const key = proofKey(jws.header.jwk, jws.header.alg);
  if (!key.verifies(jws)) throw new DpopRefused('signature', 'the signature is wrong');

  const { jti, htm, htu, iat, exp, nbf, ath, nonce } = jws.payload;
  if (typeof jti !== 'string' || jti === '' || jti.length > JTI_LENGTH_MAX) {
    throw new DpopRefused('claims', 'jti is missing, empty or too long');
  }
  if (htm !== check.method) throw new DpopRefused('method', 'htm is not the method of the request');
  const target = targetOf(htu);
  if (target === undefined || target !== targetOf(check.url)) {
    throw new DpopRefused('url', 'htu is not the URL of the request');
  }
  if (check.nonce && !check.nonce(typeof nonce === 'string' ? nonce : undefined)) {
    throw new DpopRefused('nonce', 'the nonce is missing or not a current one');
  }
  const windowMs = check.windowMs ?? DPOP_WINDOW_MS;
  if (typeof iat !== 'number') throw new DpopRefused('claims', 'iat is missing');
  if (Math.abs(check.nowMs - iat * 1_000) > windowMs) throw new DpopRefused('times', 'iat is outside the window');
  if (typeof exp === 'number' && check.nowMs >= exp * 1_000) throw new DpopRefused('times', 'the proof has expired');
  if (typeof nbf === 'number' && check.nowMs + windowMs < nbf * 1_000) {
    throw new DpopRefused('times', 'the proof is not valid yet');
  }
  if (check.accessToken !== undefined && !sameText(ath, sha256(check.accessToken))) {
    throw new DpopRefused('access-token', 'ath is not the hash of the access token');
  }
  if (check.jkt !== undefined && !sameText(key.thumbprint, check.jkt)) {
    throw new DpopRefused('binding', 'the access token is bound to another key');
  }
  return {
    jkt: key.thumbprint,
    jti,
    iat,
    replayKey: sha256(`${key.thumbprint}\0${target}\0${jti}`),
    replayUntilMs: iat * 1_000 + windowMs + 1,
  };
}

/**
 * An http(s) URL without query and fragment in the one spelling that RFC 3986 section 6.2 leads to: lower-case scheme and host, no
 * default port, no dot segments, percent-encoding in capitals and only where it is needed. Undefined for what is not
 * such a URL, or is written with characters that parsers repair in silence.
 */
export function targetOf(url: unknown): string | undefined {
  if (typeof url !== 'string' || !/^https?:\/\/[!#-;=?-[\]_a-z~]+$/i.test(url)) return undefined;
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    return undefined;
  }
  if (parsed.username !== '' || parsed.password !== '' || !wellEncoded(parsed.pathname)) return undefined;
  const path = parsed.pathname.replace(/%[0-9a-f]{2}/gi, (triplet) => {
    const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16));
    return /[A-Za-z0-9._~-]/.test(character) ? character : triplet.toUpperCase();
  });
  return `${parsed.protocol}//${parsed.host}${path}`;
}

function wellEncoded(path: string): boolean {
  return !/%(?![0-9a-f]{2})/i.test(path);
}

function parse(proof: string): CompactJws<(typeof HEADER_NAMES)[number]> {
  try {
    return parseCompactJws(proof, { headerNames: HEADER_NAMES, algorithms: new Set(DPOP_ALGORITHMS) });
  } catch (error) {
    if (!(error instanceof JwsRefused)) throw error;
    throw new DpopRefused(error.kind === 'algorithm' ? 'algorithm' : 'malformed', error.message);
  }
}

interface ProofKey {
  thumbprint: string;
  verifies(jws: { header: { alg: string }; signingInput: string; signature: Buffer }): boolean;
}

/** The key a proof brings along: public, sound, and of the kind that its `alg` says. */
function proofKey(jwk: Record<string, unknown>, alg: string): ProofKey {
  if (jwk['use'] !== undefined && jwk['use'] !== 'sig') throw new DpopRefused('key', 'the key is not for signatures');
  if (!isJwsAlgorithm(alg)) return edwardsKey(jwk, alg);
  try {
    const admitted = admitKey(jwk);
    if (!admitted.algorithms.has(alg)) throw new DpopRefused('algorithm', 'alg does not fit the key');
    return { thumbprint: admitted.thumbprint, verifies: (jws) => verifyJws(jws, admitted) };
  } catch (error) {
    if (error instanceof KeyRefused) throw new DpopRefused('key', error.message);
    throw error;
  }
}

/** Ed25519 (RFC 8037), which proofs may use although no SVID does. */
function edwardsKey(jwk: Record<string, unknown>, alg: string): ProofKey {
  const { kty, crv, x, d } = jwk;
  if (d !== undefined) throw new DpopRefused('key', 'the key has a private part');
  if (kty !== 'OKP' || crv !== 'Ed25519' || typeof x !== 'string') {
    throw new DpopRefused('key', 'the key is not an Ed25519 one');
  }
  const bytes = Buffer.from(x, 'base64url');
  if (bytes.length !== 32 || bytes.toString('base64url') !== x) throw new DpopRefused('key', 'the key is malformed');
  if (jwk['alg'] !== undefined && jwk['alg'] !== alg) throw new DpopRefused('algorithm', 'alg does not fit the key');
  let key: KeyObject;
  try {
    key = createPublicKey({ key: { kty, crv, x }, format: 'jwk' });
  } catch {
    throw new DpopRefused('key', 'the key is malformed');
  }
  return {
    thumbprint: sha256(JSON.stringify({ crv, kty, x })),
    verifies: (jws) =>
      jws.signature.length === 64 && verify(null, Buffer.from(jws.signingInput, 'latin1'), key, jws.signature),
  };
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('base64url');
}

function sameText(given: unknown, expected: string): boolean {
  if (typeof given !== 'string') return false;
  const left = Buffer.from(given);
  const right = Buffer.from(expected);
  return left.length === right.length && timingSafeEqual(left, right);
}
