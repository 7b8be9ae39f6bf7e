import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { readJwks } from '../../../../src/plugins/identity/bundle-document.js';
import { identityConfig } from '../../../../src/plugins/identity/config.js';
import { identityProof } from '../../../../src/plugins/identity/identity.js';
import { identityKinds } from '../../../../src/plugins/identity/registry.js';
import { type Json, jwtAuthority, NOW_MS, NOW_SECONDS } from '../../../fakes/issuing.js';
import { VirtualClock } from '../../../fakes/virtual-clock.js';

const folder = join(import.meta.dirname, '../../../../docs/plugins/identity');
const pages = readdirSync(folder).sort();
const text = (page: string) => readFileSync(join(folder, page), 'utf8');
const blocks = (page: string, language: string) =>
  [...text(page).matchAll(new RegExp(`\`\`\`${language}\\n([^]*?)\`\`\``, 'g'))].map((match) => match[1] as string);

it('every kind of identity, and every issuer with ready rules, has its page', () => {
  const expected = [...Object.keys(identityKinds), 'kubernetes', 'github', 'gitlab'].map((name) => `${name}.md`);
  expect(pages).toEqual(expected.sort());
});

it.each(pages)('%s: every configuration shown is one the broker takes', (page) => {
  const shown = blocks(page, 'yaml').map((block) => parse(block) as { identity: unknown });
  expect(shown.length).toBeGreaterThan(0);
  for (const { identity } of shown) identityConfig.parse(identity);
});

it.each(['kubernetes.md', 'github.md', 'gitlab.md'])(
  '%s: the token shown becomes the SPIFFE ID shown, and a stranger’s nothing',
  async (page) => {
    const authority = jwtAuthority({ alg: 'RS256' });
    const config = identityConfig.parse((parse(blocks(page, 'yaml')[0] as string) as { identity: unknown }).identity);
    const { claims, spiffe_id: expected } = JSON.parse(blocks(page, 'json')[0] as string) as {
      claims: Json;
      spiffe_id: string;
    };
    const name = claims['iss'] as string;
    const bundle = {
      trustDomain: name,
      ...readJwks(JSON.stringify({ keys: [authority.jwk] }), ['sig']),
      fetchedAtMs: NOW_MS,
    };
    const issuer = 'https://mayfly.example';
    const proof = identityProof(config, new Map([[name, bundle]]), { clock: new VirtualClock(NOW_MS), issuer });
    const times = { aud: [issuer], iat: NOW_SECONDS, exp: NOW_SECONDS + 300 };
    const identity = await proof.workloadJwt(authority.sign({ ...claims, ...times }));
    expect(identity.spiffeId).toBe(expected);
    const rules = config.oidc_issuers.flatMap((one) => (one.kind === 'workload' ? one.rules : []));
    expect(Object.keys(identity.attributes)).toEqual(rules[0]?.attributes);
    const stranger = JSON.parse(JSON.stringify(claims).replaceAll(/"(9919|72|20|agents)"/g, '"666"')) as Json;
    await expect(proof.jwt(authority.sign({ ...stranger, ...times }))).rejects.toMatchObject({
      code: 'identity_rejected',
    });
  },
);
