/** Why a JSON text was not taken, for logs and audit; never for the caller. */
export class JsonRefused extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'JsonRefused';
  }
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const MINUS = 0x2d;
const ZERO = 0x30;
const NINE = 0x39;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
/** In Unicode mode a surrogate matches only when it stands alone. */
const LONE_SURROGATE = /\p{Cs}/u;
const NUMBER_TOKEN = /[-+.0-9eE]+/y;

/**
 * JSON in which every reader sees the same thing. Beyond JSON.parse it refuses what parsers disagree about: a
 * member named twice (also when spelled with escapes), a member named `__proto__`, nesting deeper than
 * `depthMax`, numbers that a double cannot hold (1e999, integers past 2^53), NUL and lone surrogates in strings.
 * Throws JsonRefused.
 */
export function parseStrictJson(text: string, { depthMax = 12 }: { depthMax?: number } = {}): unknown {
  scan(text, depthMax);
  try {
    return JSON.parse(text);
  } catch {
    throw new JsonRefused('not JSON');
  }
}

/** `parseStrictJson` for a text that must hold one object. */
export function parseStrictObject(text: string, options?: { depthMax?: number }): Record<string, unknown> {
  const value = parseStrictJson(text, options);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new JsonRefused('not a JSON object');
  return value as Record<string, unknown>;
}

/**
 * One pass over the text before JSON.parse. It need not know the grammar: it has to be right about every valid
 * text, and JSON.parse refuses the others. In valid JSON a string followed by a colon is a member's name.
 */
function scan(text: string, depthMax: number): void {
  const open: (Set<string> | undefined)[] = [];
  let at = 0;
  while (at < text.length) {
    const code = text.charCodeAt(at);
    if (code === QUOTE) {
      const end = endOfString(text, at);
      const next = skipSpace(text, end);
      const isName = text.charCodeAt(next) === COLON;
      const literal = text.slice(at, end);
      const value = literal.includes('\\') ? decode(literal) : literal.slice(1, -1);
      if (value.includes('\0')) throw new JsonRefused('NUL in a string');
      if (isName) note(value, open.at(-1));
      at = isName ? next + 1 : next;
    } else if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (open.length >= depthMax) throw new JsonRefused(`nested deeper than ${depthMax}`);
      open.push(code === OPEN_OBJECT ? new Set() : undefined);
      at += 1;
    } else if (code === CLOSE_OBJECT || code === CLOSE_ARRAY) {
      open.pop();
      at += 1;
    } else if (code === MINUS || (code >= ZERO && code <= NINE)) {
      at = endOfNumber(text, at);
    } else {
      at += 1;
    }
  }
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === BACKSLASH) at += 1;
    else if (code === QUOTE) return at + 1;
  }
  throw new JsonRefused('not JSON');
}

function skipSpace(text: string, start: number): number {
  let at = start;
  while (at < text.length && ' \t\n\r'.includes(text.charAt(at))) at += 1;
  return at;
}

function decode(literal: string): string {
  let value: unknown;
  try {
    value = JSON.parse(literal);
  } catch {
    throw new JsonRefused('not JSON');
  }
  if (LONE_SURROGATE.test(value as string)) throw new JsonRefused('a lone surrogate in a string');
  return value as string;
}

function note(name: string, names: Set<string> | undefined): void {
  if (names === undefined) throw new JsonRefused('not JSON');
  if (name === '__proto__') throw new JsonRefused('a member named __proto__');
  if (names.has(name)) throw new JsonRefused('a member named twice');
  names.add(name);
}

function endOfNumber(text: string, start: number): number {
  NUMBER_TOKEN.lastIndex = start;
  const token = NUMBER_TOKEN.exec(text)?.[0] ?? '';
  const value = Number(token);
  if (!Number.isFinite(value)) throw new JsonRefused('a number out of range');
  if (/^-?\d+$/.test(token) && !Number.isSafeInteger(value)) throw new JsonRefused('an integer out of range');
  return start + token.length;
}
