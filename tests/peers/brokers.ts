import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { checkConfig } from '../../src/main/config.js';
import { freePort } from '../../src/main/dev/redis-process.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { readBundle } from '../../src/main/read-bundle.js';
import { type Running, startBroker } from '../../src/main/server.js';
import { startRedis } from '../state/redis-servers.js';

export interface PeerBroker {
  issuer: string;
  mtlsUrl: string;
  trustDomain: DevTrustDomain;
  running: Running;
  close(): Promise<void>;
}

/** A whole broker in this process, on a real Redis, believing the development trust domain and whoever else the test names. */
export async function startPeerBroker(options: {
  trustDomains?: { name: string; source: Record<string, unknown> }[];
  /** Changes the sample bundle's files. */
  bundle?: (path: string, content: string) => string;
}): Promise<PeerBroker> {
  const redis = await startRedis();
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-peer-'));
  const [port, mtlsPort] = [await freePort(), await freePort()];
  const issuer = `http://127.0.0.1:${port}`;
  const mtlsUrl = `https://127.0.0.1:${mtlsPort}`;
  const trustDomain = await openDevTrustDomain(dir);
  const { certPem, keyPem } = await trustDomain.tlsServer(['127.0.0.1']);
  const config = checkConfig({
    issuer,
    data_dir: join(dir, 'broker'),
    root_key_file: 'given below',
    listen: { port },
    mtls: { port: mtlsPort, cert_file: 'given below', key_file: 'given below', issuer: mtlsUrl },
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
    mtlsCertificate: { cert: certPem, key: keyPem },
  });
  return {
    issuer,
    mtlsUrl,
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
export async function openRefund({ issuer, trustDomain }: PeerBroker, agent: string): Promise<string> {
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
      ttl_seconds: 300,
    }),
  });
  const body = (await reply.json()) as { id?: string };
  if (body.id === undefined) throw new Error(`no task: ${reply.status} ${JSON.stringify(body)}`);
  return body.id;
}
