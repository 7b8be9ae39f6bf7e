import type { TaskClaims } from '../core/claims.js';
import { BrokerError } from '../core/errors.js';
import { nameOf } from '../core/identity.js';
import { newId } from '../core/ids.js';
import type { LeaseRecord } from '../core/lease.js';
import { Secret } from '../core/secret.js';
import { ownFacts } from '../core/selector.js';
import { shortest } from '../core/time.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { record, recordingRefusals, refusedCommit } from './refusal.js';
import type { Requester } from './requester.js';
import { ACCESS_TOKEN_TYPE, audienceOf, type Minted, type MintRequest } from './token-request.js';

/**
 * A person's token for a five-minute operator token: bound to the person's DPoP key, audience this issuer alone, no task. It is what locks,
 * revocations, bundles and keys are moved with. Which of those, policy says at each.
 */
export async function mintOperatorToken(parts: Parts, request: MintRequest, requester: Requester): Promise<Minted> {
  const { person, confirmation } = requester;
  if (!person)
    throw new BrokerError('identity_rejected', 'The client was not authenticated.', { hint: 'Send an identity.' });
  const caller: Caller = {
    principal: { kind: 'person', identity: person },
    name: nameOf(person),
    bound: requester.binding !== 'none',
    binding: requester.binding,
    requestId: request.evidence.requestId,
  };
  return recordingRefusals(parts, caller, { action: 'mint', resource: parts.settings.issuer }, async () => {
    const audience = audienceOf(request) ?? parts.settings.issuer;
    if (
      audience !== parts.settings.issuer ||
      request.scope !== undefined ||
      request.authorizationDetails !== undefined
    ) {
      throw new BrokerError('denied', 'A person has no task tokens.', {
        hint: 'A person exchanges for an operator token (no scope, no task, resource = this issuer); an agent adds its own identity as actor_token.',
      });
    }
    if (requester.binding !== 'dpop' || !confirmation) {
      throw new BrokerError('dpop_invalid', 'An operator token is bound to a key: send a DPoP proof.', {
        hint: 'RFC 9449: the DPoP header.',
      });
    }
    const nowMs = parts.clock.now();
    if (nowMs - person.issuedAtMs > parts.settings.personTokenAgeMsMax) {
      throw new BrokerError('subject_rejected', 'The token is too old.', {
        hint: 'Sign in again and fetch a new one.',
      });
    }
    const reading = await parts.ledger.read({ nowMs });
    if (!reading) throw new BrokerError('unavailable', 'The store is not ready.', { retryAfterSeconds: 1 });
    const iat = Math.floor(nowMs / 1000);
    const exp = Math.floor(shortest(nowMs + parts.settings.operatorTtlMs, person.expiresAtMs) / 1000);
    const key = parts.keys.active();
    const lease: LeaseRecord = {
      id: newId('lse', parts.settings.cell, nowMs),
      kind: 'token',
      path: [],
      agent: caller.name,
      actors: [],
      resource: audience,
      tools: [],
      position: reading.position,
      generations: [],
      bundle: reading.bundle,
      keyId: key.kid,
      identityKeyId: person.keyId,
      binding: 'dpop',
      state: 'active',
      createdAtMs: nowMs,
      expiresAtMs: exp * 1000,
    };
    const claims: TaskClaims = {
      iss: parts.settings.issuer,
      sub: caller.name,
      aud: audience,
      client_id: caller.name,
      iat,
      exp,
      jti: lease.id,
      scope: '',
      authorization_details: [],
      cnf: confirmation,
      mayfly: {
        cell: parts.settings.cell,
        path: [],
        pos: reading.position,
        sel: ownFacts(lease).map(([kind, value]) => parts.selectorHash(kind, value)),
        bundle: reading.bundle,
        roles: person.roles,
      },
    };
    const outcome = await parts.ledger.commitLease({
      lease,
      basis: { position: reading.position, bundle: reading.bundle, generations: [] },
      quotas: parts.settings.quotas,
      nowMs,
      audit: record(parts, 'token.minted', caller, {
        lease: lease.id,
        action: 'mint',
        resource: audience,
        effect: 'allow',
        bundle: reading.bundle,
        detail: { operator: true, roles: person.roles, expires_at: new Date(lease.expiresAtMs).toISOString() },
      }),
    });
    if (outcome.outcome === 'stale')
      throw new BrokerError('unavailable', 'Something just changed; try again.', { retryAfterSeconds: 1 });
    if (outcome.outcome !== 'committed') throw refusedCommit(outcome);
    return {
      accessToken: new Secret(parts.signer.sign(key, 'at+jwt', claims)),
      tokenType: 'DPoP',
      expiresInSeconds: exp - iat,
      scope: '',
      authorizationDetails: [],
      leaseId: lease.id,
      issuedTokenType: ACCESS_TOKEN_TYPE,
    };
  });
}
