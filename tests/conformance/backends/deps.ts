import { createHash, randomBytes } from 'node:crypto';
import type { KeyRing } from '../../../src/broker/parts.js';
import { admitKey } from '../../../src/core/jwk.js';
import { systemClock } from '../../../src/core/time.js';
import { backendDeps } from '../../../src/main/backend-deps.js';
import type { BackendDeps } from '../../../src/plugins/backends/contract.js';
import type { RingKey } from '../../../src/plugins/signers/contract.js';
import { localSigner } from '../../../src/plugins/signers/local.js';
import { Encryption } from '../../../src/state/encryption.js';

export const ISSUER = 'https://mayfly.example';

/** What main gives to every backend: the real thing, for one installation and another. */
export interface Installation {
  /** Whoever has the same name is another broker of it. */
  deps(name: string, installation?: string): BackendDeps;
  /** Our public keys, as an upstream has them. */
  jwks: { keys: object[] };
  /** What `mayfly secret encrypt` prints. */
  encrypt(place: string, value: string): string;
  rootKey: Uint8Array;
}

export async function installation(): Promise<Installation> {
  const signer = localSigner();
  const key: RingKey = { ...(await signer.makeKey('ES256', Date.now())), state: 'active' };
  const keys: KeyRing = {
    active: () => key,
    byKid: () => ({ ...key, verification: admitKey(key.publicJwk) }),
    all: () => [key],
    version: () => 1,
    refresh: async () => {},
  };
  const rootKey = randomBytes(32);
  return {
    rootKey,
    jwks: { keys: [key.publicJwk] },
    encrypt: (place, value) => new Encryption(rootKey, 'a').encrypt('backend', place, Buffer.from(value)),
    deps: (name, which = 'ours') => ({
      name,
      ...backendDeps({
        rootKey: which === 'ours' ? rootKey : createHash('sha256').update(which).digest(),
        settings: { issuer: ISSUER, cell: 'a' },
        clock: systemClock,
        observe: () => {},
        signer,
        keys,
      }),
    }),
  };
}
