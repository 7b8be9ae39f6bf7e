/** Milliseconds since the Unix epoch. Seconds appear on the wire only. */
export type EpochMs = number;

/** The one source of time. Production reads the system clock, tests turn a virtual one by hand. */
export interface Clock {
  now(): EpochMs;
}

export const systemClock: Clock = { now: () => Date.now() };

/** The earliest of several ends; those that are undefined do not limit. */
export function shortest(...ends: (number | undefined)[]): number {
  return Math.min(...ends.filter((end): end is number => end !== undefined));
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `300`, `300s`, `5m`, `1h`, `250ms` in milliseconds (a bare number is seconds); undefined when it is no duration. */
export function parseDurationMs(text: string): number | undefined {
  const match = /^(\d{1,9})(ms|s|m|h|d)?$/.exec(text.trim());
  if (!match) return undefined;
  return Number(match[1]) * (UNIT_MS[match[2] ?? 's'] as number);
}
