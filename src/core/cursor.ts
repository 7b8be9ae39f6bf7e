import { createHmac, timingSafeEqual } from 'node:crypto';
import { BrokerError } from './errors.js';

/** What a cursor is good for: going on in one list, with the same filters, by whoever was given it. */
export interface ListAsked {
  list: string;
  caller: string;
  filter: Readonly<Record<string, unknown>>;
}

/** 128 bits: nobody guesses one. */
const MAC_CHARACTERS = 22;

/** The place at which a page ended, as its caller gets it; every broker of the cell knows it again. */
export function writeCursor(cellKey: Uint8Array, asked: ListAsked, place: string): string {
  return `${macOf(cellKey, asked, place)}${place}`;
}

/** Throws `invalid_request` for what no page of this list, asked like this, ended with. */
export function readCursor(cellKey: Uint8Array, asked: ListAsked, cursor: string): string {
  const place = cursor.slice(MAC_CHARACTERS);
  const given = Buffer.from(cursor.slice(0, MAC_CHARACTERS));
  const expected = Buffer.from(macOf(cellKey, asked, place));
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw strangeCursor();
  return place;
}

function macOf(cellKey: Uint8Array, { list, caller, filter }: ListAsked, place: string): string {
  const filters = Object.entries(filter)
    .filter(([, value]) => value !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const text = JSON.stringify([list, caller, filters, place]);
  return createHmac('sha256', cellKey).update(`cursor\0${text}`).digest('base64url').slice(0, MAC_CHARACTERS);
}

/** A cursor that no page of this list ended with: going on from somewhere else would repeat or skip without a word. */
export function strangeCursor(): BrokerError {
  return new BrokerError('invalid_request', 'cursor: not one that this list gave.', {
    field: 'cursor',
    hint: 'Take next_cursor of the page before, with the same filters, or leave it out to begin.',
  });
}
