import { identityConfig } from '../../../../src/plugins/identity/config.js';

const domain = { name: 'prod.example', source: { kind: 'file', path: '/etc/bundle.json' } };
const rule = { match: { id: '1' }, spiffe_path: '/ci/{id}', immutable: 'id' };
const workload = {
  issuer: 'https://ci.example',
  kind: 'workload',
  keys: { discovery: true },
  trust_domain: 'ci.example',
  rules: [rule],
};
const people = { issuer: 'https://staff.example', kind: 'people', keys: { discovery: true } };

const domains = (...trust_domains: unknown[]) => identityConfig.safeParse({ trust_domains });
const issuers = (...oidc_issuers: unknown[]) => identityConfig.safeParse({ oidc_issuers });

it('safe values are the defaults', () => {
  expect(identityConfig.parse({ trust_domains: [domain], oidc_issuers: [workload, people] })).toMatchObject({
    trust_domains: [{ svid_ttl_seconds_max: 900, lenient_eku: false }],
    oidc_issuers: [
      { algorithms: ['RS256', 'ES256'], token_ttl_seconds_max: 3600 },
      { token_age_seconds_max: 3600, groups_claim: 'groups', roles: {} },
    ],
  });
  expect(identityConfig.parse({})).toEqual({ trust_domains: [], oidc_issuers: [] });
});

it.each([
  ['an unknown key', { ...domain, sources: [] }],
  ['an unknown source', { ...domain, source: { kind: 'magic', path: 'x' } }],
  ['a source with a key of another kind', { ...domain, source: { kind: 'file', path: 'x', url: 'https://x.example' } }],
  ['no source', { name: 'prod.example' }],
  ['a name with capitals', { ...domain, name: 'Prod.example' }],
  ['a SPIFFE ID as name', { ...domain, name: 'spiffe://prod.example' }],
  ['an endpoint of http', { ...domain, source: { kind: 'https_web', url: 'http://prod.example/bundle' } }],
  ['a socket that is none', { ...domain, source: { kind: 'workload_api', socket: 'agent.sock' } }],
  ['a life of nothing', { ...domain, svid_ttl_seconds_max: 0 }],
  ['a life of a year', { ...domain, svid_ttl_seconds_max: 31_536_000 }],
])('a trust domain with %s is refused', (_name, one) => {
  expect(domains(one).success).toBe(false);
});

it('two sources of one trust domain are refused, whatever kind they are (SPF-B-6)', () => {
  expect(domains(domain, { ...domain, source: { kind: 'workload_api', socket: '/run/agent.sock' } }).success).toBe(
    false,
  );
  expect(
    identityConfig.safeParse({ trust_domains: [domain], oidc_issuers: [{ ...workload, trust_domain: 'prod.example' }] })
      .success,
  ).toBe(false);
  expect(issuers(workload, { ...workload, issuer: 'https://other.example' }).success).toBe(false);
});

it('an issuer is for workloads or for people, never for both', () => {
  expect(issuers(workload, { ...people, issuer: workload.issuer }).success).toBe(false);
  expect(issuers({ ...people, rules: [rule] }).success).toBe(false);
  expect(issuers({ ...people, trust_domain: 'x.example' }).success).toBe(false);
  expect(issuers({ ...workload, roles: {} }).success).toBe(false);
  expect(issuers({ ...workload, kind: undefined }).success).toBe(false);
});

it.each([
  ['http', { ...people, issuer: 'http://staff.example' }],
  ['a user', { ...people, issuer: 'https://user@staff.example' }],
  ['a fragment', { ...people, issuer: 'https://staff.example#x' }],
  ['no URL', { ...people, issuer: 'staff.example' }],
  ['a symmetric algorithm', { ...people, algorithms: ['HS256'] }],
  ['no algorithm', { ...people, algorithms: [] }],
  ['the algorithm none', { ...people, algorithms: ['none'] }],
  ['no keys', { ...people, keys: {} }],
  ['two kinds of keys', { ...people, keys: { discovery: true, jwks_file: 'x' } }],
  ['a jwks_uri of http', { ...people, keys: { jwks_uri: 'http://staff.example/keys' } }],
  ['a token for discovery', { ...people, keys: { discovery: true, token_file: 'x' } }],
])('an issuer with %s is refused', (_name, one) => {
  expect(issuers(one).success).toBe(false);
});

it.each([
  ['no claim to match', { ...rule, match: {} }],
  ['no immutable claim', { match: rule.match, spiffe_path: rule.spiffe_path }],
  ['an immutable claim that is neither matched nor in the path', { ...rule, immutable: 'sub' }],
  ['an empty list of values', { ...rule, match: { id: [] } }],
  ['a pattern object', { ...rule, match: { id: { regex: '.*' } } }],
  ['a path without a slash', { ...rule, spiffe_path: 'ci/{id}' }],
  ['a trailing slash', { ...rule, spiffe_path: '/ci/{id}/' }],
  ['an empty segment', { ...rule, spiffe_path: '/ci//{id}' }],
  ['a dot segment', { ...rule, spiffe_path: '/ci/../{id}' }],
  ['half a segment filled', { ...rule, spiffe_path: '/ci/job-{id}' }],
  ['two claims in a segment', { ...rule, spiffe_path: '/ci/{id}{id}' }],
  ['an open brace', { ...rule, spiffe_path: '/ci/{id' }],
  ['an empty placeholder', { ...rule, spiffe_path: '/ci/{}/{id}' }],
  ['a whole SPIFFE ID', { ...rule, spiffe_path: 'spiffe://prod.example/{id}' }],
  ['a star', { ...rule, spiffe_path: '/ci/*/{id}' }],
  ['the root alone', { ...rule, spiffe_path: '/' }],
])('a rule with %s is refused', (_name, one) => {
  expect(issuers({ ...workload, rules: [one] }).success).toBe(false);
});

it('a workload issuer without rules is refused', () => {
  expect(issuers({ ...workload, rules: [] }).success).toBe(false);
});

it('the immutable claim may be in the path instead of in match', () => {
  expect(
    issuers({ ...workload, rules: [{ match: { ns: 'a' }, spiffe_path: '/x/{/sa/uid}', immutable: '/sa/uid' }] })
      .success,
  ).toBe(true);
});
