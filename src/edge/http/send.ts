import type { IncomingMessage, ServerResponse } from 'node:http';
import helmet from 'helmet';
import type { Clock } from '../../core/time.js';
import type { EventChunk, EventStream, Reply } from './route.js';

/** A reader with this many bytes of deltas waiting is cut off; it comes back with its cursor. */
export const BEHIND_BYTES_MAX = 1024 * 1024;

const TIMER_MS_MAX = 2 ** 31 - 1;

/** helmet's headers, names and values in turn, computed once: every reply of this door carries the same ones, whichever way it took. */
export function securityHeaders({ https }: { https: boolean }): string[] {
  const headers: string[] = [];
  const probe = {
    setHeader: (name: string, value: string) => {
      headers.push(name.toLowerCase(), value);
    },
    removeHeader: () => {},
  } as unknown as ServerResponse;
  const protect = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: { 'default-src': ["'none'"], 'frame-ancestors': ["'none'"] },
    },
    strictTransportSecurity: https ? { maxAge: 31_536_000 } : false,
    referrerPolicy: { policy: 'no-referrer' },
  });
  protect({} as never, probe, () => {});
  return headers;
}

export interface SendContext {
  requestId: string;
  /** Names and values in turn. */
  security: readonly string[];
  clock: Clock;
  /** Aborts when the client is gone or the door closes. */
  signal(): AbortSignal;
  /** The connection ends with this reply. */
  isLast: boolean;
  /** A request whose body nobody has read to its end. */
  unread?: IncomingMessage;
}

/** Writes one reply, and resolves when it is out (a stream: when it is over). */
export async function send(response: ServerResponse, reply: Reply, context: SendContext): Promise<void> {
  if (reply.events) return sendEvents(response, reply, reply.events, context);
  const { unread } = context;
  const body = textOf(reply.body);
  response.writeHead(reply.status, headersOf(reply, context, body));
  if (unread) {
    // Closing with bytes in flight resets the connection, and the reply would be lost with it.
    if (body === undefined) response.flushHeaders();
    else response.write(body);
    await linger(unread);
  }
  response.end(unread ? undefined : body);
}

/** All headers in one list, so that they leave in one piece with the body. */
function headersOf(reply: Reply, { security, requestId, isLast }: SendContext, body?: string | Buffer): string[] {
  const own = reply.headers ?? {};
  const headers = [...security, 'x-request-id', requestId];
  if (own['cache-control'] === undefined) headers.push('cache-control', 'no-store');
  if (own['content-type'] === undefined && body !== undefined) headers.push('content-type', 'application/json');
  if (isLast && own['connection'] === undefined) headers.push('connection', 'close');
  for (const name in own) headers.push(name, own[name] as string);
  if (!reply.events && reply.status !== 204) headers.push('content-length', String(Buffer.byteLength(body ?? '')));
  return headers;
}

/** JSON as text, not as bytes: Node then writes head and body at once. */
function textOf(body: unknown): string | Buffer | undefined {
  return body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body);
}

const LINGER_MS = 1_000;
const LINGER_BYTES = 4 * 1024 * 1024;

/** Throws the rest of a body away: until it ends, for a second, or so many bytes. */
function linger(incoming: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    let length = 0;
    const timer = setTimeout(resolve, LINGER_MS);
    const settle = () => {
      clearTimeout(timer);
      resolve();
    };
    incoming.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length > LINGER_BYTES) settle();
    });
    incoming.once('end', settle).once('close', settle).resume();
    if (incoming.destroyed) settle();
  });
}

async function sendEvents(
  response: ServerResponse,
  reply: Reply,
  stream: EventStream,
  context: SendContext,
): Promise<void> {
  const { clock } = context;
  const signal = context.signal();
  const headers = headersOf(reply, context);
  // A proxy that collects events before it passes them on would delay a revocation.
  headers.push('content-type', 'text/event-stream', 'x-accel-buffering', 'no');
  response.writeHead(reply.status, headers);
  response.flushHeaders();
  let isOver = signal.aborted;
  let wake = () => {};
  const end = () => {
    isOver = true;
    wake();
  };
  const cancelTimer = callAt(stream.endsAtMs, clock, end);
  signal.addEventListener('abort', end, { once: true });
  const chunks = stream.chunks[Symbol.asyncIterator]();
  try {
    while (!isOver) {
      // A source may wait for long; the end of the stream does not wait for the source.
      const next = await new Promise<IteratorResult<EventChunk> | undefined>((resolve, reject) => {
        wake = () => resolve(undefined);
        chunks.next().then(resolve, reject);
      });
      if (next === undefined || next.done || clock.now() >= stream.endsAtMs) break;
      const { bytes, pace } = next.value;
      const taken = response.write(bytes);
      if (pace === 'reader') {
        if (!taken && !isOver) await drained(response, signal);
      } else if (response.writableLength > BEHIND_BYTES_MAX) {
        response.destroy();
        return;
      }
    }
  } finally {
    cancelTimer();
    signal.removeEventListener('abort', end);
    // Not awaited: a source in the middle of a wait hears of it when it wakes, and the closed response aborts its signal.
    chunks.return?.(undefined)?.catch(() => {});
    response.end();
  }
}

function drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const settle = () => {
      response.off('drain', settle).off('close', settle);
      signal.removeEventListener('abort', settle);
      resolve();
    };
    response.on('drain', settle).on('close', settle);
    signal.addEventListener('abort', settle);
    if (signal.aborted || response.destroyed) settle();
  });
}

/** Calls once the clock has reached a moment, however far it is. Returns what cancels it. */
export function callAt(atMs: number, clock: Clock, act: () => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  const arm = () => {
    const leftMs = atMs - clock.now();
    if (leftMs <= 0) return act();
    timer = setTimeout(arm, Math.min(leftMs, TIMER_MS_MAX));
    timer.unref();
  };
  arm();
  return () => clearTimeout(timer);
}
