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
  const bytes = random16();
  bytes.writeUIntBE(nowMs, 0, 6);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x70;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return `${kind}_${cell}_${base32(bytes)}`;
}

/** Randomness is drawn for many ids at once: a draw of its own costs more than all the rest of an id. */
const POOL = Buffer.alloc(16 * 256);
let drawn = POOL.length;

function random16(): Buffer {
  if (drawn === POOL.length) {
    randomFillSync(POOL);
    drawn = 0;
  }
  drawn += 16;
  return Buffer.from(POOL.subarray(drawn - 16, drawn));
}

/** The parts of an id, or undefined when the text is not exactly one. */
export function parseId(text: string): { kind: IdKind; cell: string } | undefined {
  const match = PATTERN.exec(text);
  return match ? { kind: match[1] as IdKind, cell: match[2] as string } : undefined;
}

export function isId(kind: IdKind, text: unknown): boolean {
  return typeof text === 'string' && parseId(text)?.kind === kind;
}

/** 128 bits as 26 characters, the first carrying three bits. */
function base32(bytes: Buffer): string {
  let value = BigInt(`0x${bytes.toString('hex')}`);
  const characters = new Array<string>(26);
  for (let at = 25; at >= 0; at--) {
    characters[at] = ALPHABET[Number(value & 31n)] as string;
    value >>= 5n;
  }
  return characters.join('');
}
