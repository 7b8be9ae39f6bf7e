import type { BrokerError, ErrorCode } from '../../src/core/errors.js';
import type { ProvenIdentity } from '../../src/core/identity.js';
import { type BundleContent, readJwks, readSpiffeBundle } from '../../src/plugins/identity/bundle-document.js';
import { type IdentityConfigInput, identityConfig } from '../../src/plugins/identity/config.js';
import type { IdentityProof, TrustBundle } from '../../src/plugins/identity/contract.js';
import { identityProof } from '../../src/plugins/identity/identity.js';
import type { IdentityKind } from '../../src/plugins/identity/registry.js';
import {
  bundleDocument,
  certificateAuthority,
  type Json,
  jwtAuthority,
  NOW_MS,
  NOW_SECONDS,
} from '../fakes/issuing.js';
import { VirtualClock } from '../fakes/virtual-clock.js';

const BROKER = 'https://mayfly.example';
const DOMAIN = 'prod.example';
const ISSUER = 'https://ci.example';
const STAFF = 'https://staff.example';
const clock = new VirtualClock(NOW_MS);

const config: IdentityConfigInput = {
  trust_domains: [
    { name: DOMAIN, source: { kind: 'file', path: 'unused' } },
    { name: 'never.example', source: { kind: 'file', path: 'unused' } },
  ],
  oidc_issuers: [
    {
      issuer: ISSUER,
      kind: 'workload',
      keys: { jwks_file: 'unused' },
      trust_domain: 'ci.prod.example',
      rules: [{ match: { project: '7' }, spiffe_path: '/ci/{project}', immutable: 'project' }],
    },
    { issuer: STAFF, kind: 'people', keys: { jwks_file: 'unused' }, roles: { sre: 'operator' } },
  ],
};

/** One row per kind: a new kind does not compile until it has one. */
interface Harness {
  /** A proof that holds now, made from the given authority number: 0 is trusted, 1 is a stranger. */
  present(proof: IdentityProof, options: { authority: 0 | 1; endsAtMs: number }): Promise<ProvenIdentity>;
  /** The name its bundle goes by, and that bundle under authority 0 or 1. */
  name: string;
  bundle(authority: 0 | 1): Promise<BundleContent>;
  expected: Partial<ProvenIdentity>;
}

const cas = [
  certificateAuthority(DOMAIN, { subject: 'CN=authority' }),
  certificateAuthority(DOMAIN, { subject: 'CN=authority' }),
] as const;
const jwt = (authority: 0 | 1) => jwtAuthority({ number: authority });
const times = (endsAtMs: number): Json => ({ iat: NOW_SECONDS, exp: endsAtMs / 1000, aud: BROKER });

const rows: Record<IdentityKind, Harness> = {
  'jwt-svid': {
    name: DOMAIN,
    present: (proof, { authority, endsAtMs }) =>
      proof.jwt(jwt(authority).sign({ sub: `spiffe://${DOMAIN}/agent/a`, ...times(endsAtMs) })),
    bundle: async (authority) => readSpiffeBundle(bundleDocument({ jwt: [jwt(authority)] })),
    expected: {
      kind: 'workload',
      proof: 'jwt-svid',
      spiffeId: `spiffe://${DOMAIN}/agent/a` as never,
      keyId: `${DOMAIN}#key-1`,
    },
  },
  'x509-svid': {
    name: DOMAIN,
    async present(proof, { authority, endsAtMs }) {
      const ca = await cas[authority];
      const leaf = await ca.issue({ uris: [`spiffe://${DOMAIN}/agent/a`], notAfterMs: endsAtMs });
      return proof.x509({ leaf: leaf.certificate, chain: [] });
    },
    bundle: async (authority) => readSpiffeBundle(bundleDocument({ x509: [await cas[authority]] })),
    expected: { kind: 'workload', proof: 'x509-svid', spiffeId: `spiffe://${DOMAIN}/agent/a` as never },
  },
  oidc: {
    name: ISSUER,
    present: (proof, { authority, endsAtMs }) =>
      proof.jwt(jwt(authority).sign({ iss: ISSUER, sub: 'job:1', project: '7', ...times(endsAtMs) })),
    bundle: async (authority) => readJwks(JSON.stringify({ keys: [jwt(authority).jwk] }), ['sig']),
    expected: {
      kind: 'workload',
      proof: 'oidc',
      spiffeId: 'spiffe://ci.prod.example/ci/7' as never,
      keyId: `${ISSUER}#key-1`,
    },
  },
};

async function failure(run: () => Promise<unknown>): Promise<BrokerError | undefined> {
  try {
    await run();
    return undefined;
  } catch (error) {
    return error as BrokerError;
  }
}

const codeOf = async (run: () => Promise<unknown>): Promise<ErrorCode | undefined> => (await failure(run))?.code;

describe.each(Object.entries(rows))('%s keeps the promises of IdentityProof', (_kind, row) => {
  const bundles = new Map<string, TrustBundle>();
  let proof: IdentityProof;
  const endsAtMs = NOW_MS + 600_000;

  const trust = async (authority: 0 | 1) => {
    const content = await row.bundle(authority);
    bundles.set(row.name, { trustDomain: row.name, ...content, fetchedAtMs: clock.now() });
  };

  beforeEach(async () => {
    clock.set(NOW_MS);
    bundles.clear();
    proof = identityProof(identityConfig.parse(config), bundles, { clock, issuer: BROKER });
    await trust(0);
  });

  it('proves an identity that its bundle vouches for', async () => {
    const identity = await row.present(proof, { authority: 0, endsAtMs });
    expect(identity).toMatchObject({ ...row.expected, expiresAtMs: endsAtMs });
    expect(identity.keyId.startsWith(`${row.name}#`)).toBe(true);
  });

  it('refuses a stranger’s signature with the one public text', async () => {
    const error = await failure(() => row.present(proof, { authority: 1, endsAtMs }));
    expect(error).toMatchObject({ code: 'identity_rejected', message: 'The identity was not accepted.' });
    expect(error?.detail.reason).toBeDefined();
    expect(error?.detail.hint).toBeUndefined();
  });

  it('is unavailable, never an allow, while its bundle was never fetched', async () => {
    bundles.clear();
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBe('unavailable');
  });

  it('refuses everybody under an empty bundle (SPF-B-3), also who was remembered', async () => {
    await row.present(proof, { authority: 0, endsAtMs });
    bundles.set(row.name, { trustDomain: row.name, jwtKeys: new Map(), x509Authorities: [], fetchedAtMs: clock.now() });
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBe('identity_rejected');
  });

  it('refuses under another bundle who was remembered under this one, and the other way round', async () => {
    await row.present(proof, { authority: 0, endsAtMs });
    await trust(1);
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBe('identity_rejected');
    expect(await codeOf(() => row.present(proof, { authority: 1, endsAtMs }))).toBeUndefined();
  });

  it('refuses at the very millisecond of the end, remembered or not', async () => {
    clock.set(endsAtMs - 1);
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBeUndefined();
    clock.set(endsAtMs);
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBe('identity_rejected');
  });

  it('refuses when the clock stands long before the beginning, remembered or not', async () => {
    await row.present(proof, { authority: 0, endsAtMs });
    clock.set(NOW_MS - 3_600_000);
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBe('identity_rejected');
  });

  it('uses the keys of its own name and of no other (SPF-B-6)', async () => {
    const content = await row.bundle(0);
    bundles.set(row.name, { trustDomain: row.name, jwtKeys: new Map(), x509Authorities: [], fetchedAtMs: 0 });
    for (const name of [DOMAIN, ISSUER, STAFF, 'never.example', 'ci.prod.example']) {
      if (name !== row.name) bundles.set(name, { trustDomain: name, ...content, fetchedAtMs: 0 });
    }
    expect(await codeOf(() => row.present(proof, { authority: 0, endsAtMs }))).toBe('identity_rejected');
  });

  it('what it hands out cannot be changed by who gets it', async () => {
    const identity = await row.present(proof, { authority: 0, endsAtMs });
    expect(() => Object.assign(identity, { spiffeId: 'spiffe://prod.example/agent/b' })).toThrow(TypeError);
  });
});

describe('workloads and people never stand in for each other', () => {
  const bundles = new Map<string, TrustBundle>();
  const proof = identityProof(identityConfig.parse(config), bundles, { clock, issuer: BROKER });
  const person = () => jwt(0).sign({ iss: STAFF, sub: 'ada', groups: ['sre', 'other'], ...times(NOW_MS + 600_000) });
  const workload = () => jwt(0).sign({ sub: `spiffe://${DOMAIN}/agent/a`, ...times(NOW_MS + 600_000) });

  beforeEach(async () => {
    clock.set(NOW_MS);
    bundles.set(DOMAIN, { trustDomain: DOMAIN, ...(await rows['jwt-svid'].bundle(0)), fetchedAtMs: 0 });
    bundles.set(STAFF, { trustDomain: STAFF, ...(await rows.oidc.bundle(0)), fetchedAtMs: 0 });
  });

  it('proves a person with the roles their groups have', async () => {
    expect(await proof.personJwt(person())).toMatchObject({ kind: 'person', subject: 'ada', roles: ['operator'] });
  });

  it('refuses a person where a workload has to prove itself, and the other way round, remembered or not', async () => {
    for (let time = 0; time < 2; time += 1) {
      expect(await codeOf(() => proof.workloadJwt(person()))).toBe('identity_rejected');
      expect(await codeOf(() => proof.personJwt(workload()))).toBe('identity_rejected');
      expect(await codeOf(() => proof.workloadJwt(workload()))).toBeUndefined();
      expect(await codeOf(() => proof.personJwt(person()))).toBeUndefined();
    }
  });

  it('a SPIFFE ID as sub does not make a people issuer’s token a workload’s', async () => {
    const token = jwt(0).sign({ iss: STAFF, sub: `spiffe://${DOMAIN}/agent/a`, ...times(NOW_MS + 600_000) });
    expect(await proof.jwt(token)).toMatchObject({ kind: 'person' });
    expect(await codeOf(() => proof.workloadJwt(token))).toBe('identity_rejected');
  });
});

describe('nobody is believed who was not configured', () => {
  const bundles = new Map<string, TrustBundle>();
  const proof = identityProof(identityConfig.parse(config), bundles, { clock, issuer: BROKER });

  beforeEach(async () => {
    clock.set(NOW_MS);
    for (const name of [DOMAIN, ISSUER, 'other.example', 'https://other.example']) {
      bundles.set(name, { trustDomain: name, ...(await rows['jwt-svid'].bundle(0)), fetchedAtMs: 0 });
    }
  });

  it.each([
    ['another trust domain', { sub: 'spiffe://other.example/agent/a' }],
    ['the trust domain of an OIDC issuer’s workloads', { sub: 'spiffe://ci.prod.example/ci/7' }],
    ['an unregistered issuer', { iss: 'https://other.example', sub: 'job:1', project: '7' }],
    ['an issuer that differs by a slash', { iss: `${ISSUER}/`, sub: 'job:1', project: '7' }],
    ['an issuer that differs by case', { iss: 'https://CI.example', sub: 'job:1', project: '7' }],
    ['no issuer and no SPIFFE ID', { sub: 'job:1', project: '7' }],
    ['nothing at all', {}],
    ['an issuer in a list', { iss: [ISSUER], sub: 'job:1', project: '7' }],
  ])('%s', async (_name, claims) => {
    expect(await codeOf(() => proof.jwt(jwt(0).sign({ ...claims, ...times(NOW_MS + 600_000) })))).toBe(
      'identity_rejected',
    );
  });

  it('an unregistered iss beside a SPIFFE ID plays no part', async () => {
    const token = jwt(0).sign({
      iss: 'https://spire.example',
      sub: `spiffe://${DOMAIN}/agent/a`,
      ...times(NOW_MS + 600_000),
    });
    expect(await proof.jwt(token)).toMatchObject({ proof: 'jwt-svid' });
  });

  it('text that is no token', async () => {
    for (const text of ['', 'a', 'a.b.c', 'Bearer x', '{}', 'x'.repeat(100_000)]) {
      expect(await codeOf(() => proof.jwt(text))).toBe('identity_rejected');
    }
  });
});
