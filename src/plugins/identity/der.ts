/** The bytes are not the DER that was expected. */
export class DerRefused extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'DerRefused';
  }
}

/** One element of a DER encoding. `content` and `whole` are views into the certificate, not copies. */
export interface DerElement {
  tag: number;
  content: Buffer;
  whole: Buffer;
}

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  sequence: 0x30,
} as const;

/**
 * The elements that lie one after another in `bytes`, which they have to fill exactly. DER only: definite lengths in
 * their shortest form, single-byte tags (all that certificates use). Throws DerRefused.
 */
export function readAll(bytes: Buffer): DerElement[] {
  const elements: DerElement[] = [];
  let at = 0;
  while (at < bytes.length) {
    const element = readAt(bytes, at);
    elements.push(element);
    at += element.whole.length;
  }
  return elements;
}

/** The one element that fills `bytes`, which has this tag. */
export function readOne(bytes: Buffer, tag: number): DerElement {
  const element = readAt(bytes, 0);
  if (element.tag !== tag || element.whole.length !== bytes.length) throw new DerRefused('an unexpected element');
  return element;
}

/** The children of the one element that fills `bytes`. */
export function readChildren(bytes: Buffer, tag: number = TAG.sequence): DerElement[] {
  return readAll(readOne(bytes, tag).content);
}

function readAt(bytes: Buffer, at: number): DerElement {
  const tag = bytes[at];
  const first = bytes[at + 1];
  if (tag === undefined || first === undefined) throw new DerRefused('cut short');
  if ((tag & 0x1f) === 0x1f) throw new DerRefused('a long tag');
  let length = first;
  let start = at + 2;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 3) throw new DerRefused('an indefinite or huge length');
    if (start + count > bytes.length) throw new DerRefused('cut short');
    length = bytes.readUIntBE(start, count);
    start += count;
    if (length < 0x80 || length < 2 ** (8 * (count - 1))) throw new DerRefused('a length in a long form');
  }
  const end = start + length;
  if (end > bytes.length) throw new DerRefused('cut short');
  return { tag, content: bytes.subarray(start, end), whole: bytes.subarray(at, end) };
}

/** `2.5.29.15` of the content of an OBJECT IDENTIFIER. */
export function oidOf(content: Buffer): string {
  const parts: number[] = [];
  let value = 0;
  let fresh = true;
  for (const byte of content) {
    if (fresh && byte === 0x80) throw new DerRefused('a padded object identifier');
    value = value * 128 + (byte & 0x7f);
    if (!Number.isSafeInteger(value)) throw new DerRefused('a huge object identifier');
    fresh = byte < 0x80;
    if (fresh) {
      parts.push(value);
      value = 0;
    }
  }
  const head = parts.shift();
  if (head === undefined || !fresh) throw new DerRefused('an empty or cut object identifier');
  const root = Math.min(Math.floor(head / 40), 2);
  return [root, head - root * 40, ...parts].join('.');
}

export function booleanOf(content: Buffer): boolean {
  if (content.length !== 1 || (content[0] !== 0xff && content[0] !== 0)) throw new DerRefused('a malformed boolean');
  return content[0] === 0xff;
}

/** A small non-negative INTEGER, such as a path length. */
export function smallIntegerOf(content: Buffer): number {
  if (content.length === 0 || content.length > 2 || (content[0] as number) >= 0x80) {
    throw new DerRefused('an integer out of range');
  }
  return content.readUIntBE(0, content.length);
}

/** Which bits of a named BIT STRING are set, first bit first. */
export function bitsOf(content: Buffer): boolean[] {
  const unused = content[0];
  if (unused === undefined || unused > 7 || content.length < 2) throw new DerRefused('a malformed bit string');
  const bits: boolean[] = [];
  for (let bit = 0; bit < (content.length - 1) * 8 - unused; bit += 1) {
    bits.push((((content[1 + (bit >> 3)] as number) >> (7 - (bit & 7))) & 1) === 1);
  }
  return bits;
}

/** An IA5String's text; anything outside visible ASCII is refused rather than guessed. */
export function asciiOf(content: Buffer): string {
  const text = content.toString('latin1');
  if (!/^[\x20-\x7e]*$/.test(text)) throw new DerRefused('text that is not ASCII');
  return text;
}
