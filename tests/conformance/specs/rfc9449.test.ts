import { type DpopCheck, DpopRefused, verifyDpop } from '../../../src/core/dpop.js';
import { ProofMaker, signJws } from '../../fakes/issuer.js';

/*
 * RFC 9449, OAuth 2.0 Demonstrating Proof of Possession: the proofs that the RFC prints (figures 2, 12), and section 4.3, check by check.
 * What needs a memory or a server is in tests/unit/client (replay, nonce, challenges).
 */

const TOKEN_REQUEST_PROOF =
  'eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19' +
  '.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ' +
  '.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg';
const RESOURCE_PROOF =
  'eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19' +
  '.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9' +
  '.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA';
const ACCESS_TOKEN = 'Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU';
const THUMBPRINT = '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I';

describe('the proofs that the RFC prints', () => {
  it('section 4.1: the one of a token request verifies, with the thumbprint of section 6.1', () => {
    expect(
      verifyDpop({
        proof: TOKEN_REQUEST_PROOF,
        method: 'POST',
        url: 'https://server.example.com/token',
        nowMs: 1_562_262_616_000,
      }),
    ).toMatchObject({ jkt: THUMBPRINT, jti: '-BwC3ESc6acc2lTc', iat: 1_562_262_616 });
  });

  it('section 7.1: the one of a protected resource verifies with its access token and binding', () => {
    expect(
      verifyDpop({
        proof: RESOURCE_PROOF,
        method: 'GET',
        url: 'https://resource.example.org/protectedresource',
        nowMs: 1_562_262_618_000,
        accessToken: ACCESS_TOKEN,
        jkt: THUMBPRINT,
      }),
    ).toMatchObject({ jkt: THUMBPRINT });
  });
});

describe('section 4.3', () => {
  const nowMs = 1_795_382_752_000;
  const url = 'https://server.example.com/token';
  const prover = new ProofMaker();
  const claims = { htm: 'POST', htu: url, iat: nowMs / 1_000 };
  const take = (proof: string, more = {}) => verifyDpop({ proof, method: 'POST', url, nowMs, ...more });
  const { kty, crv, x, y } = prover.key.publicJwk;

  it('as a whole: a proof that meets all checks is taken', () => {
    expect(take(prover.prove(claims)).jkt).toBe(prover.jkt);
  });

  const bad: [name: string, proof: string, more?: Partial<DpopCheck>][] = [
    ['check 1: not more than one DPoP header (node joins them)', `${prover.prove(claims)}, ${prover.prove(claims)}`],
    ['check 2: a single well-formed JWT', `${prover.prove(claims)}.x`],
    ['check 3: jti is there', prover.prove({ ...claims, jti: undefined })],
    ['check 3: htm is there', prover.prove({ ...claims, htm: undefined as unknown as string })],
    ['check 3: htu is there', prover.prove({ ...claims, htu: undefined as unknown as string })],
    ['check 3: iat is there', prover.prove({ ...claims, iat: undefined as unknown as number })],
    ['check 4: typ is dpop+jwt', prover.prove(claims, { typ: 'jwt' })],
    ['check 5: alg is asymmetric and not none', prover.prove(claims, { alg: 'none' })],
    [
      'check 6: the signature verifies with the jwk',
      `${prover.prove(claims).split('.').slice(0, 2).join('.')}.${'A'.repeat(86)}`,
    ],
    [
      'check 7: the jwk has no private part',
      signJws({ typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y, d: x } }, { jti: 'j', ...claims }, prover.key),
    ],
    ['check 8: htm is the method', prover.prove({ ...claims, htm: 'GET' })],
    ['check 9: htu is the URI', prover.prove({ ...claims, htu: 'https://server.example.com/other' })],
    [
      'check 10: the nonce is ours',
      prover.prove({ ...claims, nonce: 'theirs' }),
      { nonce: (given?: string) => given === 'ours' },
    ],
    ['check 11: iat is within the window', prover.prove({ ...claims, iat: claims.iat - 400 })],
    [
      'check 12: ath is the hash of the access token',
      prover.prove({ ...claims, accessToken: 'other' }),
      { accessToken: ACCESS_TOKEN },
    ],
    [
      'check 12: the key is the one the token is bound to',
      prover.prove({ ...claims, accessToken: ACCESS_TOKEN }),
      { accessToken: ACCESS_TOKEN, jkt: THUMBPRINT },
    ],
  ];
  for (const [name, proof, more] of bad) {
    it(name, () => {
      expect(() => take(proof, more)).toThrow(DpopRefused);
    });
  }

  it('check 9: query and fragment do not count, nor how the URI is written', () => {
    expect(take(prover.prove({ ...claims, htu: 'HTTPS://server.example.com:443/token?q#f' })).jkt).toBe(prover.jkt);
    expect(take(prover.prove(claims), { url: `${url}?code=1` }).jkt).toBe(prover.jkt);
  });
});
