/** Different words for one trouble, until it is over: what they quote comes from others. */
const HEARD_MAX = 16;

/** What the operator of a process has to hear of, each thing once until it is over. The default is loud: silence looks like health. */
export class Warnings<Trouble extends string> {
  readonly #hear: (warning: string) => void;
  readonly #heard = new Map<Trouble, Set<string>>();

  constructor(hear: (warning: string) => void = (warning) => console.warn(`mayfly: ${warning}`)) {
    this.#hear = hear;
  }

  /** A listener that throws changes nothing: whoever warns goes on with what it does. */
  warn(trouble: Trouble, warning: string): void {
    const heard = this.#heard.get(trouble) ?? new Set();
    if (heard.has(warning) || heard.size === HEARD_MAX) return;
    this.#heard.set(trouble, heard.add(warning));
    try {
      this.#hear(warning);
    } catch {
      // It is the listener's own trouble.
    }
  }

  /** Should it come again, it is said again. */
  over(trouble: Trouble): void {
    this.#heard.delete(trouble);
  }
}
