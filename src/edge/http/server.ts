import { constants } from 'node:crypto';
import {
  createServer,
  type IncomingMessage,
  type Server,
  type ServerOptions,
  type ServerResponse,
  STATUS_CODES,
} from 'node:http';
import { createServer as createTlsServer, type Server as HttpsServer } from 'node:https';
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Parts } from '../../broker/parts.js';
import { BrokerError } from '../../core/errors.js';
import { newId } from '../../core/ids.js';
import { errorReply } from './error-response.js';
import { peerOf } from './peer.js';
import { HEADER_LIMITS } from './request-head.js';
import { requestListener } from './request-listener.js';
import type { Route } from './route.js';
import { callAt } from './send.js';

export interface ListenerAddress {
  host: string;
  /** 0: any free one. */
  port: number;
}

export interface ServerCertificate {
  /** PEM. */
  key: string;
  /** PEM, leaf first. */
  cert: string;
}

export interface HttpDoorOptions {
  /** Without a certificate it speaks plain http (loopback, or behind a proxy that ends TLS). */
  plain: ListenerAddress & { tls?: ServerCertificate };
  /** Asks every client for its X.509-SVID, in TLS 1.3; who sends none may still come with a token. */
  mtls?: ListenerAddress & { tls: ServerCertificate };
  /** Checks that each reply is as its route declares (tests, development). */
  checkReplies?: boolean;
  /** The table of routes/index.ts. */
  routes: readonly Route[];
  limits?: Partial<typeof CONNECTION_LIMITS>;
}

export interface HttpDoor {
  plain: { host: string; port: number };
  mtls?: { host: string; port: number };
  /** New certificates for new connections; `mtls` only unless the plain listener has one too. */
  renewCertificates(renewed: { plain?: ServerCertificate; mtls?: ServerCertificate }): void;
  /** Says with every reply that its connection ends; new ones are still taken, until whoever balances has looked away. */
  leave(): void;
  /** No new connections, streams end at once, requests have `graceMs` to finish; then everything is cut. */
  close(graceMs: number): Promise<void>;
}

export const CONNECTION_LIMITS = {
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  keepAliveTimeoutMs: 60_000,
  /** How often Node looks for connections that are too slow. */
  slowCheckMs: 1_000,
  requestsPerSocketMax: 1_000,
  connectionsMax: 20_000,
};

const DRAIN_CHECK_MS = 50;
/**
 * A request may be on its way on a connection that is idle here, and closing that would lose it without an answer. For so long it is still answered,
 * with its connection's end; clients drop what they have not used for this long (undici: 4 s).
 */
const IDLE_MS = 5_000;

/** Opens the listeners on one set of parts, and resolves once all of them accept connections. */
export async function openHttpDoor(parts: Parts, options: HttpDoorOptions): Promise<HttpDoor> {
  const limits = { ...CONNECTION_LIMITS, ...options.limits };
  const { routes } = options;
  const leaving = new AbortController();
  const closing = new AbortController();
  const { settings } = parts;
  const openListener = (address: ListenerAddress, baseUrl: string, tls: TlsOptions | undefined) => {
    const onRequest = requestListener(parts, routes, {
      issuer: withoutSlash(settings.issuer),
      baseUrl,
      // HSTS speaks for a host on all its ports: only where the plain listener's address is https too.
      isHttps: settings.issuer.startsWith('https:'),
      checkReplies: options.checkReplies ?? false,
      leaving: leaving.signal,
      closing: closing.signal,
    });
    return listen(address, makeServer(tls, limits, onRequest, parts));
  };
  const opened: Server[] = [];
  try {
    const { plain, mtls } = options;
    const plainServer = await openListener(plain, withoutSlash(settings.issuer), plain.tls && tlsOptions(plain.tls));
    opened.push(plainServer);
    const mtlsServer =
      mtls && (await openListener(mtls, withoutSlash(settings.mtlsIssuer ?? settings.issuer), mtlsOptions(mtls.tls)));
    if (mtlsServer) opened.push(mtlsServer);
    return {
      plain: addressOf(plainServer),
      ...(mtlsServer ? { mtls: addressOf(mtlsServer) } : {}),
      renewCertificates: (renewed) => {
        if (renewed.plain && plain.tls) (plainServer as HttpsServer).setSecureContext(tlsOptions(renewed.plain));
        if (renewed.mtls) (mtlsServer as HttpsServer | undefined)?.setSecureContext(mtlsOptions(renewed.mtls));
      },
      leave: () => leaving.abort(),
      close: async (graceMs) => {
        leaving.abort();
        closing.abort();
        await Promise.all(opened.map((server) => drain(server, graceMs)));
      },
    };
  } catch (error) {
    closing.abort();
    await Promise.all(opened.map((server) => drain(server, 0)));
    throw error;
  }
}

type TlsOptions = ReturnType<typeof tlsOptions> & { requestCert?: boolean; rejectUnauthorized?: boolean };

/** No tickets: a resumed session outlives the identity it began with (its certificate may be over, its bundle changed). */
function tlsOptions({ key, cert }: ServerCertificate) {
  return { key, cert, minVersion: 'TLSv1.3' as const, secureOptions: constants.SSL_OP_NO_TICKET };
}

/** OpenSSL's own opinion of a client certificate is not asked for: ours is formed on every request, against the bundle of its trust domain. */
function mtlsOptions(certificate: ServerCertificate): TlsOptions {
  return { ...tlsOptions(certificate), requestCert: true, rejectUnauthorized: false };
}

function makeServer(
  tls: TlsOptions | undefined,
  limits: typeof CONNECTION_LIMITS,
  onRequest: (incoming: IncomingMessage, response: ServerResponse) => void,
  parts: Parts,
): Server {
  const httpOptions: ServerOptions = {
    maxHeaderSize: HEADER_LIMITS.bytesMax,
    headersTimeout: limits.headersTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    connectionsCheckingInterval: limits.slowCheckMs,
    insecureHTTPParser: false,
    requireHostHeader: true,
    noDelay: true,
  };
  const server: Server = tls
    ? createTlsServer({ ...httpOptions, ...tls, handshakeTimeout: limits.headersTimeoutMs }, onRequest)
    : createServer(httpOptions, onRequest);
  // One more than we take: Node silently drops what is above its own limit, and ours answers.
  server.maxHeadersCount = HEADER_LIMITS.countMax + 1;
  server.maxRequestsPerSocket = limits.requestsPerSocketMax;
  server.maxConnections = limits.connectionsMax;
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => answerUnparsable(error, socket, parts));
  // Bytes after the end of a request's connection, or in the middle of a stream, must not be answered into another reply.
  server.on('request', (incoming, response) => replying.set(incoming.socket, response));
  if (tls?.requestCert) server.on('secureConnection', (socket: TLSSocket) => closeAtExpiry(socket, parts));
  return server;
}

/** A connection does not outlive the certificate it was opened with. */
function closeAtExpiry(socket: TLSSocket, { clock }: Parts): void {
  const peer = peerOf(socket);
  if (!peer) return;
  const cancel = callAt(Date.parse(peer.leaf.validTo), clock, () => socket.destroy());
  socket.once('close', cancel);
}

const replying = new WeakMap<Socket, ServerResponse>();

/** What the parser refused never became a request: a fixed reply, and the connection is over. */
function answerUnparsable(error: NodeJS.ErrnoException, socket: Socket, parts: Parts): void {
  const open = replying.get(socket);
  const isMidReply = open?.headersSent === true && !open.writableFinished;
  const isHttp = error.code?.startsWith('HPE_') === true || error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
  if (!isHttp || !socket.writable) return void socket.destroy();
  // What was already said goes out whole, and nothing after it.
  if (isMidReply) return void socket.destroySoon();
  const refusal =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? new BrokerError('too_large', 'The headers of a request hold at most 16 KiB.')
      : new BrokerError('invalid_request', 'This is not well-formed HTTP, or it came too slowly.');
  const requestId = newId('req', parts.settings.cell, parts.clock.now());
  const reply = errorReply(refusal, { surface: 'api', requestId, issuer: withoutSlash(parts.settings.issuer) });
  const body = JSON.stringify(reply.body);
  socket.end(
    `HTTP/1.1 ${reply.status} ${STATUS_CODES[reply.status]}\r\ncontent-type: application/problem+json\r\ncache-control: no-store\r\n` +
      `content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
  );
  parts.observe({ event: 'http.unparsable', level: 'debug', reason: error.code });
}

function withoutSlash(url: string): string {
  return url.endsWith('/') ? url.slice(0, -1) : url;
}

function addressOf(server: Server): { host: string; port: number } {
  const { address, port } = server.address() as AddressInfo;
  return { host: address, port };
}

function listen(address: ListenerAddress, server: Server): Promise<Server> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.port, address.host, () => {
      server.off('error', reject);
      resolve(server);
    });
  });
}

/** The listener is closed at once, connections as they fall idle (but see IDLE_MS), all of them at the end of the grace. */
function drain(server: Server, graceMs: number): Promise<void> {
  return new Promise((resolve) => {
    let sweep: NodeJS.Timeout | undefined;
    const beginIdle = () => {
      server.closeIdleConnections();
      sweep = setInterval(() => server.closeIdleConnections(), DRAIN_CHECK_MS);
    };
    const idle = setTimeout(beginIdle, Math.min(IDLE_MS, graceMs / 2));
    const cut = setTimeout(() => server.closeAllConnections(), graceMs);
    // Not the http server's own close(): it begins with closing every idle connection.
    NetServer.prototype.close.call(server, () => {
      clearTimeout(idle);
      clearInterval(sweep);
      clearTimeout(cut);
      // Ends its look for slow connections.
      server.close();
      resolve();
    });
  });
}
