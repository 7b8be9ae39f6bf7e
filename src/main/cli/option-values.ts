import { parseDurationMs } from '../../core/time.js';
import { UsageError } from './output.js';

/* What the text of an option says; anything else is told with the option's name. */

/** `name=value` (integers and booleans are read as such) and `name:=json`. */
export function pairsOf(pairs: string[] | undefined, what: string, empty?: null): Record<string, unknown> {
  const read: Record<string, unknown> = {};
  for (const pair of pairs ?? []) {
    const match = /^([^=:]+)(:?=)(.*)$/s.exec(pair);
    if (!match) throw new UsageError(`--${what}: ${pair} is not name=value.`);
    const [, name, sign, text] = match as unknown as [string, string, string, string];
    read[name] = sign === ':=' ? jsonOf(text, pair) : text === '' && empty === null ? null : plainValue(text);
  }
  return read;
}

function plainValue(text: string): unknown {
  if (text === 'true' || text === 'false') return text === 'true';
  const number = Number(text);
  return /^-?(0|[1-9]\d*)$/.test(text) && Number.isSafeInteger(number) ? number : text;
}

function jsonOf(text: string, pair: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`${pair}: what comes after := is not JSON.`);
  }
}

export function secondsOf(text: string, what: string): number {
  const durationMs = parseDurationMs(text);
  if (durationMs === undefined || durationMs < 1_000)
    throw new UsageError(`--${what}: a duration of at least a second, such as 5m; not ${text}.`);
  return Math.floor(durationMs / 1_000);
}
