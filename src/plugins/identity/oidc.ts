import type { ProvenIdentity, ProvenPerson, ProvenWorkload } from '../../core/identity.js';
import { isEpochSeconds } from '../../core/jws.js';
import { trustDomainOf } from '../../core/spiffe-id.js';
import type { EpochMs } from '../../core/time.js';
import type { OidcIssuer, PeopleIssuer, WorkloadIssuer } from './config.js';
import type { TrustBundle } from './contract.js';
import { checkAudience, checkJwtTimes, checkSignature, type ForeignJws, type VerifiedJwt } from './jwt-svid.js';
import { applyRules, claimAt } from './oidc-rules.js';
import { refuse } from './refusal.js';

export interface OidcRules {
  issuer: OidcIssuer;
  bundle: TrustBundle;
  /** The broker's issuer: the only audience. */
  audience: string;
  nowMs: EpochMs;
}

const TYPES = new Set([undefined, 'JWT', 'at+jwt']);
const SUBJECT_CHARS_MAX = 255;
const GROUPS_MAX = 1000;

/**
 * Validates a token of a registered OIDC issuer. The registration says which algorithms, how long a token may live, whether
 * its tokens are workloads' or people's (never both), and what to read from them. Throws `identity_rejected`.
 */
export function verifyOidc(jws: ForeignJws, rules: OidcRules): VerifiedJwt<ProvenIdentity> {
  const { issuer, bundle } = rules;
  if (jws.payload['iss'] !== issuer.issuer || bundle.trustDomain !== issuer.issuer)
    refuse('OIDC: the keys are another issuer’s');
  if (!TYPES.has(jws.header.typ)) refuse('OIDC: typ is not JWT');
  if (!issuer.algorithms.some((one) => one === jws.header.alg))
    refuse('OIDC: the algorithm is not registered for this issuer');
  checkAudience(jws.payload['aud'], rules.audience);
  const ageMsMax = issuer.kind === 'people' ? issuer.token_age_seconds_max * 1000 : undefined;
  const times = checkJwtTimes(jws.payload, rules.nowMs, issuer.token_ttl_seconds_max * 1000, ageMsMax);
  const subject = jws.payload['sub'];
  if (typeof subject !== 'string' || subject === '' || subject.length > SUBJECT_CHARS_MAX)
    refuse('OIDC: sub is missing');
  checkSignature(jws, bundle);
  // A person's token may live longer than it may be used: it is over when it is too old.
  const expiresAtMs = Math.min(
    times.expiresAtMs,
    ageMsMax === undefined ? Number.POSITIVE_INFINITY : times.issuedAtMs + ageMsMax,
  );
  const common = { expiresAtMs, keyId: `${issuer.issuer}#${jws.header.kid}` };
  const identity =
    issuer.kind === 'workload'
      ? workloadOf(issuer, jws.payload, common)
      : personOf(issuer, jws.payload, { ...common, subject, issuedAtMs: times.issuedAtMs });
  return { identity, notBeforeMs: times.notBeforeMs };
}

function workloadOf(
  issuer: WorkloadIssuer,
  payload: Record<string, unknown>,
  common: { expiresAtMs: EpochMs; keyId: string },
): ProvenWorkload {
  const outcome = applyRules(issuer.rules, payload, issuer.trust_domain);
  if ('problem' in outcome) refuse(`OIDC: ${outcome.problem}`);
  return {
    kind: 'workload',
    proof: 'oidc',
    spiffeId: outcome.spiffeId,
    trustDomain: trustDomainOf(outcome.spiffeId),
    attributes: outcome.attributes,
    ...common,
  };
}

function personOf(
  issuer: PeopleIssuer,
  payload: Record<string, unknown>,
  common: { expiresAtMs: EpochMs; keyId: string; subject: string; issuedAtMs: EpochMs },
): ProvenPerson {
  const person: ProvenPerson = {
    kind: 'person',
    proof: 'oidc',
    issuer: issuer.issuer,
    roles: rolesOf(issuer, payload),
    ...common,
  };
  const { auth_time: authTime, may_act: mayAct } = payload;
  if (authTime !== undefined) {
    if (!isEpochSeconds(authTime) || authTime * 1000 > common.issuedAtMs)
      refuse('OIDC: auth_time is malformed or after iat');
    person.authenticatedAtMs = authTime * 1000;
  }
  if (mayAct !== undefined) person.mayAct = mayActOf(mayAct);
  return person;
}

/** Groups that the registration does not name give nothing. A groups claim of the wrong shape refuses: it may hide a removal. */
function rolesOf(issuer: PeopleIssuer, payload: Record<string, unknown>): string[] {
  const groups = claimAt(payload, issuer.groups_claim);
  if (groups === undefined) return [];
  if (!Array.isArray(groups) || groups.length > GROUPS_MAX || !groups.every((group) => typeof group === 'string')) {
    refuse('OIDC: the groups claim is no list of names');
  }
  const roles = new Set<string>();
  for (const group of groups) {
    if (!Object.hasOwn(issuer.roles, group)) continue;
    const given = issuer.roles[group] ?? [];
    for (const role of typeof given === 'string' ? [given] : given) roles.add(role);
  }
  return [...roles].sort();
}

/** RFC 8693 section 4.4: an object with the `sub` of who may act. Anything else is refused, because it was meant to forbid something. */
function mayActOf(claim: unknown): string[] {
  const subject = typeof claim === 'object' && claim !== null ? (claim as Record<string, unknown>)['sub'] : undefined;
  if (typeof subject !== 'string' || subject === '') refuse('OIDC: may_act has no sub');
  return [subject];
}
