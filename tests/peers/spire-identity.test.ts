import { X509Certificate } from 'node:crypto';
import { identityConfig } from '../../src/plugins/identity/config.js';
import type { PeerCertificates } from '../../src/plugins/identity/contract.js';
import { readAll } from '../../src/plugins/identity/der.js';
import { createIdentity } from '../../src/plugins/identity/identity.js';
import { eventually, haveSpire, type Spire, startSpire, TRUST_DOMAIN, type X509Svid } from './spire.js';

const BROKER = 'https://mayfly.example';
const PATH = '/agent/refunds';

const peerOf = (svid: X509Svid): PeerCertificates => {
  const [leaf, ...chain] = readAll(svid.chain).map(({ whole }) => new X509Certificate(whole));
  return { leaf: leaf as X509Certificate, chain };
};

/** Polls a condition of a system that takes seconds to spread its news. */
const holds = (condition: () => boolean | Promise<boolean>) =>
  eventually(async () => {
    if (!(await condition())) throw new Error('not yet');
  });

(haveSpire ? describe : describe.skip)('a real SPIRE', () => {
  let spire: Spire;
  let identity: Awaited<ReturnType<typeof createIdentity>>;
  const gone: string[] = [];

  beforeAll(async () => {
    spire = await startSpire(PATH);
    identity = await createIdentity(
      identityConfig.parse({
        trust_domains: [{ name: TRUST_DOMAIN, source: { kind: 'workload_api', socket: `unix://${spire.socket}` } }],
      }),
      { clock: { now: () => Date.now() }, issuer: BROKER },
    );
    identity.bundles.onKeysGone((ids) => gone.push(...ids));
  }, 90_000);

  afterAll(async () => {
    await identity?.bundles.close();
    await spire?.stop();
  });

  it('its JWT-SVID for this broker proves the workload, and one for anybody else does not', async () => {
    expect(await identity.proof.workloadJwt(await spire.jwtSvid(BROKER))).toMatchObject({
      proof: 'jwt-svid',
      spiffeId: `spiffe://${TRUST_DOMAIN}${PATH}`,
    });
    await expect(identity.proof.jwt(await spire.jwtSvid('https://other.example'))).rejects.toMatchObject({
      code: 'identity_rejected',
      detail: { reason: expect.stringMatching(/^SPF-J-6/) },
    });
  });

  it('its X.509-SVID proves the workload', async () => {
    expect(identity.proof.x509(peerOf(await spire.x509Svid()))).toMatchObject({
      proof: 'x509-svid',
      spiffeId: `spiffe://${TRUST_DOMAIN}${PATH}`,
    });
  });

  it('a JWT key that is rotated refuses nobody, and one that is revoked refuses what it signed', async () => {
    const audience = BROKER;
    const old = await spire.jwtSvid(audience);
    const oldKey = (await identity.proof.workloadJwt(old)).keyId;
    const prepared = (await spire.server('localauthority', 'jwt', 'prepare')) as {
      prepared_authority: { authority_id: string };
    };
    await spire.server('localauthority', 'jwt', 'activate', '-authorityID', prepared.prepared_authority.authority_id);
    await identity.proof.workloadJwt(old);
    await spire.server('localauthority', 'jwt', 'taint', '-authorityID', oldKey.split('#')[1] as string);
    await holds(async () => (await identity.proof.workloadJwt(await spire.jwtSvid(audience))).keyId !== oldKey);
    await spire.server('localauthority', 'jwt', 'revoke', '-authorityID', oldKey.split('#')[1] as string);
    await holds(() => gone.includes(oldKey));
    await expect(identity.proof.jwt(old)).rejects.toMatchObject({ code: 'identity_rejected' });
    await identity.proof.workloadJwt(await spire.jwtSvid(audience));
  }, 120_000);

  it('a CA that is rotated refuses nobody, and one that is revoked refuses what it signed', async () => {
    const old = await spire.x509Svid();
    const oldKey = identity.proof.x509(peerOf(old)).keyId;
    const before = (await spire.server('localauthority', 'x509', 'show')) as { active: { authority_id: string } };
    const prepared = (await spire.server('localauthority', 'x509', 'prepare')) as {
      prepared_authority: { authority_id: string };
    };
    await spire.server('localauthority', 'x509', 'activate', '-authorityID', prepared.prepared_authority.authority_id);
    identity.proof.x509(peerOf(old));
    await spire.server('localauthority', 'x509', 'taint', '-authorityID', before.active.authority_id);
    await holds(async () => identity.proof.x509(peerOf(await spire.x509Svid())).keyId !== oldKey);
    identity.proof.x509(peerOf(old));
    await spire.server('localauthority', 'x509', 'revoke', '-authorityID', before.active.authority_id);
    await holds(() => gone.includes(oldKey));
    expect(() => identity.proof.x509(peerOf(old))).toThrow(expect.objectContaining({ code: 'identity_rejected' }));
    identity.proof.x509(peerOf(await spire.x509Svid()));
  }, 120_000);
});

if (!haveSpire) process.stderr.write('not run, SPIRE is not here: scripts/peers.sh spire\n');
