const REDACTED = '[redacted]';

/**
 * A value that cannot be printed by accident: not by a template, JSON, `util.inspect` or a log line.
 * `expose()` is the one way out, and a test pins the files that call it.
 */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  expose(): T {
    return this.#value;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return REDACTED;
  }
}
