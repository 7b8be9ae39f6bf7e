import type { BundleContent } from '../bundle-document.js';
import type { BundleSource, SetTimer, SourceListener } from './source.js';

export interface PolledOptions {
  description: string;
  /** One look. It has to end by itself: with content, or by throwing; and at once when the signal says so. */
  look(signal: AbortSignal): Promise<BundleContent>;
  setTimer: SetTimer;
  /** How long to wait after a look that said nothing about it. */
  intervalMs: number;
  /** Never wait longer than this, whatever the hint. */
  intervalMsMax?: number;
}

const INTERVAL_MS_MIN = 1_000;
const INTERVAL_MS_MAX = 3_600_000;
const RETRY_MS_FIRST = 5_000;

/**
 * A source that looks, waits as long as the bundle's hint says, and looks again. After a failure it comes back sooner: 5 s,
 * then twice as long each time, up to the interval. One look at a time.
 */
export function polledSource(options: PolledOptions): BundleSource {
  let listener: SourceListener | undefined;
  let running: Promise<void> | undefined;
  let cancel = () => {};
  const ending = new AbortController();
  let failures = 0;
  let intervalMs = options.intervalMs;

  const once = async () => {
    cancel();
    try {
      const content = await options.look(ending.signal);
      failures = 0;
      intervalMs = clamp(content.refreshHintMs ?? options.intervalMs, options.intervalMsMax ?? INTERVAL_MS_MAX);
      if (!ending.signal.aborted) listener?.deliver(content);
    } catch (error) {
      failures += 1;
      if (!ending.signal.aborted) listener?.fail(error instanceof Error ? error.message : 'failed');
    }
    if (ending.signal.aborted) return;
    const retryMs = RETRY_MS_FIRST * 2 ** Math.min(failures - 1, 10);
    cancel = options.setTimer(() => void refresh(), failures === 0 ? intervalMs : Math.min(retryMs, intervalMs));
  };

  const refresh = () => {
    running ??= once().finally(() => {
      running = undefined;
    });
    return running;
  };

  return {
    description: options.description,
    start(given) {
      listener = given;
      return refresh();
    },
    refresh,
    async close() {
      ending.abort();
      cancel();
      await running;
    },
  };
}

function clamp(hintMs: number, maxMs: number): number {
  return Math.min(Math.max(hintMs, INTERVAL_MS_MIN), maxMs);
}
