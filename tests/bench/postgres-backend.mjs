// How fast the backend `postgres` alone is, without the engine around it:
//   node scripts/build.mjs && node tests/bench/postgres-backend.mjs [managers]
// Prints one JSON line per figure. Callers at a time: 16 that wait for each confirmation, and 16 that do not; then a burst of 1,000.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { newId } from '../../dist/core/ids.js';
import { postgresConfig } from '../../dist/plugins/backends/postgres/config.js';
import { postgres } from '../../dist/plugins/backends/postgres.js';
import { startPostgres } from '../../scripts/dev-postgres.mjs';

const MANAGERS = Number(process.argv[2] ?? 4);
const ITERATIONS = Number(process.argv[3] ?? 4096);
const CALLERS = 16;
const BURST = 1_000;
const SECONDS = 5;
const SETTINGS = { database: 'postgres', groups: ['readers'] };

const dir = mkdtempSync(join(tmpdir(), 'mayfly-bench-pg-'));
const server = await startPostgres({ dataDir: dir, settings: { max_connections: 200 } });
const admin = new pg.Client({ ...server, database: 'postgres', ssl: false });
await admin.connect();
await admin.query('CREATE ROLE readers NOLOGIN; GRANT CONNECT ON DATABASE postgres TO readers');
const managers = [];
for (let at = 1; at <= MANAGERS; at++) {
  const [user, password] = [`mayfly_${at}`, randomBytes(24).toString('base64url')];
  const file = join(dir, user);
  writeFileSync(file, password, { mode: 0o600 });
  await admin.query(
    `CREATE ROLE ${user} LOGIN CREATEROLE PASSWORD '${password}'; GRANT pg_signal_backend TO ${user}; GRANT readers TO ${user} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
  );
  managers.push({ user, password_file: file });
}
const backend = postgres.create(
  postgresConfig.parse({
    kind: 'postgres',
    host: server.host,
    port: server.port,
    managers,
    scram_iterations: ITERATIONS,
  }),
  { name: 'bench', installation: 'bench000', clock: { now: Date.now }, observe: () => {} },
);

async function issue() {
  const leaseId = newId('lse', 'a', Date.now());
  const handle = backend.plan({ leaseId, settings: SETTINGS });
  const expiresAtMs = Date.now() + 300_000;
  const order = {
    leaseId,
    handle,
    settings: SETTINGS,
    expiresAtMs,
    deadlineMs: Date.now() + 20_000,
    signal: AbortSignal.timeout(20_000),
  };
  const issued = await backend.issue(order);
  return { leaseId, expiresAtMs, handle: issued.handle };
}

async function retire(credential) {
  await backend.revoke(credential, AbortSignal.timeout(20_000));
  const { state } = await backend.confirm(credential, AbortSignal.timeout(20_000));
  if (state !== 'gone') throw new Error(`still ${state}`);
}

/** So many callers, each doing it again and again for a while. */
async function perSecond(work, callers = CALLERS) {
  const startedAt = performance.now();
  const before = cpuMs();
  const times = [];
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (performance.now() - startedAt < SECONDS * 1_000) {
        const from = performance.now();
        await work();
        times.push(performance.now() - from);
      }
    }),
  );
  return {
    perSecond: round(times.length / ((performance.now() - startedAt) / 1_000)),
    ...spread(times),
    ...cpuSince(before, times.length),
  };
}

function spread(times) {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share) => round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]);
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

/** Processor milliseconds so far: ours, and those of the server with its sessions, ended ones included. Linux only. */
function cpuMs() {
  const { user, system } = process.cpuUsage();
  let ticks = 0;
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ').map(Number);
      const isPostmaster = Number(pid) === server.pid;
      if (isPostmaster || fields[1] === server.pid) ticks += fields[11] + fields[12];
      if (isPostmaster) ticks += fields[13] + fields[14];
    } catch {
      // It has ended meanwhile.
    }
  }
  return { node: (user + system) / 1_000, postgres: ticks * 10 };
}

/** Processor milliseconds for each of so many, since then. */
function cpuSince(before, count) {
  const now = cpuMs();
  return {
    nodeCpuMs: round2((now.node - before.node) / count),
    postgresCpuMs: round2((now.postgres - before.postgres) / count),
  };
}
const round2 = (value) => Math.round(value * 100) / 100;

const round = (value) => Math.round(value * 10) / 10;
const print = (name, figures) => process.stdout.write(`${JSON.stringify({ name, managers: MANAGERS, ...figures })}\n`);

try {
  await perSecond(async () => retire(await issue()), 4);
  print('issue and retire, 16 that wait', await perSecond(async () => retire(await issue())));

  const retiring = new Set();
  const retired = [];
  const startedAt = performance.now();
  let before = cpuMs();
  const issued = await perSecond(async () => {
    const credential = await issue();
    const from = performance.now();
    const one = retire(credential).then(() => {
      retired.push(performance.now() - from);
      retiring.delete(one);
    });
    retiring.add(one);
  });
  await Promise.all(retiring);
  const cycles = round(retired.length / ((performance.now() - startedAt) / 1_000));
  print('issue, retire in the background', {
    ...issued,
    confirmedPerSecond: cycles,
    retired: spread(retired),
    cycle: cpuSince(before, retired.length),
  });

  let from = performance.now();
  before = cpuMs();
  const all = [];
  let left = BURST;
  await Promise.all(
    Array.from({ length: CALLERS }, async () => {
      while (left-- > 0) all.push(await issue());
    }),
  );
  print('issue 1,000, 16 callers', {
    perSecond: round(all.length / ((performance.now() - from) / 1_000)),
    ...cpuSince(before, BURST),
  });
  from = performance.now();
  before = cpuMs();
  const times = await Promise.all(
    all.map(async (one) => {
      await retire(one);
      return performance.now() - from;
    }),
  );
  print('retire 1,000 at once', {
    perSecond: round(BURST / ((performance.now() - from) / 1_000)),
    ...spread(times),
    ...cpuSince(before, BURST),
  });
} finally {
  await backend.close();
  await admin.end();
  await server.stop();
  rmSync(dir, { recursive: true, force: true });
}
