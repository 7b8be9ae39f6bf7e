import { JwsRefused } from '../core/jws.js';
import type { Caller } from './caller.js';
import { type OwnToken, readOwnToken } from './own-token.js';
import type { Parts } from './parts.js';

/**
 * RFC 7662, for the owners of the audience alone. Unknown, dead, foreign or not theirs: `{active: false}` and nothing else, so that nobody
 * learns anything from asking.
 */
export async function introspect(
  parts: Parts,
  caller: Caller,
  request: { token: string },
): Promise<Record<string, unknown>> {
  let own: OwnToken;
  try {
    own = await readOwnToken(parts, request.token);
  } catch (error) {
    if (error instanceof JwsRefused) return { active: false };
    throw error;
  }
  const { claims } = own;
  if (own.dead || !ownsAudience(parts, caller, claims.aud)) return { active: false };
  const { act, cnf } = claims;
  return {
    active: true,
    iss: claims.iss,
    sub: claims.sub,
    aud: claims.aud,
    client_id: claims.client_id,
    scope: claims.scope,
    exp: claims.exp,
    iat: claims.iat,
    jti: claims.jti,
    token_type: cnf && 'jkt' in cnf ? 'DPoP' : 'Bearer',
    authorization_details: claims.authorization_details,
    ...(act && { act }),
    ...(cnf && { cnf }),
  };
}

function ownsAudience(parts: Parts, caller: Caller, audience: string): boolean {
  const resource = parts.policies.current()?.bundle.resources.get(audience);
  return resource !== undefined && caller.principal.kind !== 'person' && resource.owners.includes(caller.name);
}
