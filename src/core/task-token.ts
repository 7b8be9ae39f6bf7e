import type { TaskClaims } from './claims.js';
import { readTaskClaims } from './claims.js';
import type { VerificationKey } from './jwk.js';
import { checkTimes, JwsRefused, parseCompactJws, verifyJws } from './jws.js';
import type { EpochMs } from './time.js';

export interface TaskTokenCheck {
  issuer: string;
  /** A preloaded key by its kid. Nothing is fetched because a token says so. */
  keyOf(kid: string): VerificationKey | undefined;
  nowMs: EpochMs;
  skewMs: number;
  lifeMsMax: number;
}

/**
 * Reads one of our tokens (RFC 9068): strict spelling, `typ` exactly `at+jwt`, an algorithm of the key's own, signature, issuer, shape,
 * times. It does not look at audience, sender constraint or revocation: those belong to whoever is asked. Throws JwsRefused.
 */
export function readTaskToken(token: string, check: TaskTokenCheck): { claims: TaskClaims; kid: string } {
  const jws = parseCompactJws(token);
  if (jws.header.typ !== 'at+jwt') throw new JwsRefused('header', 'the typ is not at+jwt');
  const kid = jws.header.kid;
  const key = check.keyOf(kid);
  if (!key) throw new JwsRefused('kid', 'no key of ours has this kid');
  if (!verifyJws(jws, key)) throw new JwsRefused('signature', 'the signature is not good');
  const claims = readTaskClaims(jws.payload);
  if (!claims) throw new JwsRefused('payload', 'the claims have not the shape of a task token');
  if (claims.iss !== check.issuer) throw new JwsRefused('payload', 'another issuer');
  checkTimes(jws.payload, check.nowMs, { skewMs: check.skewMs, lifeMsMax: check.lifeMsMax });
  return { claims, kid };
}
