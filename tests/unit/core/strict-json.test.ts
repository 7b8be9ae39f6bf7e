import fc from 'fast-check';
import { JsonRefused, parseStrictJson, parseStrictObject } from '../../../src/core/strict-json.js';

const attempt = (text: string, options?: { depthMax?: number }) => {
  try {
    return { value: parseStrictJson(text, options) };
  } catch (error) {
    if (error instanceof JsonRefused) return { refused: error.message };
    throw error;
  }
};

/** Places where whitespace may stand, filled in. */
const spaced = (text: string, space: string) => JSON.stringify(JSON.parse(text), undefined, space);

it('takes what JSON.parse takes and gives the same, for any value without what parsers disagree about', () => {
  const key = fc.string({ unit: 'binary-ascii' }).filter((name) => name !== '__proto__' && !name.includes('\0'));
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.oneof(
        fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\0')),
        fc.double({ noNaN: true, noDefaultInfinity: true }).filter((number) => !/^-?\d{16,}$/.test(String(number))),
        fc.maxSafeInteger(),
        fc.boolean(),
        fc.constant(null),
      ),
      fc.array(tie('value'), { maxLength: 5 }),
      fc.dictionary(key, tie('value'), { maxKeys: 5 }),
    ),
  }));
  fc.assert(
    fc.property(value, fc.constantFrom('', ' ', '\t', '\n  '), (one, space) => {
      const text = spaced(JSON.stringify(one), space);
      expect(parseStrictJson(text)).toEqual(JSON.parse(text));
    }),
    { numRuns: 300 },
  );
});

it('never takes what JSON.parse refuses', () => {
  const piece = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '"',
    '\\',
    'a',
    '1',
    '-',
    '.',
    'e9',
    'true',
    'null',
    ' ',
    '\n',
    '"a"',
    '"a":',
    '\u0001',
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const text = pieces.join('');
      let theirs = true;
      try {
        JSON.parse(text);
      } catch {
        theirs = false;
      }
      if (!theirs) expect(attempt(text)).toHaveProperty('refused');
    }),
    { numRuns: 1000 },
  );
});

it('refuses every doubled member, at any depth and however the second one is spelled', () => {
  const escaping = (name: string) =>
    [...name].map((one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`).join('');
  fc.assert(
    fc.property(fc.stringMatching(/^[a-z]{1,8}$/), fc.nat(8), fc.boolean(), (name, depth, escaped) => {
      const inner = `{"${name}":1,"x-y":{},"${escaped ? escaping(name) : name}":2}`;
      const text = '{"a":['.repeat(depth) + inner + ']}'.repeat(depth);
      expect(attempt(text, { depthMax: 20 })).toEqual({ refused: 'a member named twice' });
    }),
    { numRuns: 200 },
  );
});

it('nests to the depth allowed and not further', () => {
  expect(attempt('[[[1]]]', { depthMax: 3 })).toHaveProperty('value');
  expect(attempt('[[[[1]]]]', { depthMax: 3 })).toEqual({ refused: 'nested deeper than 3' });
  expect(attempt('{"a":{"b":{"c":{}}}}', { depthMax: 3 })).toEqual({ refused: 'nested deeper than 3' });
  expect(attempt('[[],[],{"a":[]}]', { depthMax: 3 })).toHaveProperty('value');
  expect(attempt('['.repeat(1_000_000))).toEqual({ refused: 'nested deeper than 12' });
});

it('an object is asked for and nothing else is given', () => {
  expect(parseStrictObject('{"a":1}')).toEqual({ a: 1 });
  for (const text of ['[]', 'null', '1', '"a"', 'true'])
    expect(() => parseStrictObject(text)).toThrow('not a JSON object');
});
