import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DevTrustDomain, openDevTrustDomain } from '../../../../../src/main/dev/trust-domain.js';
import { UpstreamFetch } from '../../../../../src/plugins/backends/oauth/fetch.js';

let dir: string;
let domain: DevTrustDomain;
let server: Server;
let asked: number;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-oauth-tls-'));
  domain = await openDevTrustDomain(dir);
});
afterAll(() => rmSync(dir, { recursive: true }));
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

async function serve(host: string): Promise<string> {
  const { certPem, keyPem } = await domain.tlsServer([host]);
  asked = 0;
  server = createServer({ cert: certPem, key: keyPem }, (_request, response) => {
    asked += 1;
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}/token`;
}

async function call(url: string, ca: string | undefined): Promise<Response> {
  const fetch = new UpstreamFetch(ca);
  try {
    const body = 'grant_type=x';
    return await fetch.call(url, url, { method: 'POST', headers: {}, body, signal: AbortSignal.timeout(5_000) });
  } finally {
    await fetch.close();
  }
}

describe('the certificate of an upstream', () => {
  it('is believed under the authorities of ca_file', async () => {
    expect((await call(await serve('127.0.0.1'), domain.caPem)).status).toBe(200);
  });

  it.each<[string, string, () => string | undefined]>([
    ['is of an authority that nobody named', '127.0.0.1', () => undefined],
    ['is of another name', 'login.example', () => domain.caPem],
  ])('is refused when it %s, before anything is sent', async (_, host, ca) => {
    const url = await serve(host);
    await expect(call(url, ca())).rejects.toMatchObject({ kind: 'misconfigured', isSure: true });
    expect(asked).toBe(0);
  });

  it('an address that was not let through is not called', async () => {
    const url = await serve('127.0.0.1');
    const fetch = new UpstreamFetch(domain.caPem);
    const call = { method: 'POST', headers: {}, signal: AbortSignal.timeout(5_000) };
    await expect(fetch.call(url, `${url}/`, call)).rejects.toMatchObject({ kind: 'failed', isSure: true });
    expect(asked).toBe(0);
    await fetch.close();
  });
});
