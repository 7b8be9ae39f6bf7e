import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Fetch, nodeFetch } from '../../src/client/transport.js';
import { checkConfig } from '../../src/main/config.js';
import { freePort } from '../../src/main/dev/free-port.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { readBundle } from '../../src/main/read-bundle.js';
import { type Running, startBroker } from '../../src/main/server.js';
import { startRedis } from '../state/redis-servers.js';

export interface PeerBroker {
  issuer: string;
  mtlsUrl: string;
  /** Trusts the development authority. */
  fetch: Fetch;
  trustDomain: DevTrustDomain;
  running: Running;
  close(): Promise<void>;
}

/** A whole broker in this process, on a real Redis, believing the development trust domain and whoever else the test names. */
export async function startPeerBroker(options: {
  trustDomains?: { name: string; source: Record<string, unknown> }[];
  /** Changes the sample bundle's files. */
  bundle?: (path: string, content: string) => string;
  /** The plain listener speaks TLS too, under a certificate of the development authority. */
  tls?: boolean;
}): Promise<PeerBroker> {
  const redis = await startRedis();
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-peer-'));
  const [port, mtlsPort] = [await freePort(), await freePort()];
  const issuer = `${options.tls ? 'https' : 'http'}://127.0.0.1:${port}`;
  const mtlsUrl = `https://127.0.0.1:${mtlsPort}`;
  const trustDomain = await openDevTrustDomain(dir);
  const { certPem, keyPem } = await trustDomain.tlsServer(['127.0.0.1']);
  const tls = { cert_file: join(dir, 'tls.pem'), key_file: join(dir, 'tls.key') };
  writeFileSync(tls.cert_file, certPem);
  writeFileSync(tls.key_file, keyPem, { mode: 0o600 });
  const config = checkConfig({
    issuer,
    data_dir: join(dir, 'broker'),
    root_key_file: 'given below',
    listen: { port, ...(options.tls && { tls }) },
    mtls: { port: mtlsPort, ...tls, issuer: mtlsUrl },
    redis: { url: redis.url },
    identity: {
      trust_domains: [
        { name: trustDomain.name, source: { kind: 'file', path: trustDomain.bundlePath } },
        ...(options.trustDomains ?? []),
      ],
    },
  });
  const files = await readBundle('config');
  const change = options.bundle ?? ((_: string, content: string) => content);
  const running = await startBroker({
    config,
    role: 'all',
    rootKey: randomBytes(32),
    redisUrl: redis.url,
    bundleFiles: Object.fromEntries(Object.entries(files).map(([path, content]) => [path, change(path, content)])),
    observe: () => {},
  });
  return {
    issuer,
    mtlsUrl,
    fetch: nodeFetch({ ca: trustDomain.caPem }),
    trustDomain,
    running,
    async close() {
      await running.stop(1_000);
      await redis.stop();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

/** Opens a refund task for an agent, as the development orchestrator. */
export async function openRefund(
  { issuer, trustDomain, fetch }: PeerBroker,
  agent: string,
  ttlSeconds = 300,
): Promise<string> {
  const reply = await fetch(`${issuer}/v1/tasks`, {
    method: 'POST',
    headers: {
      Authorization: `Bearer ${trustDomain.jwtSvid({ path: '/orchestrator/workflow', audience: issuer, ttlSeconds: 300 })}`,
      'Content-Type': 'application/json',
    },
    body: JSON.stringify({
      type: 'refund',
      params: { order_id: 42 },
      purpose: 'refund order 42',
      agents: [agent],
      scope: { tools: ['orders.read'], resources: ['https://orders.example'] },
      ttl_seconds: ttlSeconds,
    }),
  });
  const body = (await reply.json()) as { id?: string };
  if (body.id === undefined) throw new Error(`no task: ${reply.status} ${JSON.stringify(body)}`);
  return body.id;
}
