import { randomFillSync } from 'node:crypto';
import type { EpochMs } from './time.js';

/**
 * What an id names: task, lease, revocation, lock, decision, request.
 * The form is a TypeID with the cell in the middle, `tsk_a_01h455vb4pex5vsknk084sn02q`: a UUIDv7 in
 * Crockford's base 32, sortable by time, without `:` (BullMQ refuses it) and selectable by a double click.
 */
export type IdKind = 'tsk' | 'lse' | 'rev' | 'lck' | 'dec' | 'req';

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz';
const PATTERN = /^(tsk|lse|rev|lck|dec|req)_([a-z0-9]{1,8})_([0-7][0-9a-hjkmnp-tv-z]{25})$/;

export function newId(kind: IdKind, cell: string, nowMs: EpochMs): string {
  const at = drawSixteen();
  POOL.writeUIntBE(nowMs, at, 6);
  POOL[at + 6] = ((POOL[at + 6] as number) & 0x0f) | 0x70;
  POOL[at + 8] = ((POOL[at + 8] as number) & 0x3f) | 0x80;
  return `${kind}_${cell}_${base32(at)}`;
}

/** Randomness is drawn for many ids at once: a draw of its own costs more than all the rest of an id. Each byte is used once. */
const POOL = Buffer.alloc(16 * 256);
let drawn = POOL.length;

/** Where in the pool the next 16 bytes are. */
function drawSixteen(): number {
  if (drawn === POOL.length) {
    randomFillSync(POOL);
    drawn = 0;
  }
  drawn += 16;
  return drawn - 16;
}

/** The parts of an id, or undefined when the text is not exactly one. */
export function parseId(text: string): { kind: IdKind; cell: string } | undefined {
  const match = PATTERN.exec(text);
  return match ? { kind: match[1] as IdKind, cell: match[2] as string } : undefined;
}

export function isId(kind: IdKind, text: unknown): boolean {
  return typeof text === 'string' && parseId(text)?.kind === kind;
}

const PAIRS = Array.from({ length: 1024 }, (_, ten) => `${ALPHABET[ten >> 5]}${ALPHABET[ten & 31]}`);

/** When the id was made, by the clock of whoever made it; 0 for a text that is no id. */
export function idTimeMs(id: string): EpochMs {
  if (!parseId(id)) return 0;
  // Of the 130 bits two are padding and 48 the time.
  return [...id.slice(-26, -16)].reduce((ms, character) => ms * 32 + ALPHABET.indexOf(character), 0);
}

/** 128 bits of the pool as 26 characters, the first carrying three bits: with two zeros in front they are thirteen times ten. */
function base32(from: number): string {
  let text = '';
  let bits = 0;
  let held = 2;
  for (let at = from; at < from + 16; at++) {
    bits = (bits << 8) | (POOL[at] as number);
    held += 8;
    if (held < 10) continue;
    held -= 10;
    text += PAIRS[bits >> held];
    bits &= (1 << held) - 1;
  }
  return text;
}
