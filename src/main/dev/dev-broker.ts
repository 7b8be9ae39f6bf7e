import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { BrokerError } from '../../core/errors.js';
import type { Observe } from '../../core/observe.js';
import { checkConfig, readRootKey, readYaml } from '../config.js';
import { type Ops, openOps } from '../ops.js';
import { readBundle } from '../read-bundle.js';
import { type Running, startBroker } from '../server.js';
import { logTo } from '../telemetry.js';
import { whenStoreAnswers } from '../when-store-answers.js';
import { makeDataFolder } from './data-folder.js';
import { startEmbeddedRedis } from './embedded-redis.js';
import { freePort } from './free-port.js';
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
  const { say } = options;
  const dataDir = resolve(options.dataDir);
  makeDataFolder(dataDir);
  refuseSecond(dataDir);
  const port = options.port === 0 ? await freePort() : options.port;
  const mtlsPort = options.port === 0 ? await freePort() : port + 1;
  // Before anything is fetched or started: whoever has to choose another port should not wait to be told.
  for (const one of [port, mtlsPort])
    await mustBeFree(one).catch((error: unknown) => Promise.reject(listening(error, port)));
  const url = `http://127.0.0.1:${port}`;
  const mtlsUrl = `https://127.0.0.1:${mtlsPort}`;
  const trustDomain = await openDevTrustDomain(dataDir);
  const { certPem, keyPem } = await trustDomain.tlsServer(['127.0.0.1', 'localhost']);
  const redis = process.env['MAYFLY_REDIS_URL']
    ? { url: process.env['MAYFLY_REDIS_URL'], version: 'MAYFLY_REDIS_URL', stop: async () => {} }
    : await startEmbeddedRedis({ dataDir, allowFetch: options.allowFetch, say });
  let opened: Ops | undefined;
  try {
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
    const running = await whenStoreAnswers(observe, () =>
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
      }),
    );
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

/** One broker per data folder: a second one would hand out the same files to two processes. */
function refuseSecond(dataDir: string): void {
  let runtime: { pid?: unknown; url?: unknown };
  try {
    runtime = JSON.parse(readFileSync(join(dataDir, 'runtime.json'), 'utf8'));
  } catch {
    return;
  }
  const { pid, url } = runtime;
  if (typeof pid !== 'number' || pid === process.pid || !isAlive(pid)) return;
  throw new BrokerError(
    'unavailable',
    `Mayfly is already running here: ${String(url)} (process ${pid}). Stop it, or choose another folder: --data DIR`,
  );
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
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

async function mustBeFree(port: number): Promise<void> {
  const probe = createServer().listen(port, '127.0.0.1');
  await once(probe, 'listening');
  probe.close();
  await once(probe, 'close');
}

function listening(error: unknown, port: number): unknown {
  const { code } = Object(error) as { code?: string };
  if (code === 'EADDRINUSE')
    return new BrokerError(
      'unavailable',
      `Port ${port} or ${port + 1} is taken. Choose another: --port N (0: any free one)`,
      { cause: error },
    );
  if (code === 'EACCES')
    return new BrokerError('unavailable', `Port ${port} may not be used by this user. Choose another: --port N`, {
      cause: error,
    });
  return error;
}
