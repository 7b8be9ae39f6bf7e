import { hkdfSync, randomUUID } from 'node:crypto';
import type { BrokerSettings, KeyRing } from '../broker/parts.js';
import type { Observe } from '../core/observe.js';
import { Secret } from '../core/secret.js';
import type { Clock } from '../core/time.js';
import type { BackendDeps } from '../plugins/backends/contract.js';
import type { Signer } from '../plugins/signers/contract.js';
import { Encryption } from '../state/encryption.js';

/** What every backend of this broker may use. */
export function backendDeps(broker: {
  rootKey: Uint8Array;
  settings: Pick<BrokerSettings, 'issuer' | 'cell'>;
  clock: Clock;
  observe: Observe;
  signer: Signer;
  keys: KeyRing;
}): Omit<BackendDeps, 'name'> {
  const { clock, settings, signer, keys } = broker;
  const encryption = new Encryption(broker.rootKey, settings.cell);
  return {
    installation: installationOf(broker.rootKey, settings.cell),
    clock,
    observe: broker.observe,
    async assertion({ issuer = settings.issuer, subject, audience, ttlMs, id = randomUUID(), claims = {} }) {
      const iat = Math.floor(clock.now() / 1000);
      const exp = Math.ceil((clock.now() + ttlMs) / 1000);
      const payload = { ...claims, iss: issuer, sub: subject, aud: audience, iat, exp, jti: id };
      return new Secret(signer.sign(keys.active(), 'JWT', payload));
    },
    decrypt: (place, encrypted) => new Secret(encryption.decrypt('backend', place, encrypted).toString('utf8')),
    fingerprint: (place, value) => encryption.fingerprint('backend', place, value),
  };
}

const LENGTH = 8;

/**
 * Keeps this installation's names apart from those of others at a shared backend. It comes from the root key, which outlives Redis: when the store
 * is lost for good, what was issued before is still found under these names and revoked. It says nothing about the key.
 */
export function installationOf(rootKey: Uint8Array, cell: string): string {
  const digest = Buffer.from(hkdfSync('sha256', rootKey, cell, 'mayfly/1/installation', LENGTH));
  return digest.readBigUInt64BE().toString(36).padStart(LENGTH, '0').slice(-LENGTH);
}
