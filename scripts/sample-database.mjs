// The database behind the sample secret `orders-db` (config/secrets/orders-db.yaml), set up as docs/plugins/backends/postgres.md says: a table, a group
// that may read it, and two managers without other rights that make and drop a role for each lease.
import { randomBytes } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import pg from 'pg';
import { startPostgres } from './dev-postgres.mjs';
import { bundleThroughVault, mustAnswer, setUpVault } from './sample-vault.mjs';

const DATABASE = 'orders';
const GROUP = 'orders_readers';
const LANES = 2;
/** Kept for the managers: a holder of a user may fill the others up, and is ended all the same. */
const RESERVED_CONNECTIONS = 8;

/**
 * Starts PostgreSQL below a data folder, sets up what is missing, and writes the file that `mayfly dev --backends` takes. With `vault`, a Vault or
 * OpenBao makes the users instead, and `bundleDir` is the sample bundle that says so. `lanes`: how many managers share the work.
 */
export async function startSampleDatabase({ dataDir, say, vault, lanes = LANES, ...more }) {
  if (vault) await mustAnswer(vault);
  const server = await startPostgres({
    dataDir,
    say,
    ...more,
    settings: { reserved_connections: RESERVED_CONNECTIONS, ...more.settings },
  });
  try {
    const folder = join(resolve(dataDir), 'sample-database');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const managers = Array.from({ length: lanes }, (_, at) => `mayfly_manager_${at + 1}`).map((user) => ({
      user,
      password_file: join(folder, `${user}.password`),
    }));
    await setUp(server, managers);
    const { host, port } = server;
    const backends = { 'orders-postgres': { kind: 'postgres', host, port, managers } };
    const through = vault && (await setUpVault({ ...vault, postgres: server, group: GROUP, database: DATABASE }));
    if (through) backends['orders-vault'] = through.backend;
    const backendsFile = join(folder, 'backends.json');
    writePrivate(backendsFile, JSON.stringify(backends, null, 2));
    return {
      server,
      backends,
      backendsFile,
      ...(through && {
        bundleDir: bundleThroughVault({ dataDir, backendName: 'orders-vault', settings: through.settings }),
      }),
      stop: server.stop,
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function setUp(server, managers) {
  await asSuperuser(server, 'postgres', async (ask) => {
    if ((await ask('select from pg_database where datname = $1', [DATABASE])).length === 0) {
      await ask(`create database ${DATABASE}`);
    }
    for (const database of ['postgres', 'template1', DATABASE])
      await ask(`revoke all on database ${database} from public`);
    await makeRole(ask, GROUP, 'nologin');
    await ask(`grant connect on database ${DATABASE} to ${GROUP}`);
    for (const { user, password_file: file } of managers) {
      // A new password at each start: the file and the server can then never differ.
      const password = randomBytes(32).toString('base64url');
      writePrivate(file, password);
      await makeRole(ask, user, `login createrole password '${password}'`);
      await ask(`grant pg_signal_backend, pg_use_reserved_connections to ${user} with inherit true, set false`);
      await ask(`grant ${GROUP} to ${user} with admin true, inherit false, set false`);
      await ask(`grant connect on database postgres, ${DATABASE} to ${user}`);
    }
  });
  for (const database of ['postgres', DATABASE]) {
    await asSuperuser(server, database, async (ask) => {
      await ask(
        'revoke execute on function lo_creat, lo_create, lo_from_bytea, lo_import(text), lo_import(text, oid) from public',
      );
    });
  }
  await asSuperuser(server, DATABASE, async (ask) => {
    await ask('revoke all on schema public from public');
    await ask(`grant usage on schema public to ${GROUP}`);
    await ask('create table if not exists orders (id int primary key, item text not null, status text not null)');
    await ask(
      "insert into orders values (42, 'a lamp', 'to be refunded'), (43, 'a chair', 'sent') on conflict do nothing",
    );
    await ask(`grant select on orders to ${GROUP}`);
  });
}

async function makeRole(ask, name, attributes) {
  const isThere = (await ask('select from pg_roles where rolname = $1', [name])).length > 0;
  await ask(`${isThere ? 'alter' : 'create'} role ${name} ${attributes}`);
}

async function asSuperuser({ host, port, user, password }, database, work) {
  const client = new pg.Client({ host, port, user, password, database, ssl: false });
  client.on('error', () => {});
  await client.connect();
  try {
    await work(async (sql, values) => (await client.query(sql, values)).rows);
  } finally {
    await client.end();
  }
}

function writePrivate(path, text) {
  writeFileSync(`${path}.new`, `${text}\n`, { mode: 0o600 });
  renameSync(`${path}.new`, path);
}
