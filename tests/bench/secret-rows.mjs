// Rows about secrets: a database user for a task, from identity to its confirmed death, against OpenBao alone on the same PostgreSQL.
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { freePort } from '../../dist/main/dev/free-port.js';
import { startSampleDatabase } from '../../scripts/sample-database.mjs';
import { caller, openWorld, patiently, quantile, until } from './world.mjs';

const BAO = join(process.env.MAYFLY_PEERS_DIR ?? join(homedir(), '.cache/mayfly-peers'), 'bin/bao');
const ROOT = 'root-of-the-bench';
const CALLERS = 16;
const WARM_UP_LIVES = 3_000;
/** So many for each of the peer's: what is left of the last ones when the callers are done takes a third of a second, and is no part of a rate. */
const OWN_SHARE = 2;
const FEW_ROUNDS = 'orders-few-rounds';
const DEAD_WITHIN_MS = 120_000;

/** @param {{ cycles: number, burst: number, samples: number }} how */
export async function secretRows(how) {
  if (!existsSync(BAO)) {
    process.stderr.write('bench: secrets are left out, for want of OpenBao (scripts/peers.sh fetches it)\n');
    return [];
  }
  const bao = await startBao();
  const opened = {};
  const settings = { max_connections: 600 };
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-bench-bundles-'));
  const world = await openWorld({
    people: true,
    bundleDir: bundleOf('internal', 'config', join(folder, 'own')),
    backends: async (dir) => {
      const tokenFile = join(dir, 'vault.token');
      writeFileSync(tokenFile, ROOT, { mode: 0o600 });
      const vault = { address: bao.address, tokenFile };
      opened.database = await startSampleDatabase({
        dataDir: dir,
        say: () => {},
        vault,
        lanes: 4,
        durable: false,
        settings,
      });
      const { backends } = opened.database;
      return { ...backends, [FEW_ROUNDS]: { ...backends['orders-postgres'], scram_iterations: 64 } };
    },
  });
  try {
    const postgres = await superuser(opened.database.server);
    await bao.prepare(world, opened.database.server);
    const rows = [];
    const own = await lives(world, postgres, how.cycles);
    const alone = await bao.lives(how.cycles);
    rows.push(row('task secret, 16 callers, confirmed dead, vs OpenBao alone', own, alone, 4, 10));
    const ownBurst = await burst(world, postgres, how.burst);
    const baoBurst = await bao.burst(how.burst, postgres);
    rows.push(row(`burst: ${how.burst} users dead at once, vs OpenBao`, ownBurst, baoBurst, 10, 25));
    rows.push(...(await deathRows(world, how.samples, 'one live credential')));
    const live = await hold(world, how.burst);
    rows.push(...(await deathRows(world, how.samples, `${how.burst} live credentials`)));
    await live.end();
    await allDead(world, postgres);
    const all = async () => lives(world, postgres, how.cycles);
    const tried = await under(world, 'config', all);
    rows.push(row('task secret, each one tried (verified dead), vs OpenBao alone', tried, alone));
    const fewBundle = bundleOf('internal', 'config', join(folder, 'few'), FEW_ROUNDS);
    const few = await under(world, fewBundle, all);
    rows.push(row('task secret, 64 rounds of SCRAM for 4,096, vs OpenBao alone', few, alone));
    const throughBundle = bundleOf('internal', opened.database.bundleDir, join(folder, 'through'));
    const through = await under(world, throughBundle, all);
    rows.push(row('the same through Mayfly and OpenBao, vs OpenBao alone', through, alone, 0.8, 1));
    await postgres.end();
    return rows;
  } finally {
    await world.close();
    await opened.database?.stop();
    rmSync(folder, { recursive: true, force: true });
    bao.stop();
  }
}

const row = (text, ours, peer, floor, aim) => ({
  row: text,
  ours: `${ours.toFixed(0)}/s`,
  peer: `${peer.toFixed(0)}/s`,
  ratio: ours / peer,
  floor,
  aim,
  more: true,
});

/** Identity, task, token, user, completed: over and over by 16 callers, who do not wait for the death. The clock stops when all are confirmed dead. */
async function lives(world, postgres, cycles) {
  // A server that was just started is half as fast as one that has worked for a minute.
  const own = cycles * OWN_SHARE;
  await eachOf(Math.min(own, WARM_UP_LIVES), CALLERS, () => life(world));
  await allDead(world, postgres);
  const startedAtMs = performance.now();
  await eachOf(own, CALLERS, () => life(world));
  await allDead(world, postgres);
  return (own * 1_000) / (performance.now() - startedAtMs);
}

async function life(world) {
  const { task } = await begin(world);
  await patiently(() => world.complete(task));
}

async function begin(world) {
  const task = await patiently(() => world.openTask({ secrets: ['orders-db'] }));
  const agent = world.svid('/agent/refunds');
  const form = world.mintForm(task, agent);
  await patiently(() => world.post('/oauth2/token', form, 'application/x-www-form-urlencoded'));
  const ask = () => world.post('/v1/secrets/orders-db', { task }, 'application/json', agent);
  const secret = await patiently(ask);
  return { task, secret, agent };
}

/** So many live users, and all their tasks ended at once. */
async function burst(world, postgres, count) {
  const live = await hold(world, count);
  const startedAtMs = performance.now();
  await live.end();
  await allDead(world, postgres);
  return (count * 1_000) / (performance.now() - startedAtMs);
}

async function hold(world, count) {
  const tasks = [];
  await eachOf(count, CALLERS, async () => tasks.push((await begin(world)).task));
  return { end: () => eachOf(tasks.length, 64, (at) => patiently(() => world.complete(tasks[at]))) };
}

/** Both have to say so: PostgreSQL's own catalogue, and then, so that the broker is not kept from its work by being asked, the leases (all closed). */
async function allDead(world, postgres) {
  await until(async () => {
    const { rows } = await postgres.query(
      "select 1 from pg_roles where rolname ~ '^(token-)?mayfly[_-].*a[_-]0' limit 1",
    );
    if (rows.length > 0) return false;
    const { items } = await world.operator.backends.list();
    return items.every(({ pending, active, revoking }) => pending + active + revoking === 0);
  }, DEAD_WITHIN_MS);
}

/** From the answer to "completed" to: no session any more; confirmed by the broker. */
async function deathRows(world, samples, when) {
  const cut = [];
  const confirmed = [];
  await eachOf(samples, 4, async () => {
    const { task, secret, agent } = await begin(world);
    const { host, port, database, username, password } = secret.data;
    const client = new pg.Client({ host, port, database, user: username, password, ssl: false });
    const ended = new Promise((resolve) => {
      client.on('error', resolve);
      client.on('end', resolve);
    });
    await client.connect();
    const startedAtMs = performance.now();
    await world.complete(task);
    await ended;
    cut.push(performance.now() - startedAtMs);
    await until(async () => (await world.get(`/v1/leases/${secret.lease_id}`, agent)).state === 'revoked');
    confirmed.push(performance.now() - startedAtMs);
  });
  const ms = (text, measured, floor, aim) => ({
    row: `${text}, ${when}, p99 (ms)`,
    ours: `p50 ${quantile(measured, 0.5).toFixed(0)} ms`,
    peer: '',
    ratio: quantile(measured, 0.99),
    floor,
    aim,
    more: false,
  });
  return [
    ms('end of task to no login and no session', cut, 150, 50),
    ms('end of task to confirmed dead', confirmed, 600, 300),
  ];
}

/** The bundle with the secret as one of that sensitivity: of internal ones a share is tried once they are dead, of confidential ones each is. */
function bundleOf(sensitivity, from, to, backend) {
  cpSync(from, to, { recursive: true });
  const file = join(to, 'secrets/orders-db.yaml');
  const text = readFileSync(file, 'utf8').replace(/^sensitivity: .*$/m, `sensitivity: ${sensitivity}`);
  writeFileSync(file, backend === undefined ? text : text.replace(/^backend: .*$/m, `backend: ${backend}`));
  return to;
}

/** Measures with that bundle as the active one. */
async function under(world, bundleDir, measure) {
  const { readBundle } = await import('../../dist/main/read-bundle.js');
  await world.operator.bundle.activate(await readBundle(bundleDir));
  await until(async () => (await world.operator.secrets.list()).items.every(({ open }) => open));
  return measure();
}

async function superuser({ host, port, user, password }) {
  const client = new pg.Client({ host, port, user, password, database: 'postgres', ssl: false });
  client.on('error', () => {});
  await client.connect();
  return client;
}

async function eachOf(count, callers, work) {
  let next = 0;
  const caller = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: callers }, caller));
}

/** OpenBao alone: JWT login, read a database user, revoke the token. It does not confirm, and is not asked to. */
async function startBao() {
  const port = await freePort();
  const address = `http://127.0.0.1:${port}`;
  const words = [
    'server',
    '-dev',
    `-dev-root-token-id=${ROOT}`,
    `-dev-listen-address=127.0.0.1:${port}`,
    '-dev-no-store-token',
  ];
  const child = spawn(BAO, words, { stdio: 'ignore' });
  const ask = caller(address);
  const asRoot = (method, path, body) => ask(method, `/v1/${path}`, body, { 'X-Vault-Token': ROOT });
  await until(async () => (await asRoot('GET', 'sys/health')) !== undefined);
  let jwt = '';
  const logIn = async () => (await ask('POST', '/v1/auth/jwt/login', { role: 'agent', jwt })).auth.client_token;
  const read = (token) => ask('GET', '/v1/database/creds/agent', undefined, { 'X-Vault-Token': token });
  const revoke = (token) => ask('POST', '/v1/auth/token/revoke-self', {}, { 'X-Vault-Token': token });
  return {
    address,
    stop: () => child.kill('SIGKILL'),
    /** As one would without Mayfly: users with names of its own choice, in the same group of the same PostgreSQL. */
    async prepare(world, { host, port, user: username, password }) {
      await asRoot('POST', 'sys/mounts/database', { type: 'database' });
      const connection_url = `postgresql://{{username}}:{{password}}@${host}:${port}/postgres?sslmode=disable`;
      const plugin_name = 'postgresql-database-plugin';
      await asRoot('POST', 'database/config/orders', {
        plugin_name,
        allowed_roles: '*',
        connection_url,
        username,
        password,
      });
      const creation = `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE orders_readers`;
      const role = { db_name: 'orders', creation_statements: [creation], default_ttl: '15m', max_ttl: '1h' };
      await asRoot('POST', 'database/roles/agent', role);
      const policy = 'path "database/creds/agent" { capabilities = ["read"] }';
      await asRoot('POST', 'sys/policies/acl/agent', { policy });
      await asRoot('POST', 'sys/auth/jwt', { type: 'jwt' });
      await asRoot('POST', 'auth/jwt/config', { jwt_validation_pubkeys: [world.publicKeyPem()] });
      const login = { role_type: 'jwt', user_claim: 'sub', bound_audiences: ['bao'], token_policies: ['agent'] };
      await asRoot('POST', 'auth/jwt/role/agent', login);
      jwt = world.assertion('bao', 3_600);
    },
    async lives(count) {
      const startedAtMs = performance.now();
      await eachOf(count, CALLERS, async () => {
        const token = await logIn();
        await read(token);
        await revoke(token);
      });
      return (count * 1_000) / (performance.now() - startedAtMs);
    },
    async burst(count, postgres) {
      const tokens = [];
      await eachOf(count, CALLERS, async () => {
        const token = await logIn();
        await read(token);
        tokens.push(token);
      });
      const startedAtMs = performance.now();
      await eachOf(tokens.length, 64, (at) => revoke(tokens[at]));
      await until(async () => {
        const { rows } = await postgres.query("select 1 from pg_roles where rolname like 'v-%' limit 1");
        return rows.length === 0;
      }, DEAD_WITHIN_MS);
      return (count * 1_000) / (performance.now() - startedAtMs);
    },
  };
}
