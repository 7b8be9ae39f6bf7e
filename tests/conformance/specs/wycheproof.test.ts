import { createHmac } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { KeyRefused, type VerificationKey } from '../../../src/core/jwk.js';
import { FOREIGN_KID, JwsRefused, splitCompactJws, verifyJws } from '../../../src/core/jws.js';
import { BundleRefused, readJwks } from '../../../src/plugins/identity/bundle-document.js';
import type { Json } from '../../fakes/issuing.js';
import { missingVectors, vectorsPath } from './vectors.js';

interface Vectors {
  testGroups: { comment: string; public?: Json; private: Json; tests: Vector[] }[];
}

interface Vector {
  tcId: number;
  comment: string;
  result: 'valid' | 'invalid' | 'acceptable';
  jws?: unknown;
  jwe?: unknown;
}

const folder = vectorsPath('wycheproof/testvectors_v1');
const present = existsSync(folder);
const read = (name: string): Vectors => JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8')) as Vectors;

/** Every vector that ends otherwise than it says, with the reason. Nothing is excused by count. */
const SYMMETRIC = 'it is a MAC; there are no symmetric keys here';
const exceptions: Record<string, Record<number, string>> = {
  json_web_signature_test: {
    1: SYMMETRIC,
    348: SYMMETRIC,
    352: SYMMETRIC,
    346: 'PS384 under a key for PS256',
    350: 'PS384 under a key for PS256',
    347: 'its key says ES521, which nobody registered',
    351: 'its key says ES521, which nobody registered',
    357: SYMMETRIC,
    358: SYMMETRIC,
    359: SYMMETRIC,
    372: SYMMETRIC,
    373: SYMMETRIC,
    376: SYMMETRIC,
    377: SYMMETRIC,
    259: 'an empty payload is no token',
    264: 'an empty payload is no token',
    268: 'an empty payload is no token',
    272: 'an empty payload is no token',
    320: 'an empty payload is no token',
    325: 'an empty payload is no token',
  },
  json_web_crypto_test: { 1: SYMMETRIC, 48: SYMMETRIC },
  json_web_key_test: { 2: SYMMETRIC, 13: SYMMETRIC, 14: SYMMETRIC, 15: SYMMETRIC },
};

/** What the broker would do with the text and the key or key set: admit the key, parse the text, verify. */
function accepts(text: unknown, published: Json | undefined): boolean {
  if (typeof text !== 'string' || published === undefined) return false;
  try {
    const jws = splitCompactJws(text, { kid: FOREIGN_KID });
    const key = keyOf(published, jws.header.kid);
    return key !== undefined && verifyJws(jws, key);
  } catch (error) {
    if (error instanceof JwsRefused || error instanceof KeyRefused || error instanceof BundleRefused) return false;
    throw error;
  }
}

function keyOf(published: Json, kid: string): VerificationKey | undefined {
  const set = Array.isArray(published['keys']) ? published : { keys: [published] };
  return readJwks(JSON.stringify(set), ['sig']).jwtKeys.get(kid);
}

const suites = ['json_web_signature_test', 'json_web_crypto_test', 'json_web_key_test'];

for (const name of present ? suites : [])
  describe(`Wycheproof ${name}`, () => {
    const vectors = read(name);
    const cases = vectors.testGroups.flatMap((group) =>
      group.tests.filter((test) => test.jws !== undefined).map((test) => ({ group, test })),
    );

    it('has vectors', () => {
      expect(cases.length).toBeGreaterThan(20);
    });

    it.each(cases.map((one) => [one.test.tcId, one.test.result, one.group.comment, one.test.comment, one] as const))(
      '%i is %s (%s: %s)',
      (tcId, result, _group, _comment, { group, test }) => {
        const expected = result === 'valid' && exceptions[name]?.[tcId] === undefined;
        expect(accepts(test.jws, group.public ?? group.private)).toBe(expected);
      },
    );

    it('every exception is one: it says valid and is refused', () => {
      for (const id of Object.keys(exceptions[name] ?? {})) {
        expect(cases.find(({ test }) => test.tcId === Number(id))?.test.result).toBe('valid');
      }
    });
  });

/**
 * The `base64` group is about spelling, so it is also run with its MAC verified here, behind our parser, which then has to
 * tell the good spellings from the bad ones by itself.
 */
if (present)
  describe('Wycheproof base64 group, MACs verified by the test', () => {
    const spelling: Record<number, string> = {
      367: 'byte for byte the valid 357',
      370: 'byte for byte the valid 357',
      372: 'valid, they say, although it has a character that base64url does not have',
      373: 'valid, they say, although it has a character that base64url does not have',
    };
    const group = read('json_web_signature_test').testGroups.find((one) => one.comment === 'base64');
    const cases = group?.tests ?? [];

    it.each(cases.map((test) => [test.tcId, test.result, test.comment, test] as const))(
      '%i is %s (%s)',
      (tcId, result, _comment, test) => {
        let accepted = false;
        try {
          const jws = splitCompactJws(test.jws as string, { algorithms: new Set(['HS256']) });
          const key = Buffer.from(group?.private['k'] as string, 'base64url');
          accepted = createHmac('sha256', key).update(jws.signingInput).digest().equals(jws.signature);
        } catch (error) {
          if (!(error instanceof JwsRefused)) throw error;
        }
        expect(accepted).toBe(spelling[tcId] === undefined ? result === 'valid' : result !== 'valid');
      },
    );
  });

if (present)
  it('no encrypted token of Wycheproof parses as a signed one', () => {
    const texts = read('json_web_encryption_test').testGroups.flatMap((group) => group.tests.map((test) => test.jwe));
    expect(texts.length).toBeGreaterThan(100);
    for (const text of texts) {
      if (typeof text === 'string') expect(() => splitCompactJws(text, { kid: FOREIGN_KID })).toThrow(JwsRefused);
    }
  });

if (!present) {
  missingVectors('Wycheproof JOSE');
  it.skip('Wycheproof JOSE', () => {});
}
