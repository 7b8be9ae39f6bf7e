import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import { DpopProver } from '../../src/client/dpop-prover.js';
import { freePort } from '../../src/main/dev/free-port.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';

export const ORDERS = 'https://orders.example';
export const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';

/** A broker as a process of its own (`mayfly start`), as in production, so that it can be killed. */
export interface BrokerProcess {
  url: string;
  /** Metrics and probes. */
  opsUrl: string;
  child: ChildProcess;
  said(): string;
  kill(signal?: NodeJS.Signals): Promise<void>;
}

export interface Reply {
  status: number;
  headers: Headers;
  body: Record<string, unknown>;
  tookMs: number;
}

export interface StartOptions {
  bundleDir?: string;
  /** It listens where the issuer says. */
  first?: boolean;
  /** That of a broker that was killed, to come back where it was. */
  port?: number;
  role?: 'all' | 'api' | 'worker';
  nodeArgs?: string[];
  /** Further settings of its configuration; they win. */
  settings?: Record<string, unknown>;
  env?: Record<string, string>;
  /** Instead of `mayfly start`: a script that takes the configuration and the role, and speaks over IPC. */
  script?: string;
}

/** Brokers of one cell under one issuer, on a Redis of the test's own, and everybody who speaks to them. */
export class Brokers {
  readonly dir = mkdtempSync(join(tmpdir(), 'mayfly-e2e-'));
  readonly bundleDir = join(this.dir, 'bundle');
  readonly issuer: string;
  readonly #redisUrl: string;
  readonly #trustDomain: DevTrustDomain;
  readonly #running = new Set<BrokerProcess>();

  private constructor(redisUrl: string, issuer: string, trustDomain: DevTrustDomain) {
    this.#redisUrl = redisUrl;
    this.issuer = issuer;
    this.#trustDomain = trustDomain;
    cpSync('config', this.bundleDir, { recursive: true });
    writeFileSync(join(this.dir, 'root.key'), randomBytes(32).toString('base64'), { mode: 0o600 });
  }

  static async open(redisUrl: string): Promise<Brokers> {
    const trustDir = mkdtempSync(join(tmpdir(), 'mayfly-trust-'));
    return new Brokers(redisUrl, `http://127.0.0.1:${await freePort()}`, await openDevTrustDomain(trustDir));
  }

  /** Starts one; the first listens where the issuer says. `name` is its data folder: the same name is the same broker again. */
  async start(name: string, options: StartOptions = {}): Promise<BrokerProcess> {
    const broker = await this.launch(name, options);
    await until(`broker ${name} is ready`, 60_000, async () => {
      if (broker.child.exitCode !== null) throw new Error(`the broker ended: ${broker.said()}`);
      return (await fetch(`${broker.url}/readyz`)).ok;
    });
    return broker;
  }

  /** The same, without waiting for it. */
  async launch(name: string, options: StartOptions = {}): Promise<BrokerProcess> {
    const port = options.port ?? (options.first ? Number(new URL(this.issuer).port) : await freePort());
    const opsPort = await freePort();
    const dataDir = join(this.dir, name);
    mkdirSync(dataDir, { recursive: true });
    const config = join(dataDir, 'mayfly.yaml');
    writeFileSync(
      config,
      stringify({
        issuer: this.issuer,
        data_dir: dataDir,
        root_key_file: join(this.dir, 'root.key'),
        listen: { port },
        ops: { port: opsPort },
        redis: { url: this.#redisUrl },
        identity: {
          trust_domains: [
            { name: this.#trustDomain.name, source: { kind: 'file', path: this.#trustDomain.bundlePath } },
          ],
          oidc_issuers: [
            {
              kind: 'people',
              issuer: this.#trustDomain.peopleIssuer.issuer,
              keys: { jwks_file: this.#trustDomain.peopleIssuer.jwksPath },
              roles: { 'mayfly-operators': ['operator', 'security'] },
            },
          ],
        },
        bundle: { dir: options.bundleDir ?? this.bundleDir },
        log: { level: 'warn' },
        ...options.settings,
      }),
    );
    const { role = 'all', script, nodeArgs = [] } = options;
    const words = script
      ? [script, config, role]
      : [resolve('bin/mayfly.js'), 'start', '--config', config, '--role', role];
    const child = spawn(process.execPath, [...nodeArgs, ...words], {
      stdio: ['ignore', 'pipe', 'pipe', ...(script ? (['ipc'] as const) : [])],
      env: { ...process.env, ...options.env },
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk: Buffer) => (said += chunk.toString()));
    const broker: BrokerProcess = {
      url: `http://127.0.0.1:${port}`,
      opsUrl: `http://127.0.0.1:${opsPort}`,
      child,
      said: () => said,
      kill: async (signal = 'SIGKILL') => {
        this.#running.delete(broker);
        if (child.exitCode !== null || child.signalCode !== null) return;
        const gone = once(child, 'exit');
        child.kill(signal);
        await gone;
      },
    };
    this.#running.add(broker);
    return broker;
  }

  svid(path: string): string {
    return this.#trustDomain.jwtSvid({ path, audience: this.issuer, ttlSeconds: 300 });
  }

  async request(
    broker: BrokerProcess,
    method: string,
    path: string,
    bearer: string | undefined,
    body?: unknown,
  ): Promise<Reply> {
    return this.#send(`${broker.url}${path}`, {
      method,
      headers: {
        ...(bearer && { Authorization: `Bearer ${bearer}` }),
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  async openTask(broker: BrokerProcess, more: Record<string, unknown> = {}): Promise<string> {
    const reply = await this.request(broker, 'POST', '/v1/tasks', this.svid('/orchestrator/workflow'), {
      type: 'refund',
      params: { order_id: 42 },
      purpose: 'refund order 42',
      agents: [REFUNDS],
      scope: { tools: ['orders.read'], resources: [ORDERS] },
      ttl_seconds: 600,
      ...more,
    });
    if (reply.status !== 201) throw new Error(`no task: ${reply.status} ${JSON.stringify(reply.body)}`);
    return String(reply.body['id']);
  }

  end(broker: BrokerProcess, task: string, how = 'complete'): Promise<Reply> {
    return this.request(broker, 'POST', `/v1/tasks/${task}/${how}`, this.svid('/orchestrator/workflow'), {});
  }

  mint(broker: BrokerProcess, task: string): Promise<Reply> {
    return this.#send(`${broker.url}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: this.svid('/agent/refunds'),
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        resource: ORDERS,
        scope: `task:${task}`,
      }),
    });
  }

  /** Whether the owner of the audience is told that the token is good. A 503 tells nothing, and is asked again. */
  async isActive(broker: BrokerProcess, token: string): Promise<boolean> {
    const form = () =>
      new URLSearchParams({
        token,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe',
        client_assertion: this.svid('/tool/orders'),
      });
    let reply: Reply | undefined;
    await until('introspection answers', 10_000, async () => {
      reply = await this.#send(`${broker.url}/oauth2/introspect`, { method: 'POST', body: form() });
      return reply.status !== 503;
    });
    if (reply?.status !== 200)
      throw new Error(`introspection: ${reply?.status} ${JSON.stringify(reply?.body)}\n${broker.said().slice(-2_000)}`);
    return reply.body['active'] === true;
  }

  /** A request of a development operator, bound to a key as locks and revocations demand. */
  async operate(
    broker: BrokerProcess,
    method: string,
    path: string,
    body?: unknown,
    person = 'operator-1',
  ): Promise<Reply> {
    const prover = new DpopProver();
    const proof = (at: string, how: string, accessToken?: string) =>
      prover.prove({
        method: how,
        url: `${this.issuer}${at}`,
        nowMs: Date.now(),
        ...(accessToken !== undefined && { accessToken }),
      });
    const subject = this.#trustDomain.personToken({
      subject: person,
      groups: ['mayfly-operators'],
      audience: this.issuer,
      ttlSeconds: 300,
    });
    const minted = await this.#send(`${broker.url}/oauth2/token`, {
      method: 'POST',
      headers: { DPoP: proof('/oauth2/token', 'POST') },
      body: new URLSearchParams({
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: subject,
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        resource: this.issuer,
      }),
    });
    if (minted.status !== 200) return minted;
    const token = String(minted.body['access_token']);
    const [plain] = path.split('?') as [string];
    return this.#send(`${broker.url}${path}`, {
      method,
      headers: {
        Authorization: `DPoP ${token}`,
        DPoP: proof(plain, method, token),
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#running].map((broker) => broker.kill()));
    rmSync(this.dir, { recursive: true, force: true });
  }

  async #send(url: string, init: RequestInit): Promise<Reply> {
    const startedAtMs = performance.now();
    const reply = await fetch(url, init);
    const text = await reply.text();
    return {
      status: reply.status,
      headers: reply.headers,
      body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
      tookMs: performance.now() - startedAtMs,
    };
  }
}

/** Waits for a condition, looking often; what throws counts as not yet, and is told when time is up. */
export async function until(what: string, withinMs: number, holds: () => Promise<boolean> | boolean): Promise<void> {
  const endMs = performance.now() + withinMs;
  let last: unknown = 'it never held';
  while (performance.now() < endMs) {
    try {
      if (await holds()) return;
    } catch (error) {
      last = error;
    }
    await delay(50);
  }
  throw new Error(`not within ${withinMs} ms: ${what} (${String(last)})`);
}
