import type { EpochMs } from '../core/time.js';
import type { Parts } from './parts.js';

/** Refusals of one second that are written one by one: of all whom nobody knows together, and of each caller that is known. The rest are counted. */
const OF_STRANGERS = 10;
const OF_A_CALLER = 100;
const SECOND_MS = 1_000;
const STRANGERS = '';
/** So many callers are told apart. */
const CALLERS_MAX = 1_000;

interface Window {
  startedAtMs: EpochMs;
  written: number;
  counted: number;
}

/** Refusals that an earlier second only counted: a record of their own. */
export interface Dropped {
  refusals: number;
  from: string;
}

const windowsOf = new WeakMap<Parts, Map<string, Window>>();

/**
 * Whether a refusal is written down, so that nobody fills the store by being refused; and what is still to be said of an earlier second. Without a
 * caller it is one of somebody whom nobody knows.
 */
export function sampleRefusal(parts: Parts, caller = STRANGERS): { isWritten: boolean; dropped?: Dropped } {
  const windows = windowsOf.get(parts) ?? new Map<string, Window>();
  windowsOf.set(parts, windows);
  const nowMs = parts.clock.now();
  const before = windows.get(caller);
  const isOver = !before || nowMs - before.startedAtMs >= SECOND_MS || nowMs < before.startedAtMs;
  const window = isOver ? { startedAtMs: nowMs, written: 0, counted: 0 } : before;
  windows.set(caller, window);
  if (windows.size > CALLERS_MAX) forget(windows, nowMs);
  const isWritten = window.written < (caller === STRANGERS ? OF_STRANGERS : OF_A_CALLER);
  if (isWritten) window.written++;
  else window.counted++;
  if (!isOver || !before || before.counted === 0) return { isWritten };
  return { isWritten, dropped: { refusals: before.counted, from: new Date(before.startedAtMs).toISOString() } };
}

/** What was counted of callers who have gone quiet is said with that of strangers: no number is lost. */
function forget(windows: Map<string, Window>, nowMs: EpochMs): void {
  const strangers = windows.get(STRANGERS) ?? { startedAtMs: nowMs, written: 0, counted: 0 };
  windows.set(STRANGERS, strangers);
  for (const [caller, window] of windows) {
    if (caller === STRANGERS || nowMs - window.startedAtMs < SECOND_MS) continue;
    strangers.counted += window.counted;
    windows.delete(caller);
  }
}
