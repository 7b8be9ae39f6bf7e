import type { IncomingMessage } from 'node:http';
import type { Evidence } from '../../broker/caller.js';
import { BrokerError } from '../../core/errors.js';

/** What stands before a request's body, checked once in front of everything. */
export interface RequestHead {
  method: string;
  /** Canonical: what was judged is what is matched. */
  path: string;
  /** Without the `?`. */
  query: string;
  requestId: string;
  traceId?: string;
}

export const HEADER_LIMITS = {
  /** All of them together; enforced by the parser. */
  bytesMax: 16 * 1024,
  countMax: 100,
  authorizationBytesMax: 8 * 1024,
  targetBytesMax: 4 * 1024,
};

/** Headers that mean one thing. Node drops the second of some and joins others; either way two readers see two requests. */
const SINGLETONS = new Set([
  'authorization',
  'host',
  'dpop',
  'content-type',
  'content-length',
  'transfer-encoding',
  'content-encoding',
  'idempotency-key',
  'last-event-id',
  'x-request-id',
  'traceparent',
]);

const WELL_FORMED_REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?$/;
const AUTHORIZATION = /^([A-Za-z]+) +([A-Za-z0-9\-._~+/]+=*)$/;
/** Visible ASCII of RFC 3986 paths; a backslash, a fragment or a raw quote is no path. */
const PATH = /^(?:\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})*)+$/;
/** Percent-encoded though it need not be (RFC 3986 section 2.3), or in lower case (2.1): another spelling of the same path. */
const OTHER_SPELLING = /%(?:.?[a-f]|2[DE]|3\d|[46][1-9A-F]|[57][\dA]|5F|7E)/;
const QUERY = /^(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*$/;

/** The id a reply carries: the client's own when it is well-formed, else a new one. */
export function requestIdOf(incoming: IncomingMessage, makeId: () => string): string {
  const sent = incoming.headers['x-request-id'];
  return typeof sent === 'string' && WELL_FORMED_REQUEST_ID.test(sent) ? sent : makeId();
}

/** Checks framing, headers and target. Throws `invalid_request`, `too_large`, or `unsupported_media_type`. */
export function readHead(incoming: IncomingMessage, requestId: string): RequestHead {
  checkHeaders(incoming);
  const [path, query] = splitTarget(incoming.url ?? '');
  const head: RequestHead = { method: incoming.method ?? '', path, query, requestId };
  const trace = TRACEPARENT.exec(incoming.headers['traceparent']?.toString() ?? '');
  // Version 00 has exactly four fields; only later ones may carry more.
  if (trace && !(trace[0].startsWith('00') && trace[0].length !== 55)) head.traceId = trace[1] as string;
  return head;
}

function checkHeaders(incoming: IncomingMessage): void {
  const { rawHeaders, headers } = incoming;
  if (rawHeaders.length / 2 > HEADER_LIMITS.countMax) {
    throw new BrokerError('too_large', `A request has at most ${HEADER_LIMITS.countMax} headers.`);
  }
  const seen = new Set<string>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = (rawHeaders[at] as string).toLowerCase();
    if (!SINGLETONS.has(name)) continue;
    if (seen.has(name)) {
      throw new BrokerError('invalid_request', `The header "${name}" may come only once.`, { field: name });
    }
    seen.add(name);
  }
  const coding = headers['transfer-encoding'];
  if (coding !== undefined && (coding !== 'chunked' || incoming.httpVersion !== '1.1')) {
    throw new BrokerError('invalid_request', 'The only Transfer-Encoding is "chunked", and only in HTTP/1.1.', {
      field: 'transfer-encoding',
    });
  }
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw new BrokerError('unsupported_media_type', 'Compressed bodies are not accepted.', {
      field: 'content-encoding',
    });
  }
  if (Buffer.byteLength(headers.authorization ?? '') > HEADER_LIMITS.authorizationBytesMax) {
    throw new BrokerError('too_large', 'The Authorization header holds at most 8 KiB.', { field: 'authorization' });
  }
}

/**
 * A target has one spelling: no absolute form, no empty or dot segments (however spelt), nothing encoded that need not be, no control characters.
 * What RFC 3986 reserves (`:` of `ref:…`) may be encoded or not: clients' own functions differ in it.
 */
function splitTarget(target: string): [path: string, query: string] {
  if (target.length > HEADER_LIMITS.targetBytesMax) {
    throw new BrokerError('too_large', 'The request target holds at most 4 KiB.');
  }
  const mark = target.indexOf('?');
  const path = mark < 0 ? target : target.slice(0, mark);
  const query = mark < 0 ? '' : target.slice(mark + 1);
  if (!PATH.test(path) || !QUERY.test(query)) throw notCanonical();
  if (path !== '/' && path.split('/').slice(1).some(isCrooked)) throw notCanonical();
  return [path, query];
}

function isCrooked(segment: string): boolean {
  if (segment === '') return true;
  if (!segment.includes('%')) return segment === '.' || segment === '..';
  if (OTHER_SPELLING.test(segment)) return true;
  let decoded: string;
  try {
    decoded = decodeURIComponent(segment);
  } catch {
    return true;
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for.
  return decoded === '.' || decoded === '..' || /[\u0000-\u001f\u007f\\]/.test(decoded);
}

function notCanonical(): BrokerError {
  return new BrokerError('invalid_request', 'The request target is not in its canonical form.');
}

/** `Authorization` as scheme and token, or undefined when there is none. */
export function authorizationOf(incoming: IncomingMessage): Evidence['authorization'] {
  const header = incoming.headers.authorization;
  if (header === undefined) return undefined;
  const match = AUTHORIZATION.exec(header);
  const scheme = match?.[1]?.toLowerCase();
  if (scheme !== 'bearer' && scheme !== 'dpop') {
    throw new BrokerError('identity_rejected', 'The identity was not accepted.', {
      reason: 'Authorization is neither Bearer nor DPoP',
      hint: 'Send "Authorization: Bearer <token>" or "Authorization: DPoP <token>", or connect with a client certificate.',
    });
  }
  return { scheme: scheme === 'dpop' ? 'DPoP' : 'Bearer', token: match?.[2] as string };
}
