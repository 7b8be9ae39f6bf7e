import { readJwks } from '../../../../src/plugins/identity/bundle-document.js';
import { type IdentityConfigInput, identityConfig } from '../../../../src/plugins/identity/config.js';
import type { TrustBundle } from '../../../../src/plugins/identity/contract.js';
import { identityProof } from '../../../../src/plugins/identity/identity.js';
import { type Json, jwtAuthority, NOW_MS, NOW_SECONDS } from '../../../fakes/issuing.js';
import { VirtualClock } from '../../../fakes/virtual-clock.js';

const BROKER = 'https://mayfly.example';
const CI = 'https://ci.example';
const STAFF = 'https://staff.example';
const authority = jwtAuthority();
const base: Json = { sub: 'subject', aud: BROKER, iat: NOW_SECONDS, exp: NOW_SECONDS + 300 };

type IssuerInput = NonNullable<IdentityConfigInput['oidc_issuers']>[number];
type Rule = Extract<IssuerInput, { kind: 'workload' }>['rules'][number];

function proofOf(issuer: IssuerInput, keys = [authority], clock = new VirtualClock(NOW_MS)) {
  const content = readJwks(JSON.stringify({ keys: keys.map(({ jwk }) => jwk) }), ['sig']);
  const bundle: TrustBundle = { trustDomain: issuer.issuer, ...content, fetchedAtMs: NOW_MS };
  const config = identityConfig.parse({ oidc_issuers: [issuer] });
  return identityProof(config, new Map([[issuer.issuer, bundle]]), { clock, issuer: BROKER });
}

const workloads = (...rules: Rule[]) =>
  proofOf({ issuer: CI, kind: 'workload', keys: { jwks_file: 'unused' }, trust_domain: 'ci.example', rules });
const people = (more: object = {}, keys = [authority], clock?: VirtualClock) =>
  proofOf({ issuer: STAFF, kind: 'people', keys: { jwks_file: 'unused' }, ...more } as IssuerInput, keys, clock);

async function reasonOf(proof: ReturnType<typeof proofOf>, token: string): Promise<string | undefined> {
  try {
    await proof.jwt(token);
    return undefined;
  } catch (error) {
    const { code, detail } = error as { code: string; detail: { reason: string } };
    expect(code).toBe('identity_rejected');
    return detail.reason;
  }
}

describe('a rule turns whole claim values into a SPIFFE ID', () => {
  const rule: Rule = {
    match: { repository_owner_id: '9919', environment: ['prod', 'staging'] },
    spiffe_path: '/github/{repository_id}/{environment}/deploy',
    immutable: 'repository_owner_id',
    attributes: ['repository', 'run_attempt', 'missing', 'labels', 'long'],
  };
  const claims: Json = {
    ...base,
    iss: CI,
    repository_owner_id: '9919',
    repository_id: '42',
    environment: 'prod',
    repository: 'acme/app',
    run_attempt: 2,
    labels: ['a'],
    long: 'x'.repeat(257),
  };
  const proof = workloads(rule);
  const refusalOf = (more: Json, header?: Json) => reasonOf(proof, authority.sign({ ...claims, ...more }, header));

  it('fills one segment per claim and keeps the attributes it names', async () => {
    expect(await proof.workloadJwt(authority.sign(claims))).toEqual({
      kind: 'workload',
      proof: 'oidc',
      spiffeId: 'spiffe://ci.example/github/42/prod/deploy',
      trustDomain: 'ci.example',
      expiresAtMs: NOW_MS + 300_000,
      keyId: `${CI}#key-1`,
      attributes: { repository: 'acme/app', run_attempt: '2' },
    });
  });

  it.each([
    ['another value', { environment: 'dev' }],
    ['a longer value', { environment: 'production' }],
    ['a value with a suffix', { repository_owner_id: '99190' }],
    ['a value with a prefix', { repository_owner_id: '19919' }],
    ['the value as a number', { repository_owner_id: 9919 }],
    ['the value in a list', { repository_owner_id: ['9919'] }],
    ['another case', { environment: 'Prod' }],
    ['a trailing newline', { environment: 'prod\n' }],
    ['no value', { environment: undefined }],
    ['null', { environment: null }],
    ['a wildcard', { environment: '*' }],
  ])('%s does not match', async (_name, more) => {
    expect(await refusalOf(more)).toBe('OIDC: no rule matches the claims');
  });

  it.each(['', '.', '..', 'a/b', '../x', 'a b', 'a%2fb', 'ä', 'a\u0000', 'a?b', '*', '{environment}', 'a\\b'])(
    'a claim %p fills no segment, and is not cleaned up',
    async (repository_id) => {
      expect(await refusalOf({ repository_id })).toMatch(/does not fill one path segment|NUL/);
    },
  );

  it.each([undefined, null, true, 1.5, ['42'], { id: '42' }, Number.MAX_SAFE_INTEGER + 1])(
    'a claim of %p fills no segment',
    async (repository_id) => {
      expect(await refusalOf({ repository_id })).toBeDefined();
    },
  );

  it('a whole number fills a segment', async () => {
    expect(await proof.jwt(authority.sign({ ...claims, repository_id: 42 }))).toMatchObject({
      spiffeId: 'spiffe://ci.example/github/42/prod/deploy',
    });
  });

  it('the first rule that matches decides, also when it refuses', async () => {
    const two = workloads(
      { match: { environment: 'prod' }, spiffe_path: '/first/{repository_id}', immutable: 'repository_id' },
      { match: { repository_id: 'a/b' }, spiffe_path: '/second', immutable: 'repository_id' },
    );
    expect(await two.jwt(authority.sign(claims))).toMatchObject({ spiffeId: 'spiffe://ci.example/first/42' });
    expect(await reasonOf(two, authority.sign({ ...claims, repository_id: 'a/b' }))).toMatch(/one path segment/);
  });

  it('reads nested claims by JSON pointer, and nothing that is inherited', async () => {
    const nested = workloads({
      match: { '/kubernetes.io/namespace': 'agents' },
      spiffe_path:
        '/ns/{/kubernetes.io/namespace}/sa/{/kubernetes.io/serviceaccount/name}/{/kubernetes.io/serviceaccount/uid}',
      immutable: '/kubernetes.io/serviceaccount/uid',
    });
    const token = (inner: Json) =>
      authority.sign({ ...base, iss: CI, 'kubernetes.io': { namespace: 'agents', ...inner } });
    expect(await nested.jwt(token({ serviceaccount: { name: 'refunds', uid: 'u-1' } }))).toMatchObject({
      spiffeId: 'spiffe://ci.example/ns/agents/sa/refunds/u-1',
    });
    expect(await reasonOf(nested, token({ serviceaccount: { name: 'refunds' } }))).toMatch(/uid is missing/);
    expect(await reasonOf(nested, token({ serviceaccount: [{ name: 'refunds', uid: 'u-1' }] }))).toMatch(/is missing/);
    const inherited = workloads({
      match: { environment: 'prod' },
      spiffe_path: '/x/{constructor}',
      immutable: 'constructor',
    });
    expect(await reasonOf(inherited, authority.sign(claims))).toMatch(/constructor is missing/);
  });

  it.each(['JWT', undefined, 'at+jwt'])('typ %p is taken', async (typ) => {
    expect(await refusalOf({}, { typ })).toBeUndefined();
  });

  it.each(['JOSE', 'dpop+jwt', 'wit+jwt', 'jwt', 'AT+JWT', 'logout+jwt', 'secevent+jwt'])(
    'typ %p is refused',
    async (typ) => {
      expect(await refusalOf({}, { typ })).toBe('OIDC: typ is not JWT');
    },
  );

  it('an x5t in the header, as some issuers add, is not looked at', async () => {
    expect(await refusalOf({}, { x5t: 'AAAA' })).toBeUndefined();
  });

  it('audience, times and sub are checked as for an SVID', async () => {
    expect(await refusalOf({ aud: 'https://other.example' })).toMatch(/^SPF-J-6/);
    expect(await refusalOf({ aud: [BROKER, 'https://other.example'] })).toMatch(/^SPF-J-6/);
    expect(await refusalOf({ exp: NOW_SECONDS })).toMatch(/expired/);
    expect(await refusalOf({ exp: NOW_SECONDS + 3601 })).toMatch(/lives longer than 3600 s/);
    expect(await refusalOf({ iat: NOW_SECONDS + 31 })).toMatch(/future/);
    expect(await refusalOf({ iat: undefined })).toMatch(/iat is missing/);
    for (const sub of [undefined, '', 7, 'x'.repeat(256)])
      expect(await refusalOf({ sub })).toBe('OIDC: sub is missing');
  });

  it('an algorithm that is not registered for the issuer is refused, although its key would do', async () => {
    const es384 = jwtAuthority({ alg: 'ES384' });
    expect(await reasonOf(people({}, [es384]), es384.sign({ ...base, iss: STAFF }))).toMatch(
      /algorithm is not registered/,
    );
    expect(
      await reasonOf(people({ algorithms: ['ES384'] }, [es384]), es384.sign({ ...base, iss: STAFF })),
    ).toBeUndefined();
  });
});

describe('a people issuer makes people, with roles from their groups', () => {
  const proof = people({ roles: { sre: 'operator', 'it-sec': ['security', 'auditor'], board: 'auditor' } });
  const claims: Json = { ...base, iss: STAFF, sub: 'ada' };
  const refusalOf = (more: Json) => reasonOf(proof, authority.sign({ ...claims, ...more }));

  it('gives exactly the roles of the groups that are registered', async () => {
    const token = authority.sign({
      ...claims,
      groups: ['board', 'sre', 'chess', 'it-sec', 'constructor', '__proto__'],
      auth_time: NOW_SECONDS - 60,
    });
    expect(await proof.personJwt(token)).toEqual({
      kind: 'person',
      proof: 'oidc',
      issuer: STAFF,
      subject: 'ada',
      roles: ['auditor', 'operator', 'security'],
      issuedAtMs: NOW_MS,
      authenticatedAtMs: NOW_MS - 60_000,
      expiresAtMs: NOW_MS + 300_000,
      keyId: `${STAFF}#key-1`,
    });
  });

  it('without groups there are no roles', async () => {
    expect(await proof.personJwt(authority.sign(claims))).toMatchObject({ roles: [] });
  });

  it.each(['sre', { sre: true }, ['sre', 7], null, [['sre']]])('groups %p are refused', async (groups) => {
    expect(await refusalOf({ groups })).toMatch(/groups claim/);
  });

  it('a roles claim of the token gives nothing', async () => {
    expect(await proof.personJwt(authority.sign({ ...claims, roles: ['operator'] }))).toMatchObject({ roles: [] });
  });

  it('the groups claim may lie deeper', async () => {
    const deep = people({ groups_claim: '/realm_access/roles', roles: { sre: 'operator' } });
    expect(await deep.personJwt(authority.sign({ ...claims, realm_access: { roles: ['sre'] } }))).toMatchObject({
      roles: ['operator'],
    });
  });

  it('may_act says who may act for this person', async () => {
    const agent = 'spiffe://prod.example/agent/a';
    expect(await proof.personJwt(authority.sign({ ...claims, may_act: { sub: agent } }))).toMatchObject({
      mayAct: [agent],
    });
  });

  it.each([null, 'spiffe://prod.example/agent/a', {}, { sub: '' }, { sub: 7 }, ['x'], { sub: ['x'] }])(
    'may_act %p is refused, never ignored',
    async (may_act) => {
      expect(await refusalOf({ may_act })).toMatch(/may_act/);
    },
  );

  it.each(['1', 1.5, -1, NOW_SECONDS + 1, null])('auth_time %p is refused', async (auth_time) => {
    expect(await refusalOf({ auth_time })).toMatch(/auth_time/);
  });

  it('a token is refused when it was issued too long ago, and remembered no longer than that', async () => {
    const clock = new VirtualClock(NOW_MS);
    const quick = people({ token_age_seconds_max: 60 }, [authority], clock);
    const token = authority.sign({ ...claims, exp: NOW_SECONDS + 3000 });
    expect(await quick.personJwt(token)).toMatchObject({ expiresAtMs: NOW_MS + 60_000 });
    clock.set(NOW_MS + 59_999);
    expect(await reasonOf(quick, token)).toBeUndefined();
    clock.set(NOW_MS + 60_001);
    expect(await reasonOf(quick, token)).toMatch(/too long ago/);
  });

  it('a SPIFFE ID cannot be made from a person’s claims', async () => {
    await expect(
      proof.workloadJwt(authority.sign({ ...claims, sub: 'spiffe://prod.example/a' })),
    ).rejects.toMatchObject({
      code: 'identity_rejected',
    });
  });
});
