import { Agent, request } from 'undici';
import { BackendProblem } from '../contract.js';

const BODY_BYTES_MAX = 256 * 1024;
const CALL_MS_MAX = 30_000;
const CONNECT_MS_MAX = 5_000;

export interface Call {
  method: string;
  headers: Record<string, string>;
  body?: string;
  signal: AbortSignal;
}

/**
 * Calls to one upstream and nobody else. Only the addresses that are let through are asked; a redirect is refused and never followed; an answer has
 * a size and a time; no proxy of the environment sees any of it. What goes wrong is a BackendProblem whose text is our own.
 */
export class UpstreamFetch {
  readonly #agent: Agent;

  constructor(ca: string | undefined) {
    this.#agent = new Agent({
      connections: 128,
      pipelining: 1,
      keepAliveTimeout: 10_000,
      maxResponseSize: BODY_BYTES_MAX,
      maxHeaderSize: 16 * 1024,
      headersTimeout: CALL_MS_MAX,
      bodyTimeout: CALL_MS_MAX,
      connect: { timeout: CONNECT_MS_MAX, ...(ca !== undefined && { ca }) },
    });
  }

  /** `allowed` is the one address that may be called now. */
  async call(address: string, allowed: string, call: Call): Promise<Response> {
    if (address !== allowed) throw new BackendProblem('failed', 'another address was about to be asked', SURE);
    const signal = AbortSignal.any([call.signal, AbortSignal.timeout(CALL_MS_MAX)]);
    if (signal.aborted) throw new BackendProblem('timeout', 'no time was left to ask the upstream', SURE);
    try {
      const { statusCode, headers, body } = await request(address, {
        method: call.method as 'GET' | 'POST',
        headers: call.headers,
        body: call.body ?? null,
        dispatcher: this.#agent,
        signal,
      });
      const text = await body.text();
      if (statusCode >= 300 && statusCode < 400) {
        throw new BackendProblem(
          'misconfigured',
          `the upstream answers with a redirect (${statusCode}), and none is followed`,
        );
      }
      const contentType = headers['content-type'];
      return new Response(hasBody(statusCode) ? text : null, {
        status: statusCode,
        headers: typeof contentType === 'string' ? { 'content-type': contentType } : {},
      });
    } catch (error) {
      throw problemOf(error, signal);
    }
  }

  close(): Promise<void> {
    return this.#agent.destroy();
  }
}

const SURE = { isSure: true };

const hasBody = (status: number) => status !== 204 && status !== 205 && status !== 304;

/** Codes of errors that come before anything was sent. */
const NOT_SENT = new Set([
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'UND_ERR_CONNECT_TIMEOUT',
]);

/** The vendor's error may quote what was sent: nothing of it is kept but its code. */
function problemOf(error: unknown, signal: AbortSignal): BackendProblem {
  if (error instanceof BackendProblem) return error;
  if (signal.aborted) return new BackendProblem('timeout', 'the upstream did not answer in time');
  const { code } = Object(error) as { code?: unknown };
  if (code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE' || code === 'UND_ERR_HEADERS_OVERFLOW') {
    return new BackendProblem('failed', `the upstream answers with more than ${BODY_BYTES_MAX / 1024} KiB`);
  }
  const name = typeof code === 'string' && /^[A-Z0-9_]{1,64}$/.test(code) ? code : 'an error';
  if (/^(CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_TLS)/.test(name)) {
    return new BackendProblem('misconfigured', `the certificate of the upstream is not trusted (${name})`, SURE);
  }
  return new BackendProblem('unreachable', `the upstream cannot be reached (${name})`, { isSure: NOT_SENT.has(name) });
}
