import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';

interface DevPostgres {
  host: string;
  port: number;
  user: string;
  password: string;
  version: string;
  pid: number;
  dir: string;
  adopted: boolean;
  stop(): Promise<void>;
}

// A plain script without types; the interfaces here are what tests rely on.
const {
  startPostgres,
}: {
  startPostgres(options: {
    dataDir: string;
    say?: (line: string) => void;
    settings?: Record<string, string | number>;
    durable?: boolean;
  }): Promise<DevPostgres>;
} = await import(join(import.meta.dirname, '../../../scripts/dev-postgres.mjs'));

export { startPostgres };

export interface Login {
  user: string;
  password: string;
  database?: string;
}

/** A real server as an operator would have set it up (docs/plugins/backends/postgres.md): managers, groups, a database with something in it. */
export interface TestServer {
  host: string;
  /** Another one after `resume`. */
  readonly port: number;
  readonly pid: number;
  dir: string;
  /** Password files of the managers `mayfly_1`, `mayfly_2`… */
  managers: { user: string; password_file: string }[];
  passwordOf(user: string): string;
  /** Asks as the superuser. */
  ask(sql: string, database?: string): Promise<Record<string, unknown>[]>;
  logIn(login: Login): Promise<pg.Client>;
  /** Stops the server and keeps what is in it; `resume` starts it again, on another port. */
  halt(): Promise<void>;
  resume(): Promise<void>;
  stop(): Promise<void>;
}

export const DATABASE = 'orders';
export const GROUP = 'orders_read';
export const OTHER_GROUP = 'orders_write';

export async function startServer({
  settings = {},
  managers = 2,
}: {
  settings?: Record<string, string | number>;
  managers?: number;
} = {}): Promise<TestServer> {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-backend-'));
  const start = () =>
    startPostgres({
      dataDir: dir,
      settings: { max_connections: 200, reserved_connections: 8, ...settings },
      durable: false,
    });
  let server = await start();
  const { host } = server;
  const clients = new Map<string, pg.Client>();

  async function logIn({ user, password, database = DATABASE }: Login): Promise<pg.Client> {
    const client = new pg.Client({ host, port: server.port, user, password, database, ssl: false, options: '' });
    client.on('error', () => {});
    await client.connect();
    return client;
  }

  async function ask(sql: string, database = 'postgres'): Promise<Record<string, unknown>[]> {
    let client = clients.get(database);
    if (!client) {
      client = await logIn({ user: server.user, password: server.password, database });
      client.on('end', () => clients.delete(database));
      clients.set(database, client);
    }
    const results = (await client.query(sql)) as unknown as pg.QueryResult | pg.QueryResult[];
    return (Array.isArray(results) ? results.at(-1) : results)?.rows ?? [];
  }

  const made = Array.from({ length: managers }, (_, at) => `mayfly_${at + 1}`);
  await ask(`CREATE DATABASE ${DATABASE}`);
  await ask('CREATE DATABASE elsewhere');
  for (const name of ['postgres', 'template1', DATABASE, 'elsewhere']) {
    await ask(`REVOKE ALL ON DATABASE ${name} FROM PUBLIC`);
  }
  await ask(
    `CREATE ROLE ${GROUP} NOLOGIN; CREATE ROLE ${OTHER_GROUP} NOLOGIN; GRANT CONNECT ON DATABASE ${DATABASE} TO ${GROUP}`,
  );
  await ask(
    `CREATE TABLE public.orders (id int PRIMARY KEY, item text);
     INSERT INTO public.orders SELECT n, 'item ' || n FROM generate_series(1, 500) n;
     GRANT SELECT ON public.orders TO ${GROUP}; GRANT INSERT, DELETE ON public.orders TO ${OTHER_GROUP}`,
    DATABASE,
  );
  for (const name of ['postgres', DATABASE]) {
    await ask(
      `REVOKE EXECUTE ON FUNCTION lo_creat, lo_create, lo_from_bytea, lo_import(text), lo_import(text, oid) FROM PUBLIC`,
      name,
    );
  }
  for (const user of made) {
    const password = randomBytes(24).toString('base64url');
    writeFileSync(join(dir, user), `${password}\n`, { mode: 0o600 });
    await ask(
      `CREATE ROLE ${user} LOGIN CREATEROLE PASSWORD '${password}';
       GRANT pg_signal_backend, pg_use_reserved_connections TO ${user} WITH INHERIT TRUE, SET FALSE;
       GRANT ${GROUP}, ${OTHER_GROUP} TO ${user} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;
       GRANT CONNECT ON DATABASE postgres, ${DATABASE}, elsewhere TO ${user}`,
    );
  }
  return {
    host,
    get port() {
      return server.port;
    },
    get pid() {
      return server.pid;
    },
    dir,
    managers: made.map((user) => ({ user, password_file: join(dir, user) })),
    passwordOf: (user) => readFileSync(join(dir, user), 'utf8').trim(),
    ask,
    logIn,
    async halt() {
      await server.stop();
    },
    async resume() {
      server = await start();
    },
    async stop() {
      for (const client of clients.values()) await client.end().catch(() => undefined);
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
