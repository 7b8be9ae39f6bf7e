import type { SecretData } from '../../../src/core/credential.js';
import { newId } from '../../../src/core/ids.js';
import type { OperationalEvent } from '../../../src/core/observe.js';
import { Secret } from '../../../src/core/secret.js';
import { systemClock } from '../../../src/core/time.js';
import type { Backend, BackendDeps, Credential, Found, Issued } from '../../../src/plugins/backends/contract.js';
import { postgresConfig } from '../../../src/plugins/backends/postgres/config.js';
import { postgres } from '../../../src/plugins/backends/postgres.js';
import { DATABASE, GROUP, type TestServer } from './server.js';

export const INSTALLATION = 'abcd1234';
export const SETTINGS = { database: DATABASE, groups: [GROUP] };

export interface Given extends Credential {
  issued: Issued;
  data: SecretData;
}

/** A backend on that server, and the calls as the engine makes them. */
export function openWorld(server: TestServer, config: Record<string, unknown> = {}, given: Partial<BackendDeps> = {}) {
  const events: OperationalEvent[] = [];
  const deps: BackendDeps = {
    name: 'orders-db',
    installation: INSTALLATION,
    clock: systemClock,
    observe: (event) => events.push(event),
    assertion: async () => new Secret(''),
    decrypt: () => new Secret(''),
    fingerprint: () => '',
    ...given,
  };
  const backend = postgres.create(
    postgresConfig.parse({
      kind: 'postgres',
      host: server.host,
      port: server.port,
      managers: server.managers,
      scram_iterations: 64,
      ...config,
    }),
    deps,
  ) as Required<Backend>;

  function order(settings: Record<string, unknown> = SETTINGS, lifeMs = 60_000) {
    const leaseId = newId('lse', 'a', Date.now());
    const nowMs = deps.clock.now();
    return {
      leaseId,
      settings,
      handle: backend.plan({ leaseId, settings }),
      expiresAtMs: nowMs + lifeMs,
      deadlineMs: nowMs + 5_000,
      agent: 'spiffe://prod.example/agent/refunds',
      taskId: 'tsk_a_00000000000000000000000000',
      note: async () => undefined,
      signal: AbortSignal.timeout(5_000),
    };
  }

  async function issue(settings?: Record<string, unknown>, lifeMs?: number): Promise<Given> {
    const wanted = order(settings, lifeMs);
    const issued = await backend.issue(wanted);
    const { leaseId, expiresAtMs } = wanted;
    return { leaseId, expiresAtMs, handle: { ...wanted.handle, ...issued.handle }, issued, data: issued.data.expose() };
  }

  return {
    backend,
    events,
    order,
    issue,
    revoke: (credential: Credential) => backend.revoke(credential, AbortSignal.timeout(15_000)),
    confirm: (credential: Credential) => backend.confirm(credential, AbortSignal.timeout(5_000)),
    async find(): Promise<Found[]> {
      const found: Found[] = [];
      for await (const one of backend.find(AbortSignal.timeout(5_000))) found.push(one);
      return found;
    },
    check: (settings: Record<string, unknown> = SETTINGS) =>
      backend.check({ name: 'orders', settings }, AbortSignal.timeout(15_000)),
    logIn: ({ data }: Given) =>
      server.logIn({
        user: String(data['username']),
        password: String(data['password']),
        database: String(data['database']),
      }),
  };
}

/** The SQLSTATE that something is refused with. */
export async function stateOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
  } catch (error) {
    return String((error as { code?: unknown }).code ?? error);
  }
  return 'none';
}

/** Polls until it holds; throws with what was seen last when it does not within a few seconds. */
export async function until<T>(look: () => Promise<T>, holds: (seen: T) => boolean, timeoutMs = 10_000): Promise<T> {
  const startedAtMs = Date.now();
  for (;;) {
    const seen = await look();
    if (holds(seen)) return seen;
    if (Date.now() - startedAtMs > timeoutMs) throw new Error(`still ${JSON.stringify(seen)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
