import { createPrivateKey, X509Certificate } from 'node:crypto';
import { request } from 'node:https';
import { readAll } from '../../src/plugins/identity/der.js';
import { openRefund, type PeerBroker, startPeerBroker } from './brokers.js';
import { eventually, haveSpire, type Spire, startSpire, TRUST_DOMAIN } from './spire.js';

const AGENT = `spiffe://${TRUST_DOMAIN}/agent/refunds`;
const ORDERS = 'https://orders.example';

(haveSpire ? describe : describe.skip)('a workload of a real SPIRE', () => {
  let spire: Spire;
  let broker: PeerBroker;

  beforeAll(async () => {
    spire = await startSpire('/agent/refunds');
    broker = await startPeerBroker({
      trustDomains: [{ name: TRUST_DOMAIN, source: { kind: 'workload_api', socket: `unix://${spire.socket}` } }],
      bundle: (path, content) =>
        path === 'agents/refunds.yaml' ? content.replace('spiffe://dev.mayfly/agent/refunds', AGENT) : content,
    });
  }, 120_000);

  afterAll(async () => {
    await broker?.close();
    await spire?.stop();
  });

  it('exchanges its JWT-SVID for a task token', async () => {
    const task = await openRefund(broker, AGENT);
    const minted = await exchange(task);
    expect(claimsOf(minted['access_token'])).toMatchObject({
      sub: AGENT,
      client_id: AGENT,
      aud: ORDERS,
      scope: 'orders.read',
    });
    expect(claimsOf(minted['access_token'])).not.toHaveProperty('cnf');
  });

  it('gets a token with its X.509-SVID over mTLS, bound to that certificate', async () => {
    const task = await openRefund(broker, AGENT);
    const svid = await spire.x509Svid();
    const leaf = new X509Certificate(readAll(svid.chain)[0]?.whole as Buffer);
    const minted = await overMtls(task, svid);
    const { cnf } = claimsOf(minted['access_token']) as { cnf: Record<string, string> };
    const thumbprint = Buffer.from(leaf.fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
    expect(cnf).toEqual({ 'x5t#S256': thumbprint });
  });

  it('is never refused while SPIRE rotates its JWT and X.509 authorities', async () => {
    const task = await openRefund(broker, AGENT);
    for (const kind of ['jwt', 'x509'] as const) {
      const before = idOf(await spire.server('localauthority', kind, 'show'), 'active');
      await spire.server('localauthority', kind, 'prepare');
      const prepared = idOf(await spire.server('localauthority', kind, 'show'), 'prepared');
      await spire.server('localauthority', kind, 'activate', '-authorityID', prepared);
      // What was issued before goes on, and so does what is issued now.
      for (let round = 0; round < 3; round++) {
        if (kind === 'jwt') await exchange(task);
        else await overMtls(task, await spire.x509Svid());
      }
      expect(before).not.toBe(prepared);
    }
  }, 60_000);

  async function exchange(task: string): Promise<Record<string, string>> {
    // SPIRE spreads a new authority within seconds; the broker follows as it is told. Nobody is refused for long.
    return eventually(async () => {
      const reply = await fetch(`${broker.issuer}/oauth2/token`, {
        method: 'POST',
        body: new URLSearchParams({
          grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
          subject_token: await spire.jwtSvid(broker.issuer),
          subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
          resource: ORDERS,
          scope: `task:${task}`,
        }),
      });
      const body = (await reply.json()) as Record<string, string>;
      if (!reply.ok) throw new Error(JSON.stringify(body));
      return body;
    });
  }

  function overMtls(task: string, svid: { chain: Buffer; key: Buffer }): Promise<Record<string, string>> {
    const cert = readAll(svid.chain)
      .map(({ whole }) => new X509Certificate(whole).toString())
      .join('');
    const key = createPrivateKey({ key: svid.key, format: 'der', type: 'pkcs8' }).export({
      format: 'pem',
      type: 'pkcs8',
    });
    const form = new URLSearchParams({
      grant_type: 'client_credentials',
      client_id: AGENT,
      resource: ORDERS,
      scope: `task:${task}`,
    });
    return new Promise((resolve, reject) => {
      const sent = request(
        `${broker.mtlsUrl}/oauth2/token`,
        {
          method: 'POST',
          cert,
          key,
          ca: broker.trustDomain.caPem,
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
        },
        (reply) => {
          let text = '';
          reply.on('data', (chunk) => (text += String(chunk)));
          reply.on('end', () => (reply.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text))));
        },
      );
      sent.on('error', reject);
      sent.end(form.toString());
    });
  }
});

function claimsOf(token: string | undefined): Record<string, unknown> {
  return JSON.parse(Buffer.from((token ?? '').split('.')[1] ?? '', 'base64url').toString());
}

function idOf(shown: Record<string, unknown>, state: 'active' | 'prepared'): string {
  return (shown[state] as { authority_id: string }).authority_id;
}
