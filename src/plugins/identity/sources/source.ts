import type { BundleContent } from '../bundle-document.js';

/** What a source does with what it finds. Neither throws. */
export interface SourceListener {
  /** The keys as they are now. A source calls it again whenever it looked again, changed or not. */
  deliver(content: BundleContent): void;
  /** It could not look. What was delivered before stays in force. */
  fail(problem: string): void;
}

/** One place where one trust domain's (or issuer's) keys come from. */
export interface BundleSource {
  /** For people: `file /etc/…`, `https_web https://…`. */
  readonly description: string;
  /** Starts to look, and resolves when the first look succeeded or failed. It never rejects. */
  start(listener: SourceListener): Promise<void>;
  /** Looks now; resolves when that has succeeded or failed. */
  refresh(): Promise<void>;
  close(): Promise<void>;
}

/** Timers, so that tests can turn them by hand. Answers how to cancel. */
export type SetTimer = (run: () => void, delayMs: number) => () => void;

/** Real timers that keep no process alive. */
export const realTimer: SetTimer = (run, delayMs) => {
  const timer = setTimeout(run, delayMs);
  timer.unref();
  return () => clearTimeout(timer);
};

export interface SourceDeps {
  setTimer: SetTimer;
}
