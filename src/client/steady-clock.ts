import { type Clock, type EpochMs, systemClock } from '../core/time.js';

/**
 * A clock that never goes back, and does not stand still while the system's is set back: a token that has expired stays expired
 * whatever happens to the wall clock. `elapsedMs` is time that nobody can set.
 */
export interface SteadyClock extends Clock {
  elapsedMs(): number;
}

export function steadyClock(wall: Clock = systemClock, elapsedMs: () => number = () => performance.now()): SteadyClock {
  let lastMs = wall.now();
  let lastElapsedMs = elapsedMs();
  return {
    now(): EpochMs {
      const nowElapsedMs = elapsedMs();
      lastMs = Math.max(wall.now(), lastMs + (nowElapsedMs - lastElapsedMs));
      lastElapsedMs = nowElapsedMs;
      return lastMs;
    },
    elapsedMs,
  };
}
