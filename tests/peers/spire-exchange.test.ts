import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeFetch } from '../../src/client/transport.js';
import { openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { readAll } from '../../src/plugins/identity/der.js';
import { openRefund, type PeerBroker, startPeerBroker } from './brokers.js';
import { eventually, haveSpire, type Spire, startSpire, TRUST_DOMAIN, type X509Svid } from './spire.js';

const AGENT = `spiffe://${TRUST_DOMAIN}/agent/refunds`;
const ORDERS = 'https://orders.example';
const SOURCES = ['workload_api', 'https_web', 'file'] as const;
const ATTEMPTS_MAX = 3;
const PACE_MS = 150;

type Authority = Record<string, { authority_id: string } | undefined>;
interface Minted {
  token: string;
  claims: Record<string, unknown>;
}

/* Three brokers believe one real SPIRE, each by another way: the agent's socket, the server's bundle endpoint, and an exported file. */
(haveSpire ? describe : describe.skip)('a workload of a real SPIRE', () => {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-spire-exchange-'));
  const bundlePath = join(folder, 'bundle.json');
  const brokers = {} as Record<(typeof SOURCES)[number], PeerBroker>;
  const tasks = {} as Record<(typeof SOURCES)[number], string>;
  let spire: Spire;

  beforeAll(async () => {
    const web = await openDevTrustDomain(folder);
    const { certPem, keyPem } = await web.tlsServer(['127.0.0.1']);
    const [certPath, keyPath] = [join(folder, 'endpoint.pem'), join(folder, 'endpoint.key')];
    writeFileSync(certPath, certPem);
    writeFileSync(keyPath, keyPem, { mode: 0o600 });
    spire = await startSpire('/agent/refunds', { certPath, keyPath });
    writeFileSync(bundlePath, await spire.exportedBundle());
    const source = {
      workload_api: { kind: 'workload_api', socket: `unix://${spire.socket}` },
      https_web: { kind: 'https_web', url: spire.bundleUrl, ca_file: web.caPath },
      file: { kind: 'file', path: bundlePath },
    };
    for (const name of SOURCES) {
      brokers[name] = await startPeerBroker({
        trustDomains: [{ name: TRUST_DOMAIN, source: source[name] }],
        bundle: (path, content) =>
          path === 'agents/refunds.yaml' ? content.replace('spiffe://dev.mayfly/agent/refunds', AGENT) : content,
      });
      tasks[name] = await openRefund(brokers[name], AGENT);
    }
  }, 120_000);

  afterAll(async () => {
    for (const broker of Object.values(brokers)) await broker.close();
    await spire?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it.each(SOURCES)('%s: exchanges its JWT-SVID for a task token', async (name) => {
    const { claims } = await exchange(name, await spire.jwtSvid(brokers[name].issuer));
    expect(claims).toMatchObject({ sub: AGENT, client_id: AGENT, aud: ORDERS, scope: 'orders.read' });
    expect(claims).not.toHaveProperty('cnf');
  });

  it.each(SOURCES)('%s: gets a token with its X.509-SVID over mTLS, bound to that certificate', async (name) => {
    const svid = await spire.x509Svid();
    const { claims } = await overMtls(name, svid);
    const thumbprint = Buffer.from(peerOf(svid).leaf.fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
    expect(claims).toMatchObject({ client_id: AGENT, cnf: { 'x5t#S256': thumbprint } });
  });

  it.each(SOURCES)('%s: an SVID for another audience, or of nobody’s registration, gets nothing', async (name) => {
    const elsewhere = await spire.jwtSvid('https://other.example');
    await expect(exchange(name, elsewhere)).rejects.toThrow(/400 .*invalid_request/);
    const [head, payload] = (await spire.jwtSvid(brokers[name].issuer)).split('.') as [string, string];
    await expect(exchange(name, `${head}.${payload}.${'A'.repeat(86)}`)).rejects.toThrow(/400 .*invalid_request/);
  });

  it('is never refused while SPIRE rotates its JWT authority; what the old key gave ends when it is revoked', async () => {
    const held = await each((name) => spire.jwtSvid(brokers[name].issuer));
    const given = await each((name) => exchange(name, held[name]));
    const traffic = keepAsking(async (name) => exchange(name, await spire.jwtSvid(brokers[name].issuer)));
    const { old, current } = await rotate('jwt');
    for (const name of SOURCES) expect((await exchange(name, held[name])).token).toBeTruthy();
    await spire.server('localauthority', 'jwt', 'taint', '-authorityID', old);
    await settled(async () => {
      const fresh = await each((name) => spire.jwtSvid(brokers[name].issuer));
      return SOURCES.every((name) => kidOf(fresh[name]) === current);
    });
    await revoke('jwt', old);
    expect(await traffic.stop()).toEqual([]);
    for (const name of SOURCES) {
      await expect(exchange(name, held[name])).rejects.toThrow(/400 .*invalid_request/);
      await settled(async () => !(await isActive(name, given[name])));
      expect(await isActive(name, await exchange(name, await spire.jwtSvid(brokers[name].issuer)))).toBe(true);
    }
  }, 90_000);

  it('is never refused while SPIRE rotates its X.509 authority; what the old one gave ends when it is revoked', async () => {
    const held = await spire.x509Svid();
    const keyId = keyIdOf(held);
    const given = await each((name) => overMtls(name, held));
    const traffic = keepAsking(async (name) => overMtls(name, await spire.x509Svid()));
    const { old } = await rotate('x509');
    for (const name of SOURCES) expect((await overMtls(name, held)).token).toBeTruthy();
    await spire.server('localauthority', 'x509', 'taint', '-authorityID', old);
    await settled(async () => keyIdOf(await spire.x509Svid()) !== keyId);
    await revoke('x509', old);
    expect(await traffic.stop()).toEqual([]);
    for (const name of SOURCES) {
      await expect(overMtls(name, held)).rejects.toThrow(/401 .*invalid_client/);
      await settled(async () => !(await isActive(name, given[name])));
      expect(await isActive(name, await overMtls(name, await spire.x509Svid()))).toBe(true);
    }
  }, 90_000);

  /** The new authority is published, every broker has it, and only then it signs. */
  async function rotate(kind: 'jwt' | 'x509'): Promise<{ old: string; current: string }> {
    const before = await each((name) => trusted(name));
    const old = idOf(await spire.server('localauthority', kind, 'show'), 'active');
    await spire.server('localauthority', kind, 'prepare');
    const current = idOf(await spire.server('localauthority', kind, 'show'), 'prepared');
    writeFileSync(bundlePath, await spire.exportedBundle());
    for (const name of SOURCES) await settled(() => trusted(name).length === before[name].length + 1);
    await spire.server('localauthority', kind, 'activate', '-authorityID', current);
    return { old, current };
  }

  async function revoke(kind: 'jwt' | 'x509', old: string): Promise<void> {
    const before = await each((name) => trusted(name));
    await spire.server('localauthority', kind, 'revoke', '-authorityID', old);
    writeFileSync(bundlePath, await spire.exportedBundle());
    for (const name of SOURCES) await settled(() => trusted(name).length === before[name].length - 1);
  }

  /** A store that is late on a busy machine says 503, come again: whoever does has to be let in. */
  async function comingAgain(ask: () => Promise<Minted>): Promise<Minted> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await ask();
      } catch (error) {
        if (attempt === ATTEMPTS_MAX || !/^Error: 503 /.test(String(error))) throw error;
      }
    }
  }

  /** Asks every broker again and again, and answers with all that was refused. */
  function keepAsking(ask: (name: (typeof SOURCES)[number]) => Promise<Minted>) {
    const refused: string[] = [];
    let isOver = false;
    let asked = 0;
    const loops = SOURCES.map(async (name) => {
      while (!isOver) {
        await comingAgain(() => ask(name)).catch((error: unknown) => refused.push(`${name}: ${String(error)}`));
        asked++;
        await new Promise((resolve) => setTimeout(resolve, PACE_MS));
      }
    });
    return {
      async stop() {
        isOver = true;
        await Promise.all(loops);
        expect(asked).toBeGreaterThan(SOURCES.length);
        return refused;
      },
    };
  }

  function trusted(name: (typeof SOURCES)[number]): string[] {
    const ids = brokers[name].running.parts.trustBundles.keyIds();
    return ids.filter((id) => id.startsWith(`${TRUST_DOMAIN}#`));
  }

  function keyIdOf(svid: X509Svid): string {
    return brokers.workload_api.running.parts.identity.x509(peerOf(svid)).keyId;
  }

  async function isActive(name: (typeof SOURCES)[number], { token }: Minted): Promise<boolean> {
    const { issuer, trustDomain } = brokers[name];
    const svid = trustDomain.jwtSvid({ path: '/tool/orders', audience: issuer, ttlSeconds: 300 });
    const reply = await fetch(`${issuer}/oauth2/introspect`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${svid}` },
      body: new URLSearchParams({ token }),
    });
    return ((await reply.json()) as { active: boolean }).active;
  }

  async function exchange(name: (typeof SOURCES)[number], svid: string): Promise<Minted> {
    return mintedBy(
      await fetch(`${brokers[name].issuer}/oauth2/token`, {
        method: 'POST',
        body: new URLSearchParams({
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: svid,
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
          resource: ORDERS,
          scope: `task:${tasks[name]}`,
        }),
      }),
    );
  }

  async function overMtls(name: (typeof SOURCES)[number], svid: X509Svid): Promise<Minted> {
    const { mtlsUrl, trustDomain } = brokers[name];
    const { leaf, chain } = peerOf(svid);
    const cert = [leaf, ...chain].map(String).join('');
    const key = createPrivateKey({ key: svid.key, format: 'der', type: 'pkcs8' }).export({
      format: 'pem',
      type: 'pkcs8',
    });
    const form = { grant_type: 'client_credentials', client_id: AGENT, resource: ORDERS, scope: `task:${tasks[name]}` };
    return mintedBy(
      await nodeFetch({ ca: trustDomain.caPem, cert, key })(`${mtlsUrl}/oauth2/token`, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded', connection: 'close' },
        body: new URLSearchParams(form).toString(),
      }),
    );
  }
});

async function mintedBy(reply: Response): Promise<Minted> {
  const text = await reply.text();
  if (reply.status !== 200) throw new Error(`${reply.status} ${text}`);
  const { access_token: token } = JSON.parse(text) as { access_token: string };
  return { token, claims: JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) };
}

async function each<Made>(make: (name: (typeof SOURCES)[number]) => Made | Promise<Made>) {
  const made = {} as Record<(typeof SOURCES)[number], Made>;
  for (const name of SOURCES) made[name] = await make(name);
  return made;
}

function settled(condition: () => boolean | Promise<boolean>): Promise<void> {
  return eventually(async () => {
    if (!(await condition())) throw new Error('not yet');
  });
}

function peerOf(svid: X509Svid) {
  const [leaf, ...chain] = readAll(svid.chain).map(({ whole }) => new X509Certificate(whole));
  return { leaf: leaf as X509Certificate, chain };
}

function kidOf(token: string): string {
  return JSON.parse(Buffer.from(token.split('.')[0] ?? '', 'base64url').toString()).kid;
}

function idOf(shown: Record<string, unknown>, state: 'active' | 'prepared'): string {
  return (shown as Authority)[state]?.authority_id ?? '';
}
