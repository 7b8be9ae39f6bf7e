import type { ProvenWorkload } from '../../core/identity.js';
import { type CompactJws, checkTimes, JwsRefused, verifyJws } from '../../core/jws.js';
import { parseSpiffeId, trustDomainOf } from '../../core/spiffe-id.js';
import type { EpochMs } from '../../core/time.js';
import type { TrustBundle } from './contract.js';
import { refuse } from './refusal.js';

export interface JwtSvidRules {
  bundle: TrustBundle;
  /** The broker's issuer: the only audience. */
  audience: string;
  nowMs: EpochMs;
  /** Longest `exp - iat` this trust domain may give an SVID. */
  lifeMsMax: number;
}

/** What was proven, and from when to when: what memory has to check again. */
export interface VerifiedJwt<Identity> {
  identity: Identity;
  notBeforeMs: EpochMs;
}

/** A JWT that has passed the parser: header names, spelling and shapes are right, nothing is verified. */
export type ForeignJws = CompactJws<'alg' | 'kid' | 'typ' | 'x5t'>;

/** How far our clock may be behind an issuer's. */
export const CLOCK_SKEW_MS = 30_000;
const TYPES = new Set([undefined, 'JWT', 'JOSE']);

/**
 * Validates a JWT-SVID (JWT-SVID.md sections 2 to 5): the key comes from the bundle of the trust domain in `sub`, out of
 * those for JWT-SVIDs alone (SPF-J-5, SPF-J-7); `aud` is this broker and nobody else, and the whole life is bounded
 * (SPF-J-6, stricter than the text). `iss` plays no part. Throws `identity_rejected`.
 */
export function verifyJwtSvid(jws: ForeignJws, rules: JwtSvidRules): VerifiedJwt<ProvenWorkload> {
  if (jws.header.x5t !== undefined) refuse('SPF-J-4: the header may not hold x5t');
  if (!TYPES.has(jws.header.typ)) refuse('SPF-J-3: typ is not JWT or JOSE');
  const id = parseSpiffeId(jws.payload['sub']);
  if (!id) refuse('SPF-J-5: sub is no SPIFFE ID');
  const domain = trustDomainOf(id);
  if (domain !== rules.bundle.trustDomain) refuse('SPF-B-6: the bundle belongs to another trust domain');
  checkAudience(jws.payload['aud'], rules.audience);
  const times = checkJwtTimes(jws.payload, rules.nowMs, rules.lifeMsMax);
  checkSignature(jws, rules.bundle);
  return {
    identity: {
      kind: 'workload',
      proof: 'jwt-svid',
      spiffeId: id,
      trustDomain: domain,
      expiresAtMs: times.expiresAtMs,
      keyId: `${domain}#${jws.header.kid}`,
      attributes: {},
    },
    notBeforeMs: times.notBeforeMs,
  };
}

/** SPF-J-6 as we read it: exactly one audience. Whoever else is in it could take the token and use it here. */
export function checkAudience(aud: unknown, audience: string): void {
  const only = Array.isArray(aud) && aud.length === 1 ? aud[0] : aud;
  if (only !== audience) refuse('SPF-J-6: aud is not this broker alone', `The audience has to be ${audience}, alone.`);
}

export function checkJwtTimes(payload: Record<string, unknown>, nowMs: EpochMs, lifeMsMax: number, ageMsMax?: number) {
  try {
    const rules = { skewMs: CLOCK_SKEW_MS, lifeMsMax };
    return checkTimes(payload, nowMs, ageMsMax === undefined ? rules : { ...rules, ageMsMax });
  } catch (error) {
    if (error instanceof JwsRefused) refuse(`the times: ${error.message}`, error.hint);
    throw error;
  }
}

export function checkSignature(jws: ForeignJws, bundle: TrustBundle): void {
  const key = bundle.jwtKeys.get(jws.header.kid);
  if (!key)
    refuse(bundle.jwtKeys.size === 0 ? 'SPF-B-3: the bundle has no JWT keys' : 'SPF-J-5: no such kid in the bundle');
  if (!key.algorithms.has(jws.header.alg as never)) refuse('SPF-J-2: the algorithm is not the key’s');
  if (!verifyJws(jws, key)) refuse('the signature is wrong');
}
