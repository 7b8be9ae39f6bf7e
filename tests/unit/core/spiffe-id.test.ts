import {
  hasPrefix,
  parseSpiffeId,
  parseTrustDomain,
  pathOf,
  prefixesOf,
  trustDomainOf,
} from '../../../src/core/spiffe-id.js';

const DOMAIN_CHARACTERS = /[a-z0-9._-]/;
const PATH_CHARACTERS = /[A-Za-z0-9._-]/;
const everyByte = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code));

describe('SPF-ID-1: the scheme is spiffe, and there is no query or fragment', () => {
  it.each([
    'SPIFFE://example.org/a',
    'Spiffe://example.org/a',
    'spiffe:/example.org/a',
    'spiffe:example.org/a',
    '//example.org/a',
    'http://example.org/a',
    'https://example.org/a',
    'spiffe ://example.org/a',
    ' spiffe://example.org/a',
    'spiffe://example.org/a ',
    'spiffe://example.org/a\n',
    'spiffe://example.org/a?',
    'spiffe://example.org/a?x=1',
    'spiffe://example.org/a#',
    'spiffe://example.org/a#x',
    'spiffe://example.org/a;x',
    '',
  ])('%p is refused', (text) => {
    expect(parseSpiffeId(text)).toBeUndefined();
  });
});

describe('SPF-ID-2: a host, and neither user nor port', () => {
  it.each([
    'spiffe://',
    'spiffe:///a',
    'spiffe://user@example.org/a',
    'spiffe://user:word@example.org/a',
    'spiffe://@example.org/a',
    'spiffe://example.org:443/a',
    'spiffe://example.org:/a',
    'spiffe://[::1]/a',
  ])('%p is refused', (text) => {
    expect(parseSpiffeId(text)).toBeUndefined();
  });
});

describe('SPF-ID-3: the host is lower case, of [a-z0-9.-_], without percent-encoding', () => {
  it('takes exactly these bytes, first and last', () => {
    for (const character of everyByte) {
      const fits = DOMAIN_CHARACTERS.test(character);
      expect([character, parseSpiffeId(`spiffe://${character}example.org/a`) !== undefined]).toEqual([character, fits]);
      expect([character, parseTrustDomain(`example${character}`) !== undefined]).toEqual([character, fits]);
    }
  });

  it('takes dotted quads as names like any other', () => {
    expect(trustDomainOf(parseSpiffeId('spiffe://127.0.0.1/a') as never)).toBe('127.0.0.1');
  });

  it.each([
    'Example.org',
    'EXAMPLE.ORG',
    'exam%70le.org',
    'ex\u00e4mple.org',
    'example.org/',
    'spiffe://example.org',
    7,
    null,
    undefined,
    {},
  ])('%p is no trust domain', (name) => {
    expect(parseTrustDomain(name)).toBeUndefined();
  });
});

describe('SPF-ID-4: segments of [a-zA-Z0-9.-_], none empty, `.` or `..`, no trailing slash', () => {
  it('takes exactly these bytes, alone in a segment and inside one', () => {
    for (const character of everyByte) {
      const fits = PATH_CHARACTERS.test(character);
      expect([character, parseSpiffeId(`spiffe://example.org/a${character}b`) !== undefined]).toEqual([
        character,
        fits || character === '/',
      ]);
      expect([character, parseSpiffeId(`spiffe://example.org/${character}`) !== undefined]).toEqual([
        character,
        fits && character !== '.',
      ]);
    }
  });

  it.each([
    'spiffe://example.org',
    'spiffe://example.org/',
    'spiffe://example.org//',
    'spiffe://example.org//a',
    'spiffe://example.org/a/',
    'spiffe://example.org/a//b',
    'spiffe://example.org/.',
    'spiffe://example.org/..',
    'spiffe://example.org/a/.',
    'spiffe://example.org/a/..',
    'spiffe://example.org/./a',
    'spiffe://example.org/../a',
    'spiffe://example.org/a/../b',
    'spiffe://example.org/%61',
    'spiffe://example.org/%2e%2e/a',
    'spiffe://example.org/a%2fb',
    'spiffe://example.org/a\\b',
    'spiffe://example.org/ä',
    'spiffe://example.org/a\u0000',
    'spiffe://example.org/*',
    'spiffe://example.org/a,URI:spiffe://example.org/b',
  ])('%p is refused', (text) => {
    expect(parseSpiffeId(text)).toBeUndefined();
  });

  it.each(['...', '.a', 'a.', '..a', '-', '_', 'A', '0', 'a..b'])('the segment %p is legal', (segment) => {
    expect(pathOf(parseSpiffeId(`spiffe://example.org/x/${segment}`) as never)).toBe(`/x/${segment}`);
  });

  it('is case-sensitive', () => {
    expect(parseSpiffeId('spiffe://example.org/A')).not.toBe(parseSpiffeId('spiffe://example.org/a'));
  });
});

describe('SPF-ID-5: 2048 bytes for the whole, 255 for the trust domain', () => {
  const ofLength = (length: number) => `spiffe://example.org/${'a'.repeat(length - 'spiffe://example.org/'.length)}`;

  it('takes the longest and nothing longer', () => {
    expect(parseSpiffeId(ofLength(2048))).toHaveLength(2048);
    expect(parseSpiffeId(ofLength(2049))).toBeUndefined();
    expect(parseSpiffeId(`spiffe://${'a'.repeat(255)}/a`)).toBeDefined();
    expect(parseSpiffeId(`spiffe://${'a'.repeat(256)}/a`)).toBeUndefined();
    expect(parseTrustDomain('a'.repeat(255))).toBeDefined();
    expect(parseTrustDomain('a'.repeat(256))).toBeUndefined();
  });
});

it('a value that is no string is no SPIFFE ID', () => {
  for (const value of [undefined, null, 1, ['spiffe://example.org/a'], { toString: () => 'spiffe://example.org/a' }]) {
    expect(parseSpiffeId(value)).toBeUndefined();
  }
});

it('a prefix holds whole segments only', () => {
  expect(hasPrefix('spiffe://example.org/agent/a', 'spiffe://example.org/agent')).toBe(true);
  expect(hasPrefix('spiffe://example.org/agent', 'spiffe://example.org/agent')).toBe(true);
  expect(hasPrefix('spiffe://example.org/agents', 'spiffe://example.org/agent')).toBe(false);
  expect(hasPrefix('spiffe://example.org.evil/agent', 'spiffe://example.org')).toBe(false);
});

it('lists every prefix of an ID, shortest first, itself included', () => {
  const id = parseSpiffeId('spiffe://example.org/agent/refunds/eu');
  expect(prefixesOf(id as never)).toEqual([
    'spiffe://example.org/agent',
    'spiffe://example.org/agent/refunds',
    'spiffe://example.org/agent/refunds/eu',
  ]);
});
