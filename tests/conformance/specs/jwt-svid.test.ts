import { JWS_ALGORITHMS } from '../../../src/core/jws.js';
import { readSpiffeBundle } from '../../../src/plugins/identity/bundle-document.js';
import { identityConfig } from '../../../src/plugins/identity/config.js';
import type { TrustBundle } from '../../../src/plugins/identity/contract.js';
import { identityProof } from '../../../src/plugins/identity/identity.js';
import {
  bundleDocument,
  type Json,
  type JwtAuthority,
  jwtAuthority,
  NOW_MS,
  NOW_SECONDS,
} from '../../fakes/issuing.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

const BROKER = 'https://mayfly.example';
const DOMAIN = 'prod.example';
const ID = `spiffe://${DOMAIN}/agent/refunds`;
const authority = jwtAuthority();
const good: Json = { sub: ID, aud: [BROKER], iat: NOW_SECONDS, exp: NOW_SECONDS + 300 };
const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');

function verifierOf(documents: Record<string, string>, settings: Json = {}) {
  const bundles = new Map<string, TrustBundle>();
  for (const [trustDomain, document] of Object.entries(documents)) {
    bundles.set(trustDomain, { trustDomain, ...readSpiffeBundle(document), fetchedAtMs: NOW_MS });
  }
  const domains = Object.keys(documents).map((name) => ({
    name,
    source: { kind: 'file' as const, path: 'unused' },
    ...settings,
  }));
  const config = identityConfig.parse({ trust_domains: domains });
  return identityProof(config, bundles, { clock: new VirtualClock(NOW_MS), issuer: BROKER });
}

/** The reason of a refusal; undefined when it was accepted. */
async function reasonOf(proof: ReturnType<typeof verifierOf>, token: string): Promise<string | undefined> {
  try {
    await proof.jwt(token);
    return undefined;
  } catch (error) {
    const { code, detail } = error as { code: string; detail: { reason: string } };
    expect(code).toBe('identity_rejected');
    return detail.reason;
  }
}

const proof = verifierOf({ [DOMAIN]: bundleDocument({ jwt: [authority] }) });
const refusalOf = (token: string) => reasonOf(proof, token);
const claims = (more: Json) => authority.sign({ ...good, ...more });
const without = (name: string) => {
  const { [name]: _, ...rest } = good;
  return authority.sign(rest);
};

describe('SPF-J-1: compact serialization only', () => {
  const [protectedHeader, payload, signature] = authority.sign(good).split('.');

  it.each([
    ['general JSON', JSON.stringify({ payload, signatures: [{ protected: protectedHeader, signature }] })],
    ['flattened JSON', JSON.stringify({ payload, protected: protectedHeader, signature })],
    ['detached', `${protectedHeader}..${signature}`],
    ['with padding', `${authority.sign(good)}=`],
  ])('%s is refused', async (_name, text) => {
    expect(await refusalOf(text)).toMatch(/^the token: /);
  });
});

describe('SPF-J-2: the nine asymmetric algorithms, judged before the token is', () => {
  it.each(Object.keys(JWS_ALGORITHMS))('%s is taken', async (alg) => {
    const one = jwtAuthority({ alg });
    expect(await reasonOf(verifierOf({ [DOMAIN]: bundleDocument({ jwt: [one] }) }), one.sign(good))).toBeUndefined();
  });

  it.each(['none', 'NONE', 'HS256', 'HS384', 'HS512', 'EdDSA', 'Ed25519', 'ES256K', 'RSA-OAEP', 'es256', ''])(
    '%p is refused',
    async (alg) => {
      expect(await refusalOf(authority.sign(good, { alg }))).toBe('the token: the algorithm is not acceptable');
    },
  );

  it('a token without a signature is refused, whatever it says', async () => {
    for (const alg of ['none', 'ES256']) {
      expect(await refusalOf(`${encode({ alg, kid: 'key-1' })}.${encode(good)}.`)).toMatch(/^the token: /);
    }
  });

  it('an algorithm that the key is not of is refused', async () => {
    for (const alg of ['ES384', 'ES512', 'RS256', 'PS256']) {
      expect(await refusalOf(authority.sign(good, { alg }))).toMatch(/^SPF-J-2/);
    }
  });

  it('an RSA key with an alg verifies nothing else', async () => {
    const rsa = jwtAuthority({ alg: 'RS256' });
    const bound = { ...rsa, jwk: { ...rsa.jwk, alg: 'RS256' } };
    const one = verifierOf({ [DOMAIN]: bundleDocument({ jwt: [bound] }) });
    expect(await reasonOf(one, rsa.sign(good))).toBeUndefined();
    expect(await reasonOf(one, jwtAuthority({ alg: 'PS256' }).sign(good))).toMatch(/^SPF-J-2/);
  });
});

describe('SPF-J-3: typ is absent, JWT or JOSE', () => {
  it.each([undefined, 'JWT', 'JOSE'])('%p is taken', async (typ) => {
    expect(await refusalOf(authority.sign(good, { typ }))).toBeUndefined();
  });

  it.each(['jwt', 'Jwt', 'at+jwt', 'dpop+jwt', 'wit+jwt', 'JWE', 'application/jwt', ''])(
    '%p is refused',
    async (typ) => {
      expect(await refusalOf(authority.sign(good, { typ }))).toMatch(/^SPF-J-3/);
    },
  );
});

describe('SPF-J-4: no header but alg, kid and typ', () => {
  it.each(['jwk', 'jku', 'x5u', 'x5c', 'x5t', 'x5t#S256', 'crit', 'cty', 'b64', 'zip', 'enc', 'iss', 'anything'])(
    '%s is refused',
    async (name) => {
      const value = { jwk: authority.jwk, crit: ['exp'], b64: false }[name] ?? 'x';
      expect(await refusalOf(authority.sign(good, { [name]: value }))).toMatch(/the header may not hold/);
    },
  );

  it('an embedded key verifies nothing', async () => {
    const stranger = jwtAuthority({ number: 1 });
    expect(await refusalOf(stranger.sign(good, { jwk: stranger.jwk }))).toBeDefined();
  });
});

describe('SPF-J-5: sub is a SPIFFE ID, and the key is from its trust domain’s bundle', () => {
  it.each([
    undefined,
    '',
    7,
    [ID],
    'agent',
    'spiffe://prod.example',
    'spiffe://prod.example/',
    'spiffe://PROD.example/agent',
    'Spiffe://prod.example/agent',
    'spiffe://prod.example/agent/',
    'spiffe://prod.example/agent/../admin',
    'spiffe://prod.example/%61gent',
    'spiffe://prod.example:443/agent',
    'spiffe://user@prod.example/agent',
    'spiffe://prod.example/agent?x',
    'https://prod.example/agent',
    `${ID}\n`,
    ` ${ID}`,
  ])('sub %p is refused', async (sub) => {
    expect(await refusalOf(claims({ sub }))).toMatch(/sub is no SPIFFE ID/);
  });

  it('another trust domain’s key is refused, whatever its kid', async () => {
    const stranger = jwtAuthority({ number: 1 });
    const two = verifierOf({
      [DOMAIN]: bundleDocument({ jwt: [authority] }),
      'other.example': bundleDocument({ jwt: [stranger] }),
    });
    const other = { ...good, sub: 'spiffe://other.example/agent/a' };
    expect(await reasonOf(two, stranger.sign(other))).toBeUndefined();
    expect(await reasonOf(two, authority.sign(good))).toBeUndefined();
    expect(await reasonOf(two, stranger.sign(good))).toBe('the signature is wrong');
    expect(await reasonOf(two, authority.sign(other))).toBe('the signature is wrong');
    expect(await reasonOf(two, jwtAuthority({ number: 1, kid: 'key-2' }).sign(good))).toBe(
      'SPF-J-5: no such kid in the bundle',
    );
  });

  it('a token without kid is refused although the bundle has one key', async () => {
    expect(await refusalOf(authority.sign(good, { kid: undefined }))).toBe('the token: kid is missing');
  });

  it.each(['', 'key-1\u0000', 'key-1 ', 'x'.repeat(300), 7, null, ['key-1']])('kid %p is refused', async (kid) => {
    expect(await refusalOf(authority.sign(good, { kid }))).toMatch(/^the token: (kid|the header: NUL)/);
  });

  it.each(['KEY-1', 'key-2', '../key-1', 'constructor', '__proto__', 'key-1%00'])('kid %p is unknown', async (kid) => {
    expect(await refusalOf(authority.sign(good, { kid }))).toBe('SPF-J-5: no such kid in the bundle');
  });

  it('iss plays no part', async () => {
    expect(await refusalOf(claims({ iss: 'https://spire.example' }))).toBeUndefined();
    expect(await refusalOf(claims({ iss: 7 }))).toBeUndefined();
  });
});

describe('SPF-J-6: the broker is the only audience, and the life is bounded', () => {
  it.each([[BROKER], [[BROKER]]])('aud %p is taken', async (aud) => {
    expect(await refusalOf(claims({ aud }))).toBeUndefined();
  });

  it.each([
    undefined,
    null,
    '',
    [],
    [[BROKER]],
    { 0: BROKER },
    'https://other.example',
    ['https://other.example'],
    [BROKER, 'https://other.example'],
    ['https://other.example', BROKER],
    [BROKER, BROKER],
    [BROKER, ''],
    `${BROKER}/`,
    BROKER.toUpperCase(),
    `${BROKER}/oauth2/token`,
    ` ${BROKER}`,
  ])('aud %p is refused', async (aud) => {
    expect(await refusalOf(authority.sign({ ...good, aud: aud === undefined ? undefined : aud }))).toMatch(/^SPF-J-6/);
  });

  it('says which audience it wants, because that helps nobody else', async () => {
    await expect(proof.jwt(claims({ aud: 'x' }))).rejects.toMatchObject({
      detail: { hint: expect.stringContaining(BROKER) },
    });
  });

  it('exp and iat have to be there', async () => {
    expect(await refusalOf(without('exp'))).toBe('the times: exp is missing');
    expect(await refusalOf(without('iat'))).toBe('the times: iat is missing');
  });

  it.each(['1e999', '1800000000.5', '"1800000000"', '-1', '1e15', '[1]', 'null', 'true'])(
    'exp %s is refused',
    async (text) => {
      const payload = `{"sub":"${ID}","aud":"${BROKER}","iat":${NOW_SECONDS},"exp":${text}}`;
      const header = encode({ alg: 'ES256', kid: 'key-1' });
      expect(await refusalOf(authority.signSegments(header, Buffer.from(payload).toString('base64url')))).toMatch(
        /^the token: /,
      );
    },
  );

  it('is refused from the second of its exp on', async () => {
    expect(await refusalOf(claims({ iat: NOW_SECONDS - 300, exp: NOW_SECONDS }))).toBe('the times: expired');
    expect(await refusalOf(claims({ iat: NOW_SECONDS - 300, exp: NOW_SECONDS + 1 }))).toBeUndefined();
  });

  it('is refused when it lives longer than 15 min in all, however little of it is left', async () => {
    expect(await refusalOf(claims({ iat: NOW_SECONDS - 890, exp: NOW_SECONDS + 10 }))).toBeUndefined();
    expect(await refusalOf(claims({ iat: NOW_SECONDS - 891, exp: NOW_SECONDS + 10 }))).toBe(
      'the times: lives longer than 900 s',
    );
  });

  it('the longest life is a setting of the trust domain', async () => {
    const document = { [DOMAIN]: bundleDocument({ jwt: [authority] }) };
    const hour = claims({ exp: NOW_SECONDS + 3600 });
    expect(await reasonOf(verifierOf(document, { svid_ttl_seconds_max: 3600 }), hour)).toBeUndefined();
    expect(await reasonOf(verifierOf(document, { svid_ttl_seconds_max: 3599 }), hour)).toMatch(/lives longer/);
  });

  it('is refused when iat or nbf is more than 30 s ahead', async () => {
    expect(await refusalOf(claims({ iat: NOW_SECONDS + 30 }))).toBeUndefined();
    expect(await refusalOf(claims({ iat: NOW_SECONDS + 31 }))).toMatch(/iat is in the future/);
    expect(await refusalOf(claims({ nbf: NOW_SECONDS + 31 }))).toMatch(/nbf is in the future/);
  });
});

describe('SPF-J-7: only keys of use jwt-svid verify', () => {
  const bundleWith = (use: unknown, jwk: Json = authority.jwk) =>
    verifierOf({ [DOMAIN]: JSON.stringify({ keys: [{ ...jwk, use }] }) });

  it.each([undefined, 'x509-svid', 'wit-svid', 'sig', 'enc', 'JWT-SVID', '', null, ['jwt-svid']])(
    'use %p does not',
    async (use) => {
      expect(await reasonOf(bundleWith(use), authority.sign(good))).toMatch(/^SPF-B-3/);
    },
  );

  it('jwt-svid does', async () => {
    expect(await reasonOf(bundleWith('jwt-svid'), authority.sign(good))).toBeUndefined();
  });
});

describe('a signature is over exactly these bytes', () => {
  it('refuses every flipped bit of a token', async () => {
    const token = authority.sign(good);
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    for (let at = 0; at < token.length; at += 3) {
      const other = token[at] === '.' ? 'A' : alphabet[(alphabet.indexOf(token[at] as string) + 1) % 64];
      expect(await refusalOf(token.slice(0, at) + other + token.slice(at + 1))).toBeDefined();
    }
  });

  it('the other ECDSA signature (r, n-s) of the same bytes is the same identity, not another one', async () => {
    const n = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const [header, payload, signature = ''] = authority.sign(good).split('.');
    const bytes = Buffer.from(signature, 'base64url');
    const s = n - BigInt(`0x${bytes.subarray(32).toString('hex')}`);
    const other = Buffer.concat([bytes.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex')]);
    const identity = await proof.jwt(`${header}.${payload}.${other.toString('base64url')}`);
    expect(identity).toEqual(await proof.jwt(`${header}.${payload}.${signature}`));
  });
});

it('gives the SPIFFE ID, its trust domain, its end and the key that signed', async () => {
  const stranger: JwtAuthority = jwtAuthority({ kid: 'https://keys.example/1#x', number: 1 });
  const one = verifierOf({ [DOMAIN]: bundleDocument({ jwt: [authority, stranger] }) });
  expect(await one.jwt(stranger.sign(good))).toEqual({
    kind: 'workload',
    proof: 'jwt-svid',
    spiffeId: ID,
    trustDomain: DOMAIN,
    expiresAtMs: NOW_MS + 300_000,
    keyId: `${DOMAIN}#https://keys.example/1#x`,
    attributes: {},
  });
});
