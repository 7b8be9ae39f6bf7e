/**
 * Sends the first at once, and what comes while it is under way together; after a piece with company the next one waits a moment for more, a longer
 * one the more there were. So one alone loses no time, and a crowd costs little more than one. What cannot be sent is dropped, and what nothing is heard
 * of keeps nobody waiting for good.
 */
export class Outbox<Item> {
  readonly #send: (items: Item[]) => Promise<unknown>;
  readonly #together: number;
  readonly #waitMsEach: number;
  readonly #waitMsMax: number;
  readonly #unheardMsMax: number;
  readonly #waitingMax: number;
  #waiting: Item[] = [];
  #isSending = false;

  /**
   * `together`: most items of one piece; `waitMsEach`, `waitMsMax`: how long the next piece waits for each item of the last, and at most;
   * `unheardMsMax`: how long a piece is waited for. What comes when `waitingMax` wait already is dropped.
   */
  constructor(settings: {
    together: number;
    waitMsEach: number;
    waitMsMax: number;
    unheardMsMax: number;
    waitingMax: number;
    send(items: Item[]): Promise<unknown>;
  }) {
    this.#send = settings.send;
    this.#together = settings.together;
    this.#waitMsEach = settings.waitMsEach;
    this.#waitMsMax = settings.waitMsMax;
    this.#unheardMsMax = settings.unheardMsMax;
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
      const sent = settled(this.#send(items), this.#unheardMsMax);
      const isCrowd = items.length > 1 && this.#waiting.length === 0;
      const waitMs = Math.min(items.length * this.#waitMsEach, this.#waitMsMax);
      await (isCrowd ? Promise.all([sent, pause(waitMs)]) : sent);
    }
    this.#isSending = false;
  }
}

/** Resolves when it has come to its end, whatever that is, or when this time is over. */
function settled(sending: Promise<unknown>, withinMs: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, withinMs).unref();
    const end = () => {
      clearTimeout(timer);
      resolve();
    };
    sending.then(end, end);
  });
}

/** It keeps no process from ending. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
