import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/main/dev/redis-process.js';
import { openRefund, type PeerBroker, startPeerBroker } from './brokers.js';
import { eventually } from './spire.js';

const BAO = join(process.env['MAYFLY_PEERS_DIR'] ?? join(homedir(), '.cache/mayfly-peers'), 'bin/bao');
const AGENT = 'spiffe://dev.mayfly/agent/refunds';
const ORDERS = 'https://orders.example';
const ROOT = 'root-of-the-test';

(existsSync(BAO) ? describe : describe.skip)('the JWT auth of a real OpenBao', () => {
  let broker: PeerBroker;
  let bao: ChildProcess;
  let address: string;

  beforeAll(async () => {
    broker = await startPeerBroker({});
    address = `127.0.0.1:${await freePort()}`;
    bao = spawn(
      BAO,
      ['server', '-dev', `-dev-root-token-id=${ROOT}`, `-dev-listen-address=${address}`, '-dev-no-store-token'],
      { stdio: 'ignore' },
    );
    await eventually(async () => {
      const reply = await fetch(`http://${address}/v1/sys/health`);
      if (!reply.ok) throw new Error('not up yet');
    });
    await configure('sys/auth/jwt', { type: 'jwt' });
    // Found by OpenID discovery, as anything that trusts OIDC would find it.
    await configure('auth/jwt/config', { oidc_discovery_url: broker.issuer, bound_issuer: broker.issuer });
    await configure('auth/jwt/role/orders', {
      role_type: 'jwt',
      bound_audiences: [ORDERS],
      bound_subject: AGENT,
      user_claim: 'client_id',
      token_ttl: '1m',
    });
  }, 60_000);

  afterAll(async () => {
    bao?.kill('SIGKILL');
    await broker?.close();
  });

  it('finds our keys by discovery and takes a task token', async () => {
    const reply = await login(await mint());
    expect(reply).toMatchObject({
      status: 200,
      body: { auth: { client_token: expect.any(String), metadata: { role: 'orders' } } },
    });
  });

  it('refuses one whose signature was touched, one for another audience, and a text that is none', async () => {
    const token = await mint();
    const [header, payload, signature] = token.split('.') as [string, string, string];
    const touched = `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    expect((await login(touched)).status).toBe(400);
    const other = Buffer.from(
      JSON.stringify({ ...JSON.parse(Buffer.from(payload, 'base64url').toString()), aud: 'https://other.example' }),
    );
    expect((await login(`${header}.${other.toString('base64url')}.${signature}`)).status).toBe(400);
    expect((await login('nothing')).status).toBe(400);
  });

  async function mint(): Promise<string> {
    const { issuer, trustDomain } = broker;
    const task = await openRefund(broker, AGENT);
    const reply = await fetch(`${issuer}/oauth2/token`, {
      method: 'POST',
      body: new URLSearchParams({
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: trustDomain.jwtSvid({ path: '/agent/refunds', audience: issuer, ttlSeconds: 300 }),
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        resource: ORDERS,
        scope: `task:${task}`,
      }),
    });
    return ((await reply.json()) as { access_token: string }).access_token;
  }

  async function login(jwt: string): Promise<{ status: number; body: unknown }> {
    const reply = await fetch(`http://${address}/v1/auth/jwt/login`, {
      method: 'POST',
      body: JSON.stringify({ role: 'orders', jwt }),
    });
    return { status: reply.status, body: await reply.json() };
  }

  async function configure(path: string, body: unknown): Promise<void> {
    const reply = await fetch(`http://${address}/v1/${path}`, {
      method: 'POST',
      headers: { 'X-Vault-Token': ROOT },
      body: JSON.stringify(body),
    });
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
  }
});
