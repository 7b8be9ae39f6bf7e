import type { SetTimer } from '../../../../src/plugins/identity/sources/source.js';

/** Timers that a test fires: it sees how long each would have waited. */
export function handTimer() {
  const waiting: { run: () => void; delayMs: number }[] = [];
  const setTimer: SetTimer = (run, delayMs) => {
    const timer = { run, delayMs };
    waiting.push(timer);
    return () => {
      const at = waiting.indexOf(timer);
      if (at >= 0) waiting.splice(at, 1);
    };
  };
  return {
    setTimer,
    delays: () => waiting.map(({ delayMs }) => delayMs),
    fireNext() {
      const timer = waiting.shift();
      if (!timer) throw new Error('no timer is waiting');
      timer.run();
    },
  };
}

/** Resolves as soon as the condition holds; the test's own time limit is the only other end. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}
