import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { recentHealth } from '../../broker/check-health.js';
import type { Parts } from '../../broker/parts.js';

export interface OpsDoorOptions {
  host: string;
  /** 0: any free one. */
  port: number;
  /** The numbers as Prometheus reads them. What throws is a 503 for the scraper, and nothing else. */
  metrics: () => Promise<{ contentType: string; text: string }>;
}

/**
 * The door for those who run the broker: metrics and probes, on a port of its own that no client is meant to reach. It opens before anything
 * else and closes last, so that a process that waits for its store is seen to live, and one that drains is seen to be leaving.
 */
export interface OpsDoor {
  readonly host: string;
  readonly port: number;
  /** The broker is up: from now on readiness is what its parts say. */
  started(parts: Parts): void;
  /** Not ready from now on, whatever the parts say: no new connections should be sent here. */
  leaving(): void;
  close(): Promise<void>;
}

interface Check {
  name: string;
  ok: boolean;
}

interface Answer {
  status: number;
  body: unknown;
}

const LIMITS = { maxHeaderSize: 8 * 1024, headersTimeout: 5_000, requestTimeout: 10_000, keepAliveTimeout: 15_000 };
const CONNECTIONS_MAX = 200;

export async function openOpsDoor(options: OpsDoorOptions): Promise<OpsDoor> {
  let parts: Parts | undefined;
  let isLeaving = false;
  const probes: Record<string, () => Answer | Promise<Answer>> = {
    // Of the process alone: a store that is away is no reason to start it anew.
    '/livez': () => ({ status: 200, body: { live: true } }),
    '/startupz': () => ({ status: parts ? 200 : 503, body: { started: parts !== undefined } }),
    '/readyz': () => {
      if (isLeaving) return { status: 503, body: { ready: false, because: 'leaving' } };
      return parts ? readiness(parts) : { status: 503, body: { ready: false, because: 'starting' } };
    },
  };
  const answer = async ({ method, url = '/' }: IncomingMessage, response: ServerResponse): Promise<void> => {
    const path = url.split('?', 1)[0] as string;
    const probe = Object.hasOwn(probes, path) ? probes[path] : undefined;
    if (!probe && path !== '/metrics') return sendJson(response, { status: 404, body: { error: 'not_found' } });
    if (method !== 'GET' && method !== 'HEAD') {
      response.setHeader('allow', 'GET, HEAD');
      return sendJson(response, { status: 405, body: { error: 'method_not_allowed' } });
    }
    if (probe) return sendJson(response, await probe());
    const { contentType, text } = await options.metrics();
    send(response, 200, contentType, text);
  };
  const server = createServer(LIMITS, (request, response) => {
    answer(request, response).catch(() => sendJson(response, { status: 503, body: { error: 'unavailable' } }));
  });
  server.maxConnections = CONNECTIONS_MAX;
  await listen(server, options);
  const { address, port } = server.address() as AddressInfo;
  return {
    host: address,
    port,
    started(of) {
      parts = of;
    },
    leaving() {
      isLeaving = true;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/**
 * Ready: the store answers, a key signs, a bundle is loaded, the clock and the feed are right. What only closes grants (a store that is nearly
 * full, an audit backlog, a backend that is down) is degraded: every broker has it, and with none of them ready nobody could revoke.
 */
async function readiness(parts: Parts): Promise<Answer> {
  const lines = await recentHealth(parts);
  const isReady = lines.every(({ ok, vital }) => ok || !vital);
  const isDegraded = parts.health.grantsClosed() !== undefined || lines.some(({ ok }) => !ok);
  // Names only: details are for those who may ask (GET /v1/health).
  const checks: Check[] = lines.map(({ name, ok }) => ({ name, ok }));
  return { status: isReady ? 200 : 503, body: { ready: isReady, degraded: isDegraded, checks } };
}

function sendJson(response: ServerResponse, { status, body }: Answer): void {
  send(response, status, 'application/json', `${JSON.stringify(body)}\n`);
}

function send(response: ServerResponse, status: number, contentType: string, text: string): void {
  if (response.headersSent) return void response.destroy();
  response
    .writeHead(status, {
      'content-type': contentType,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
    })
    .end(text);
}

function listen(server: Server, { host, port }: OpsDoorOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}
