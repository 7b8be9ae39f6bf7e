import type { Clock, EpochMs } from '../../core/time.js';

/** So many failures in a row, and nobody else waits for a backend that does not answer. */
const FAILURES_MAX = 5;
const TRIAL_EVERY_MS = 1_000;
/** A trial that never came back is not waited for. */
const TRIAL_MS_MAX = 30_000;

export type BreakerState = 'closed' | 'open';

/**
 *     closed → open (five times in a row unreachable, sealed or out of time) → closed (a trial was answered)
 *
 * While it is open, one call at a time is let through, a second apart: whoever comes then is the trial.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #onChange: (state: BreakerState) => void;
  #failures = 0;
  #open = false;
  #trialFromMs: EpochMs = 0;

  constructor(clock: Clock, onChange: (state: BreakerState) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  get state(): BreakerState {
    return this.#open ? 'open' : 'closed';
  }

  /** Whether a call made now would be let through. */
  get admits(): boolean {
    return !this.#open || this.#clock.now() >= this.#trialFromMs;
  }

  /** Takes the trial, if this call is to be one; false: it is not let through. */
  enter(): boolean {
    if (!this.admits) return false;
    if (this.#open) this.#trialFromMs = this.#clock.now() + TRIAL_MS_MAX;
    return true;
  }

  /** The backend answered, whatever it said. */
  answered(): void {
    this.#failures = 0;
    if (!this.#open) return;
    this.#open = false;
    this.#onChange('closed');
  }

  failed(): void {
    this.#failures += 1;
    if (this.#open || this.#failures >= FAILURES_MAX) this.#trialFromMs = this.#clock.now() + TRIAL_EVERY_MS;
    if (this.#open || this.#failures < FAILURES_MAX) return;
    this.#open = true;
    this.#onChange('open');
  }
}
