/** The latest used values by key, at most `most` of them: what is not asked for longest is forgotten first. */
export class Remembered<Value> {
  readonly #values = new Map<string, Value>();
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#values.size;
  }

  get(key: string): Value | undefined {
    const value = this.#values.get(key);
    if (value === undefined) return undefined;
    this.#values.delete(key);
    this.#values.set(key, value);
    return value;
  }

  set(key: string, value: Value): void {
    this.#values.delete(key);
    this.#values.set(key, value);
    if (this.#values.size > this.#most) this.#values.delete(this.#values.keys().next().value as string);
  }

  delete(key: string): void {
    this.#values.delete(key);
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
