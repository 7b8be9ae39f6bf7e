import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import { openRefund, type PeerBroker, startPeerBroker } from './brokers.js';
import { eventually } from './spire.js';

const BAO = join(process.env['MAYFLY_PEERS_DIR'] ?? join(homedir(), '.cache/mayfly-peers'), 'bin/bao');
const AGENT = 'spiffe://dev.mayfly/agent/refunds';
const ORDERS = 'https://orders.example';
const ROOT = 'root-of-the-test';

/** How something that trusts OpenID issuers can come to trust ours. */
const WAYS = [
  { way: 'discovery over http', tls: false, config: ({ issuer }: PeerBroker) => ({ oidc_discovery_url: issuer }) },
  {
    way: 'discovery over https',
    tls: true,
    config: ({ issuer, trustDomain }: PeerBroker) => ({
      oidc_discovery_url: issuer,
      oidc_discovery_ca_pem: trustDomain.caPem,
    }),
  },
  {
    way: 'the address of the keys',
    tls: true,
    config: ({ issuer, trustDomain }: PeerBroker) => ({
      jwks_url: `${issuer}/.well-known/jwks.json`,
      jwks_ca_pem: trustDomain.caPem,
      bound_issuer: issuer,
    }),
  },
];

(existsSync(BAO) ? describe : describe.skip)('the JWT auth of a real OpenBao', () => {
  const brokers = new Map<boolean, PeerBroker>();
  let bao: ChildProcess;
  let address: string;

  beforeAll(async () => {
    for (const tls of [false, true]) brokers.set(tls, await startPeerBroker({ tls }));
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
  }, 60_000);

  afterAll(async () => {
    bao?.kill('SIGKILL');
    for (const broker of brokers.values()) await broker.close();
  });

  describe.each(WAYS)('that found our keys by $way', ({ way, tls, config }) => {
    const mount = way.replaceAll(' ', '-');
    let broker: PeerBroker;

    beforeAll(async () => {
      broker = brokers.get(tls) as PeerBroker;
      await configure(`sys/auth/${mount}`, { type: 'jwt' });
      await configure(`auth/${mount}/config`, config(broker));
      await configure(`auth/${mount}/role/orders`, {
        role_type: 'jwt',
        bound_audiences: [ORDERS],
        bound_subject: AGENT,
        user_claim: 'client_id',
        bound_claims: { scope: 'orders.read' },
        clock_skew_leeway: -1,
        token_ttl: '1m',
      });
    });

    it('takes a task token', async () => {
      const reply = await login(await mint());
      expect(reply).toMatchObject({
        status: 200,
        body: { auth: { client_token: expect.any(String), metadata: { role: 'orders' } } },
      });
    });

    it('refuses one whose signature or content was touched, and a text that is none', async () => {
      const [header, payload, signature] = (await mint()).split('.') as [string, string, string];
      const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
      const longer = Buffer.from(JSON.stringify({ ...claims, exp: claims.exp + 600 })).toString('base64url');
      for (const jwt of [
        `${header}.${payload}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`,
        `${header}.${longer}.${signature}`,
        `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`,
        'nothing',
      ]) {
        expect((await login(jwt)).status).toBe(400);
      }
    });

    it('refuses the token of another audience, and the SVID that a token was minted for', async () => {
      expect((await login(await mint({ resource: broker.issuer }))).status).toBe(400);
      const { issuer, trustDomain } = broker;
      const svid = trustDomain.jwtSvid({ path: '/agent/refunds', audience: issuer, ttlSeconds: 300 });
      expect((await login(svid)).status).toBe(400);
    });

    it('refuses a token once it has expired, which is no later than its task', async () => {
      const jwt = await mint({}, 5);
      expect((await login(jwt)).status).toBe(200);
      await eventually(async () => {
        const { status } = await login(jwt);
        if (status !== 400) throw new Error(`still ${status}`);
      });
    });

    async function mint(more: Record<string, string> = {}, taskSeconds = 300): Promise<string> {
      const { issuer, trustDomain } = broker;
      const task = await openRefund(broker, AGENT, taskSeconds);
      const reply = await broker.fetch(`${issuer}/oauth2/token`, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: trustDomain.jwtSvid({ path: '/agent/refunds', audience: issuer, ttlSeconds: 300 }),
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
          resource: ORDERS,
          scope: `task:${task}`,
          ...more,
        }).toString(),
      });
      if (reply.status !== 200) throw new Error(await reply.text());
      return ((await reply.json()) as { access_token: string }).access_token;
    }

    async function login(jwt: string): Promise<{ status: number; body: unknown }> {
      const reply = await fetch(`http://${address}/v1/auth/${mount}/login`, {
        method: 'POST',
        body: JSON.stringify({ role: 'orders', jwt }),
      });
      return { status: reply.status, body: await reply.json() };
    }
  });

  async function configure(path: string, body: unknown): Promise<void> {
    const reply = await fetch(`http://${address}/v1/${path}`, {
      method: 'POST',
      headers: { 'X-Vault-Token': ROOT },
      body: JSON.stringify(body),
    });
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
  }
});
