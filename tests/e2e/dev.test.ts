import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { jest } from '@jest/globals';
import { type Fetch, nodeFetch } from '../../src/client/transport.js';
import { freePort } from '../../src/main/dev/free-port.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { findServer } from '../state/redis-servers.js';
import { ORDERS, REFUNDS, until } from './brokers.js';

/* `mayfly dev` as a process of its own: what somebody sees who types `npm start`, and what is left when they stop it. */

const START_MS_MAX = 90_000;
jest.setTimeout(3 * START_MS_MAX);
/** A server that was fetched once is found by all starts here. */
let environment: Record<string, string | undefined>;
beforeAll(async () => {
  // Builds what is stale, so that no start has to say so.
  spawnSync(process.execPath, [resolve('bin/mayfly.js'), '--version']);
  const { command, env } = await findServer('redis');
  environment = { ...process.env, ...env, PATH: [dirname(command), process.env['PATH']].join(delimiter) };
}, START_MS_MAX);

const roots: string[] = [];
const children = new Set<ChildProcess>();

afterEach(async () => {
  for (const child of children) await ended(child, 'SIGTERM');
});
afterAll(() => {
  for (const root of roots) rmSync(root, { recursive: true, force: true });
});

interface Dev {
  child: ChildProcess;
  stdout(): string;
  stderr(): string;
}

function dataDir(): string {
  const root = mkdtempSync(join(tmpdir(), 'mayfly-dev-'));
  roots.push(root);
  // Where PostgreSQL may not run as us, its user has to reach its data: elsewhere they would stay behind.
  chmodSync(root, 0o711);
  return join(root, 'data');
}

/** Instead of an option: by way of `npm start`, which brings a PostgreSQL. */
const WITH_POSTGRES = 'with-postgres';

function dev(data: string, ...words: string[]): Dev {
  const options = ['--data', data, ...words.filter((word) => word !== WITH_POSTGRES)];
  const script = words.includes(WITH_POSTGRES) ? [resolve('scripts/start.mjs')] : [resolve('bin/mayfly.js'), 'dev'];
  const child = spawn(process.execPath, [...script, ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: environment,
  });
  children.add(child);
  const said = { stdout: '', stderr: '' };
  child.stdout?.on('data', (chunk: Buffer) => (said.stdout += chunk.toString()));
  child.stderr?.on('data', (chunk: Buffer) => (said.stderr += chunk.toString()));
  return { child, stdout: () => said.stdout, stderr: () => said.stderr };
}

async function up(data: string, ...words: string[]): Promise<Dev> {
  const started = dev(data, ...words);
  const { child, stdout, stderr } = started;
  const isUp = () => stdout().includes('Stop with Ctrl-C.');
  await until('the broker says how to go on by hand', START_MS_MAX, () => isUp() || child.exitCode !== null);
  if (!isUp()) throw new Error(`it ended: ${stderr()}`);
  return started;
}

/** The exit code of a process, asked to end if it has not yet. */
async function ended(child: ChildProcess, signal?: NodeJS.Signals): Promise<number | null> {
  children.delete(child);
  if (child.exitCode === null && child.signalCode === null) {
    const gone = once(child, 'exit');
    if (signal) child.kill(signal);
    await gone;
  }
  return child.exitCode;
}

/** The processes that one has started and that run now. */
function startedBy(pid: number): number[] {
  const { stdout } = spawnSync('ps', ['-eo', 'pid=,ppid=,args='], { encoding: 'utf8' });
  const rows = stdout.split('\n').map((line) => line.trim().split(/\s+/));
  return rows.filter(([, parent, name]) => Number(parent) === pid && name !== 'ps').map(([own]) => Number(own));
}

/** One that has ended and waits for whoever reaps it is not alive. */
function isAlive(pid: number): boolean {
  const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' });
  return stdout.trim() !== '' && !stdout.trim().startsWith('Z');
}

/** A free port with a free one after it. */
async function freePair(): Promise<number> {
  for (;;) {
    const port = await freePort();
    const next = createServer().listen(port + 1, '127.0.0.1');
    const isFree = await once(next, 'listening').then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    next.close();
    await once(next, 'close');
    return port;
  }
}

interface Runtime {
  url: string;
  mtls_url: string;
  pid: number;
}
const runtimeOf = (data: string): Runtime => JSON.parse(readFileSync(join(data, 'runtime.json'), 'utf8'));

/** The one line of a start that does not work. */
async function refusal(data: string, ...words: string[]): Promise<{ code: number | null; line: string }> {
  const { child, stderr } = dev(data, '--no-story', ...words);
  const code = await ended(child);
  const lines = stderr().trim().split('\n');
  expect(lines).toHaveLength(1);
  return { code, line: lines[0] as string };
}

async function call(url: string, path: string, bearer: string, body?: unknown): Promise<Record<string, unknown>> {
  const reply = await fetch(url + path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { authorization: `Bearer ${bearer}`, ...(body !== undefined && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  return (await reply.json()) as Record<string, unknown>;
}

/** A token of the sample agent, for a task of its own; over mTLS with what `fetching` presents, else with a JWT-SVID. */
async function mint(
  url: string,
  trustDomain: DevTrustDomain,
  over?: { url: string; fetching: Fetch },
): Promise<string> {
  const svid = (path: string) => trustDomain.jwtSvid({ path, audience: url, ttlSeconds: 300 });
  const task = await call(url, '/v1/tasks', svid('/orchestrator/workflow'), {
    type: 'refund',
    params: { order_id: 42 },
    purpose: 'refund order 42',
    agents: [REFUNDS],
  });
  const assertion = {
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe',
    client_assertion: svid('/agent/refunds'),
  };
  const body = new URLSearchParams({
    grant_type: 'client_credentials',
    ...(over ? { client_id: REFUNDS } : assertion),
    resource: ORDERS,
    scope: `task:${task['id']}`,
  });
  const reply = await (over?.fetching ?? fetch)(`${over?.url ?? url}/oauth2/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: body.toString(),
  });
  const answer = (await reply.json()) as Record<string, unknown>;
  if (!reply.ok) throw new Error(`no token: ${JSON.stringify([task, answer])}`);
  return String(answer['access_token']);
}

async function isActive(url: string, trustDomain: DevTrustDomain, token: string): Promise<unknown> {
  const bearer = trustDomain.jwtSvid({ path: '/tool/orders', audience: url, ttlSeconds: 300 });
  const reply = await fetch(`${url}/oauth2/introspect`, {
    method: 'POST',
    headers: { authorization: `Bearer ${bearer}` },
    body: new URLSearchParams({ token }),
  });
  return ((await reply.json()) as Record<string, unknown>)['active'];
}

// biome-ignore lint/suspicious/noExplicitAny: claims are compared, not computed with.
function claimsOf(token: string): Record<string, any> {
  return JSON.parse(Buffer.from(token.split('.')[1] as string, 'base64url').toString());
}

describe('a development broker', () => {
  const data = dataDir();

  it('plays the story with a line each, says where it is, and stops with all it started when told to', async () => {
    const { child, stdout, stderr } = await up(data, '--port', '0');
    const runtime = runtimeOf(data);
    expect(runtime).toMatchObject({ pid: child.pid, url: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/) });
    expect(runtime.mtls_url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    expect(statSync(join(data, 'runtime.json')).mode & 0o777).toBe(0o600);
    expect(stdout()).toContain(`Mayfly is up: ${runtime.url}`);
    expect(stdout()).toMatch(/let it in[\s\S]*refuses the same token: revoked/);
    expect(stdout()).not.toContain('The story ends here');
    // Nothing for operators stands between the lines of the story; only a machine that kept its store waiting may say so.
    expect(
      stderr()
        .split('\n')
        .filter((line) => line !== '' && !line.includes('"status":503')),
    ).toEqual([]);
    const servers = startedBy(runtime.pid);
    expect(servers).toHaveLength(1);

    expect(await ended(child, 'SIGINT')).toBe(0);
    expect(stdout()).toContain('Stopping; the data stays.');
    expect(servers.filter(isAlive)).toEqual([]);
    expect(existsSync(join(data, 'runtime.json'))).toBe(false);
    expect(readdirSync(data)).toEqual(expect.arrayContaining(['broker', 'dev', 'redis', 'root.key']));
  });

  it('stops with all that `npm start` started, PostgreSQL too, when its terminal is closed', async () => {
    const own = dataDir();
    const { child, stdout } = await up(own, '--no-story', '--port', '0', WITH_POSTGRES);
    const servers = startedBy(runtimeOf(own).pid);
    expect(servers).toHaveLength(2);
    expect(await ended(child, 'SIGHUP')).toBe(0);
    expect(stdout()).toContain('Stopping; the data stays.');
    expect(servers.filter(isAlive)).toEqual([]);
  });

  it('is there although a lock is in the way of its story, and says which and how to go on', async () => {
    const own = dataDir();
    const first = await up(own, '--no-story', '--port', '0');
    const words = ['stop', 'agent=/agent/refunds', '--reason', 'odd', '--yes', '--field', 'lock'];
    const stop = spawnSync(process.execPath, [resolve('bin/mayfly.js'), ...words], {
      encoding: 'utf8',
      env: { ...process.env, MAYFLY_DATA: own },
    });
    expect([stop.status, stop.stderr.includes('Effective now')]).toEqual([0, true]);
    await ended(first.child, 'SIGINT');
    const { child, stdout } = await up(own, '--port', '0');
    expect(stdout()).toMatch(/The story ends here: the agent got no token\. .*Lock lck_a_\w+: odd[\s\S]*--no-story/);
    expect(await ended(child, 'SIGINT')).toBe(0);
  });

  it('finds its leases again at the second start: what lived lives on, what ended stays ended', async () => {
    const port = await freePair();
    const first = await up(data, '--no-story', '--port', String(port));
    const trustDomain = await openDevTrustDomain(data);
    const { url, mtls_url: mtlsUrl } = runtimeOf(data);
    expect([url, mtlsUrl]).toEqual([`http://127.0.0.1:${port}`, `https://127.0.0.1:${port + 1}`]);
    const [kept, revoked] = [await mint(url, trustDomain), await mint(url, trustDomain)];
    const task = claimsOf(revoked)['mayfly'].path[0];
    const bearer = trustDomain.jwtSvid({ path: '/orchestrator/workflow', audience: url, ttlSeconds: 300 });
    expect((await call(url, `/v1/tasks/${task}/complete`, bearer, {}))['state']).toBe('completed');
    expect(first.stdout()).not.toContain(' ms  ');
    expect(await ended(first.child, 'SIGTERM')).toBe(0);

    const second = await up(data, '--no-story', '--port', String(port));
    expect(await isActive(url, trustDomain, kept)).toBe(true);
    expect(await isActive(url, trustDomain, revoked)).toBe(false);
    await ended(second.child, 'SIGINT');
  });

  it('hands out identities as files: with an X.509-SVID a token is bound to it, without being asked', async () => {
    await up(data, '--no-story', '--port', '0');
    const { url, mtls_url: mtlsUrl } = runtimeOf(data);
    const dir = join(dirname(data), 'svid');
    const { status } = spawnSync(
      process.execPath,
      [resolve('bin/mayfly.js'), 'dev', 'svid', '/agent/refunds', '--x509', dir],
      { env: { ...environment, MAYFLY_DATA: data } as NodeJS.ProcessEnv },
    );
    expect(status).toBe(0);
    expect(statSync(join(dir, 'key.pem')).mode & 0o777).toBe(0o600);
    const [cert, key, ca] = ['svid.pem', 'key.pem', 'bundle.pem'].map((name) => readFileSync(join(dir, name)));
    const fetching = nodeFetch({ cert, key, ca });
    const token = await mint(url, await openDevTrustDomain(data), { url: mtlsUrl, fetching });
    const { fingerprint256 } = new X509Certificate(cert as Buffer);
    const thumbprint = Buffer.from(fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
    expect(claimsOf(token)['cnf']).toEqual({ 'x5t#S256': thumbprint });
  });

  it('is one per folder: a second start is one clear line, and the first goes on', async () => {
    const first = await up(data, '--no-story', '--port', '0');
    const { url } = runtimeOf(data);
    const { code, line } = await refusal(data, '--port', '0');
    expect(code).toBe(2);
    expect(line).toContain(`already running here: ${url}`);
    expect((await fetch(`${url}/readyz`)).ok).toBe(true);
    expect(runtimeOf(data).url).toBe(url);
    await ended(first.child, 'SIGINT');
  });

  it('is one per folder when two start at once: one is refused and touches nothing, the other has all it wants', async () => {
    const own = dataDir();
    const starts = [1, 2].map(() => dev(own, '--no-story', '--port', '0', WITH_POSTGRES));
    const isSettled = ({ child, stdout }: Dev) => child.exitCode !== null || stdout().includes('Stop with Ctrl-C.');
    await until('both know', START_MS_MAX, () => starts.every(isSettled));
    const [loser, ...others] = starts.filter(({ child }) => child.exitCode !== null);
    expect(others).toEqual([]);
    const winner = starts.find((one) => one !== loser) as Dev;
    expect(loser?.child.exitCode).toBe(2);
    expect(loser?.stdout()).toBe('');
    expect(loser?.stderr()).toBe(
      `Error: Another start (process ${winner.child.pid}) has the folder ${own}. Stop it, or choose another folder: --data DIR\n`,
    );
    expect(winner.stderr()).toBe('');
    expect(winner.stdout()).not.toContain('taking over');
    expect(startedBy(runtimeOf(own).pid)).toHaveLength(2);
    expect(await ended(winner.child, 'SIGINT')).toBe(0);
    expect(existsSync(join(own, 'owner'))).toBe(false);
  });

  it('that was killed is no obstacle to the next start', async () => {
    const first = await up(data, '--no-story', '--port', '0');
    const servers = startedBy(runtimeOf(data).pid);
    await ended(first.child, 'SIGKILL');
    expect(servers.map(isAlive)).toEqual([true]);
    expect(existsSync(join(data, 'runtime.json'))).toBe(true);
    const second = await up(data, '--no-story', '--port', '0');
    expect(runtimeOf(data).pid).toBe(second.child.pid);
    await ended(second.child, 'SIGINT');
    expect(servers.filter(isAlive)).toEqual([]);
  });
});

describe('a start that cannot be is one clear line, and leaves nothing running', () => {
  let taken: Server;
  let port: number;
  beforeAll(async () => {
    port = await freePort();
    taken = createServer().listen(port, '127.0.0.1');
    await once(taken, 'listening');
  });
  afterAll(() => taken.close());

  it.each([
    ['a port that is taken', () => port],
    ['a port whose next one, for mTLS, is taken', () => port - 1],
  ])('%s: told before anything is fetched or started', async (_, portOf) => {
    const data = dataDir();
    const { code, line } = await refusal(data, '--port', String(portOf()));
    expect([code, line]).toEqual([2, expect.stringMatching(/taken\. Choose another: --port N \(0: any free one\)$/)]);
    expect(existsSync(data)).toBe(false);
  });

  it.each([
    ['a bundle that is not there', '--bundle', /The bundle folder .*nowhere cannot be read/],
    ['a file of backends that is not there', '--backends', /nowhere: there is no such file/],
  ])('%s: told before anything is made', async (_, option, says) => {
    const data = dataDir();
    const { code, line } = await refusal(data, '--port', '0', option, join(data, 'nowhere'));
    expect([code === 0, line]).toEqual([false, expect.stringMatching(says)]);
    expect(existsSync(data)).toBe(false);
  });

  it.each([
    [
      'nothing answers there',
      {},
      'MAYFLY_VAULT_ADDR: nothing answers at http://127.0.0.1:2 (ECONNREFUSED): start that Vault or OpenBao, or unset MAYFLY_VAULT_ADDR',
    ],
    [
      'it is no address',
      { MAYFLY_VAULT_ADDR: 'vault:8200' },
      'MAYFLY_VAULT_ADDR: vault:8200 is not an address such as http://127.0.0.1:8200',
    ],
    [
      'its token cannot be read',
      { MAYFLY_VAULT_TOKEN_FILE: '/nowhere/token' },
      'MAYFLY_VAULT_TOKEN_FILE: /nowhere/token cannot be read (ENOENT): name a file with a token of that development server',
    ],
    [
      'its token is none',
      { MAYFLY_VAULT_TOKEN_FILE: '/dev/null' },
      'MAYFLY_VAULT_TOKEN_FILE: /dev/null holds no token: it has to be one line, a token of that development server',
    ],
  ])('a Vault, and %s: told by name before anything is made', async (_, variables, says) => {
    const data = dataDir();
    const token = join(dirname(data), 'token');
    writeFileSync(token, 'a-token\n');
    const start = spawnSync(process.execPath, [resolve('scripts/start.mjs'), '--data', data, '--port', '0'], {
      encoding: 'utf8',
      env: {
        ...environment,
        MAYFLY_VAULT_ADDR: 'http://127.0.0.1:2',
        MAYFLY_VAULT_TOKEN_FILE: token,
        ...variables,
      } as NodeJS.ProcessEnv,
    });
    expect([start.status, start.stdout, start.stderr]).toEqual([1, '', `mayfly: ${says}\n`]);
    expect(existsSync(data)).toBe(false);
  });

  it.each([
    ['mayfly dev', []],
    ['npm start', [WITH_POSTGRES]],
  ])('%s --dry-run says that nothing is in the way, and makes nothing', async (_, words) => {
    const data = dataDir();
    const { child, stdout, stderr } = dev(data, '--dry-run', '--port', '0', ...words);
    expect(await ended(child)).toBe(0);
    expect([stdout(), stderr()]).toEqual([
      `Nothing is in the way of a start: folder ${data}, any free ports. Nothing was made or started.\n`,
      '',
    ]);
    expect(existsSync(data)).toBe(false);
  });

  it('a folder that is a file', async () => {
    const data = dataDir();
    writeFileSync(data, '');
    const { code, line } = await refusal(data, '--port', '0');
    expect([code, line]).toEqual([2, expect.stringContaining('--data DIR')]);
  });

  it('no Redis on this machine, and none may be fetched', async () => {
    const data = dataDir();
    const { child, stderr } = (() => {
      const { PATH: _, MAYFLY_TOOLS_DIR: __, ...env } = process.env;
      const started = spawn(
        process.execPath,
        [resolve('bin/mayfly.js'), 'dev', '--data', data, '--port', '0', '--no-fetch'],
        { stdio: ['ignore', 'ignore', 'pipe'], env: { ...env, PATH: '/nowhere' } },
      );
      children.add(started);
      let said = '';
      started.stderr?.on('data', (chunk: Buffer) => (said += chunk.toString()));
      return { child: started, stderr: () => said };
    })();
    expect(await ended(child)).toBe(2);
    expect(stderr().trim().split('\n')).toEqual([expect.stringMatching(/^Error: .*[Rr]edis/)]);
  });

  it.each([
    ['a port that is none', ['--port', '99999'], /a port is 0 to 65534/],
    ['a flag that is none, with the right one', ['--prot', '0'], /Did you mean --port\?/],
    [
      'a folder whose name was forgotten',
      ['--data', '--no-story'],
      /'--data <dir>' argument '--no-story' is invalid\. a path stands here/,
    ],
    [
      'a bundle whose name was forgotten',
      ['--bundle', '--no-story'],
      /'--bundle <dir>' argument '--no-story' is invalid/,
    ],
    ['a level of the log that is none', ['--log-level', 'loud'], /--log-level.* debug, info, warn, error, silent/],
  ])('%s is a mistake of usage: exit code 1', async (_, words, says) => {
    const { child, stderr } = dev(dataDir(), ...words);
    expect(await ended(child)).toBe(1);
    expect(stderr()).toMatch(says);
    expect(stderr()).not.toMatch(/ at .*\.js/);
  });
});

it.each(['--data', '--port', '--bundle', '--log-level'])(
  'npm start with %s last, and its value forgotten, is a mistake of usage and makes nothing',
  (option) => {
    const cwd = mkdtempSync(join(tmpdir(), 'mayfly-dev-'));
    roots.push(cwd);
    const start = spawnSync(process.execPath, [resolve('scripts/start.mjs'), option], {
      cwd,
      encoding: 'utf8',
      env: environment as NodeJS.ProcessEnv,
    });
    expect([start.status, start.stdout, readdirSync(cwd)]).toEqual([1, '', []]);
    expect(start.stderr).toMatch(new RegExp(`^error: option '${option} <\\w+>' argument missing`));
  },
);

it('--help explains the start without starting anything', () => {
  const { status, stdout } = spawnSync(process.execPath, [resolve('bin/mayfly.js'), 'dev', '--help'], {
    encoding: 'utf8',
  });
  expect(status).toBe(0);
  for (const says of [
    /--port <n>.*7117/s,
    /mTLS is on the next one/,
    /0: any free/,
    /--data <dir>.*\.data/s,
    /--no-story/,
  ]) {
    expect(stdout.replaceAll(/\s+/g, ' ')).toMatch(says);
  }
});
