import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jest } from '@jest/globals';
import { run } from '../../../../src/main/cli/program.js';
import { openDevTrustDomain } from '../../../../src/main/dev/trust-domain.js';

export interface Asked {
  method: string;
  url: URL;
  body: Record<string, unknown>;
}

type Answer = { status?: number; headers?: Record<string, string>; body: unknown };

interface Ran {
  code: number;
  out: string;
  err: string;
}

/** The command line, in this process, in front of a broker that answers as the test says. It acts as a workload with an SVID in a file. */
export class AtBroker {
  readonly asked: Asked[] = [];
  answer: (asked: Asked) => Answer = () => ({ body: { items: [] } });
  readonly #folder = mkdtempSync(join(tmpdir(), 'mayfly-cli-'));
  readonly #server: Server;
  readonly #before = { ...process.env };

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(): Promise<AtBroker> {
    const server = createServer(async (request, response) => {
      let text = '';
      for await (const chunk of request) text += String(chunk);
      const asked = {
        method: request.method ?? '',
        url: new URL(request.url ?? '/', 'http://broker'),
        body: text.startsWith('{') ? JSON.parse(text) : Object.fromEntries(new URLSearchParams(text)),
      };
      at.asked.push(asked);
      const { status = 200, headers, body } = at.answer(asked);
      response.writeHead(status, { 'content-type': 'application/json', connection: 'close', ...headers });
      response.end(JSON.stringify(body));
    });
    const at = new AtBroker(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    process.env['MAYFLY_ADDR'] = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    process.env['MAYFLY_JWT_SVID_FILE'] = at.file('svid', 'an.svid.x');
    return at;
  }

  file(name: string, text: string): string {
    const path = join(this.#folder, name);
    writeFileSync(path, text);
    return path;
  }

  /** From here on the workload has an X.509-SVID, and an address with TLS where nobody answers. */
  async showCertificate(): Promise<void> {
    const trustDomain = await openDevTrustDomain(this.#folder);
    const { certificatePem, keyPem } = await trustDomain.x509Svid({ path: '/agent/x', ttlSeconds: 60 });
    delete process.env['MAYFLY_JWT_SVID_FILE'];
    process.env['MAYFLY_CERT_FILE'] = this.file('svid.pem', certificatePem);
    process.env['MAYFLY_KEY_FILE'] = this.file('key.pem', keyPem);
    process.env['MAYFLY_ADDR'] = 'https://127.0.0.1:1';
  }

  async close(): Promise<void> {
    process.env = this.#before;
    rmSync(this.#folder, { recursive: true });
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async mayfly(...args: string[]): Promise<Ran> {
    return mayfly(...args);
  }
}

/** One command line, and what it said. */
export async function mayfly(...args: string[]): Promise<Ran> {
  const said = { stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    jest.spyOn(process[name], 'write').mockImplementation((chunk, ...more: unknown[]) => {
      said[name] += String(chunk);
      const written = more.at(-1);
      if (typeof written === 'function') written();
      return true;
    }),
  );
  const codeBefore = process.exitCode;
  process.exitCode = undefined;
  try {
    await run(['node', 'mayfly', ...args]);
    return { code: Number(process.exitCode ?? 0), out: said.stdout, err: said.stderr };
  } finally {
    process.exitCode = codeBefore;
    for (const spy of spies) spy.mockRestore();
  }
}
