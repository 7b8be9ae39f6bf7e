import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { Handle, SecretData } from '../../src/core/credential.js';
import { newId } from '../../src/core/ids.js';
import type { OperationalEvent } from '../../src/core/observe.js';
import { Secret } from '../../src/core/secret.js';
import { type Clock, systemClock } from '../../src/core/time.js';
import { freePort } from '../../src/main/dev/free-port.js';
import type {
  Backend,
  BackendDeps,
  Credential,
  Found,
  Issued,
  IssueOrder,
} from '../../src/plugins/backends/contract.js';
import { vault } from '../../src/plugins/backends/vault.js';
import { type FaultProxy, startFaultProxy } from './fault-proxy.js';
import { eventually } from './spire.js';

export const BAO = join(process.env['MAYFLY_PEERS_DIR'] ?? join(homedir(), '.cache/mayfly-peers'), 'bin/bao');
export const describeVault = existsSync(BAO) ? describe : describe.skip;

export const ROOT = 'root-of-the-test';
export const INSTALLATION = 'testtest';

interface Server {
  port: number;
  user: string;
  password: string;
  stop(): Promise<void>;
}

async function startPostgres(options: { dataDir: string; durable: boolean }): Promise<Server> {
  const script: string = '../../scripts/dev-postgres.mjs';
  return await (await import(script)).startPostgres(options);
}

export interface Reply {
  status: number;
  // biome-ignore lint/suspicious/noExplicitAny: a server's answer, looked at by assertions
  body: any;
}

/** What there is to say to an OpenBao as its root. */
export interface BaoRoot {
  ask(method: string, path: string, body?: unknown, more?: { token?: string; namespace?: string }): Promise<Reply>;
  /** Throws unless it says 2xx. */
  set(path: string, body: unknown, namespace?: string): Promise<Reply>;
  policy(name: string, text: string, namespace?: string): Promise<void>;
}

export function rootOf(address: string, rootToken: () => string): BaoRoot {
  const ask: BaoRoot['ask'] = async (method, path, body, { token = rootToken(), namespace } = {}) => {
    const reply = await fetch(`${address}/v1/${path}`, {
      method,
      headers: { 'X-Vault-Token': token, ...(namespace !== undefined && { 'X-Vault-Namespace': namespace }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    const text = await reply.text();
    return { status: reply.status, body: text === '' ? undefined : JSON.parse(text) };
  };
  const set: BaoRoot['set'] = async (path, body, namespace) => {
    const reply = await ask('POST', path, body, { ...(namespace !== undefined && { namespace }) });
    if (reply.status > 299) throw new Error(`${path}: ${reply.status} ${JSON.stringify(reply.body)}`);
    return reply;
  };
  const policy: BaoRoot['policy'] = async (name, text, namespace) => {
    await set(`sys/policies/acl/${name}`, { policy: text }, namespace);
  };
  return { ask, set, policy };
}

/** A real OpenBao of its own, in memory. */
export interface Bao extends BaoRoot {
  address: string;
  port: number;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  close(): void;
}

export async function startBao(more: string[] = []): Promise<Bao> {
  const port = await freePort();
  const address = `http://127.0.0.1:${port}`;
  const bao: ChildProcess = spawn(
    BAO,
    [
      'server',
      '-dev',
      `-dev-root-token-id=${ROOT}`,
      `-dev-listen-address=127.0.0.1:${port}`,
      '-dev-no-store-token',
      ...more,
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  let said = '';
  bao.stdout?.on('data', (chunk) => {
    said += chunk;
  });
  const root = rootOf(address, () => ROOT);
  const { ask, set } = root;
  await eventually(async () => {
    if ((await ask('GET', 'sys/health')).status !== 200) throw new Error('not up yet');
  });
  return {
    ...root,
    address,
    port,
    seal: async () => {
      await set('sys/seal', {});
    },
    unseal: async () => {
      const [, key] = /Unseal Key: (\S+)/.exec(said) ?? [];
      await set('sys/unseal', { key });
      await eventually(async () => {
        if ((await ask('GET', 'sys/health')).status !== 200) throw new Error('not up yet');
      });
    },
    close: () => bao.kill('SIGKILL'),
  };
}

/** A real PostgreSQL behind a proxy whose port stays the same when it is stopped and started. */
export interface Database {
  proxy: FaultProxy;
  /** As the superuser, past the proxy. */
  query(text: string, values?: unknown[], inDatabase?: string): Promise<Record<string, unknown>[]>;
  /** Null: it let us in. Otherwise the server's SQLSTATE. */
  login(data: SecretData): Promise<string | null>;
  session(data: SecretData): Promise<pg.Client>;
  roles(): Promise<string[]>;
  superuser: { user: string; password: string };
  stop(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

export async function startDatabase(): Promise<Database> {
  const dataDir = mkdtempSync(join(tmpdir(), 'mayfly-vault-'));
  let server = await startPostgres({ dataDir, durable: false });
  const proxy = await startFaultProxy(server.port);
  const { user, password } = server;
  const connect = async (login: { user: string; password: string; port: number; database?: string }) => {
    const client = new pg.Client({ database: 'postgres', ...login, host: '127.0.0.1', ssl: false });
    client.on('error', () => {});
    await client.connect();
    return client;
  };
  const session: Database['session'] = ({ username, password: own }) =>
    connect({ user: String(username), password: String(own), port: server.port });
  const query: Database['query'] = async (text, values = [], inDatabase = 'postgres') => {
    const client = await connect({ user, password, port: server.port, database: inDatabase });
    try {
      return (await client.query(text, values)).rows;
    } finally {
      await client.end();
    }
  };
  return {
    proxy,
    query,
    session,
    superuser: { user, password },
    async login(data) {
      try {
        await (await session(data)).end();
        return null;
      } catch (error) {
        return String((error as { code?: string }).code);
      }
    },
    roles: async () =>
      (await query("select rolname from pg_roles where rolname !~ '^(pg_|postgres$)'")).map((row) =>
        String(row['rolname']),
      ),
    async stop() {
      await server.stop();
    },
    async start() {
      server = await startPostgres({ dataDir, durable: false });
      proxy.point(server.port);
    },
    async close() {
      await server.stop();
      await proxy[Symbol.asyncDispose]();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** As docs/plugins/backends/vault.md says it. */
export const CREATION = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`;
export const REVOCATION = [
  `ALTER ROLE "{{name}}" NOLOGIN`,
  `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{{name}}'`,
  `DROP ROLE IF EXISTS "{{name}}"`,
];

/** The engine, the role `orders`, the token role `mayfly-orders` and both policies, as the documentation sets them up. */
export async function setUpOrders(
  bao: BaoRoot,
  database: Pick<Database, 'superuser'> & { proxy: { port: number } },
  namespace?: string,
): Promise<void> {
  const { user, password } = database.superuser;
  await bao.set('sys/mounts/database', { type: 'database' }, namespace);
  await bao.set(
    'database/config/orders',
    {
      plugin_name: 'postgresql-database-plugin',
      allowed_roles: '*',
      connection_url: `postgresql://{{username}}:{{password}}@127.0.0.1:${database.proxy.port}/postgres?sslmode=disable`,
      username: user,
      password,
      username_template: '{{.DisplayName}}',
    },
    namespace,
  );
  await databaseRole(bao, 'orders', {}, namespace);
  await bao.policy('mayfly-broker', readFileSync('config/vault/mayfly-broker.hcl', 'utf8'), namespace);
}

/** The settings of a secret of that role. */
export const ordersOf = (database: { proxy: { port: number } }) => ({
  engine: 'database',
  role: 'orders',
  token_role: 'mayfly-orders',
  host: '127.0.0.1',
  port: database.proxy.port,
  database: 'postgres',
  probe: { tls: false },
});

/** A role of the database engine with a token role and a policy of its own. */
export async function databaseRole(
  bao: BaoRoot,
  role: string,
  more: Record<string, unknown> = {},
  namespace?: string,
): Promise<void> {
  await bao.set(
    `database/roles/${role}`,
    {
      db_name: 'orders',
      creation_statements: [CREATION],
      revocation_statements: REVOCATION,
      default_ttl: '15m',
      max_ttl: '1h',
      ...more,
    },
    namespace,
  );
  await tokenRole(bao, `mayfly-${role}`, `path "database/creds/${role}" { capabilities = ["read"] }`, {}, namespace);
}

export async function tokenRole(
  bao: BaoRoot,
  name: string,
  policy: string,
  more: Record<string, unknown> = {},
  namespace?: string,
): Promise<void> {
  await bao.policy(name, policy, namespace);
  await bao.set(
    `auth/token/roles/${name}`,
    { allowed_policies: [name], orphan: true, token_type: 'service', token_no_default_policy: true, ...more },
    namespace,
  );
}

export interface TestBackend extends Backend {
  events: OperationalEvent[];
}

export function backendOf(
  options: Record<string, unknown>,
  { clock = systemClock, ...more }: { clock?: Clock } & Partial<BackendDeps> = {},
): TestBackend {
  const events: OperationalEvent[] = [];
  const deps = {
    name: 'vault',
    installation: INSTALLATION,
    clock,
    observe: (event: OperationalEvent) => events.push(event),
    assertion: async () => new Secret('no assertion in this test'),
    ...more,
  } as BackendDeps;
  const backend = vault.create(vault.config.parse({ kind: 'vault', ...options }), deps) as Backend;
  return Object.assign(backend, { events });
}

/** A token of the broker's under the shipped policy, in a file. */
export async function brokerToken(
  bao: Bao,
  policies = ['mayfly-broker'],
  namespace?: string,
): Promise<{ file: string; accessor: string }> {
  const reply = await bao.set(
    'auth/token/create',
    { policies, no_default_policy: true, ttl: '1h', no_parent: true },
    namespace,
  );
  const file = join(mkdtempSync(join(tmpdir(), 'mayfly-vault-token-')), 'token');
  writeFileSync(file, `${reply.body.auth.client_token}\n`, { mode: 0o600 });
  return { file, accessor: reply.body.auth.accessor };
}

/** A backend that logs in with such a token. */
export async function backendUnder(bao: Bao, policies?: string[]): Promise<TestBackend> {
  const { file } = await brokerToken(bao, policies);
  return backendOf({ address: bao.address, auth: { method: 'token', token_file: file } });
}

/** An OpenBao and a PostgreSQL with the secret `orders`, and a broker's token for it. */
export interface OrdersWorld {
  bao: Bao;
  database: Database;
  /** The settings of the secret. */
  orders: Record<string, unknown>;
  newBackend(more?: Record<string, unknown>): TestBackend;
  /** Between tests: nothing that was issued is left, and the database can be reached. */
  clear(): Promise<void>;
  close(): Promise<void>;
}

export async function openOrders(): Promise<OrdersWorld> {
  const [bao, database] = await Promise.all([startBao(), startDatabase()]);
  await setUpOrders(bao, database);
  const { file } = await brokerToken(bao);
  return {
    bao,
    database,
    orders: ordersOf(database),
    newBackend: (more = {}) =>
      backendOf({ address: bao.address, auth: { method: 'token', token_file: file }, ...more }),
    async clear() {
      database.proxy.set('pass');
      for (const prefix of ['database/creds', 'auth/token/create/mayfly-orders']) {
        await bao.set(`sys/leases/revoke-prefix/${prefix}`, {});
      }
    },
    async close() {
      await database.close();
      bao.close();
    },
  };
}

export const within = (ms = 5_000) => AbortSignal.timeout(ms);

export interface Lease extends Credential {
  settings: Record<string, unknown>;
}

/** What the engine keeps of an issue: the handle as planned, noted and returned. */
export interface Ordered {
  order: IssueOrder;
  lease: Lease;
}

export function orderOf(
  backend: Backend,
  given: Record<string, unknown>,
  {
    ttlMs = 300_000,
    timeoutMs = 5_000,
    note = async (_: Handle) => {},
  }: { ttlMs?: number; timeoutMs?: number; note?: (more: Handle) => Promise<void> } = {},
): Ordered {
  const settings = backend.secretSettings.parse(given);
  const leaseId = newId('lse', 'a', Date.now());
  const handle = backend.plan({ leaseId, settings });
  const lease: Lease = { leaseId, handle, expiresAtMs: Date.now() + ttlMs, settings };
  const order: IssueOrder = {
    leaseId,
    settings,
    handle,
    expiresAtMs: lease.expiresAtMs,
    deadlineMs: Date.now() + timeoutMs,
    agent: 'spiffe://dev.mayfly/agent/refunds',
    taskId: newId('tsk', 'a', Date.now()),
    note: async (more) => {
      await note(more);
      lease.handle = { ...lease.handle, ...more };
    },
    signal: within(timeoutMs),
  };
  return { order, lease };
}

export async function issue(
  backend: Backend,
  given: Record<string, unknown>,
  options: Parameters<typeof orderOf>[2] = {},
): Promise<{ lease: Lease; data: SecretData; issued: Issued }> {
  const { order, lease } = orderOf(backend, given, options);
  const issued = await backend.issue(order);
  lease.handle = { ...lease.handle, ...issued.handle };
  lease.expiresAtMs = issued.expiresAtMs;
  return { lease, data: issued.data.expose(), issued };
}

export function accessorOf({ handle }: { handle: Handle }): string | undefined {
  return Object.entries(handle).find(([name]) => name.startsWith('accessor_'))?.[1];
}

export async function findAll(backend: Backend): Promise<Found[]> {
  const all: Found[] = [];
  for await (const found of backend.find?.(within()) ?? []) all.push(found);
  return all;
}
