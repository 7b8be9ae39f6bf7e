import type { Clock, EpochMs } from '../../src/core/time.js';

/** 2027-01-15 08:00:00 UTC, a whole second: the usual morning of a test. */
export const MORNING: EpochMs = 1_800_000_000_000;

/** Time that moves only when a test turns it. */
export class VirtualClock implements Clock {
  #nowMs: EpochMs;

  constructor(nowMs: EpochMs = MORNING) {
    this.#nowMs = nowMs;
  }

  now(): EpochMs {
    return this.#nowMs;
  }

  advance(ms: number): void {
    this.#nowMs += ms;
  }

  /** Jumps, also backwards. */
  set(nowMs: EpochMs): void {
    this.#nowMs = nowMs;
  }
}
