import type { EventChunk } from './route.js';

/** One server-sent event in bytes. JSON has no raw line break, so the data is always one line. */
export function eventBytes(event: string, data: unknown, id?: string): Buffer {
  const idLine = id === undefined ? '' : `id: ${id}\n`;
  return Buffer.from(`${idLine}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
}

export function patient(bytes: Buffer): EventChunk {
  return { bytes, pace: 'reader' };
}

export function urgent(bytes: Buffer): EventChunk {
  return { bytes, pace: 'sender' };
}
