import type { IncomingMessage, ServerResponse } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { Parts } from '../../broker/parts.js';
import { BrokerError } from '../../core/errors.js';
import { newId } from '../../core/ids.js';
import { type Arrival, answer } from './answer.js';
import { type ErrorContext, errorReply, surfaceOf } from './error-response.js';
import { expressOf } from './express.js';
import { hotRoutes } from './hot-routes.js';
import { peerOf } from './peer.js';
import { type RequestHead, readHead, requestIdOf } from './request-head.js';
import type { Reply, Route } from './route.js';
import { securityHeaders, send } from './send.js';

export interface ListenerContext {
  issuer: string;
  baseUrl: string;
  isHttps: boolean;
  checkReplies: boolean;
  /** Every reply from now on is the last of its connection. */
  leaving: AbortSignal;
  /** Streams end, and nothing that waits goes on waiting. */
  closing: AbortSignal;
}

/** A request in progress. */
class Exchange {
  readonly incoming: IncomingMessage;
  readonly response: ServerResponse;
  readonly requestId: string;
  readonly startedAtMs = performance.now();
  /** The request could not be read as one: nothing after it on this connection can be trusted. */
  isLast = false;
  readonly #closing: AbortSignal;
  #signal: AbortSignal | undefined;

  constructor(incoming: IncomingMessage, response: ServerResponse, requestId: string, closing: AbortSignal) {
    this.incoming = incoming;
    this.response = response;
    this.requestId = requestId;
    this.#closing = closing;
  }

  /** Aborts when the client is gone, the reply is out, or the door closes. Made when somebody asks. */
  signal(): AbortSignal {
    this.#signal ??= untilClosed(this.response, this.#closing);
    return this.#signal;
  }
}

/**
 * What one listener does with each request: its head is checked, a hot route is looked up before Express, any other one by it, and all of
 * them are answered, refused and written in the same way.
 */
export function requestListener(parts: Parts, routes: readonly Route[], context: ListenerContext) {
  const security = securityHeaders({ https: context.isHttps });
  const { issuer } = context;
  const findHot = hotRoutes(routes);
  const heads = new WeakMap<IncomingMessage, { exchange: Exchange; head: RequestHead }>();

  const carry = async (route: Route, params: Record<string, string>, exchange: Exchange, head: RequestHead) => {
    const { incoming } = exchange;
    const peer = incoming.socket instanceof TLSSocket ? peerOf(incoming.socket) : undefined;
    const arrival: Arrival = {
      incoming,
      head,
      params,
      baseUrl: context.baseUrl,
      signal: () => exchange.signal(),
      ...(peer ? { peer } : {}),
    };
    let reply: Reply;
    try {
      reply = await answer(parts, route, arrival, context.checkReplies);
    } catch (error) {
      reply = errorReply(error, errorContext(exchange));
    }
    await finish(exchange, reply, route);
  };

  const refuse = (error: unknown, exchange: Exchange, allow?: readonly string[]) =>
    finish(exchange, errorReply(error, { ...errorContext(exchange), ...(allow ? { allow } : {}) }), undefined);

  const errorContext = ({ incoming, requestId }: Exchange): ErrorContext => {
    const scheme = incoming.headers.authorization?.split(' ', 1)[0]?.toLowerCase();
    return {
      surface: surfaceOf(incoming.url ?? ''),
      requestId,
      issuer,
      ...(scheme ? { authorization: scheme === 'bearer' ? 'Bearer' : scheme === 'dpop' ? 'DPoP' : 'other' } : {}),
    };
  };

  const finish = async (exchange: Exchange, reply: Reply, route: Route | undefined): Promise<void> => {
    const { response, requestId, incoming } = exchange;
    try {
      const unread = hasBody(incoming) && !incoming.complete ? incoming : undefined;
      const isLast = exchange.isLast || context.leaving.aborted || unread !== undefined;
      await send(response, reply, {
        requestId,
        security,
        clock: parts.clock,
        signal: () => exchange.signal(),
        isLast,
        ...(unread ? { unread } : {}),
      });
    } catch (cause) {
      response.destroy();
      parts.observe({
        event: 'http.cut',
        level: 'warn',
        requestId,
        problem: cause instanceof Error ? cause.message : 'unknown',
      });
    }
    parts.observe({
      event: 'http.request',
      level: reply.status >= 500 ? 'error' : 'info',
      method: incoming.method,
      route: route?.path ?? 'none',
      status: reply.status,
      durationMs: performance.now() - exchange.startedAtMs,
      ...(reply.events && { stream: true }),
      requestId,
      ...reply.note,
    });
  };

  const app = expressOf(routes, {
    carry: (route, params, request, response) => {
      const known = heads.get(request);
      if (known) void carry(route, params, known.exchange, known.head);
      else response.destroy();
    },
    miss: (request, response) => {
      const known = heads.get(request);
      if (!known) return void response.destroy();
      // Nobody asked an OAuth endpoint for anything: there is none.
      const context: ErrorContext = { ...errorContext(known.exchange), surface: 'api' };
      const error = new BrokerError('not_found', 'There is nothing at this address.');
      void finish(known.exchange, errorReply(error, context), undefined);
    },
    refuse: (error, request, response, allow) => {
      const known = heads.get(request);
      if (known) void refuse(error, known.exchange, allow);
      else response.destroy();
    },
  });

  return (incoming: IncomingMessage, response: ServerResponse): void => {
    const requestId = requestIdOf(incoming, () => newId('req', parts.settings.cell, parts.clock.now()));
    const exchange = new Exchange(incoming, response, requestId, context.closing);
    let head: RequestHead;
    try {
      head = readHead(incoming, requestId);
    } catch (error) {
      exchange.isLast = true;
      return void refuse(error, exchange);
    }
    const found = findHot(head);
    if (found) return void carry(found.route, found.params, exchange, head);
    heads.set(incoming, { exchange, head });
    app(incoming as never, response as never);
  };
}

function untilClosed(response: ServerResponse, closing: AbortSignal): AbortSignal {
  const controller = new AbortController();
  const abort = () => controller.abort('over');
  closing.addEventListener('abort', abort, { once: true });
  response.once('close', () => {
    closing.removeEventListener('abort', abort);
    abort();
  });
  if (closing.aborted || response.closed) abort();
  return controller.signal;
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}
