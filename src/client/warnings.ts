/** What the operator of a process has to hear of, each thing once until it is over. The default is loud: silence looks like health. */
export class Warnings {
  readonly #hear: (warning: string) => void;
  readonly #heard = new Set<string>();

  constructor(hear: (warning: string) => void = (warning) => console.warn(`mayfly: ${warning}`)) {
    this.#hear = hear;
  }

  /** A listener that throws changes nothing: whoever warns goes on with what it does. */
  warn(warning: string): void {
    if (this.#heard.has(warning)) return;
    this.#heard.add(warning);
    try {
      this.#hear(warning);
    } catch {
      // It is the listener's own trouble.
    }
  }
}
