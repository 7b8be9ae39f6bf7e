import type { Caller } from '../../broker/caller.js';
import type { EpochMs } from '../../core/time.js';

/** One server-sent event in bytes. JSON has no raw line break, so the data is always one line. */
export function eventBytes(event: string, data: unknown, id?: string): Buffer {
  const idLine = id === undefined ? '' : `id: ${id}\n`;
  return Buffer.from(`${idLine}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}

/** A stream ends with the identity it was opened with. */
export function streamEnd({ principal, token }: Caller): EpochMs {
  const identityEndMs = principal.identity.expiresAtMs;
  return token ? Math.min(token.exp * 1000, identityEndMs) : identityEndMs;
}
