import { parseSpiffeId, type SpiffeId, type TrustDomain } from './spiffe-id.js';
import type { EpochMs } from './time.js';

/**
 * Who somebody proved to be. A workload and a person are two things and never stand in for each other; the
 * model an agent runs is a third, an attribute of its declaration (core/agent.ts).
 */
export type ProvenIdentity = ProvenWorkload | ProvenPerson;

export interface ProvenWorkload {
  kind: 'workload';
  /** `task-token`: it came with a token of ours whose only audience is the issuer. */
  proof: 'jwt-svid' | 'x509-svid' | 'oidc' | 'task-token';
  spiffeId: SpiffeId;
  trustDomain: TrustDomain;
  /** The proof ends here, and nothing minted from it may live longer. */
  expiresAtMs: EpochMs;
  /**
   * The key that signed the proof: `<trust domain>#<kid>` (JWT), `<trust domain>#<SHA-256 of the CA's SubjectPublicKeyInfo, base64url>`
   * (X.509), `<issuer>#<kid>` (OIDC). A selector can name it, and it is locked when it leaves its bundle.
   */
  keyId: string;
  /** RFC 8705 thumbprint of the presented certificate; only for `x509-svid`. */
  certificateThumbprint?: string;
  /** What the proof carries beyond the identity (OIDC: the claims its rule keeps). */
  attributes: Record<string, string>;
}

export interface ProvenPerson {
  kind: 'person';
  /** `operator-token`: the five-minute token that a person's own token was exchanged for. */
  proof: 'oidc' | 'operator-token';
  issuer: string;
  subject: string;
  /** From the issuer's registration: group to role, such as `operator`, `approver`, `auditor`, `security`. */
  roles: string[];
  issuedAtMs: EpochMs;
  authenticatedAtMs?: EpochMs;
  expiresAtMs: EpochMs;
  keyId: string;
  /** `may_act.sub` of the token (RFC 8693 section 4.4): who may act for this person. Absent: policy alone says. */
  mayAct?: string[];
}

/** The one string that names somebody in records, quotas and selectors: the SPIFFE ID, or `<issuer>#<subject>`. */
export function nameOf(identity: ProvenIdentity): string {
  return identity.kind === 'workload' ? identity.spiffeId : `${identity.issuer}#${identity.subject}`;
}

/** Whether a text can be what `nameOf` gives. */
export function isName(text: string): boolean {
  return parseSpiffeId(text) !== undefined || /^(?!spiffe:)[^#]+#./.test(text);
}
