/** So many at a time, and no more than so many a second; the rest wait in line. */
export class Turnstile {
  readonly #max: number;
  readonly #everyMs: number;
  readonly #waiting = new Set<() => void>();
  #inside = 0;
  #nextMs = 0;

  constructor(max: number, ratePerSecond?: number) {
    this.#max = max;
    this.#everyMs = ratePerSecond === undefined ? 0 : 1_000 / ratePerSecond;
  }

  /** Resolves when it is one's turn; the caller leaves in any case. Rejects, without having entered, when the signal aborts first. */
  async enter(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#inside < this.#max) this.#inside += 1;
    else await this.#turn(signal);
    try {
      await this.#pace(signal);
    } catch (error) {
      this.leave();
      throw error;
    }
  }

  leave(): void {
    const [next] = this.#waiting;
    if (next) next();
    else this.#inside -= 1;
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#waiting.delete(enter);
        signal.removeEventListener('abort', giveUp);
      };
      const enter = () => {
        settle();
        resolve();
      };
      const giveUp = () => {
        settle();
        reject(signal.reason);
      };
      this.#waiting.add(enter);
      signal.addEventListener('abort', giveUp, { once: true });
    });
  }

  #pace(signal: AbortSignal): Promise<void> | undefined {
    if (this.#everyMs === 0) return undefined;
    const nowMs = performance.now();
    const atMs = Math.max(this.#nextMs, nowMs);
    this.#nextMs = atMs + this.#everyMs;
    return atMs <= nowMs ? undefined : waitMs(atMs - nowMs, signal);
  }
}

function waitMs(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const giveUp = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener('abort', giveUp);
      resolve();
    }, ms);
    signal.addEventListener('abort', giveUp, { once: true });
  });
}
