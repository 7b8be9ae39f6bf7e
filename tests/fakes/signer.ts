import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import type { KeyRing } from '../../src/broker/parts.js';
import { admitKey, type VerificationKey } from '../../src/core/jwk.js';
import type { PublicJwk, RingKey, Signer } from '../../src/plugins/signers/contract.js';
import { localSigner } from '../../src/plugins/signers/local.js';

/** The product's own signer: ES256 is fast enough for tests, and everything that reads tokens works. */
export function fakeSigner(): Signer {
  return localSigner();
}

let pool: { publicJwk: Record<string, string>; privateKey: string }[] | undefined;

/** A key pair made once per process and number: making them is slow, and tests do not need new ones. */
function pairOf(number: number): { publicJwk: Record<string, string>; privateKey: string } {
  pool ??= [];
  const there = pool[number];
  if (there) return there;
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const made = {
    publicJwk: publicKey.export({ format: 'jwk' }) as Record<string, string>,
    privateKey: privateKey.export({ format: 'pem', type: 'pkcs8' }) as string,
  };
  createPrivateKey(made.privateKey);
  pool[number] = made;
  return made;
}

export function fakeKey(number: number, state: RingKey['state'] = 'active', createdAtMs = 0): RingKey {
  const { publicJwk, privateKey } = pairOf(number);
  const kid = `es256-fake-${number}`;
  return {
    kid,
    alg: 'ES256',
    state,
    createdAtMs,
    publicJwk: { ...publicJwk, kid, alg: 'ES256', use: 'sig' } as unknown as PublicJwk,
    privateKey,
  };
}

/** A ring that tests turn by hand: set `keys`, and the next call sees them. */
export class FakeKeyRing implements KeyRing {
  keys: RingKey[];
  ringVersion = 1;
  readonly #verification = new Map<string, VerificationKey>();

  constructor(keys: RingKey[] = [fakeKey(1)]) {
    this.keys = keys;
  }

  active(): RingKey {
    const key = this.keys.find((one) => one.state === 'active');
    if (!key) throw new Error('no active key in the fake ring');
    return key;
  }

  byKid(kid: string): (RingKey & { verification: VerificationKey }) | undefined {
    const key = this.keys.find((one) => one.kid === kid);
    if (!key) return undefined;
    let verification = this.#verification.get(kid);
    if (!verification) {
      verification = admitKey({ ...key.publicJwk });
      this.#verification.set(kid, verification);
    }
    return { ...key, verification };
  }

  all(): RingKey[] {
    return [...this.keys];
  }

  version(): number {
    return this.ringVersion;
  }

  async refresh(): Promise<void> {}
}
