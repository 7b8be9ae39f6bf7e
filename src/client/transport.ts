import { type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { type AgentOptions, Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';

/** The part of `fetch` that the client uses; the global one fits, and so does any wrapper of it. */
export type Fetch = (url: string, init?: FetchInit) => Promise<Response>;

export interface FetchInit {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  signal?: AbortSignal;
  redirect?: 'error';
}

/** TLS of our side, PEM. Read again for every request, so an object with getters follows a rotating SVID. */
export interface TransportTls {
  readonly ca?: string | Buffer | undefined;
  readonly cert?: string | Buffer | undefined;
  readonly key?: string | Buffer | undefined;
}

/**
 * `fetch` over node:http(s), which can present a client certificate and trust a private CA. It never follows a redirect: a token or
 * an SVID goes to the address it was meant for, or nowhere.
 */
export function nodeFetch(tls: TransportTls = {}): Fetch {
  const plain = new HttpAgent({ keepAlive: true });
  let secured: { material: (string | Buffer | undefined)[]; agent: HttpsAgent } | undefined;

  function agentFor(url: URL): HttpAgent | HttpsAgent {
    if (url.protocol === 'http:') return plain;
    const material = [tls.ca, tls.cert, tls.key];
    if (!secured || material.some((part, at) => part !== secured?.material[at])) {
      const [ca, cert, key] = material;
      const options: AgentOptions = { keepAlive: true, minVersion: 'TLSv1.2' };
      if (ca !== undefined) options.ca = ca;
      if (cert !== undefined) options.cert = cert;
      if (key !== undefined) options.key = key;
      secured = { material, agent: new HttpsAgent(options) };
    }
    return secured.agent;
  }

  return (address, init = {}) =>
    new Promise((resolve, reject) => {
      const url = new URL(address);
      const send = url.protocol === 'http:' ? httpRequest : httpsRequest;
      const headers: Record<string, string> = { ...init.headers };
      if (init.body !== undefined) headers['content-length'] = String(Buffer.byteLength(init.body));
      const request: ClientRequest = send(
        url,
        {
          method: init.method ?? 'GET',
          headers,
          agent: agentFor(url),
          ...(init.signal ? { signal: init.signal } : {}),
        },
        (incoming) => {
          try {
            resolve(responseOf(incoming));
          } catch (error) {
            incoming.destroy();
            reject(error);
          }
        },
      );
      request.on('error', reject);
      request.end(init.body);
    });
}

function responseOf(incoming: IncomingMessage): Response {
  const status = incoming.statusCode ?? 0;
  if (status >= 300 && status < 400 && status !== 304) throw new Error(`refused to follow a redirect (${status})`);
  const headers = new Headers();
  for (let at = 0; at < incoming.rawHeaders.length; at += 2) {
    headers.append(incoming.rawHeaders[at] as string, incoming.rawHeaders[at + 1] as string);
  }
  const isBare = status === 204 || status === 205 || status === 304;
  if (isBare) incoming.resume();
  const body = isBare ? null : (Readable.toWeb(incoming) as unknown as ReadableStream<Uint8Array>);
  return new Response(body, { status, headers });
}

/** The body as text, refused past a size: nobody's answer fills our memory. */
export async function textOf(response: Response, bytesMax: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of chunksOf(response)) {
    bytes += chunk.byteLength;
    if (bytes > bytesMax) throw new Error(`the answer is larger than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The body as it comes in. Leaving the loop early lets go of the connection. */
export async function* chunksOf(response: Response): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
