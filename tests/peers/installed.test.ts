import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { freePort } from '../../src/main/dev/free-port.js';
import { RedisLine } from '../../src/main/dev/redis-process.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { readBundle } from '../../src/main/read-bundle.js';
import { until } from '../e2e/brokers.js';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { haveHelm, type Manifest, template } from './helm.js';
import { type Cluster, type Files, makeImage, type RunningPod, runPod } from './pod.js';

const BAO = join(process.env['MAYFLY_PEERS_DIR'] ?? join(homedir(), '.cache/mayfly-peers'), 'bin/bao');
const PASSWORD = 'the-password-of-the-store';
const ISSUER = 'https://mayfly.example';
/** On a machine that is busy with other things. */
const UP_WITHIN_MS = 90_000;

/**
 * The chart's pods as processes: the files that the image would hold, the rendered command, arguments, environment, user, volumes and probes, against a
 * real Redis with a password and a real OpenBao.
 */
(haveHelm && existsSync(BAO) ? describe : describe.skip)('what the chart installs', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-installed-'));
  let cluster: Cluster;
  let redis: RedisServer;
  let bao: ChildProcess;
  let trustDomain: DevTrustDomain;
  let api: Manifest;
  let worker: Manifest;
  const running: RunningPod[] = [];
  const run = async (workload: Manifest, name: string) => {
    const pod = await runPod(cluster, workload, name);
    running.push(pod);
    return pod;
  };

  beforeAll(async () => {
    chmodSync(dir, 0o755);
    makeImage(join(dir, 'image'));
    redis = await startRedis();
    const line = await RedisLine.open(redis.port);
    await line.ask('CONFIG', 'SET', 'requirepass', PASSWORD);
    line.close();
    trustDomain = await openDevTrustDomain(join(dir, 'trust'));
    const address = `127.0.0.1:${await freePort()}`;
    bao = spawn(
      BAO,
      ['server', '-dev', '-dev-root-token-id=root', `-dev-listen-address=${address}`, '-dev-no-store-token'],
      {
        stdio: 'ignore',
      },
    );
    const folders = new Map<string, Files>();
    for (const [path, content] of Object.entries(await readBundle('config'))) {
      const [folder, name] = path.split('/') as [string, string];
      folders.set(`mayfly-${folder}`, { ...folders.get(`mayfly-${folder}`), [name]: content });
    }
    await until('OpenBao is up', 60_000, async () => (await fetch(`http://${address}/v1/sys/health`)).ok);
    const values = join(dir, 'values.yaml');
    writeFileSync(
      values,
      stringify({
        config: {
          identity: {
            trust_domains: [
              { name: trustDomain.name, source: { kind: 'file', path: '/etc/mayfly/trust/bundle.json' } },
            ],
          },
          backends: {
            vault: {
              kind: 'vault',
              address: `http://${address}`,
              auth: { method: 'token', token_file: '/run/mayfly/secrets/vault/token' },
            },
          },
        },
        bundle: {
          configMaps: Object.fromEntries([...folders.keys()].map((name) => [name.slice('mayfly-'.length), name])),
        },
        secretFiles: { vault: { existingSecret: 'mayfly-vault' } },
        drain: { leavingSeconds: 1 },
      }),
    );
    const all = template(['least'], ['-f', values]);
    const find = (role: string) =>
      all.find((one) => one.kind !== 'PodDisruptionBudget' && one.metadata.name === `r-mayfly-${role}`) as Manifest;
    [api, worker] = [find('api'), find('worker')];
    const config = all.find(({ kind }) => kind === 'ConfigMap') as Manifest;
    cluster = {
      dir,
      image: join(dir, 'image'),
      configMaps: {
        'r-mayfly': config['data'],
        'mayfly-trust': { 'bundle.json': readFileSync(trustDomain.bundlePath, 'utf8') },
        ...Object.fromEntries(folders),
      },
      secrets: {
        'mayfly-root-key': { 'root.key': randomBytes(32).toString('base64') },
        'mayfly-redis': { url: `${redis.url.replace('redis://', `redis://:${PASSWORD}@`)}\n` },
        'mayfly-vault': { token: 'root' },
      },
    };
  }, 300_000);

  afterAll(async () => {
    for (const pod of running) pod.child.kill('SIGKILL');
    bao?.kill('SIGKILL');
    await redis?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  it('starts, passes its probes, serves, and leaves when it is told to', async () => {
    const pods = [await run(api, 'api-0'), await run(worker, 'worker-0')];
    for (const pod of pods) {
      await passes(pod, 'startupProbe');
      expect(await pod.probe('livenessProbe')).toBe(true);
      await until('it is ready', 30_000, () => pod.probe('readinessProbe'));
    }
    const [door, work] = pods as [RunningPod, RunningPod];
    const metadata = await fetch(`${door.urlOf('http')}/.well-known/oauth-authorization-server`);
    expect(await metadata.json()).toMatchObject({ issuer: ISSUER });
    const opened = await fetch(`${door.urlOf('http')}/v1/tasks`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${trustDomain.jwtSvid({ path: '/orchestrator/workflow', audience: ISSUER, ttlSeconds: 300 })}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({
        type: 'refund',
        params: { order_id: 42 },
        purpose: 'refund order 42',
        agents: ['spiffe://dev.mayfly/agent/refunds'],
        scope: { tools: ['orders.read'], resources: ['https://orders.example'] },
        ttl_seconds: 300,
      }),
    });
    expect([opened.status, await opened.text()]).toEqual([201, expect.stringContaining('"id"')]);
    for (const pod of pods) {
      let text = '';
      await until('its metrics say that grants are open', 30_000, async () => {
        text = await (await fetch(`${pod.urlOf('ops')}/metrics`)).text();
        return /^mayfly_grants_closed 0$/m.test(text);
      });
      expect(text).toMatch(/^mayfly_build_info\{.*\} 1$/m);
      expect(text).toMatch(/^process_resident_memory_bytes /m);
    }
    await until('the audit is in the files of the worker', 30_000, () =>
      readdirSync(join(dir, 'worker-0/var/lib/mayfly'), { recursive: true }).some((name) =>
        /\.ndjson$/.test(String(name)),
      ),
    );
    for (const pod of [door, work]) {
      expect(await pod.terminate()).toMatchObject({ code: 0, signal: null });
      expect(pod.said()).not.toContain(PASSWORD);
    }
  }, 300_000);

  it('a backend that is down makes no pod unready, and a store that is away does, without its end', async () => {
    bao.kill('SIGKILL');
    const pod = await run(api, 'api-1');
    await passes(pod, 'readinessProbe');
    await redis.kill('SIGSTOP');
    await until('it is not ready', 30_000, async () => !(await pod.probe('readinessProbe')));
    expect(await pod.probe('livenessProbe')).toBe(true);
    await redis.kill('SIGCONT');
    await until('it is ready again', 30_000, () => pod.probe('readinessProbe'));
    expect(await pod.terminate()).toMatchObject({ code: 0, signal: null });
  }, 300_000);

  it('a root key that others may read stops the start, and says so', async () => {
    const open = structuredClone(api);
    for (const volume of open['spec'].template.spec.volumes) {
      if (volume.name === 'root-key') volume.secret.defaultMode = 0o444;
    }
    const pod = await run(open, 'api-2');
    await until('it ended', UP_WITHIN_MS, () => pod.child.exitCode !== null);
    expect(pod.child.exitCode).not.toBe(0);
    expect(pod.said()).toContain('root_key_file');
  }, 120_000);
});

/** Waits as long as a busy machine may take, but not for a process that ended. */
async function passes(pod: RunningPod, probe: Parameters<RunningPod['probe']>[0]): Promise<void> {
  await until(`${probe} passes`, UP_WITHIN_MS, async () => pod.child.exitCode !== null || (await pod.probe(probe)));
  if (pod.child.exitCode !== null) throw new Error(pod.said());
}
