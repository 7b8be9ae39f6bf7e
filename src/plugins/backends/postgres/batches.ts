export interface BatchSettings<Item, Result> {
  /** Most items of one batch. */
  max: number;
  /** How long the first item waits for company, for each that the last batch had, and at most. */
  collectMs: number;
  collectMsMax: number;
  inFlightMax: number;
  /** Does one batch; a result for each item, in order. */
  run(items: Item[]): Promise<Result[]>;
  /** Whether a single item of a failed batch can be to blame. */
  mayBeOne(error: unknown): boolean;
}

interface Waiting<Item, Result> {
  item: Item;
  resolve(result: Result): void;
  reject(error: unknown): void;
}

/**
 * Collects what comes within a moment and does it together. When a batch fails and a single item can be to blame, each item is done by itself: a hostile
 * one leaves the batch and spoils nothing for the others.
 */
export class Batches<Item, Result> {
  readonly #settings: BatchSettings<Item, Result>;
  #waiting: Waiting<Item, Result>[] = [];
  #inFlight = 0;
  #lastLength = 1;
  #timer: NodeJS.Timeout | undefined;

  constructor(settings: BatchSettings<Item, Result>) {
    this.#settings = settings;
  }

  add(item: Item): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ item, resolve, reject });
      if (this.#waiting.length >= this.#settings.max) this.#start();
      else this.#timer ??= setTimeout(() => this.#start(), this.#collectMs());
    });
  }

  /** One alone hardly waits; a crowd gains more by company than it loses by waiting. */
  #collectMs(): number {
    const { collectMs, collectMsMax } = this.#settings;
    return Math.min(collectMs * this.#lastLength, collectMsMax);
  }

  #start(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#waiting.length > 0 && this.#inFlight < this.#settings.inFlightMax) {
      const batch = this.#waiting.slice(0, this.#settings.max);
      this.#waiting = this.#waiting.slice(batch.length);
      this.#lastLength = batch.length;
      this.#inFlight++;
      void this.#run(batch).finally(() => {
        this.#inFlight--;
        this.#start();
      });
    }
  }

  async #run(batch: Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await this.#settings.run(batch.map(({ item }) => item));
      batch.forEach(({ resolve }, at) => {
        resolve(results[at] as Result);
      });
    } catch (error) {
      if (batch.length > 1 && this.#settings.mayBeOne(error)) {
        await this.#runOneByOne(batch);
      } else {
        for (const { reject } of batch) reject(error);
      }
    }
  }

  /** No more of them at a time than batches: each may wait long for what the batch failed at. */
  async #runOneByOne(batch: Waiting<Item, Result>[]): Promise<void> {
    const left = batch.values();
    const hand = async () => {
      for (const one of left) await this.#run([one]);
    };
    await Promise.all(Array.from({ length: Math.min(this.#settings.inFlightMax, batch.length) }, hand));
  }
}
