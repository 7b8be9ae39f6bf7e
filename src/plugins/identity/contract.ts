import type { X509Certificate } from 'node:crypto';
import type { ProvenIdentity, ProvenPerson, ProvenWorkload } from '../../core/identity.js';
import type { VerificationKey } from '../../core/jwk.js';

/** What a TLS peer presented: the leaf and the intermediates as DER, leaf first. */
export interface PeerCertificates {
  leaf: X509Certificate;
  chain: X509Certificate[];
}

/**
 * Proves who is asking. Every method checks again on each call against the bundles as they are now; results may be
 * remembered by their exact bytes until the earliest of their expiry and any change of their bundle, never longer.
 *
 * Failures throw `BrokerError('identity_rejected')` with one public text for all reasons ("The identity was not
 * accepted."), the real reason in `detail.reason` (SPF-…, issuer unknown, expired …), and a `hint` only where it
 * tells an honest caller what to fix without helping a forger (wrong audience, expired, no kid).
 * A trust domain whose bundle was never fetched is `unavailable`. Nothing is fetched because a token says so.
 */
export interface IdentityProof {
  /**
   * A JWT: a JWT-SVID when its `sub` is a SPIFFE ID of a configured trust domain and it has no registered `iss`; an OIDC
   * token when its `iss` is exactly a registered issuer. `aud` must be exactly the broker's issuer, alone.
   */
  jwt(token: string): Promise<ProvenIdentity>;
  /** A JWT that must be a workload's (client assertions of type jwt-spiffe, actor tokens). */
  workloadJwt(token: string): Promise<ProvenWorkload>;
  /** A JWT that must be a person's, of an issuer registered as `people`. */
  personJwt(token: string): Promise<ProvenPerson>;
  /** An X.509-SVID from the TLS layer, validated by us against the bundle of the trust domain in its URI SAN. */
  x509(peer: PeerCertificates): ProvenWorkload;
}

/**
 * One trust domain's (or OIDC issuer's) keys as one source delivered them. Never merged with another's (SPF-B-6). A change of
 * its keys makes a new object; a fetch that brought the same ones only moves `fetchedAtMs`.
 */
export interface TrustBundle {
  /** The trust domain's name, or the issuer of an OIDC key set. */
  trustDomain: string;
  sequence?: number;
  refreshHintMs?: number;
  /** JWT authorities by kid, each admitted (core/jwk.ts). */
  jwtKeys: Map<string, VerificationKey>;
  /** X.509 authorities. */
  x509Authorities: X509Certificate[];
  fetchedAtMs: number;
}

/**
 * Where bundles come from and what they are now. Sources refresh at the bundle's hint (default 5 min); a failed fetch or a lower
 * sequence changes nothing. `onKeysGone` is called with key ids (see ProvenWorkload.keyId) that left a bundle, so that the broker
 * can lock them, and `onKeysBack` with those that appeared after the first fetch: a lock on one of them, whichever process set it,
 * can be lifted. A kid that now names another key is first gone, then back. Both are called after the new bundle is in force.
 */
export interface TrustBundles {
  /** Of a trust domain, or of an OIDC issuer by its URL. Undefined: never fetched, or not configured. */
  get(name: string): TrustBundle | undefined;
  /** One line per trust domain and issuer for `doctor` and readiness. */
  status(): { name: string; source: string; ok: boolean; fetchedAtMs?: number; problem?: string; keys: number }[];
  /** Every key id that is trusted now. */
  keyIds(): string[];
  onKeysGone(listener: (keyIds: string[]) => void): void;
  onKeysBack(listener: (keyIds: string[]) => void): void;
  close(): Promise<void>;
}

/** What operators want to know about the sources of trust; never a secret, never a token. */
export type IdentityEvent =
  | { type: 'bundle_changed'; name: string; keys: number; sequence?: number }
  | { type: 'bundle_failed'; name: string; problem: string }
  | { type: 'bundle_entry_ignored'; name: string; problem: string };
