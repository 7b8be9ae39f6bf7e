import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../src/main/dev/free-port.js';
import { type DevTrustDomain, openDevTrustDomain } from '../../src/main/dev/trust-domain.js';
import { type Bao, backendOf, brokerToken, describeVault, issue, startBao, tokenRole, within } from './vault-world.js';

const KV = { engine: 'kv', path: 'api', token_role: 'mayfly-kv' };

describeVault('a real OpenBao that asks for a client certificate', () => {
  let bao: Bao;
  let dir: string;
  let address: string;
  let token: string;
  let trustDomain: DevTrustDomain;

  const fileOf = (name: string, pem: string) => {
    writeFileSync(join(dir, name), pem, { mode: 0o600 });
    return join(dir, name);
  };

  const backendBy = (tls: Record<string, string>) =>
    backendOf({ address, auth: { method: 'token', token_file: token }, revoke_timeout_seconds: 2, ...tls });

  beforeAll(async () => {
    dir = mkdtempSync(join(tmpdir(), 'mayfly-vault-tls-'));
    trustDomain = await openDevTrustDomain(join(dir, 'trust'));
    const { certPem, keyPem } = await trustDomain.tlsServer(['127.0.0.1']);
    const port = await freePort();
    address = `https://127.0.0.1:${port}`;
    const listener = `listener "tcp" {
      address = "127.0.0.1:${port}"
      tls_cert_file = "${fileOf('server.pem', certPem)}"
      tls_key_file = "${fileOf('server.key', keyPem)}"
      tls_client_ca_file = "${fileOf('ca.pem', trustDomain.caPem)}"
      tls_require_and_verify_client_cert = true
    }`;
    bao = await startBao([`-config=${fileOf('bao.hcl', listener)}`]);
    await bao.set('secret/data/api', { data: { key: 'of-the-test' } });
    await tokenRole(bao, 'mayfly-kv', 'path "secret/data/api" { capabilities = ["read"] }');
    token = (await brokerToken(bao, ['root'])).file;
    await renewed(300);
  }, 60_000);

  afterAll(() => {
    bao?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  const renewed = async (ttlSeconds: number) => {
    const { certificatePem, keyPem } = await trustDomain.x509Svid({ path: '/mayfly', ttlSeconds });
    return {
      ca_file: join(dir, 'ca.pem'),
      cert_file: fileOf('svid.pem', certificatePem),
      key_file: fileOf('svid.key', keyPem),
    };
  };

  it('is spoken to with an SVID, over its own authority', async () => {
    const backend = backendBy(await renewed(300));
    const { lease, data } = await issue(backend, KV);
    expect(data).toEqual({ key: 'of-the-test' });
    await backend.revoke(lease, within());
    await backend.close();
  });

  it('is spoken to with the SVID that is in the files when a connection is made', async () => {
    const tls = await renewed(300);
    const backend = backendBy(tls);
    fileOf('svid.pem', 'no certificate');
    await expect(issue(backend, KV)).rejects.toMatchObject({ name: 'BackendProblem' });
    await renewed(300);
    await issue(backend, KV);
    await backend.close();
  });

  it('is not spoken to without a certificate of ours', async () => {
    const backend = backendBy({ ca_file: join(dir, 'ca.pem') });
    await expect(issue(backend, KV)).rejects.toMatchObject({ kind: 'unreachable' });
    await backend.close();
  });

  it('is not believed on the word of the public authorities, and nothing is sent', async () => {
    const { ca_file: _, ...own } = await renewed(300);
    const backend = backendBy(own);
    await expect(issue(backend, KV)).rejects.toMatchObject({ kind: 'unreachable', isSure: true });
    await backend.close();
  });

  it('is not spoken to when a file is missing, and the problem does not name its place', async () => {
    const tls = await renewed(300);
    const backend = backendBy({ ...tls, ca_file: join(dir, 'missing.pem') });
    const problem = await issue(backend, KV).catch((error) => error);
    expect(problem).toMatchObject({ kind: 'misconfigured', isSure: true, message: expect.stringContaining('ENOENT') });
    expect(problem.message).not.toContain(dir);
    await backend.close();
  });
});
