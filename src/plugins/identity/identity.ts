import type { ProvenIdentity, ProvenPerson, ProvenWorkload } from '../../core/identity.js';
import { FOREIGN_KID, JwsRefused, parseCompactJws } from '../../core/jws.js';
import { parseSpiffeId, trustDomainOf } from '../../core/spiffe-id.js';
import type { Clock } from '../../core/time.js';
import { type FollowedBundles, type FollowedSource, followBundles } from './bundles.js';
import type { IdentityConfig, OidcIssuer, TrustDomainConfig } from './config.js';
import type { IdentityEvent, IdentityProof, PeerCertificates, TrustBundle } from './contract.js';
import { CLOCK_SKEW_MS, type ForeignJws, type VerifiedJwt } from './jwt-svid.js';
import { refuse, unavailable } from './refusal.js';
import { identityKinds } from './registry.js';
import { keyOfBytes, ProofMemory } from './remember.js';
import { jwksFileSource } from './sources/file.js';
import { discoverySource, jwksUriSource } from './sources/https-web.js';
import { createBundleSource } from './sources/registry.js';
import { type BundleSource, realTimer, type SetTimer, type SourceDeps } from './sources/source.js';
import { claimedSpiffeId } from './x509-svid.js';

export interface IdentityDeps {
  clock: Clock;
  /** The broker's issuer: the audience every token has to name, alone. */
  issuer: string;
  observe?: (event: IdentityEvent) => void;
  setTimer?: SetTimer;
}

const TOKEN_BYTES_MAX = 8192;
/** Header names of tokens that others made. `x5t` is what some OIDC issuers add; a JWT-SVID with it is refused. */
const FOREIGN_PROFILE = { headerNames: ['alg', 'kid', 'typ', 'x5t'] as const, kid: FOREIGN_KID };

/**
 * The configured identity: starts to follow every bundle and key set, and proves who is asking against them. Resolves when
 * each source was looked at once; one that is down only makes its own domain `unavailable`.
 */
export async function createIdentity(
  config: IdentityConfig,
  deps: IdentityDeps,
): Promise<{ proof: IdentityProof; bundles: FollowedBundles }> {
  if (config.oidc_issuers.some(({ issuer }) => issuer === deps.issuer)) {
    throw new Error('identity.oidc_issuers: the broker cannot register itself; its tokens are checked elsewhere');
  }
  const sourceDeps: SourceDeps = { setTimer: deps.setTimer ?? realTimer };
  const domains: Promise<FollowedSource>[] = config.trust_domains.map(async ({ name, source }) => ({
    name,
    source: await createBundleSource(source, name, sourceDeps),
  }));
  const issuers = config.oidc_issuers.map((issuer) => ({ name: issuer.issuer, source: keySource(issuer, sourceDeps) }));
  const bundles = await followBundles([...(await Promise.all(domains)), ...issuers], { ...deps, ...sourceDeps });
  return { proof: identityProof(config, bundles, deps), bundles };
}

function keySource({ issuer, keys }: OidcIssuer, deps: SourceDeps): BundleSource {
  if ('jwks_file' in keys) return jwksFileSource(keys.jwks_file, deps);
  if ('jwks_uri' in keys) return jwksUriSource(keys, deps);
  return discoverySource(issuer, keys, deps);
}

/** The checks alone, over bundles that somebody else follows. */
export function identityProof(
  config: IdentityConfig,
  bundles: { get(name: string): TrustBundle | undefined },
  { clock, issuer: audience }: Pick<IdentityDeps, 'clock' | 'issuer'>,
): IdentityProof {
  const domains = new Map<string, TrustDomainConfig>(config.trust_domains.map((one) => [one.name, one]));
  const issuers = new Map<string, OidcIssuer>(config.oidc_issuers.map((one) => [one.issuer, one]));
  const jwtMemory = new ProofMemory<ProvenIdentity>({ skewMs: CLOCK_SKEW_MS });
  const x509Memory = new ProofMemory<ProvenWorkload>();
  const bundleOf = (name: string) => bundles.get(name);

  const bundleFor = (name: string): TrustBundle =>
    bundles.get(name) ?? unavailable(`the bundle of ${name} was never fetched`);

  const verify = (jws: ForeignJws, nowMs: number): { verified: VerifiedJwt<ProvenIdentity>; bundle: TrustBundle } => {
    const { iss, sub } = jws.payload;
    const issuer = typeof iss === 'string' ? issuers.get(iss) : undefined;
    if (issuer) {
      const bundle = bundleFor(issuer.issuer);
      return { verified: identityKinds.oidc.verify(jws, { issuer, bundle, audience, nowMs }), bundle };
    }
    const id = parseSpiffeId(sub);
    if (!id) refuse('iss is not registered and sub is no SPIFFE ID');
    const domain = domains.get(trustDomainOf(id));
    if (!domain) refuse('the trust domain is not configured');
    const bundle = bundleFor(domain.name);
    const lifeMsMax = domain.svid_ttl_seconds_max * 1000;
    return { verified: identityKinds['jwt-svid'].verify(jws, { bundle, audience, nowMs, lifeMsMax }), bundle };
  };

  const jwt = (token: string): ProvenIdentity => {
    if (token.length > TOKEN_BYTES_MAX) refuse('the token: the token is too long');
    const nowMs = clock.now();
    const key = keyOfBytes(token);
    const known = jwtMemory.recall(key, nowMs, bundleOf);
    if (known) return known;
    const { verified, bundle } = verify(parse(token), nowMs);
    const { identity, notBeforeMs } = verified;
    jwtMemory.keep(key, { value: frozen(identity), bundle, notBeforeMs, expiresAtMs: identity.expiresAtMs });
    return identity;
  };

  return {
    jwt: async (token) => jwt(token),
    async workloadJwt(token) {
      const identity = jwt(token);
      if (identity.kind !== 'workload') refuse('a person’s token where a workload has to prove itself');
      return identity;
    },
    async personJwt(token): Promise<ProvenPerson> {
      const identity = jwt(token);
      if (identity.kind !== 'person') refuse('a workload’s token where a person has to prove themself');
      return identity;
    },
    x509(peer: PeerCertificates) {
      const nowMs = clock.now();
      const key = keyOfBytes(peer.leaf.raw, ...peer.chain.map((one) => one.raw));
      const known = x509Memory.recall(key, nowMs, bundleOf);
      if (known) return known;
      const domain = domains.get(trustDomainOf(claimedSpiffeId(peer.leaf)));
      if (!domain) refuse('the trust domain is not configured');
      const bundle = bundleFor(domain.name);
      const { identity, notBeforeMs } = identityKinds['x509-svid'].verify(peer, {
        bundle,
        nowMs,
        lenientEku: domain.lenient_eku,
      });
      x509Memory.keep(key, { value: frozen(identity), bundle, notBeforeMs, expiresAtMs: identity.expiresAtMs });
      return identity;
    },
  };
}

/** What is remembered is handed to many callers. */
function frozen<Identity extends ProvenIdentity>(identity: Identity): Identity {
  Object.freeze(identity.kind === 'workload' ? identity.attributes : identity.roles);
  return Object.freeze(identity);
}

function parse(token: string): ForeignJws {
  try {
    return parseCompactJws(token, FOREIGN_PROFILE);
  } catch (error) {
    if (!(error instanceof JwsRefused)) throw error;
    const hint = error.message === 'kid is missing' ? 'The token needs a kid in its header.' : undefined;
    refuse(`the token: ${error.message}`, hint);
  }
}
