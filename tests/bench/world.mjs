// What the rows of the bench share: a Redis, a broker and a peer as processes of their own, and load.
import { spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import autocannon from 'autocannon';
import { stringify } from 'yaml';
import { startEmbeddedRedis } from '../../dist/main/dev/embedded-redis.js';
import { freePort } from '../../dist/main/dev/redis-process.js';
import { openDevTrustDomain } from '../../dist/main/dev/trust-domain.js';

export const ORDERS = 'https://orders.example';
export const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';

export async function openWorld() {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-bench-'));
  const say = (line) => process.stderr.write(`${line}\n`);
  const redis = await startEmbeddedRedis({ dataDir: dir, allowFetch: true, say });
  const peerRedis = await startEmbeddedRedis({ dataDir: join(dir, 'peer'), allowFetch: true, say });
  const trustDomain = await openDevTrustDomain(dir);
  const port = await freePort();
  const issuer = `http://127.0.0.1:${port}`;
  const children = [];
  const launch = async (args, env, ready) => {
    const child = spawn(process.execPath, args, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    await ready(child);
    return child;
  };
  mkdirSync(join(dir, 'broker'), { recursive: true });
  writeFileSync(join(dir, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  writeFileSync(join(dir, 'redis.url'), redis.url, { mode: 0o600 });
  writeFileSync(
    join(dir, 'mayfly.yaml'),
    stringify({
      issuer,
      data_dir: join(dir, 'broker'),
      root_key_file: join(dir, 'root.key'),
      listen: { port },
      redis: { url_file: join(dir, 'redis.url') },
      identity: { trust_domains: [{ name: trustDomain.name, source: { kind: 'file', path: trustDomain.bundlePath } }] },
      bundle: { dir: 'config' },
      quotas: { leases_per_task: 1_000_000, leases_per_agent: 10_000_000, per_tree: 1_000_000 },
      log: { level: 'error' },
    }),
  );
  // Such as --cpu-prof, to see where the broker's time goes.
  const nodeArgs = (process.env['MAYFLY_BENCH_NODE_ARGS'] ?? '').split(' ').filter(Boolean);
  await launch([...nodeArgs, 'bin/mayfly.js', 'start', '--config', join(dir, 'mayfly.yaml')], {}, () =>
    until(async () => (await fetch(`${issuer}/readyz`)).ok),
  );

  const client = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const clientJwk = { ...client.publicKey.export({ format: 'jwk' }), kid: 'client', use: 'sig', alg: 'ES256' };
  const peer = async (withRedis) => {
    const peerPort = await freePort();
    let url;
    await launch(
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
    return String(url).trim().split('\n')[0];
  };
  const assertion = (audience) => {
    const now = Math.floor(Date.now() / 1000);
    const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const input = `${encode({ alg: 'ES256', kid: 'client' })}.${encode({ iss: 'agent', sub: 'agent', aud: audience, iat: now, exp: now + 60, jti: randomBytes(12).toString('base64url') })}`;
    return `${input}.${sign('sha256', Buffer.from(input), { key: client.privateKey, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  };
  const svid = (path) => trustDomain.jwtSvid({ path, audience: issuer, ttlSeconds: 600 });
  const openTask = async () => {
    const reply = await fetch(`${issuer}/v1/tasks`, {
      method: 'POST',
      headers: { authorization: `Bearer ${svid('/orchestrator/workflow')}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        type: 'refund',
        params: { order_id: 42 },
        purpose: 'bench',
        agents: [REFUNDS],
        scope: { tools: ['orders.read'], resources: [ORDERS] },
        ttl_seconds: 3600,
      }),
    });
    const body = await reply.json();
    if (!reply.ok) throw new Error(JSON.stringify(body));
    return body.id;
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
    redis,
    trustDomain,
    peer,
    assertion,
    svid,
    openTask,
    mintForm,
    async close() {
      for (const child of children) child.kill('SIGKILL');
      await redis.stop();
      await peerRedis.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Requests a second of POSTed forms; `formOf` is asked for each request. Anything but 200 ends the bench. */
export async function load(url, formOf, { seconds, connections = 64 }) {
  const result = await autocannon({
    url,
    connections,
    duration: seconds,
    requests: [
      {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        setupRequest: (request) => ({ ...request, body: formOf() }),
      },
    ],
  });
  if (result.non2xx > 0 || result.errors > 0)
    throw new Error(`${url}: ${result.non2xx} refusals, ${result.errors} errors`);
  return { perSecond: result.requests.average, p99Ms: result.latency.p99 };
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
