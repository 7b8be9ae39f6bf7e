import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Handle, SecretData } from '../../../../../src/core/credential.js';
import { newId } from '../../../../../src/core/ids.js';
import { Secret } from '../../../../../src/core/secret.js';
import type { Assertion, Backend, Credential, Issued } from '../../../../../src/plugins/backends/contract.js';
import { oauthBackend } from '../../../../../src/plugins/backends/oauth.js';
import { VirtualClock } from '../../../../fakes/virtual-clock.js';

export const CANARY = 'canary-5fd8e2c0b1a94b7e';
export const NOW_MS = Date.parse('2030-06-15T12:00:00Z');

export interface Reply {
  status?: number;
  headers?: Record<string, string>;
  body?: unknown;
}
export type Answer = Reply | ((form: URLSearchParams, response: ServerResponse) => Reply | 'handled');
export type Endpoint = 'metadata' | 'token' | 'revocation' | 'introspection';

const PATHS: Record<string, Endpoint> = {
  '/.well-known/oauth-authorization-server': 'metadata',
  '/token': 'token',
  '/revoke': 'revocation',
  '/introspect': 'introspection',
};

/** An upstream that answers whatever a case wants, by itself as RFC 6749 has it; and what it was asked. */
export class Upstream {
  readonly asked: { endpoint: Endpoint | 'other'; form: URLSearchParams; authorization: string | undefined }[] = [];
  readonly answers: Partial<Record<Endpoint, Answer>> = {};
  readonly #server: Server;
  readonly #alive = new Set<string>();
  #given = 0;
  issuer = '';

  constructor() {
    this.#server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const form = new URLSearchParams(Buffer.concat(chunks).toString());
      const endpoint = PATHS[request.url ?? ''];
      this.asked.push({ endpoint: endpoint ?? 'other', form, authorization: request.headers.authorization });
      const chosen = endpoint === undefined ? { status: 404 } : (this.answers[endpoint] ?? this.#usual(endpoint, form));
      const reply = typeof chosen === 'function' ? chosen(form, response) : chosen;
      if (reply === 'handled') return;
      const { status = 200, headers = {}, body = {} } = reply;
      response.writeHead(status, { 'content-type': 'application/json', ...headers });
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    });
  }

  async start(): Promise<this> {
    this.#server.listen(0, '127.0.0.1');
    await once(this.#server, 'listening');
    this.issuer = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  metadata(): Record<string, unknown> {
    return {
      issuer: this.issuer,
      token_endpoint: `${this.issuer}/token`,
      revocation_endpoint: `${this.issuer}/revoke`,
      introspection_endpoint: `${this.issuer}/introspect`,
    };
  }

  /** A good answer, with more or other members. */
  token(more: Record<string, unknown> = {}): Reply {
    const token = `${CANARY}-${++this.#given}`;
    this.#alive.add(token);
    return { body: { access_token: token, token_type: 'Bearer', expires_in: 300, ...more } };
  }

  alive(): string[] {
    return [...this.#alive];
  }

  formsOf(endpoint: Endpoint): Record<string, string>[] {
    return this.asked.filter((one) => one.endpoint === endpoint).map(({ form }) => Object.fromEntries(form));
  }

  #usual(endpoint: Endpoint, form: URLSearchParams): Reply {
    if (endpoint === 'metadata') return { body: this.metadata() };
    if (endpoint === 'token') return this.token();
    const token = form.get('token') ?? '';
    if (endpoint === 'introspection') return { body: { active: this.#alive.has(token) } };
    this.#alive.delete(token);
    return {};
  }
}

export interface World {
  upstream: Upstream;
  backend: Backend;
  clock: VirtualClock;
  assertions: Assertion[];
}

export function backendOf(
  upstream: Upstream,
  config: Record<string, unknown> = {},
): Pick<World, 'backend' | 'clock' | 'assertions'> {
  const clock = new VirtualClock(NOW_MS);
  const assertions: Assertion[] = [];
  const backend = oauthBackend.create(
    oauthBackend.config.parse({
      kind: 'oauth',
      issuer: upstream.issuer,
      client_id: 'mayfly',
      introspects: true,
      ...config,
    }),
    {
      name: 'upstream',
      installation: 'abcd1234',
      clock,
      observe: () => undefined,
      assertion: async (claims) => {
        assertions.push(claims);
        return new Secret(`assertion-${assertions.length}-${CANARY}`);
      },
      decrypt: () => new Secret(''),
      fingerprint: () => '',
    },
  ) as Backend;
  return { backend, clock, assertions };
}

/** A lease, and what the broker keeps of it. */
export function leaseOf({ backend, clock }: Pick<World, 'backend' | 'clock'>, given: Record<string, unknown> = {}) {
  const settings = backend.secretSettings.parse(given);
  const leaseId = newId('lse', 'a', NOW_MS);
  const lease: Credential & { notes: number } = {
    leaseId,
    handle: backend.plan({ leaseId, settings }),
    expiresAtMs: clock.now() + 600_000,
    notes: 0,
  };
  const note = async (more: Handle, kept?: Secret<SecretData>) => {
    lease.notes += 1;
    lease.handle = { ...lease.handle, ...more };
    if (kept) lease.kept = kept;
  };
  const issue = (more: Partial<Parameters<Backend['issue']>[0]> = {}): Promise<Issued> =>
    backend.issue({
      leaseId,
      settings,
      handle: lease.handle,
      expiresAtMs: lease.expiresAtMs,
      deadlineMs: clock.now() + 5_000,
      agent: 'spiffe://prod.example/agent/refunds',
      taskId: 'tsk_a_00000000000000000000000000',
      note,
      signal: AbortSignal.timeout(5_000),
      ...more,
    });
  return {
    lease,
    issue,
    note,
    revoke: () => backend.revoke(lease, AbortSignal.timeout(5_000)),
    confirm: () => backend.confirm(lease, AbortSignal.timeout(5_000)),
  };
}

export const check = (backend: Backend, given: Record<string, unknown> = {}) =>
  backend.check({ name: 'a-secret', settings: backend.secretSettings.parse(given) }, AbortSignal.timeout(5_000));
