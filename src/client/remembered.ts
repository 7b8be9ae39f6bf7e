/**
 * Lately used values by key, at most `most` of them. Two generations instead of a list in order of use: a hit costs one lookup, and
 * what was not asked for during a whole generation is forgotten.
 */
export class Remembered<Value> {
  #young = new Map<string, Value>();
  #old = new Map<string, Value>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  get(key: string): Value | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }

  set(key: string, value: Value): void {
    this.#old.delete(key);
    this.#young.set(key, value);
    if (this.#young.size < Math.max(1, this.#most / 2)) return;
    this.#old = this.#young;
    this.#young = new Map();
  }
}

/** Things that may happen once, until a time; when it is full of live ones, nothing more may happen (fail closed). */
export class OnceEach {
  readonly #untilMs = new Map<string, number>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  /** `new` the first time before `untilMs`; `full` when there is no room to remember it. */
  take(key: string, untilMs: number, nowMs: number): 'new' | 'repeated' | 'full' {
    const known = this.#untilMs.get(key);
    if (known !== undefined && known > nowMs) return 'repeated';
    // Insertion order is nearly the order of ends: a few looks at the front keep it small.
    for (const [oldest, endsAtMs] of this.#untilMs) {
      if (endsAtMs > nowMs) break;
      this.#untilMs.delete(oldest);
    }
    if (this.#untilMs.size >= this.#most) {
      for (const [one, endsAtMs] of this.#untilMs) if (endsAtMs <= nowMs) this.#untilMs.delete(one);
      if (this.#untilMs.size >= this.#most) return 'full';
    }
    this.#untilMs.set(key, untilMs);
    return 'new';
  }
}
