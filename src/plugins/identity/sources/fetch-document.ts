import { readFile } from 'node:fs/promises';
import { request } from 'node:https';

export interface FetchOptions {
  /** PEM file with the only authorities for the connection, read at every fetch; without it, the system's. */
  caFile?: string;
  /** File with a bearer token, read at every fetch. It goes to the URL given and nowhere else: no redirect is followed. */
  tokenFile?: string;
  bytesMax?: number;
  timeoutMs?: number;
  /** Gives up at once. */
  signal?: AbortSignal;
}

const BYTES_MAX = 1024 * 1024;
const TIMEOUT_MS = 10_000;
const REDIRECTS_MAX = 3;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * GETs a document over https, within a size and a time. Redirects go to https only, each target checked as the URL
 * itself was, and are never stored (SPIFFE_Federation.md section 5.2.2). Anything but a 200 with UTF-8 throws.
 */
export async function fetchDocument(address: string, options: FetchOptions = {}): Promise<string> {
  const timeout = AbortSignal.timeout(options.timeoutMs ?? TIMEOUT_MS);
  const signal = options.signal ? AbortSignal.any([timeout, options.signal]) : timeout;
  const ca = options.caFile === undefined ? undefined : await readFile(options.caFile);
  const token = options.tokenFile === undefined ? undefined : (await readFile(options.tokenFile, 'utf8')).trim();
  let url = checked(address);
  for (let redirects = 0; redirects <= REDIRECTS_MAX; redirects += 1) {
    const reply = await get(url, { ca, token, signal, bytesMax: options.bytesMax ?? BYTES_MAX });
    if ('text' in reply) return reply.text;
    if (token !== undefined) throw new Error('a redirect, and a token was sent');
    if (!URL.canParse(reply.location, url.href)) throw new Error('a redirect to nowhere');
    url = checked(new URL(reply.location, url).href);
  }
  throw new Error('too many redirects');
}

function checked(address: string): URL {
  const url = new URL(address);
  if (url.protocol !== 'https:') throw new Error('not an https URL');
  if (url.username !== '' || url.password !== '') throw new Error('a URL with a user');
  return url;
}

interface GetOptions {
  ca: Buffer | undefined;
  token: string | undefined;
  signal: AbortSignal;
  bytesMax: number;
}

function get(url: URL, { ca, token, signal, bytesMax }: GetOptions): Promise<{ text: string } | { location: string }> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { accept: 'application/json' };
    if (token !== undefined) headers['authorization'] = `Bearer ${token}`;
    const sent = request(url, { headers, signal, agent: false, ...(ca ? { ca } : {}) }, (reply) => {
      const { statusCode = 0 } = reply;
      const { location } = reply.headers;
      if (statusCode >= 300 && statusCode < 400 && location !== undefined) {
        reply.destroy();
        resolve({ location });
        return;
      }
      if (statusCode !== 200) {
        reply.destroy();
        reject(new Error(`status ${statusCode}`));
        return;
      }
      const chunks: Buffer[] = [];
      let bytes = 0;
      reply.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        chunks.push(chunk);
        if (bytes <= bytesMax) return;
        reject(new Error('the document is too large'));
        reply.destroy();
      });
      reply.on('error', reject);
      reply.on('aborted', () => reject(new Error('cut short')));
      reply.on('end', () => {
        try {
          resolve({ text: utf8.decode(Buffer.concat(chunks)) });
        } catch {
          reject(new Error('the document is not UTF-8'));
        }
      });
    });
    sent.on('error', (error) => reject(signal.aborted ? new Error('no answer in time') : error));
    sent.end();
  });
}
