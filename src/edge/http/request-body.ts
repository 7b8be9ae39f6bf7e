import type { IncomingMessage } from 'node:http';
import { didYouMean } from '../../core/did-you-mean.js';
import { BrokerError } from '../../core/errors.js';
import { JsonRefused, parseStrictJson } from '../../core/strict-json.js';
import { printable } from './printable.js';
import type { FormBody, JsonBody } from './route.js';
import { listMembersOf } from './shape-check.js';

export const JSON_DEPTH_MAX = 32;
const FORM_PARAMETERS_MAX = 64;

const NO_BYTES = Buffer.alloc(0);

/** The whole body, as sent. Throws `too_large` past `bytesMax`, and reads no further. */
export async function readBody(incoming: IncomingMessage, bytesMax: number): Promise<Buffer> {
  const announced = Number(incoming.headers['content-length'] ?? 0);
  if (announced > bytesMax) throw tooLarge(bytesMax);
  const isChunked = incoming.headers['transfer-encoding'] !== undefined;
  if (announced === 0 && !isChunked) return NO_BYTES;
  if (incoming.destroyed) throw incomplete();
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const settle = (act: () => void) => {
      incoming.off('data', take).off('end', end).off('error', fail).off('close', cut);
      act();
    };
    const take = (chunk: Buffer) => {
      length += chunk.length;
      if (length <= bytesMax) chunks.push(chunk);
      else {
        incoming.pause();
        settle(() => reject(tooLarge(bytesMax)));
      }
    };
    const end = () => settle(() => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks)));
    const fail = (cause: Error) => settle(() => reject(incomplete(cause)));
    const cut = () => settle(() => reject(incomplete()));
    incoming.on('data', take).on('end', end).on('error', fail).on('close', cut);
  });
}

/** The JSON value of a body: one spelling, bounded depth, no member twice. */
export function parseJsonBody(bytes: Buffer, contentType: string | undefined, body: JsonBody): unknown {
  if (body.optional && bytes.length === 0) return {};
  checkMediaType(contentType, body.mediaTypes);
  try {
    return parseStrictJson(textOf(bytes), { depthMax: JSON_DEPTH_MAX });
  } catch (error) {
    if (!(error instanceof JsonRefused)) throw error;
    throw new BrokerError('invalid_request', `The body is not acceptable JSON: ${error.message}.`);
  }
}

/**
 * The parameters of a form. Those the schema has as arrays may be repeated; an empty one counts as left out, and one nobody here knows is
 * ignored (RFC 6749 section 3.2). Except one that is nearly ours: ignoring a misspelt `scope` would give more than was asked for.
 */
export function parseFormBody(bytes: Buffer, contentType: string | undefined, body: FormBody): Record<string, unknown> {
  checkMediaType(contentType, ['application/x-www-form-urlencoded']);
  const parameters = parseParameters(textOf(bytes), listMembersOf(body.schema));
  const { shape } = body.schema;
  for (const name of Object.keys(parameters)) {
    if (Object.hasOwn(shape, name)) continue;
    const meant = didYouMean(printable(name), Object.keys(shape));
    if (meant !== undefined) {
      throw new BrokerError('invalid_request', `There is no parameter "${printable(name)}"; did you mean "${meant}"?`, {
        field: printable(name),
      });
    }
    delete parameters[name];
  }
  return parameters;
}

/** A query string, or a form. No parameter may come twice except those listed. */
export function parseParameters(text: string, repeatable: ReadonlySet<string> = new Set()): Record<string, unknown> {
  const parameters = new Map<string, string | string[]>();
  if (text === '') return {};
  const pairs = text.split('&', FORM_PARAMETERS_MAX + 1);
  if (pairs.length > FORM_PARAMETERS_MAX) {
    throw new BrokerError('too_large', `There may be at most ${FORM_PARAMETERS_MAX} parameters.`);
  }
  for (const pair of pairs) {
    // `a=1&&b=2&`: nothing between two marks is no parameter (URL standard, 5.1), however often it comes.
    if (pair === '') continue;
    const mark = pair.indexOf('=');
    const name = decode(mark < 0 ? pair : pair.slice(0, mark));
    const value = mark < 0 ? '' : decode(pair.slice(mark + 1));
    const known = parameters.get(name);
    if (repeatable.has(name)) {
      if (value !== '') parameters.set(name, [...(known ?? []), value]);
    } else if (known === undefined) {
      parameters.set(name, value);
    } else {
      throw new BrokerError('invalid_request', `The parameter "${printable(name)}" may come only once.`, {
        field: printable(name),
      });
    }
  }
  // No prototype to reach: a parameter named __proto__ is a member like any other, and then an unknown one.
  const record: Record<string, unknown> = Object.create(null);
  for (const [name, value] of parameters) if (value !== '') record[name] = value;
  return record;
}

function decode(text: string): string {
  let decoded = text;
  try {
    if (decoded.includes('+')) decoded = decoded.replaceAll('+', ' ');
    if (decoded.includes('%')) decoded = decodeURIComponent(decoded);
  } catch {
    throw new BrokerError('invalid_request', 'A parameter is not percent-encoded UTF-8.');
  }
  if (decoded.includes('\0')) throw new BrokerError('invalid_request', 'A parameter holds a NUL.');
  return decoded;
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function textOf(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new BrokerError('invalid_request', 'The body is not UTF-8.');
  }
}

function checkMediaType(contentType: string | undefined, accepted: readonly string[]): void {
  if (contentType !== undefined && accepted.includes(contentType)) return;
  const match = /^([a-z0-9.+/-]+)[ \t]*(?:;[ \t]*charset="?utf-8"?[ \t]*)?$/i.exec(contentType ?? '');
  const mediaType = match?.[1]?.toLowerCase();
  if (mediaType !== undefined && accepted.includes(mediaType)) return;
  throw new BrokerError('unsupported_media_type', `The Content-Type must be ${accepted.join(' or ')}.`, {
    field: 'content-type',
  });
}

function tooLarge(bytesMax: number): BrokerError {
  return new BrokerError('too_large', `The body holds at most ${bytesMax / 1024} KiB.`);
}

function incomplete(cause?: Error): BrokerError {
  return new BrokerError('invalid_request', 'The body ended early.', cause ? { cause } : {});
}
