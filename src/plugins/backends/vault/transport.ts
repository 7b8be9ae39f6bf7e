import { readFileSync } from 'node:fs';
import { Agent, buildConnector, request } from 'undici';
import { BackendProblem } from '../contract.js';
import { networkProblem, VaultAnswer } from './answers.js';

/** The members of a call that node-vault hands on as they are. */
export interface SentOptions {
  method: string;
  uri: string;
  headers?: Record<string, string>;
  json?: unknown;
  signal: AbortSignal;
}

export interface Tls {
  ca_file?: string | undefined;
  cert_file?: string | undefined;
  key_file?: string | undefined;
}

/** What node-vault takes for a full response; `body` is the whole answer, because it looks at nothing but 200 and 204. */
interface Sent {
  statusCode: 200;
  body: { status: number; body: unknown };
  request: { path: string };
}

const METHODS = new Set(['GET', 'POST']);

const BODY_BYTES_MAX = 16 * 1024 * 1024;

/**
 * What carries node-vault's requests instead of its own axios, through its one seam (`request-promise`): to one origin only, no redirect followed, no
 * proxy from the environment, a limit on time, on size and on connections. Any 2xx is an answer (node-vault refuses a 202); everything else is thrown as a
 * VaultAnswer or a BackendProblem, neither of which has the request in it: no header, no token, no body.
 */
export class VaultTransport {
  readonly #base: string;
  readonly #timeoutMs: number;
  readonly #dispatcher: Agent;

  constructor({ address, tls, timeoutMs, connectionsMax }: TransportOptions) {
    this.#base = `${address}/v1/`;
    this.#timeoutMs = timeoutMs;
    this.#dispatcher = new Agent({
      connections: connectionsMax,
      pipelining: 1,
      connect: connector(tls, timeoutMs),
      keepAliveTimeout: 10_000,
      keepAliveMaxTimeout: 60_000,
    });
  }

  readonly send = async (options: SentOptions): Promise<Sent> => {
    const { method, uri, headers = {}, json } = options;
    if (!uri.startsWith(this.#base) || !METHODS.has(method)) {
      throw new BackendProblem('misconfigured', 'a request to another place was not sent', { isSure: true });
    }
    const limit = AbortSignal.timeout(this.#timeoutMs);
    try {
      const { statusCode, body } = await request(uri, {
        method: method as 'GET' | 'POST',
        headers: {
          ...headers,
          'x-vault-request': 'true',
          ...(json !== undefined && { 'content-type': 'application/json' }),
        },
        ...(json !== undefined && { body: JSON.stringify(json) }),
        dispatcher: this.#dispatcher,
        signal: AbortSignal.any([limit, options.signal]),
      });
      const answer = await readJson(body);
      if (statusCode < 200 || statusCode > 299) throw new VaultAnswer(statusCode, answer);
      return { statusCode: 200, body: { status: statusCode, body: answer }, request: { path: '' } };
    } catch (error) {
      if (error instanceof VaultAnswer || error instanceof BackendProblem) throw error;
      throw networkProblem(error, { timedOut: limit.aborted, givenUp: options.signal.aborted });
    }
  };

  async close(): Promise<void> {
    await this.#dispatcher.destroy();
  }
}

interface TransportOptions {
  /** `https://vault.example:8200`, no slash at its end. */
  address: string;
  tls: Tls;
  /** No request takes longer, whatever its caller would wait. */
  timeoutMs: number;
  connectionsMax: number;
}

/** An answer that is no JSON (a proxy's page) has no body for us. */
async function readJson(body: AsyncIterable<Buffer>): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new BackendProblem('failed', 'the answer is too large');
    chunks.push(chunk);
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Files are read for each new connection: a certificate that was renewed is used without a restart. Sessions are not resumed, since that skips its check. */
function connector({ ca_file, cert_file, key_file }: Tls, timeoutMs: number): buildConnector.connector {
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file));
  return (options, callback) => {
    let connect: buildConnector.connector;
    try {
      const [ca, cert, key] = [ca_file, cert_file, key_file].map(read);
      connect = buildConnector({
        timeout: timeoutMs,
        maxCachedSessions: 0,
        ...(ca && { ca }),
        ...(cert && { cert }),
        ...(key && { key }),
      });
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? 'unreadable';
      callback(new BackendProblem('misconfigured', `a TLS file of this backend: ${code}`, { isSure: true }), null);
      return;
    }
    connect(options, callback);
  };
}
