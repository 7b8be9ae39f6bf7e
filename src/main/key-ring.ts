import type { KeyRing } from '../broker/parts.js';
import { BrokerError } from '../core/errors.js';
import { admitKey, type VerificationKey } from '../core/jwk.js';
import type { RingKey } from '../plugins/signers/contract.js';
import type { Views } from '../state/stores.js';

/** The signing keys as the store has them, read again by `refresh` (at each move, and every few seconds for moves by other brokers). */
export function keyRing(views: Views): KeyRing {
  let version = 0;
  let keys: RingKey[] = [];
  let byKid = new Map<string, RingKey & { verification: VerificationKey }>();
  let active: RingKey | undefined;

  return {
    active() {
      if (active) return active;
      throw new BrokerError('unavailable', 'There is no signing key yet.', { retryAfterSeconds: 1 });
    },
    byKid: (kid) => byKid.get(kid),
    all: () => keys,
    version: () => version,
    async refresh() {
      const stored = await views.keyRing();
      if (!stored || stored.version === version) return;
      const ring = stored.ring as RingKey[];
      byKid = new Map(ring.map((key) => [key.kid, { ...key, verification: admitKey(key.publicJwk) }]));
      active = byKid.get(ring.find((key) => key.state === 'active')?.kid ?? '');
      keys = ring;
      version = stored.version;
    },
  };
}
