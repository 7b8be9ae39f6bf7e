import { BrokerError } from '../../core/errors.js';

/**
 * Refuses an identity. The caller learns one sentence for all reasons, so that no answer helps a forger along; the reason
 * goes to audit. A hint is for what an honest caller can fix.
 */
export function refuse(reason: string, hint?: string): never {
  throw new BrokerError(
    'identity_rejected',
    'The identity was not accepted.',
    hint === undefined ? { reason } : { reason, hint },
  );
}

/** We cannot tell right now, because we never had the keys. Never an allow. */
export function unavailable(reason: string): never {
  throw new BrokerError('unavailable', 'The identity cannot be checked right now.', { reason, retryAfterSeconds: 5 });
}
