import { generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose';
import {
  DPOP_ALGORITHMS,
  type DpopCheck,
  type DpopRefusal,
  DpopRefused,
  targetOf,
  verifyDpop,
} from '../../../src/core/dpop.js';
import { ProofMaker, signJws } from '../../fakes/issuer.js';

const NOW_MS = 1_795_382_752_000;
const IAT = NOW_MS / 1_000;
const URL_ = 'https://broker.example/oauth2/token';
const prover = new ProofMaker();

function proof(claims: object = {}, header: object = {}): string {
  return prover.prove({ htm: 'POST', htu: URL_, iat: IAT, ...claims }, header);
}

function check(text: string, more: Partial<DpopCheck> = {}) {
  return verifyDpop({ proof: text, method: 'POST', url: URL_, nowMs: NOW_MS, ...more });
}

function reasonOf(text: string, more: Partial<DpopCheck> = {}): DpopRefusal | 'taken' {
  try {
    check(text, more);
    return 'taken';
  } catch (error) {
    expect(error).toBeInstanceOf(DpopRefused);
    return (error as DpopRefused).reason;
  }
}

const KEYS: Record<(typeof DPOP_ALGORITHMS)[number], () => { publicKey: KeyObject; privateKey: KeyObject }> = {
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  ES384: () => generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  EdDSA: () => generateKeyPairSync('ed25519'),
  Ed25519: () => generateKeyPairSync('ed25519'),
};

describe('a good proof', () => {
  it.each(DPOP_ALGORITHMS)('made by jose with %s is taken, and names the same key as jose does', async (alg) => {
    const { publicKey, privateKey } = KEYS[alg]();
    const jwk = await exportJWK(publicKey);
    const text = await new SignJWT({ htm: 'POST', htu: URL_, jti: 'j-1' })
      .setProtectedHeader({ typ: 'dpop+jwt', alg, jwk })
      .setIssuedAt(IAT)
      .sign(privateKey);
    expect(check(text)).toMatchObject({ jkt: await calculateJwkThumbprint(jwk), jti: 'j-1', iat: IAT });
  });

  it('is named the same whatever its spelling, and otherwise than any other', () => {
    const jti = randomUUID();
    const twice = [check(proof({ jti })), check(proof({ jti, htu: `${URL_}?x=1` }))];
    expect(twice[0]?.replayKey).toBe(twice[1]?.replayKey);
    const others = [
      check(proof()),
      check(proof({ jti, htu: 'https://broker.example/' }), { url: 'https://broker.example/' }),
    ];
    const stranger = new ProofMaker().prove({ jti, htm: 'POST', htu: URL_, iat: IAT });
    expect(new Set([...twice, ...others, check(stranger)].map(({ replayKey }) => replayKey)).size).toBe(4);
  });

  it('is remembered for as long as it could be taken', () => {
    const { replayUntilMs } = check(proof(), { windowMs: 60_000 });
    expect(reasonOf(proof(), { windowMs: 60_000, nowMs: replayUntilMs })).toBe('times');
    expect(reasonOf(proof(), { windowMs: 60_000, nowMs: replayUntilMs - 1 })).toBe('taken');
  });
});

describe('a proof is refused', () => {
  it.each<[string, DpopRefusal, string]>([
    ['that is empty', 'malformed', ''],
    ['that is two', 'malformed', `${proof()}, ${proof()}`],
    ['with padding', 'malformed', `${proof()}==`],
    ['with another last character', 'malformed', `${proof().slice(0, -1)}_`],
    ['with another typ', 'typ', proof({}, { typ: 'JWT' })],
    ['with typ in capitals', 'typ', proof({}, { typ: 'DPOP+JWT' })],
    ['without typ', 'typ', proof({}, { typ: undefined })],
    ['with alg none', 'algorithm', proof({}, { alg: 'none' })],
    ['with a symmetric alg', 'algorithm', proof({}, { alg: 'HS256' })],
    ['with an alg that is not offered', 'algorithm', proof({}, { alg: 'RS512' })],
    ['with an alg of another kind of key', 'algorithm', proof({}, { alg: 'RS256' })],
    ['with an alg of another curve', 'algorithm', proof({}, { alg: 'ES384' })],
    ['with a kid instead of a key', 'malformed', proof({}, { jwk: undefined, kid: 'k' })],
    ['with a key set URL', 'malformed', proof({}, { jku: 'https://evil.example' })],
    ['with crit', 'malformed', proof({}, { crit: ['b64'] })],
    ['with a key that is a text', 'malformed', proof({}, { jwk: 'key' })],
    ['with a private key', 'key', proof({}, { jwk: prover.key.privateKey.export({ format: 'jwk' }) })],
    ['with a symmetric key', 'key', proof({}, { jwk: { kty: 'oct', k: 'AAAA' } })],
    ['with a key for encryption', 'key', proof({}, { jwk: { ...prover.key.publicJwk, use: 'enc' } })],
    [
      'with a point off its curve',
      'key',
      proof({}, { jwk: { kty: 'EC', crv: 'P-256', x: 'A'.repeat(43), y: 'A'.repeat(43) } }),
    ],
    ['with a short coordinate', 'key', proof({}, { jwk: { kty: 'EC', crv: 'P-256', x: 'AAAA', y: 'AAAA' } })],
    ['with a P-256 key called EdDSA', 'key', proof({}, { alg: 'EdDSA' })],
    ['by another key than the one it shows', 'signature', proof({}, { jwk: publicPart(new ProofMaker()) })],
    ['without jti', 'claims', proof({ jti: undefined })],
    ['with an empty jti', 'claims', proof({ jti: '' })],
    ['with a jti that is no text', 'claims', proof({ jti: 7 })],
    ['with a jti of 257 characters', 'claims', proof({ jti: 'x'.repeat(257) })],
    ['without iat', 'claims', proof({ iat: undefined })],
    ['with an iat that is no integer', 'malformed', proof({ iat: IAT + 0.5 })],
    ['with another method', 'method', proof({ htm: 'GET' })],
    ['with the method in small letters', 'method', proof({ htm: 'post' })],
    ['without a method', 'method', proof({ htm: undefined })],
    ['without a URL', 'url', proof({ htu: undefined })],
    ['older than the window', 'times', proof({ iat: IAT - 301 })],
    ['from the future', 'times', proof({ iat: IAT + 301 })],
    ['past its own end', 'times', proof({ exp: IAT })],
    ['before its own beginning', 'times', proof({ nbf: IAT + 301 })],
  ])('%s', (_, reason, text) => {
    expect(reasonOf(text)).toBe(reason);
  });

  it('with a private Ed25519 key', () => {
    const { privateKey } = generateKeyPairSync('ed25519');
    const header = { typ: 'dpop+jwt', alg: 'EdDSA', jwk: privateKey.export({ format: 'jwk' }) };
    expect(reasonOf(signJws(header, { jti: 'j', htm: 'POST', htu: URL_, iat: IAT }, prover.key))).toBe('key');
  });

  it('for another access token, for none, or for the empty one', () => {
    expect(reasonOf(proof({ accessToken: 'a' }), { accessToken: 'b' })).toBe('access-token');
    expect(reasonOf(proof(), { accessToken: 'b' })).toBe('access-token');
    expect(reasonOf(proof({ ath: '' }), { accessToken: '' })).toBe('access-token');
    expect(reasonOf(proof({ accessToken: 'a' }), { accessToken: 'a' })).toBe('taken');
  });

  it('by another key than the access token is bound to', () => {
    expect(reasonOf(proof(), { jkt: new ProofMaker().jkt })).toBe('binding');
    expect(reasonOf(proof(), { jkt: prover.jkt })).toBe('taken');
  });

  it('without a nonce that is demanded, or with an old one', () => {
    const nonce = (given: string | undefined) => given === 'n-2';
    expect(reasonOf(proof(), { nonce })).toBe('nonce');
    expect(reasonOf(proof({ nonce: 'n-1' }), { nonce })).toBe('nonce');
    expect(reasonOf(proof({ nonce: ['n-2'] }), { nonce })).toBe('nonce');
    expect(reasonOf(proof({ nonce: 'n-2' }), { nonce })).toBe('taken');
  });
});

describe('the URL a proof names', () => {
  it.each([
    ['HTTPS://Broker.Example:443/oauth2/token', 'https://broker.example/oauth2/token'],
    ['https://broker.example/oauth2/token?a=b#c', 'https://broker.example/oauth2/token'],
    ['https://broker.example', 'https://broker.example/'],
    ['https://broker.example/a/./b/../c', 'https://broker.example/a/c'],
    ['https://broker.example/%7euser/%2fx', 'https://broker.example/~user/%2Fx'],
    ['http://broker.example:80/', 'http://broker.example/'],
    ['http://[::1]:7117/x', 'http://[::1]:7117/x'],
  ])('%s is %s', (given, target) => {
    expect(targetOf(given)).toBe(target);
  });

  it.each([
    'https://broker.example/OAuth2/token',
    'https://broker.example/oauth2/token/',
    'https://broker.example:8443/oauth2/token',
    'http://broker.example/oauth2/token',
    'https://broker.example./oauth2/token',
    'https://broker.example/oauth2%2Ftoken',
  ])('%s is another one', (htu) => {
    expect(reasonOf(proof({ htu }))).toBe('url');
  });

  it.each([
    'https://user@broker.example/oauth2/token',
    'https:\\\\broker.example\\oauth2\\token',
    'https://broker.example/oauth2/tok\nen',
    ' https://broker.example/oauth2/token',
    'https://broker.example/oauth2/token%',
    'https:broker.example/oauth2/token',
    'ftp://broker.example/oauth2/token',
    '/oauth2/token',
    '',
  ])('%j is none', (htu) => {
    expect(targetOf(htu)).toBeUndefined();
    expect(reasonOf(proof({ htu }))).toBe('url');
    expect(reasonOf(proof({ htu }), { url: htu })).toBe('url');
  });
});

function publicPart({ key }: ProofMaker): object {
  const { kty, crv, x, y } = key.publicJwk;
  return { kty, crv, x, y };
}
