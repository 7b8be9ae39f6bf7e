import { randomBytes } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Observe } from '../../core/observe.js';
import { checkConfig, readRootKey, readYaml } from '../config.js';
import { type Ops, openOps } from '../ops.js';
import { readBundle } from '../read-bundle.js';
import { type Running, startBroker } from '../server.js';
import { logTo } from '../telemetry.js';
import { whenStoreAnswers } from '../when-store-answers.js';
import { startEmbeddedRedis } from './embedded-redis.js';
import { ownFolder } from './folder-owner.js';
import { freePort } from './free-port.js';
import { listening, mayStart } from './may-start.js';
import { type DevTrustDomain, openDevTrustDomain } from './trust-domain.js';

export interface DevOptions {
  /** 0: any free one; mTLS is on the next one. */
  port: number;
  dataDir: string;
  bundleDir: string;
  /** YAML or JSON file with a `backends` record: where the credentials of this broker come from. */
  backendsFile?: string;
  allowFetch: boolean;
  logLevel: string;
  say: (line: string) => void;
  /** Aborts the start: what was begun is stopped, and the start throws. */
  signal: AbortSignal;
}

export interface DevBroker {
  url: string;
  mtlsUrl: string;
  /** Metrics and probes. */
  opsUrl: string;
  trustDomain: DevTrustDomain;
  running: Running;
  redis: string;
  stop(): Promise<void>;
}

/**
 * The development broker: the same one as in production, on an embedded real Redis, with a trust domain whose keys are files below the data
 * folder. Writes `DIR/runtime.json` once it is up and removes it when it stops; the data stays.
 */
export async function startDevBroker(options: DevOptions): Promise<DevBroker> {
  const { say, signal } = options;
  const dataDir = resolve(options.dataDir);
  await mayStart({ ...options, dataDir });
  ownFolder(dataDir);
  const port = options.port === 0 ? await freePort() : options.port;
  const mtlsPort = options.port === 0 ? await freePort() : port + 1;
  const url = `http://127.0.0.1:${port}`;
  const mtlsUrl = `https://127.0.0.1:${mtlsPort}`;
  const trustDomain = await openDevTrustDomain(dataDir);
  const { certPem, keyPem } = await trustDomain.tlsServer(['127.0.0.1', 'localhost']);
  const redis = process.env['MAYFLY_REDIS_URL']
    ? { url: process.env['MAYFLY_REDIS_URL'], version: 'MAYFLY_REDIS_URL', stop: async () => {} }
    : await startEmbeddedRedis({ dataDir, allowFetch: options.allowFetch, say, signal });
  let opened: Ops | undefined;
  try {
    signal.throwIfAborted();
    const ops = await openOps({ host: '127.0.0.1', port: 0 });
    opened = ops;
    const config = checkConfig({
      issuer: url,
      data_dir: join(dataDir, 'broker'),
      root_key_file: rootKeyFile(dataDir),
      listen: { host: '127.0.0.1', port },
      mtls: {
        host: '127.0.0.1',
        port: mtlsPort,
        cert_file: 'made at start',
        key_file: 'made at start',
        issuer: mtlsUrl,
      },
      redis: { url: 'redis://embedded' },
      identity: {
        trust_domains: [{ name: trustDomain.name, source: { kind: 'file', path: trustDomain.bundlePath } }],
        oidc_issuers: [
          {
            kind: 'people',
            issuer: trustDomain.peopleIssuer.issuer,
            keys: { jwks_file: trustDomain.peopleIssuer.jwksPath },
            roles: { 'mayfly-operators': ['operator', 'security'], 'mayfly-auditors': 'auditor' },
          },
        ],
      },
      bundle: { dir: options.bundleDir },
      ...(options.backendsFile !== undefined && { backends: readYaml(options.backendsFile) }),
    });
    const log = logTo(options.logLevel);
    const observe: Observe = (event) => {
      ops.metrics.observe(event);
      log(event);
    };
    const bundleFiles = await readBundle(options.bundleDir);
    const start = () =>
      startBroker({
        config,
        role: 'all',
        rootKey: readRootKey(config.root_key_file),
        redisUrl: redis.url,
        bundleFiles,
        bundleAgain: true,
        observe,
        metrics: ops.metrics,
        mtlsCertificate: { cert: certPem, key: keyPem },
      });
    const running = await whenStoreAnswers(observe, start, signal);
    ops.started(running.parts, 'all');
    const runtimePath = join(dataDir, 'runtime.json');
    writeFileSync(
      runtimePath,
      `${JSON.stringify({ url, mtls_url: mtlsUrl, ops_url: ops.url, pid: process.pid, issuer: url }, null, 2)}\n`,
      { mode: 0o600 },
    );
    return {
      url,
      mtlsUrl,
      opsUrl: ops.url,
      trustDomain,
      running,
      redis: redis.version,
      async stop() {
        rmSync(runtimePath, { force: true });
        await running.stop(5_000);
        await redis.stop();
        await ops.close();
      },
    };
  } catch (error) {
    await redis.stop();
    await opened?.close();
    throw listening(error, port);
  }
}

/** Made on the first start; without it nothing that rests encrypted in Redis can be read again. */
function rootKeyFile(dataDir: string): string {
  const path = join(dataDir, 'root.key');
  try {
    writeFileSync(path, `${randomBytes(32).toString('base64')}\n`, { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  return path;
}
