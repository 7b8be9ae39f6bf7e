const SAMPLE_EVERY_MS = 60_000;
const SAMPLES_MAX = 60;
const HOUR_MS = 3_600_000;

/** How Redis' memory has grown in the last hour, and so when it is full if that goes on. */
export class MemoryTrend {
  #samples: { atMs: number; bytes: number }[] = [];

  /** `atMs` by a monotonic clock. */
  note(bytes: number, atMs: number): void {
    const last = this.#samples.at(-1);
    if (last && atMs - last.atMs < SAMPLE_EVERY_MS) return;
    this.#samples.push({ atMs, bytes });
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift();
  }

  /** Hours until `limitBytes` are used; undefined while nothing grows or too little is known. */
  hoursUntil(limitBytes: number): number | undefined {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (!first || !last || last.atMs - first.atMs < SAMPLE_EVERY_MS) return undefined;
    const bytesPerMs = (last.bytes - first.bytes) / (last.atMs - first.atMs);
    if (bytesPerMs <= 0) return undefined;
    return Math.max(limitBytes - last.bytes, 0) / bytesPerMs / HOUR_MS;
  }
}
