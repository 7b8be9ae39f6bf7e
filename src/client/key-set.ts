import { admitKey, type VerificationKey } from '../core/jwk.js';
import { OWN_KID } from '../core/jws.js';
import { parseStrictObject } from '../core/strict-json.js';
import { reasonOf } from './reason.js';
import { type Fetch, textOf } from './transport.js';

export interface KeySetOptions {
  /** Where the broker is, without a trailing slash. */
  url: string;
  fetch: Fetch;
  elapsedMs: () => number;
  refreshMs?: number;
  /** An unknown `kid` makes us ask again, this often at most: a stream of made-up kids costs nobody anything. */
  refreshMsMin?: number;
  /** Why a fetch failed, each time. */
  onProblem?: (problem: string) => void;
  onLoaded?: () => void;
}

const BYTES_MAX = 64 * 1024;
const KEYS_MAX = 64;
const TIMEOUT_MS = 5_000;

/**
 * The broker's public keys (`/.well-known/jwks.json`), always loaded before they are needed: a key is published two minutes before
 * it signs, and asked for every minute. A failed fetch changes nothing; a fetched set replaces the one before, so that a key
 * that was withdrawn verifies nothing more.
 */
export class KeySet {
  readonly #options: KeySetOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #closing = new AbortController();
  #keys = new Map<string, VerificationKey>();
  readonly #withdrawn = new Set<string>();
  #fetchedAtMs: number | undefined;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #refreshing: Promise<void> | undefined;
  #lastProblem: string | undefined;

  constructor(options: KeySetOptions) {
    this.#options = options;
    this.#timer = setInterval(() => void this.refresh(), options.refreshMs ?? 60_000);
    this.#timer.unref();
  }

  keyOf(kid: string): VerificationKey | undefined {
    return this.#withdrawn.has(kid) ? undefined : this.#keys.get(kid);
  }

  status(): { loaded: boolean; kids: string[]; lastProblem?: string } {
    return {
      loaded: this.#fetchedAtMs !== undefined,
      kids: [...this.#keys.keys()].filter((kid) => !this.#withdrawn.has(kid)),
      ...(this.#lastProblem === undefined ? {} : { lastProblem: this.#lastProblem }),
    };
  }

  /** A tainted key is gone for good, whatever a JWKS says later. */
  withdraw(kid: string): void {
    this.#withdrawn.add(kid);
  }

  /** Whether asking again may bring an unknown `kid`, that is: nobody asked just now. */
  mayRefresh(): boolean {
    const { elapsedMs, refreshMsMin } = this.#options;
    return this.#refreshing !== undefined || elapsedMs() - this.#triedAtMs >= (refreshMsMin ?? 5_000);
  }

  /** Fetches the set; several callers share one request. Never throws: `status()` says what went wrong. */
  async refresh(): Promise<void> {
    this.#refreshing ??= this.#fetch().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#closing.abort();
  }

  async #fetch(): Promise<void> {
    this.#triedAtMs = this.#options.elapsedMs();
    try {
      const response = await this.#options.fetch(`${this.#options.url}/.well-known/jwks.json`, {
        headers: { accept: 'application/json' },
        signal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout(TIMEOUT_MS)]),
        redirect: 'error',
      });
      const text = await textOf(response, BYTES_MAX);
      if (response.status !== 200) throw new Error(`the broker answered ${response.status} to the JWKS request`);
      this.#keys = this.#read(text);
      this.#fetchedAtMs = this.#options.elapsedMs();
      this.#lastProblem = undefined;
      this.#options.onLoaded?.();
    } catch (error) {
      this.#lastProblem = reasonOf(error);
      if (!this.#closing.signal.aborted) this.#options.onProblem?.(this.#lastProblem);
    }
  }

  /** Keys that cannot verify task tokens are left out; the rest stay usable. */
  #read(text: string): Map<string, VerificationKey> {
    const { keys } = parseStrictObject(text);
    if (!Array.isArray(keys) || keys.length > KEYS_MAX) throw new Error('the JWKS has no list of keys, or too many');
    const read = new Map<string, VerificationKey>();
    for (const jwk of keys) {
      const { kid, use, alg } = Object(jwk) as Record<string, unknown>;
      if (typeof kid !== 'string' || !OWN_KID.test(kid) || (use !== undefined && use !== 'sig')) continue;
      if (alg !== 'ES256' && alg !== 'RS256') continue;
      try {
        const admitted = admitKey(jwk);
        const known = this.#keys.get(kid);
        // The same key stays the same object, so that what was verified with it stays remembered.
        read.set(kid, known?.thumbprint === admitted.thumbprint ? known : admitted);
      } catch {
        // Another kind of key, of which this set may hold some.
      }
    }
    return read;
  }
}
