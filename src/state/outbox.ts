/**
 * Sends the first at once, and what comes while it is under way together; after a piece with company the next one waits a moment for more. So one
 * alone loses no time, and a crowd costs little more than one. What cannot be sent is dropped.
 */
export class Outbox<Item> {
  readonly #send: (items: Item[]) => Promise<unknown>;
  readonly #together: number;
  readonly #everyMs: number;
  readonly #waitingMax: number;
  #waiting: Item[] = [];
  #isSending = false;

  /** `together`: most items of one piece; `everyMs`: from one piece with company to the next. What comes when `waitingMax` wait already is dropped. */
  constructor(settings: {
    together: number;
    everyMs: number;
    waitingMax: number;
    send(items: Item[]): Promise<unknown>;
  }) {
    this.#send = settings.send;
    this.#together = settings.together;
    this.#everyMs = settings.everyMs;
    this.#waitingMax = settings.waitingMax;
  }

  add(item: Item): void {
    if (this.#waiting.length >= this.#waitingMax) return;
    this.#waiting.push(item);
    if (!this.#isSending) void this.#sendAll();
  }

  drop(): void {
    this.#waiting = [];
  }

  async #sendAll(): Promise<void> {
    this.#isSending = true;
    while (this.#waiting.length > 0) {
      const items = this.#waiting.splice(0, this.#together);
      const sent = this.#send(items).catch(() => {});
      const isCrowd = items.length > 1 && this.#waiting.length === 0;
      await (isCrowd ? Promise.all([sent, pause(this.#everyMs)]) : sent);
    }
    this.#isSending = false;
  }
}

/** It keeps no process from ending. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
