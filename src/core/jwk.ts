import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import { JWS_ALGORITHMS, type JwsAlgorithm } from './jws.js';

/** A public key that may verify, and for what. Only `admitKey` makes one. */
export interface VerificationKey {
  key: KeyObject;
  algorithms: ReadonlySet<JwsAlgorithm>;
  /** RFC 7638, SHA-256, base64url: what the key is, whatever it is called. */
  thumbprint: string;
}

/** Why a key was not admitted; for operators. */
export class KeyRefused extends Error {
  /** The JWK holds what only its owner may have: whoever published it has a bigger problem than one bad key. */
  readonly isPrivate: boolean;

  constructor(reason: string, { isPrivate = false }: { isPrivate?: boolean } = {}) {
    super(reason);
    this.name = 'KeyRefused';
    this.isPrivate = isPrivate;
  }
}

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k'];
const RSA_BITS_MIN = 2048;
const RSA_BITS_MAX = 8192;
const RSA_EXPONENT = 'AQAB';
const CURVES: Record<string, { algorithm: JwsAlgorithm; coordinateBytes: number }> = {
  'P-256': { algorithm: 'ES256', coordinateBytes: 32 },
  'P-384': { algorithm: 'ES384', coordinateBytes: 48 },
  'P-521': { algorithm: 'ES512', coordinateBytes: 66 },
};
const RSA_ALGORITHMS = (Object.keys(JWS_ALGORITHMS) as JwsAlgorithm[]).filter((alg) => !alg.startsWith('ES'));

/**
 * Looks at a JWK before it may ever verify anything: public only, EC on a NIST curve or RSA of 2048 to 8192 bits with
 * exponent 65537 and without the ROCA weakness, coordinates in their one spelling and on the curve. A key fixes the
 * algorithms it verifies: its curve, or its `alg` when it has one. `key_ops`, when present, has to allow `verify`.
 * `use` is the caller's to judge, because SPIFFE and OIDC mean different things by it. Throws KeyRefused.
 */
export function admitKey(jwk: Record<string, unknown>): VerificationKey {
  for (const name of PRIVATE_MEMBERS) {
    if (Object.hasOwn(jwk, name)) {
      throw new KeyRefused('the key has a private or secret part', { isPrivate: true });
    }
  }
  const { kty, alg, key_ops: operations } = jwk;
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) {
    throw new KeyRefused('key_ops does not allow verify');
  }
  const members = kty === 'EC' ? ecMembers(jwk) : kty === 'RSA' ? rsaMembers(jwk) : undefined;
  if (!members) throw new KeyRefused('the kty is not EC or RSA');
  const possible =
    members.kty === 'EC' ? [(CURVES[members.crv] as { algorithm: JwsAlgorithm }).algorithm] : RSA_ALGORITHMS;
  const algorithms = new Set(alg === undefined ? possible : possible.filter((one) => one === alg));
  if (algorithms.size === 0) throw new KeyRefused('alg does not fit the key');
  let key: KeyObject;
  try {
    key = createPublicKey({ key: members as JsonWebKey, format: 'jwk' });
  } catch {
    throw new KeyRefused('the key is malformed or not on its curve');
  }
  return { key, algorithms, thumbprint: thumbprintOf(members) };
}

type PublicMembers = { kty: 'EC'; crv: string; x: string; y: string } | { kty: 'RSA'; e: string; n: string };

/** Both shapes list their members in the order RFC 7638 wants them hashed, after sorting by name. */
function thumbprintOf(members: PublicMembers): string {
  const canonical =
    members.kty === 'EC'
      ? { crv: members.crv, kty: members.kty, x: members.x, y: members.y }
      : { e: members.e, kty: members.kty, n: members.n };
  return createHash('sha256').update(JSON.stringify(canonical)).digest('base64url');
}

function ecMembers({ crv, x, y }: Record<string, unknown>): PublicMembers {
  const curve = typeof crv === 'string' && Object.hasOwn(CURVES, crv) ? CURVES[crv] : undefined;
  if (!curve) throw new KeyRefused('the curve is not P-256, P-384 or P-521');
  for (const coordinate of [x, y]) {
    if (canonicalBytes(coordinate)?.length !== curve.coordinateBytes) throw new KeyRefused('a coordinate is malformed');
  }
  return { kty: 'EC', crv: crv as string, x: x as string, y: y as string };
}

function rsaMembers({ n, e }: Record<string, unknown>): PublicMembers {
  const modulus = canonicalBytes(n);
  if (!modulus || modulus.length === 0 || modulus[0] === 0) throw new KeyRefused('the modulus is malformed');
  const bits = modulus.length * 8 - Math.clz32(modulus[0] as number) + 24;
  if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX) throw new KeyRefused(`the modulus has ${bits} bits`);
  if (e !== RSA_EXPONENT) throw new KeyRefused('the exponent is not 65537');
  if (hasRocaFingerprint(BigInt(`0x${modulus.toString('hex')}`)))
    throw new KeyRefused('the modulus has the ROCA weakness');
  return { kty: 'RSA', e: RSA_EXPONENT, n: n as string };
}

function canonicalBytes(text: unknown): Buffer | undefined {
  if (typeof text !== 'string') return undefined;
  const bytes = Buffer.from(text, 'base64url');
  return bytes.toString('base64url') === text ? bytes : undefined;
}

const ROCA_PRIMES = [
  3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113,
  127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/**
 * Moduli made by the broken generator of CVE-2017-15361 are, modulo every small prime, powers of 65537. A sound
 * modulus is so by chance once in hundreds of millions.
 */
function hasRocaFingerprint(modulus: bigint): boolean {
  return ROCA_PRIMES.every((prime) => {
    const residue = Number(modulus % BigInt(prime));
    let power = 1;
    do {
      if (power === residue) return true;
      power = (power * 65537) % prime;
    } while (power !== 1);
    return false;
  });
}
