import { hash } from 'node:crypto';
import type { EpochMs } from '../../core/time.js';
import type { TrustBundle } from './contract.js';

interface Remembered<Value> {
  value: Value;
  /** The very bundle it was proven with: any change of its keys makes another object, and this one is forgotten. */
  bundle: TrustBundle;
  notBeforeMs: EpochMs;
  expiresAtMs: EpochMs;
}

/**
 * Proofs that were verified, by their exact bytes, until the earliest of their expiry and any change of their bundle. Both
 * are checked at use, so nothing has to be told and nothing lingers. Keys are hashes: no token is kept. Bounded;
 * the least recently used goes first. A failure is never remembered.
 */
export class ProofMemory<Value> {
  readonly #entries = new Map<string, Remembered<Value>>();
  readonly #entriesMax: number;
  readonly #skewMs: number;

  constructor({ entriesMax = 20_000, skewMs = 0 }: { entriesMax?: number; skewMs?: number } = {}) {
    this.#entriesMax = entriesMax;
    this.#skewMs = skewMs;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** `bundleOf` says which bundle holds now for what is remembered; another one than then, and it is forgotten. */
  recall(key: string, nowMs: EpochMs, bundleOf: (name: string) => TrustBundle | undefined): Value | undefined {
    const entry = this.#entries.get(key);
    if (!entry) return undefined;
    this.#entries.delete(key);
    if (nowMs >= entry.expiresAtMs || nowMs + this.#skewMs < entry.notBeforeMs) return undefined;
    if (bundleOf(entry.bundle.trustDomain) !== entry.bundle) return undefined;
    this.#entries.set(key, entry);
    return entry.value;
  }

  keep(key: string, entry: Remembered<Value>): void {
    if (this.#entries.size >= this.#entriesMax) {
      const oldest = this.#entries.keys().next();
      if (!oldest.done) this.#entries.delete(oldest.value);
    }
    this.#entries.set(key, entry);
  }
}

/** The memory's key for exact bytes; parts are told apart by their lengths. */
export function keyOfBytes(...parts: (string | Buffer)[]): string {
  if (parts.length === 1) return hash('sha256', parts[0] as string | Buffer, 'base64');
  return parts.map((part) => hash('sha256', part, 'base64')).join('.');
}
