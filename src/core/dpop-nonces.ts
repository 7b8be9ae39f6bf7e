import { createHmac, timingSafeEqual } from 'node:crypto';
import type { EpochMs } from './time.js';

const NONCE_LIFE_MS = 120_000;

/**
 * Server nonces for DPoP proofs (RFC 9449 section 8). They are a keyed hash of the current two-minute window, so every broker of the cell
 * accepts what another gave out, and nothing has to be remembered.
 */
export function dpopNonces(cellKey: Uint8Array) {
  const nonceOf = (window: number) => createHmac('sha256', cellKey).update(`dpop-nonce\0${window}`).digest('base64url');
  return {
    current: (nowMs: EpochMs): string => nonceOf(Math.floor(nowMs / NONCE_LIFE_MS)),
    accepts(nonce: string, nowMs: EpochMs): boolean {
      const window = Math.floor(nowMs / NONCE_LIFE_MS);
      return [window, window - 1].some((one) => isEqual(nonce, nonceOf(one)));
    },
  };
}

function isEqual(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
