import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { BrokerError } from './errors.js';

/** What a cursor is good for: going on in one list, with the same filters, by whoever was given it. */
export interface ListAsked {
  list: string;
  caller: string;
  filter: Readonly<Record<string, unknown>>;
}

const CIPHER = 'aes-256-gcm';
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/**
 * The place at which a page ended, as its caller gets it; every broker of the cell knows it again. Sealed: a place may be that of a thing which the
 * caller may not see.
 */
export function writeCursor(cellKey: Uint8Array, asked: ListAsked, place: string): string {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, keyOf(cellKey), nonce).setAAD(textOf(asked));
  const sealed = Buffer.concat([cipher.update(place, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url');
}

/** Throws `invalid_request` for what no page of this list, asked like this, ended with. */
export function readCursor(cellKey: Uint8Array, asked: ListAsked, cursor: string): string {
  const bytes = Buffer.from(cursor, 'base64url');
  const nonce = bytes.subarray(0, NONCE_BYTES);
  const tag = bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES);
  // One spelling: what is no base64url is skipped without a word.
  if (tag.length < TAG_BYTES || bytes.toString('base64url') !== cursor) throw strangeCursor();
  try {
    const options = { authTagLength: TAG_BYTES };
    const decipher = createDecipheriv(CIPHER, keyOf(cellKey), nonce, options).setAAD(textOf(asked)).setAuthTag(tag);
    return decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES), undefined, 'utf8') + decipher.final('utf8');
  } catch {
    throw strangeCursor();
  }
}

function keyOf(cellKey: Uint8Array): Buffer {
  return createHmac('sha256', cellKey).update('cursor').digest();
}

function textOf({ list, caller, filter }: ListAsked): Buffer {
  const filters = Object.entries(filter)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return Buffer.from(JSON.stringify([list, caller, filters]));
}

/** A cursor that no page of this list ended with: going on from somewhere else would repeat or skip without a word. */
export function strangeCursor(): BrokerError {
  return new BrokerError('invalid_request', 'cursor: not one that this list gave.', {
    field: 'cursor',
    hint: 'Take next_cursor of the page before, with the same filters, or leave it out to begin.',
  });
}
