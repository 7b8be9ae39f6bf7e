// What the rows of the bench share: a Redis, a broker and a peer as processes of their own, and load.
import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import autocannon from 'autocannon';
import { Redis } from 'ioredis';
import { stringify } from 'yaml';
import { Mayfly } from '../../dist/client/mayfly.js';
import { startEmbeddedRedis } from '../../dist/main/dev/embedded-redis.js';
import { freePort } from '../../dist/main/dev/free-port.js';
import { DEV_PEOPLE, openDevTrustDomain } from '../../dist/main/dev/trust-domain.js';

export const ORDERS = 'https://orders.example';
export const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';

/**
 * A broker with its Redis. `backends` may start what they need below a folder, and says where credentials come from; with `people` there is an operator.
 * `bundleDir`: another bundle than the sample. `apart`: one process answers requests and another works, as the chart installs them.
 */
export async function openWorld({ backends, people = false, bundleDir = 'config', apart = false } = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-bench-'));
  const say = (line) => process.stderr.write(`${line}\n`);
  const redis = await startEmbeddedRedis({ dataDir: dir, allowFetch: true, say });
  const peerRedis = await startEmbeddedRedis({ dataDir: join(dir, 'peer'), allowFetch: true, say });
  const trustDomain = await openDevTrustDomain(dir);
  const port = await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  const children = [];
  const launch = async (command, args, env, ready) => {
    const child = spawn(command, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    await ready(child);
    return child;
  };
  writeFileSync(join(dir, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  writeFileSync(join(dir, 'redis.url'), redis.url, { mode: 0o600 });
  const settings = {
    issuer,
    root_key_file: join(dir, 'root.key'),
    listen: { port },
    ops: { port: 0 },
    redis: { url_file: join(dir, 'redis.url') },
    identity: {
      trust_domains: [{ name: trustDomain.name, source: { kind: 'file', path: trustDomain.bundlePath } }],
      ...(people && { oidc_issuers: [peopleIssuer(trustDomain)] }),
    },
    ...(backends && { backends: await backends(dir) }),
    bundle: { dir: bundleDir },
    quotas: { leases_per_task: 1_000_000, leases_per_agent: 10_000_000, per_tree: 1_000_000 },
    log: { level: 'error' },
  };
  // Such as --cpu-prof, to see where a broker's time goes.
  const nodeArgs = (process.env['MAYFLY_BENCH_NODE_ARGS'] ?? '').split(' ').filter(Boolean);
  const start = (role, ready) => {
    const config = join(dir, `${role}.yaml`);
    const dataDir = join(dir, role);
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(config, stringify({ ...settings, data_dir: dataDir }));
    const args = [...nodeArgs, 'bin/mayfly.js', 'start', '--role', role, '--config', config];
    return launch(process.execPath, args, {}, ready);
  };
  const isReady = () => until(async () => (await fetch(`${issuer}/readyz`)).ok);
  const brokers = apart
    ? [await start('api', isReady), await start('worker', async () => {})]
    : [await start('all', isReady)];
  const pids = {
    broker: brokers[0].pid,
    ...(apart && { worker: brokers[1].pid }),
    redis: await redisPid(redis.url),
    peerRedis: await redisPid(peerRedis.url),
  };

  const client = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const clientJwk = { ...client.publicKey.export({ format: 'jwk' }), kid: 'client', use: 'sig', alg: 'ES256' };
  const peer = async (withRedis) => {
    const peerPort = await freePort();
    let url;
    const child = await launch(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', 'tests/bench/peer-oidc.mjs'],
      {
        PORT: String(peerPort),
        CLIENT_JWK: JSON.stringify(clientJwk),
        ...(withRedis && { REDIS_URL: peerRedis.url }),
        NODE_ENV: 'production',
      },
      async (child) => {
        [url] = await once(child.stdout, 'data');
      },
    );
    return { url: String(url).trim().split('\n')[0], pid: child.pid };
  };
  const assertion = (audience, ttlSeconds = 60) => {
    const now = Math.floor(Date.now() / 1000);
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const input = `${encode({ alg: 'ES256', kid: 'client' })}.${encode({ iss: 'agent', sub: 'agent', aud: audience, iat: now, exp: now + ttlSeconds, jti: randomBytes(12).toString('base64url') })}`;
    return `${input}.${sign('sha256', Buffer.from(input), { key: client.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  const svid = (path) => trustDomain.jwtSvid({ path, audience: issuer, ttlSeconds: 600 });
  const ask = caller(issuer);
  const bearer = (token) => ({ authorization: `Bearer ${token}` });
  // One process that lives long: it uses its SVID again, as the peers' callers do theirs.
  let orchestrator;
  const asOrchestrator = () => {
    const nowMs = Date.now();
    if (!orchestrator || nowMs > orchestrator.untilMs) {
      orchestrator = { untilMs: nowMs + 300_000, headers: bearer(svid('/orchestrator/workflow')) };
    }
    return orchestrator.headers;
  };
  const openTask = async (scope = {}) => {
    const body = {
      type: 'refund',
      params: { order_id: 42 },
      purpose: 'bench',
      agents: [REFUNDS],
      scope: { tools: ['orders.read'], resources: [ORDERS], ...scope },
      ttl_seconds: 3600,
    };
    return (await ask('POST', '/v1/tasks', body, asOrchestrator())).id;
  };
  const mintForm = (task, subject) =>
    new URLSearchParams({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: subject,
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      resource: ORDERS,
      scope: `task:${task} orders.read`,
    }).toString();
  return {
    dir,
    issuer,
    pids,
    launch,
    redis,
    trustDomain,
    peer,
    assertion,
    svid,
    openTask,
    complete: (task) => ask('POST', `/v1/tasks/${task}/complete`, {}, asOrchestrator()),
    post: (path, body, type, token) => ask('POST', path, body, token ? bearer(token) : {}, type),
    get: (path, token) => ask('GET', path, undefined, bearer(token)),
    publicKeyPem: () => client.publicKey.export({ format: 'pem', type: 'spki' }),
    operator:
      people &&
      new Mayfly({ url: issuer, identity: { person: async (audience) => personToken(trustDomain, audience) } }),
    mintForm,
    async close() {
      // A profile is written at a tidy end only.
      if (nodeArgs.length > 0) {
        for (const broker of brokers) if (broker.kill('SIGTERM')) await once(broker, 'exit');
      }
      for (const child of children) child.kill('SIGKILL');
      await redis.stop();
      await peerRedis.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Asks again what a crowded machine let time out (503), as every client does; the time it took counts. */
export async function patiently(ask) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 503 || attempt === 5) throw error;
    }
  }
}

/** JSON over kept-alive connections; anything but 2xx is an error. */
export function caller(address) {
  const { hostname, port } = new URL(address);
  const agent = new Agent({ keepAlive: true, maxSockets: 128 });
  return (method, path, body, headers = {}, type = 'application/json') =>
    new Promise((resolve, reject) => {
      const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
      const all = { ...(text && { 'content-type': type, 'content-length': Buffer.byteLength(text) }), ...headers };
      const asked = request({ hostname, port, method, path, agent, headers: all }, (reply) => {
        let said = '';
        reply.on('data', (chunk) => (said += chunk));
        reply.on('end', () => {
          if (reply.statusCode > 299)
            reject(
              Object.assign(new Error(`${method} ${path}: ${reply.statusCode} ${said}`), { status: reply.statusCode }),
            );
          else resolve(said === '' ? {} : JSON.parse(said));
        });
      });
      asked.on('error', reject);
      asked.end(text);
    });
}

function peopleIssuer({ peopleIssuer: { issuer, jwksPath } }) {
  return {
    kind: 'people',
    issuer,
    keys: { jwks_file: jwksPath },
    roles: { 'mayfly-operators': ['operator', 'security'] },
  };
}

function personToken(trustDomain, audience) {
  const [{ subject, groups }] = DEV_PEOPLE;
  return trustDomain.personToken({ subject, groups, audience, ttlSeconds: 300 });
}

/** On a crowded machine a request may miss its deadline; more of them than this share, and it is no measurement. */
const REFUSED_SHARE_MAX = 0.01;

/**
 * Answers (200) a second to POSTed bodies; `formOf` is asked for each request. Other answers than a few 503 end the bench. Also the processor time that each of
 * `pids` (and the load itself) spent on a request: where rates are as good as the machine is idle, these hardly move.
 */
export async function load(
  url,
  formOf,
  { seconds, pids = {}, connections = 64, type = 'application/x-www-form-urlencoded' },
) {
  const all = { ...pids, load: process.pid };
  const before = Object.values(all).map(cpuMsOf);
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    requests: [
      {
        method: 'POST',
        headers: { 'content-type': type },
        setupRequest: (request) => ({ ...request, body: formOf() }),
      },
    ],
  });
  if (result.non2xx > REFUSED_SHARE_MAX * result.requests.total || result.errors > 0)
    throw new Error(`${url}: ${result.non2xx} refusals, ${result.errors} errors`);
  const cpuUs = Object.fromEntries(
    Object.entries(all).map(([name, pid], at) => [name, ((cpuMsOf(pid) - before[at]) * 1_000) / result.requests.total]),
  );
  return { perSecond: result['2xx'] / result.duration, p99Ms: result.latency.p99, cpuUs };
}

/**
 * Requests that come when they come, so many a second, whether or not earlier ones were answered. How long each took, counted from when it was
 * due: one that waits behind a slow one is slow too. Milliseconds, in no order.
 */
export async function openLoop(url, formOf, { perSecond, seconds }) {
  const { origin, pathname } = new URL(url);
  const ask = caller(origin);
  const startMs = performance.now();
  const dueMs = (at) => startMs + (at * 1_000) / perSecond;
  const asked = [];
  for (let at = 0; at < perSecond * seconds; at++) {
    if (dueMs(at) > performance.now())
      await new Promise((resolve) => setTimeout(resolve, dueMs(at) - performance.now()));
    asked.push(
      ask('POST', pathname, formOf(), {}, 'application/x-www-form-urlencoded').then(
        () => performance.now() - dueMs(at),
      ),
    );
  }
  return Promise.all(asked);
}

/** Forms made ahead, so that what the load signs is not taken from those it measures. Each is handed out once. */
export function ahead(count, make) {
  const made = Array.from({ length: count }, make);
  return () => made.pop() ?? make();
}

/** User and system time of a process so far; Linux counts in hundredths of a second. NaN elsewhere. */
function cpuMsOf(pid) {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return Number.NaN;
  }
}

async function redisPid(url) {
  const client = new Redis(url);
  const pid = Number(/process_id:(\d+)/.exec(await client.info('server'))[1]);
  client.disconnect();
  return pid;
}

export async function until(holds, withinMs = 60_000) {
  const endMs = performance.now() + withinMs;
  for (;;) {
    try {
      if (await holds()) return;
    } catch {
      // Not yet.
    }
    if (performance.now() > endMs) throw new Error('it never came');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

export function quantile(numbers, q) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
}
