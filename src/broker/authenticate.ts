import type { Principal } from '../core/agent.js';
import type { Bundle } from '../core/bundle.js';
import { findWorkload, resourcesOwnedBy } from '../core/bundle.js';
import type { TaskClaims } from '../core/claims.js';
import { DpopRefused, verifyDpop } from '../core/dpop.js';
import { dpopNonces } from '../core/dpop-nonces.js';
import { BrokerError } from '../core/errors.js';
import { nameOf, type ProvenIdentity, type ProvenPerson, type ProvenWorkload } from '../core/identity.js';
import { parseSpiffeId, trustDomainOf } from '../core/spiffe-id.js';
import type { Caller, Evidence } from './caller.js';
import { isOwnToken, type OwnToken, readOwnToken, tokenRefused } from './own-token.js';
import type { Parts } from './parts.js';
import { recordingStrangers } from './record-strangers.js';

/**
 * Who is asking: a JWT-SVID or registered OIDC token as bearer, an X.509-SVID of this connection, or a token of ours whose only
 * audience is the issuer. Two identities in one request have to be the same one. Throws `identity_rejected` with one public text.
 */
export async function authenticate(parts: Parts, evidence: Evidence): Promise<Caller> {
  return recordingStrangers(parts, evidence, () => prove(parts, evidence));
}

async function prove(parts: Parts, evidence: Evidence): Promise<Caller> {
  const { authorization } = evidence;
  if (authorization && isOwnToken(parts, authorization.token))
    return authenticateByOwnToken(parts, evidence, authorization);
  const peer = evidence.peer ? parts.identity.x509(evidence.peer) : undefined;
  if (authorization?.scheme === 'DPoP') {
    throw new BrokerError('identity_rejected', 'The identity was not accepted.', {
      hint: 'The DPoP scheme carries tokens minted here; send a JWT-SVID as Bearer.',
    });
  }
  const stated = authorization ? await parts.identity.jwt(authorization.token) : undefined;
  const identity = stated ?? peer;
  if (!identity) {
    throw new BrokerError('identity_rejected', 'The identity was not accepted.', {
      reason: 'no identity',
      hint: 'Send `Authorization: Bearer` with a JWT-SVID whose only audience is this issuer, or connect with an X.509-SVID.',
    });
  }
  if (stated && peer && nameOf(stated) !== nameOf(peer)) {
    throw new BrokerError('invalid_request', 'The connection and the Authorization header name two identities.');
  }
  const principal = principalOf(currentBundle(parts), identity);
  if (!principal) {
    throw new BrokerError('identity_rejected', 'The identity was not accepted.', {
      reason: `undeclared: ${nameOf(identity)}`,
    });
  }
  return {
    principal,
    name: nameOf(identity),
    bound: peer !== undefined,
    binding: peer ? 'mtls' : 'none',
    ...(peer?.certificateThumbprint && { certificateThumbprint: peer.certificateThumbprint }),
    ...traceOf(evidence),
  };
}

/** What the bundle says about a proven identity; undefined for one nobody declared: unknown agents get nothing. */
export function principalOf(bundle: Bundle, identity: ProvenIdentity): Principal | undefined {
  if (identity.kind === 'person') return { kind: 'person', identity };
  const declaration = findWorkload(bundle, identity.spiffeId);
  if (declaration) {
    return declaration.retired ? undefined : { kind: declaration.role, identity, declaration };
  }
  const resources = resourcesOwnedBy(bundle, identity.spiffeId);
  return resources.length > 0 ? { kind: 'tool', identity, resources } : undefined;
}

export function currentBundle(parts: Parts): Bundle {
  const prepared = parts.policies.current();
  if (!prepared) throw new BrokerError('unavailable', 'No bundle is loaded yet.', { retryAfterSeconds: 1 });
  return prepared.bundle;
}

async function authenticateByOwnToken(
  parts: Parts,
  evidence: Evidence,
  authorization: NonNullable<Evidence['authorization']>,
): Promise<Caller> {
  let own: OwnToken;
  try {
    own = await readOwnToken(parts, authorization.token);
  } catch (error) {
    throw tokenRefused(error);
  }
  const { claims } = own;
  if (claims.aud !== parts.settings.issuer) {
    throw new BrokerError('token_refused', 'The token is refused.', {
      reason: `audience ${claims.aud}`,
      hint: 'A token for a tool is worth nothing here: send your own identity.',
    });
  }
  if (own.dead) throw new BrokerError('token_refused', 'The token is refused.', { reason: own.dead });
  const binding = await provePossession(parts, evidence, authorization, claims);
  const principal = principalOfClaims(currentBundle(parts), claims, own);
  if (!principal) throw new BrokerError('token_refused', 'The token is refused.', { reason: 'no longer declared' });
  return {
    principal,
    name: nameOf(principal.identity),
    bound: binding.binding !== 'none' && principal.kind === 'person',
    token: claims,
    ...binding,
    ...traceOf(evidence),
  };
}

/** The sender constraint of a bound token (RFC 9449 section 7, RFC 8705 section 3). */
async function provePossession(
  parts: Parts,
  evidence: Evidence,
  authorization: NonNullable<Evidence['authorization']>,
  claims: TaskClaims,
): Promise<Pick<Caller, 'binding' | 'dpopThumbprint' | 'certificateThumbprint'>> {
  const refused = (reason: string) => new BrokerError('token_refused', 'The token is refused.', { reason });
  const { cnf } = claims;
  if (!cnf) {
    if (authorization.scheme !== 'Bearer') throw refused('the scheme is DPoP and the token is not bound');
    return { binding: 'none' };
  }
  if ('jkt' in cnf) {
    if (authorization.scheme !== 'DPoP') throw refused('a DPoP-bound token was sent as Bearer');
    const jkt = await proveDpop(parts, evidence, authorization.token);
    if (jkt !== cnf.jkt) throw refused('the DPoP key is another one');
    return { binding: 'dpop', dpopThumbprint: jkt };
  }
  const thumbprint = evidence.peer ? parts.identity.x509(evidence.peer).certificateThumbprint : undefined;
  if (thumbprint === undefined || thumbprint !== cnf['x5t#S256']) throw refused('the certificate is another one');
  return { binding: 'mtls', certificateThumbprint: thumbprint };
}

/** Checks the request's DPoP proof, once: it is used up in Redis, for all brokers. Returns the key's thumbprint. */
export async function proveDpop(parts: Parts, evidence: Evidence, accessToken?: string): Promise<string> {
  const nowMs = parts.clock.now();
  const nonces = dpopNonces(parts.cellKey);
  try {
    const proof = verifyDpop({
      proof: evidence.dpop ?? '',
      method: evidence.method,
      url: evidence.url,
      nowMs,
      windowMs: parts.settings.dpopWindowMs,
      ...(accessToken !== undefined && { accessToken }),
      nonce: (given) => (given === undefined ? !parts.settings.dpopNonceRequired : nonces.accepts(given, nowMs)),
    });
    if (!(await parts.replayGuard.once(`dpop:${proof.replayKey}`, proof.replayUntilMs, nowMs))) {
      throw new DpopRefused('claims', 'the proof was used before');
    }
    return proof.jkt;
  } catch (error) {
    if (!(error instanceof DpopRefused)) throw error;
    if (error.reason === 'nonce') {
      throw new BrokerError('dpop_nonce_required', 'The DPoP proof needs the nonce sent with this reply.', {
        dpopNonce: nonces.current(nowMs),
      });
    }
    throw new BrokerError('dpop_invalid', 'The DPoP proof was not accepted.', { reason: error.message });
  }
}

function principalOfClaims(bundle: Bundle, claims: TaskClaims, own: OwnToken): Principal | undefined {
  const expiresAtMs = claims.exp * 1000;
  const keyId = own.lease?.identityKeyId ?? '';
  if (claims.mayfly.roles) {
    const at = claims.sub.indexOf('#');
    const identity: ProvenPerson = {
      kind: 'person',
      proof: 'operator-token',
      issuer: claims.sub.slice(0, at),
      subject: claims.sub.slice(at + 1),
      roles: claims.mayfly.roles,
      issuedAtMs: claims.iat * 1000,
      expiresAtMs,
      keyId,
    };
    return { kind: 'person', identity };
  }
  const spiffeId = parseSpiffeId(claims.client_id);
  if (!spiffeId) return undefined;
  const identity: ProvenWorkload = {
    kind: 'workload',
    proof: 'task-token',
    spiffeId,
    trustDomain: trustDomainOf(spiffeId),
    expiresAtMs,
    keyId,
    attributes: {},
  };
  return principalOf(bundle, identity);
}

function traceOf(evidence: Evidence): Pick<Caller, 'requestId' | 'traceId'> {
  return { requestId: evidence.requestId, ...(evidence.traceId && { traceId: evidence.traceId }) };
}
