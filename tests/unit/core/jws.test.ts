import { admitKey } from '../../../src/core/jwk.js';
import {
  checkTimes,
  FOREIGN_KID,
  JWS_ALGORITHMS,
  type JwsRefusal,
  JwsRefused,
  parseCompactJws,
  splitCompactJws,
  verifyJws,
} from '../../../src/core/jws.js';
import { jwtAuthority, keyPair, NOW_MS, NOW_SECONDS } from '../../fakes/issuing.js';

const authority = jwtAuthority();
const claims = { sub: 'a', iat: NOW_SECONDS, exp: NOW_SECONDS + 300 };
const base64url = (text: string | Buffer) => Buffer.from(text).toString('base64url');
const segments = (header: string | Buffer, payload: string | Buffer, signature = 'AAAA') =>
  `${base64url(header)}.${base64url(payload)}.${signature}`;
const HEADER = '{"alg":"ES256","kid":"k"}';
const withHeader = (header: string | Buffer) => segments(header, '{}');
const withPayload = (payload: string | Buffer) => segments(HEADER, payload);

function refusal(run: () => unknown): JwsRefusal | undefined {
  try {
    run();
  } catch (error) {
    if (error instanceof JwsRefused) return error.kind;
    throw error;
  }
  return undefined;
}

describe('one spelling', () => {
  const token = authority.sign(claims);
  const [header = '', payload = '', signature = ''] = token.split('.');

  it('reads a well-formed token', () => {
    const jws = parseCompactJws(token);
    expect(jws.header).toEqual({ alg: 'ES256', kid: 'key-1', typ: 'JWT' });
    expect(jws.payload).toEqual(claims);
    expect(jws.signingInput).toBe(`${header}.${payload}`);
    expect(jws.signature).toHaveLength(64);
  });

  it.each([
    ['nothing', ''],
    ['two segments', `${header}.${payload}`],
    ['four segments', `${token}.`],
    ['a second signature', `${token}.${signature}`],
    ['an empty header', `.${payload}.${signature}`],
    ['an empty payload', `${header}..${signature}`],
    ['an empty signature', `${header}.${payload}.`],
    ['a newline at the end', `${token}\n`],
    ['a space in front', ` ${token}`],
    ['padding', `${token}==`],
    ['a space in the signature', `${header}.${payload}.${signature.slice(0, 9)} ${signature.slice(9)}`],
    ['a newline in the payload', `${header}.${payload.slice(0, 4)}\n${payload.slice(4)}.${signature}`],
    ['base64 instead of base64url', `${header}.${payload}.${signature.slice(0, -4)}+/AA`],
    ['a character outside ASCII', `${header}.${payload}.${signature.slice(0, -1)}é`],
    ['a length that no bytes have', `${header}.${payload}.${signature}AAA`],
    ['JSON serialization', JSON.stringify({ protected: header, payload, signature })],
    ['five segments, as a JWE', `${token}.${payload}.${signature}`],
  ])('refuses %s', (_name, text) => {
    expect(refusal(() => parseCompactJws(text))).toBe('spelling');
  });

  it('refuses every other last character of each segment that decodes to the same bytes', () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    let variants = 0;
    for (const character of alphabet) {
      const other = `${header}.${payload}.${signature.slice(0, -1)}${character}`;
      if (
        other === token ||
        !Buffer.from(other.split('.')[2] ?? '', 'base64url').equals(parseCompactJws(token).signature)
      )
        continue;
      variants += 1;
      expect(refusal(() => parseCompactJws(other))).toBe('spelling');
    }
    expect(variants).toBe(15);
  });

  it('looks at the size before anything else', () => {
    expect(refusal(() => parseCompactJws('!'.repeat(8193)))).toBe('size');
    expect(refusal(() => parseCompactJws('!'.repeat(8192)))).toBe('spelling');
    expect(refusal(() => parseCompactJws(token, { bytesMax: token.length - 1 }))).toBe('size');
    expect(refusal(() => parseCompactJws(token, { bytesMax: token.length }))).toBeUndefined();
  });

  it('takes a header of 512 bytes at most', () => {
    expect(refusal(() => parseCompactJws(withHeader(`{"alg":"ES256","kid":"k"${' '.repeat(600)}}`)))).toBe('size');
  });

  it('hands out the payload bytes unread when nobody needs JSON', () => {
    const text = segments(HEADER, 'foo');
    expect(splitCompactJws(text).payload.toString()).toBe('foo');
    expect(refusal(() => parseCompactJws(text))).toBe('payload');
  });
});

describe('the header', () => {
  it.each([
    ['jku', '{"alg":"ES256","kid":"k","jku":"https://evil.example/keys"}'],
    ['x5u', '{"alg":"ES256","kid":"k","x5u":"https://evil.example/cert"}'],
    ['x5c', '{"alg":"ES256","kid":"k","x5c":[]}'],
    ['x5t, unless allowed', '{"alg":"ES256","kid":"k","x5t":"AA"}'],
    ['jwk, unless allowed', '{"alg":"ES256","kid":"k","jwk":{}}'],
    ['crit', '{"alg":"ES256","kid":"k","crit":["exp"]}'],
    ['b64 without crit', '{"alg":"ES256","kid":"k","b64":false}'],
    ['b64 with crit', '{"alg":"ES256","kid":"k","b64":false,"crit":["b64"]}'],
    ['cty', '{"alg":"ES256","kid":"k","cty":"JWT"}'],
    ['zip', '{"alg":"ES256","kid":"k","zip":"DEF"}'],
    ['enc', '{"alg":"ES256","kid":"k","enc":"A128GCM"}'],
    ['a name with capitals', '{"alg":"ES256","Kid":"k"}'],
    ['__proto__', '{"alg":"ES256","kid":"k","__proto__":{"typ":"JWT"}}'],
    ['constructor', '{"alg":"ES256","kid":"k","constructor":1}'],
    ['alg twice', '{"alg":"none","alg":"ES256","kid":"k"}'],
    ['alg twice, once escaped', '{"alg":"ES256","\\u0061lg":"none","kid":"k"}'],
    ['kid twice', '{"alg":"ES256","kid":"k","kid":"k"}'],
    ['a number as typ', '{"alg":"ES256","kid":"k","typ":1}'],
    ['an array', '["ES256"]'],
    ['null', 'null'],
    ['a trailing comma', '{"alg":"ES256","kid":"k",}'],
    ['two objects', '{"alg":"ES256","kid":"k"}{}'],
    ['depth', '{"alg":"ES256","kid":"k","typ":{"a":{"b":1}}}'],
  ])('refuses %s', (_name, header) => {
    expect(refusal(() => parseCompactJws(withHeader(header)))).toBe('header');
  });

  it.each([
    'none',
    'None',
    'NONE',
    'nOnE',
    '',
    'HS256',
    'HS384',
    'HS512',
    'es256',
    'ES256K',
    'EdDSA',
    'RSA1_5',
    'toString',
    '__proto__',
    'ES521',
  ])('refuses alg %p', (alg) => {
    expect(refusal(() => parseCompactJws(withHeader(JSON.stringify({ alg, kid: 'k' }))))).toBe('algorithm');
  });

  it('refuses a missing or strange alg, and one outside the profile', () => {
    for (const header of ['{"kid":"k"}', '{"alg":null,"kid":"k"}', '{"alg":["ES256"],"kid":"k"}']) {
      expect(refusal(() => parseCompactJws(withHeader(header)))).toBe('algorithm');
    }
    expect(refusal(() => parseCompactJws(withHeader(HEADER), { algorithms: new Set(['RS256']) }))).toBe('algorithm');
  });

  it.each([
    undefined,
    '',
    7,
    null,
    ['k'],
    '../../etc/passwd',
    '/dev/null',
    "k' OR 1=1 --",
    'k"; DROP TABLE keys',
    'a b',
    'k\n',
    'k.pem',
    'k:1',
    'k/1',
    '{"a":1}',
    '%2e%2e',
    'kéy',
    'k'.repeat(65),
    '$(id)',
    '|id',
  ])('refuses kid %p', (kid) => {
    expect(refusal(() => parseCompactJws(withHeader(JSON.stringify({ alg: 'ES256', kid }))))).toBe('kid');
  });

  it('treats a kid named like a prototype member as any other unknown name', () => {
    for (const kid of ['__proto__', 'constructor', 'toString']) {
      expect(parseCompactJws(withHeader(JSON.stringify({ alg: 'ES256', kid }))).header.kid).toBe(kid);
    }
  });

  it('takes foreign kids of visible ASCII only, bounded', () => {
    const parse = (kid: string) =>
      refusal(() => parseCompactJws(withHeader(JSON.stringify({ alg: 'ES256', kid })), { kid: FOREIGN_KID }));
    expect(parse('https://k8s.example/keys#1')).toBeUndefined();
    expect(parse('bilbo.baggins@hobbiton.example')).toBeUndefined();
    for (const kid of ['', 'a b', 'a\tb', 'a\u007f', 'é', 'k'.repeat(257)]) expect(parse(kid)).toBe('kid');
  });

  it('needs exactly what a profile for proofs asks for', () => {
    const profile = { headerNames: ['alg', 'typ', 'jwk'] as const };
    const jwk = { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' };
    const parse = (header: unknown) => parseCompactJws(withHeader(JSON.stringify(header)), profile);
    expect(parse({ alg: 'ES256', typ: 'dpop+jwt', jwk }).header.jwk).toEqual(jwk);
    expect(refusal(() => parse({ alg: 'ES256', typ: 'dpop+jwt' }))).toBe('header');
    expect(refusal(() => parse({ alg: 'ES256', typ: 'dpop+jwt', jwk: 'AA' }))).toBe('header');
    expect(refusal(() => parse({ alg: 'ES256', typ: 'dpop+jwt', jwk: [jwk] }))).toBe('header');
    expect(refusal(() => parse({ alg: 'ES256', typ: 'dpop+jwt', jwk, kid: 'k' }))).toBe('header');
  });
});

describe('the payload', () => {
  it.each([
    ['a claim twice', '{"sub":"a","sub":"b"}'],
    ['a claim twice, once escaped', '{"sub":"a","\\u0073ub":"b"}'],
    ['a claim twice deep inside', '{"cnf":{"jkt":"a","jkt":"b"}}'],
    ['a claim twice in a list', '{"a":[{"b":1,"b":2}]}'],
    ['__proto__', '{"__proto__":{"admin":true}}'],
    ['__proto__, escaped', '{"\\u005f_proto__":1}'],
    ['a number that is infinite', '{"exp":1e999}'],
    ['a number that is minus infinity', '{"a":[-1e999]}'],
    ['an integer no double holds', '{"id":9007199254740993}'],
    ['NUL', '{"sub":"a\\u0000b"}'],
    ['a lone surrogate', '{"sub":"\\ud800"}'],
    ['a lone low surrogate', '{"sub":"\\udc00a"}'],
    ['a byte order mark', '\ufeff{}'],
    ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['an overlong encoding', Buffer.from([0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d])],
    ['a surrogate in UTF-8', Buffer.from([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d])],
    ['nesting', `{"a":${'['.repeat(12)}${']'.repeat(12)}}`],
    ['nesting that would exhaust a stack', `{"a":${'['.repeat(3000)}${']'.repeat(3000)}}`],
    ['nesting without an end', '['.repeat(5000)],
    ['an array', '[{"sub":"a"}]'],
    ['a string', '"sub"'],
    ['a number', '1'],
    ['no JSON', '{sub:"a"}'],
    ['a string without an end', '{"sub":"a'],
    ['a comment', '{"sub":"a"}//'],
    ['names in a list', '["a":1]'],
    ['another token', authority.sign(claims)],
    ['exp as a string', '{"exp":"1800000000"}'],
    ['exp as a float', '{"exp":1800000000.5}'],
    ['exp far away', '{"exp":100000000000000}'],
    ['exp before the epoch', '{"exp":-1}'],
    ['exp null', '{"exp":null}'],
    ['iat as a float', '{"iat":1.5}'],
    ['iat as a list', '{"iat":[1]}'],
    ['nbf true', '{"nbf":true}'],
  ])('refuses %s', (_name, payload) => {
    expect(refusal(() => parseCompactJws(withPayload(payload)))).toBe('payload');
  });

  it('reads everything JSON has, the same as JSON.parse', () => {
    const text =
      '{ "a" : [1, -2.5e3, true, null, {"b":"\\"}{:,[", "c":"\\\\"}], "é😀":"\\ud83d\\ude00", "" : {"a":{}} , "x:y":"\\u0061"}';
    expect(parseCompactJws(withPayload(text)).payload).toEqual(JSON.parse(text));
  });

  it('lets the same name stand in different objects', () => {
    const text = '{"a":{"x":1},"b":{"x":1},"x":[{"x":1},{"x":2}]}';
    expect(parseCompactJws(withPayload(text)).payload).toEqual(JSON.parse(text));
  });
});

describe('times', () => {
  const rules = { skewMs: 30_000, lifeMsMax: 900_000 };
  const check = (payload: Record<string, unknown>, nowMs = NOW_MS, more = {}) =>
    refusal(() => checkTimes(payload, nowMs, { ...rules, ...more }));

  it('answers them in milliseconds', () => {
    expect(checkTimes({ ...claims, nbf: NOW_SECONDS + 5 }, NOW_MS, rules)).toEqual({
      issuedAtMs: NOW_MS,
      expiresAtMs: NOW_MS + 300_000,
      notBeforeMs: NOW_MS + 5_000,
    });
  });

  it('ends a token at exp, without grace', () => {
    expect(check(claims, NOW_MS + 299_999)).toBeUndefined();
    expect(check(claims, NOW_MS + 300_000)).toBe('times');
  });

  it('takes an iat or nbf that is ahead by the skew and no more', () => {
    expect(check({ iat: NOW_SECONDS + 30, exp: NOW_SECONDS + 300 })).toBeUndefined();
    expect(check({ iat: NOW_SECONDS + 31, exp: NOW_SECONDS + 300 })).toBe('times');
    expect(check({ ...claims, nbf: NOW_SECONDS + 30 })).toBeUndefined();
    expect(check({ ...claims, nbf: NOW_SECONDS + 31 })).toBe('times');
  });

  it('bounds the whole life and the age', () => {
    expect(check({ iat: NOW_SECONDS, exp: NOW_SECONDS + 900 })).toBeUndefined();
    expect(check({ iat: NOW_SECONDS, exp: NOW_SECONDS + 901 })).toBe('times');
    expect(check({ iat: NOW_SECONDS - 800, exp: NOW_SECONDS + 101 })).toBe('times');
    expect(check(claims, NOW_MS + 60_000, { ageMsMax: 60_000 })).toBeUndefined();
    expect(check(claims, NOW_MS + 60_001, { ageMsMax: 60_000 })).toBe('times');
  });

  it.each([
    ['exp missing', { iat: NOW_SECONDS }],
    ['iat missing', { exp: NOW_SECONDS + 60 }],
    ['exp before iat', { iat: NOW_SECONDS + 20, exp: NOW_SECONDS + 10 }],
    ['exp infinite', { iat: NOW_SECONDS, exp: Number.POSITIVE_INFINITY }],
    ['exp a string', { iat: NOW_SECONDS, exp: String(NOW_SECONDS + 60) }],
    ['nbf a string', { iat: NOW_SECONDS, exp: NOW_SECONDS + 60, nbf: '1' }],
  ])('refuses %s', (_name, payload) => {
    expect(check(payload)).toBe('times');
  });
});

describe('signatures', () => {
  it.each(Object.keys(JWS_ALGORITHMS))('%s: the right key and no other verifies', (alg) => {
    const jws = parseCompactJws(jwtAuthority({ alg }).sign(claims));
    const other = jwtAuthority({ alg, number: 1 });
    expect(verifyJws(jws, admitKey(jwtAuthority({ alg }).jwk))).toBe(true);
    expect(verifyJws(jws, admitKey(other.jwk))).toBe(false);
    expect(verifyJws({ ...jws, signingInput: `${jws.signingInput}A` }, admitKey(jwtAuthority({ alg }).jwk))).toBe(
      false,
    );
  });

  it('a key with an alg verifies nothing else, although its type could', () => {
    const authority256 = jwtAuthority({ alg: 'RS256' });
    const bound = admitKey({ ...authority256.jwk, alg: 'RS256' });
    expect(verifyJws(parseCompactJws(authority256.sign(claims)), bound)).toBe(true);
    expect(verifyJws(parseCompactJws(jwtAuthority({ alg: 'PS256' }).sign(claims)), bound)).toBe(false);
    expect(verifyJws(parseCompactJws(jwtAuthority({ alg: 'RS512' }).sign(claims)), bound)).toBe(false);
  });

  it('the token cannot choose another algorithm than the key’s', () => {
    const es384 = admitKey(jwtAuthority({ alg: 'ES384' }).jwk);
    expect(verifyJws(parseCompactJws(authority.sign(claims)), es384)).toBe(false);
    const jws = parseCompactJws(authority.sign(claims));
    expect(verifyJws({ ...jws, header: { alg: 'HS256' } }, admitKey(authority.jwk))).toBe(false);
    expect(verifyJws({ ...jws, header: { alg: 'none' } }, admitKey(authority.jwk))).toBe(false);
  });

  it('an ECDSA signature has one length: neither DER nor padded ones are taken', () => {
    const jws = parseCompactJws(authority.sign(claims));
    const key = admitKey(authority.jwk);
    for (const signature of [
      Buffer.concat([jws.signature, Buffer.alloc(1)]),
      Buffer.concat([Buffer.alloc(1), jws.signature]),
      jws.signature.subarray(0, 63),
      Buffer.alloc(64),
      Buffer.alloc(0),
    ]) {
      expect(verifyJws({ ...jws, signature }, key)).toBe(false);
    }
  });
});

describe('which keys are admitted', () => {
  const ec = authority.jwk;
  const rsa = jwtAuthority({ alg: 'RS256' }).jwk;
  const small = keyPair('RS256');

  it('admits EC and RSA keys, and says what they are by RFC 7638', () => {
    expect([...admitKey(ec).algorithms]).toEqual(['ES256']);
    expect([...admitKey(rsa).algorithms]).toEqual(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']);
    expect(admitKey({ ...ec, kid: 'other', use: 'sig' }).thumbprint).toBe(admitKey(ec).thumbprint);
    // The example of RFC 7638 section 3.1.
    const example =
      '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw';
    expect(admitKey({ kty: 'RSA', e: 'AQAB', n: example }).thumbprint).toBe(
      'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs',
    );
  });

  it.each([
    ['a private EC key', { ...ec, d: 'AA' }],
    ['a private RSA key', small.privateKey.export({ format: 'jwk' })],
    ['a symmetric key', { kty: 'oct', k: 'AAAA' }],
    ['an unknown kty', { ...ec, kty: 'AKP' }],
    ['an Ed25519 key', { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }],
    ['no kty', { crv: 'P-256' }],
    ['an EC key that says RSA', { ...ec, kty: 'RSA' }],
    ['an unknown curve', { ...ec, crv: 'secp256k1' }],
    ['a curve named like a prototype member', { ...ec, crv: 'constructor' }],
    ['another curve than its point’s', { ...ec, crv: 'P-384' }],
    ['a point off the curve', { ...ec, y: ec['x'] }],
    ['the point (0,0)', { ...ec, x: 'A'.repeat(43), y: 'A'.repeat(43) }],
    ['a short coordinate', { ...ec, x: 'AAAA' }],
    ['a padded coordinate', { ...ec, x: `${ec['x']}=` }],
    ['a coordinate that is no string', { ...ec, x: 1 }],
    ['the exponent 1', { ...rsa, e: 'AQ' }],
    ['the exponent 3', { ...rsa, e: 'Aw' }],
    ['the exponent with a zero in front', { ...rsa, e: 'AAEAAQ' }],
    ['a modulus of 1024 bits', { ...rsa, n: Buffer.alloc(128, 0xab).toString('base64url') }],
    ['a modulus of 16384 bits', { ...rsa, n: Buffer.alloc(2048, 0xab).toString('base64url') }],
    [
      'a modulus with a zero in front',
      { ...rsa, n: Buffer.concat([Buffer.alloc(1), Buffer.alloc(256, 0xab)]).toString('base64url') },
    ],
    ['an alg of another type', { ...rsa, alg: 'ES256' }],
    ['an alg of another curve', { ...ec, alg: 'ES384' }],
    ['an encryption alg', { ...rsa, alg: 'RSA-OAEP' }],
    ['key_ops without verify', { ...ec, key_ops: ['sign'] }],
    ['key_ops that is no list', { ...ec, key_ops: 'verify' }],
  ])('refuses %s', (_name, jwk) => {
    expect(() => admitKey(jwk as Record<string, unknown>)).toThrow(expect.objectContaining({ name: 'KeyRefused' }));
  });
});
