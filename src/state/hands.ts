import { dueMember } from './due.js';
import type { Job } from './stores.js';

interface Waiting {
  job: Job;
  done(): void;
}

/** So many pieces of work at a time; the others wait, in order. */
export class Hands {
  readonly #max: number;
  readonly #waitingMax: number;
  readonly #work: (job: Job) => Promise<void>;
  readonly #waiting = new Map<string, Waiting>();
  #busy = 0;

  /** `work` does not throw. What comes when so many wait is not taken. */
  constructor(max: number, waitingMax: number, work: (job: Job) => Promise<void>) {
    this.#max = max;
    this.#waitingMax = waitingMax;
    this.#work = work;
  }

  /** Resolves when it is done. What waits already is not taken twice. */
  give(job: Job): Promise<void> {
    const key = dueMember(job);
    if (this.#waiting.has(key) || this.#waiting.size >= this.#waitingMax) return Promise.resolve();
    return new Promise((done) => {
      this.#waiting.set(key, { job, done });
      if (this.#busy < this.#max) void this.#lend();
    });
  }

  /** Forgets what nobody has begun. */
  drop(): void {
    for (const { done } of this.#waiting.values()) done();
    this.#waiting.clear();
  }

  async #lend(): Promise<void> {
    this.#busy += 1;
    for (const [key, { job, done }] of this.#waiting) {
      this.#waiting.delete(key);
      await this.#work(job);
      done();
    }
    this.#busy -= 1;
  }
}
