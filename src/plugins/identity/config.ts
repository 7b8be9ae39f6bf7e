import { z } from 'zod';
import { JWS_ALGORITHMS, type JwsAlgorithm } from '../../core/jws.js';
import { parseTrustDomain } from '../../core/spiffe-id.js';
import { isTemplatePath, placeholderOf, templateSegments } from './oidc-rules.js';
import { bundleSourceConfig } from './sources/registry.js';

const seconds = (max: number) => z.int().min(1).max(max);

/** An https URL without user, query or fragment, in the one spelling that tokens will have to repeat. */
const httpsUrl = z.string().max(2048).refine(isPlainHttpsUrl, 'has to be an https URL without user or fragment');

const trustDomainName = z
  .string()
  .refine((name) => parseTrustDomain(name) !== undefined, 'has to be a SPIFFE trust domain name such as prod.example');

const trustDomain = z.strictObject({
  name: trustDomainName.describe('The trust domain whose SVIDs are taken, such as `prod.example`.'),
  source: bundleSourceConfig.describe('Where its bundle comes from.'),
  svid_ttl_seconds_max: seconds(86_400)
    .default(900)
    .describe('A JWT-SVID that lives longer than this in all (exp - iat) is refused.'),
  lenient_eku: z
    .boolean()
    .default(false)
    .describe(
      'Take X.509-SVIDs whose extended key usage has only one of serverAuth and clientAuth, as some CAs issue them.',
    ),
});

const algorithm = z.enum(Object.keys(JWS_ALGORITHMS) as [JwsAlgorithm, ...JwsAlgorithm[]]);

const oidcKeys = z.union([
  z.strictObject({
    discovery: z.literal(true).describe('Find the keys through ISSUER/.well-known/openid-configuration.'),
    ca_file: z.string().min(1).optional().describe('PEM file with the only authorities for this TLS connection.'),
  }),
  z.strictObject({
    jwks_uri: httpsUrl.describe('The JWK Set itself.'),
    ca_file: z.string().min(1).optional().describe('PEM file with the only authorities for this TLS connection.'),
    token_file: z
      .string()
      .min(1)
      .optional()
      .describe('File with a bearer token for jwks_uri, read at every fetch; redirects are then refused.'),
  }),
  z.strictObject({ jwks_file: z.string().min(1).describe('A file with the JWK Set; nothing is fetched.') }),
]);

const claimValue = z.union([z.string(), z.number(), z.boolean()]);

const workloadRule = z
  .strictObject({
    match: z
      .record(z.string().min(1), z.union([claimValue, z.array(claimValue).min(1)]))
      .describe('Claim (or JSON pointer) to the whole value it must have, or a list of acceptable ones.'),
    spiffe_path: z
      .string()
      .max(1024)
      .refine(
        isTemplatePath,
        'has to be a path such as /github/{repository_id}/deploy: whole segments, literal or {claim}',
      )
      .describe('Path of the SPIFFE ID; `{claim}` fills exactly one segment or the token is refused.'),
    immutable: z
      .string()
      .min(1)
      .describe('A claim that cannot pass to somebody else, such as repository_id; it is in `match` or in the path.'),
    attributes: z.array(z.string().min(1)).max(32).default([]).describe('Claims to keep for policy and audit.'),
  })
  .refine((rule) => Object.keys(rule.match).length > 0, { error: 'needs at least one claim', path: ['match'] })
  .refine(
    (rule) =>
      Object.hasOwn(rule.match, rule.immutable) ||
      templateSegments(rule.spiffe_path).some((segment) => placeholderOf(segment) === rule.immutable),
    { error: 'has to be a claim of `match` or of `spiffe_path`', path: ['immutable'] },
  );

const anyIssuer = {
  issuer: httpsUrl.describe('Exactly the `iss` of its tokens.'),
  keys: oidcKeys.describe('Where its keys come from. Nothing is ever fetched because a token says so.'),
  algorithms: z
    .array(algorithm)
    .min(1)
    .default(['RS256', 'ES256'])
    .describe('Signature algorithms its tokens may use.'),
  token_ttl_seconds_max: seconds(604_800)
    .default(3600)
    .describe('A token that lives longer than this in all (exp - iat) is refused.'),
};

const workloadIssuer = z.strictObject({
  kind: z.literal('workload').describe('Its tokens are workloads’.'),
  ...anyIssuer,
  trust_domain: trustDomainName.describe('A trust domain name of its own for the SPIFFE IDs its rules make.'),
  rules: z
    .array(workloadRule)
    .min(1)
    .max(200)
    .describe('The first rule that matches makes the identity; none refuses.'),
});

const peopleIssuer = z.strictObject({
  kind: z.literal('people').describe('Its tokens are people’s.'),
  ...anyIssuer,
  token_age_seconds_max: seconds(86_400).default(3600).describe('A token issued longer ago than this is refused.'),
  groups_claim: z.string().min(1).default('groups').describe('The claim (or JSON pointer) with the list of groups.'),
  roles: z
    .record(z.string().min(1), z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]))
    .default({})
    .describe('Group to role or roles, such as operator, approver, auditor, security.'),
});

const oidcIssuer = z.discriminatedUnion('kind', [workloadIssuer, peopleIssuer]);

/** Who is believed: trust domains for SVIDs and registered OIDC issuers. Keys are snake_case, unknown ones are refused. */
export const identityConfig = z
  .strictObject({
    trust_domains: z.array(trustDomain).max(100).default([]).describe('SPIFFE trust domains.'),
    oidc_issuers: z.array(oidcIssuer).max(100).default([]).describe('OIDC issuers, each for workloads or for people.'),
  })
  .superRefine((config, context) => {
    // Two sources under one name would be two trust domains merged (SPF-B-6).
    const seen = new Set<string>();
    const once = (name: string, path: (string | number)[]) => {
      if (seen.has(name)) context.addIssue({ code: 'custom', message: `${name} is already taken`, path });
      seen.add(name);
    };
    for (const [at, one] of config.trust_domains.entries()) once(one.name, ['trust_domains', at, 'name']);
    for (const [at, one] of config.oidc_issuers.entries()) {
      once(one.issuer, ['oidc_issuers', at, 'issuer']);
      if (one.kind === 'workload') once(one.trust_domain, ['oidc_issuers', at, 'trust_domain']);
    }
  });

export type IdentityConfig = z.output<typeof identityConfig>;
export type IdentityConfigInput = z.input<typeof identityConfig>;
export type TrustDomainConfig = IdentityConfig['trust_domains'][number];
export type OidcIssuer = IdentityConfig['oidc_issuers'][number];
export type WorkloadIssuer = Extract<OidcIssuer, { kind: 'workload' }>;
export type PeopleIssuer = Extract<OidcIssuer, { kind: 'people' }>;

function isPlainHttpsUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const url = new URL(text);
  return url.protocol === 'https:' && url.username === '' && url.password === '' && !text.includes('#');
}
