const LENGTH_MAX = 64;

/** What a caller sent, fit to be shown back to it: visible ASCII without quotes and backslashes, and short. */
export function printable(text: string): string {
  const safe = text.replace(/[^\x20-\x7e]|["\\]/g, '?');
  return safe.length > LENGTH_MAX ? `${safe.slice(0, LENGTH_MAX - 3)}...` : safe;
}
