import { X509Certificate } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import { credentialName } from '../../src/core/credential.js';
import {
  accessorOf,
  type Bao,
  backendOf,
  brokerToken,
  type Database,
  databaseRole,
  describeVault,
  findAll,
  INSTALLATION,
  issue,
  type Lease,
  setUpOrders,
  startBao,
  startDatabase,
  type TestBackend,
  tokenRole,
  within,
} from './vault-world.js';

describeVault('a secret of another engine of a real OpenBao', () => {
  let bao: Bao;
  let backend: TestBackend;

  beforeAll(async () => {
    bao = await startBao();
    await bao.set('secret/data/team/api', { data: { key: 'first', attempts: 3, nested: { deep: true }, none: null } });
    await tokenRole(bao, 'mayfly-kv', 'path "secret/data/team/api" { capabilities = ["read"] }');
    await bao.set('sys/mounts/pki', { type: 'pki' });
    await bao.set('pki/root/generate/internal', { common_name: 'Root of the test', ttl: '1h' });
    const pkiRole = { allowed_domains: ['orders.example'], allow_subdomains: true, max_ttl: '1h' };
    await bao.set('pki/roles/orders', pkiRole);
    await bao.set('pki/roles/leased', { ...pkiRole, generate_lease: true });
    await bao.set('pki/roles/unstored', { ...pkiRole, no_store: true });
    await tokenRole(bao, 'mayfly-pki', 'path "pki/issue/*" { capabilities = ["update"] }');
    await bao.set('sys/mounts/ssh', { type: 'ssh' });
    await bao.set('ssh/config/ca', { generate_signing_key: true });
    await bao.set('ssh/roles/deploy', {
      key_type: 'ca',
      allow_user_certificates: true,
      allowed_users: 'deploy',
      ttl: '10m',
      default_user: 'deploy',
    });
    await tokenRole(bao, 'mayfly-ssh', 'path "ssh/issue/deploy" { capabilities = ["update"] }');
    backend = backendOf({
      address: bao.address,
      auth: { method: 'token', token_file: (await brokerToken(bao, ['root'])).file },
    });
  }, 60_000);

  afterAll(async () => {
    await backend?.close();
    bao?.close();
  });

  const check = async (settings: Record<string, unknown>) =>
    await backend.check({ name: 'it', settings: backend.secretSettings.parse(settings) }, within());

  const isTokenThere = async ({ handle }: Lease) =>
    (await bao.ask('POST', 'auth/token/lookup-accessor', { accessor: accessorOf({ handle }) })).status === 200;

  describe('of KV version 2', () => {
    const settings = { engine: 'kv', path: 'team/api', token_role: 'mayfly-kv' };

    it('is the value, flat, with its version and a warning, and is called rotate-only', async () => {
      expect(await check(settings)).toEqual([]);
      expect(backend.revocability(backend.secretSettings.parse(settings))).toEqual({ kind: 'rotate-only' });
      const { lease, data, issued } = await issue(backend, settings);
      expect(data).toEqual({ key: 'first', attempts: 3, nested: '{"deep":true}' });
      expect(lease.handle['version']).toBe('1');
      expect(issued).toMatchObject({ renewable: false, warnings: [expect.stringContaining('static value')] });
    });

    it('is never called gone by revoking it, which takes its token', async () => {
      const { lease } = await issue(backend, settings);
      expect(await isTokenThere(lease)).toBe(true);
      await backend.revoke(lease, within());
      expect(await isTokenThere(lease)).toBe(false);
      expect(await backend.confirm(lease, within())).toEqual({ state: 'unknowable' });
      expect(backend.covers?.(lease)).toBe(false);
    });

    it('is gone once its value was changed, and not before; and what never left the broker with its token', async () => {
      const rotating = { ...settings, path: 'team/rotating' };
      await tokenRole(bao, 'mayfly-kv', 'path "secret/data/team/*" { capabilities = ["read"] }');
      await bao.set('secret/data/team/rotating', { data: { key: 'x' } });
      const { lease } = await issue(backend, rotating);
      expect(await backend.confirm(lease, within())).toEqual({ state: 'unknowable' });
      const { version: _, ...known } = lease.handle;
      const lost = { ...lease, handle: known };
      expect(await backend.confirm(lost, within())).toMatchObject({ state: 'there' });
      await backend.revoke(lost, within());
      expect(await backend.confirm(lost, within())).toEqual({ state: 'gone' });
      expect(await backend.confirm(lease, within())).toEqual({ state: 'unknowable' });
      await bao.set('secret/data/team/rotating', { data: { key: 'y' } });
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
    });

    it('that is not there, or was deleted, is refused', async () => {
      await expect(issue(backend, { ...settings, path: 'team/other' })).rejects.toMatchObject({
        name: 'BackendProblem',
      });
      await bao.set('secret/data/team/gone', { data: { key: 'x' } });
      await bao.ask('DELETE', 'secret/data/team/gone');
      await tokenRole(bao, 'mayfly-kv', 'path "secret/data/team/*" { capabilities = ["read"] }');
      await expect(issue(backend, { ...settings, path: 'team/gone' })).rejects.toMatchObject({
        name: 'BackendProblem',
      });
    });
  });

  describe('of PKI', () => {
    const settings = {
      engine: 'pki',
      role: 'orders',
      token_role: 'mayfly-pki',
      common_name: 'a.orders.example',
      checked_within_seconds: 3_600,
    };

    it('is a certificate that ends no later than ordered, and is revoked by its serial number', async () => {
      expect(await check(settings)).toEqual([]);
      expect(backend.revocability(backend.secretSettings.parse(settings))).toEqual({
        kind: 'eventual',
        withinMs: 3_600_000,
      });
      const { lease, data, issued } = await issue(backend, settings, { ttlMs: 120_000 });
      const certificate = new X509Certificate(String(data['certificate']));
      expect(certificate.subject).toBe('CN=a.orders.example');
      expect(Date.parse(certificate.validTo)).toBeLessThanOrEqual(lease.expiresAtMs + 1_000);
      expect(issued.expiresAtMs).toBeLessThanOrEqual(Date.now() + 120_000);
      expect(String(data['private_key'])).toContain('PRIVATE KEY');
      expect(JSON.stringify(lease.handle)).not.toContain('PRIVATE KEY');
      expect(await backend.confirm(lease, within())).toMatchObject({
        state: 'there',
        detail: 'its certificate is not revoked',
      });
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
      const { body } = await bao.ask('GET', `pki/cert/${String(data['serial_number'])}`);
      expect(body.data.revocation_time).toBeGreaterThan(0);
      await backend.revoke(lease, within());
      expect(await isTokenThere(lease)).toBe(false);
    });

    it('with leases is revoked by its lease, and the certificate is asked for all the same', async () => {
      const { lease, data } = await issue(backend, { ...settings, role: 'leased' });
      expect(lease.handle['lease']).toMatch(/^pki\/issue\/leased\//);
      expect((await findAll(backend)).map(({ handle }) => handle['lease'])).toContain(lease.handle['lease']);
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
      expect(
        (await bao.ask('GET', `pki/cert/${String(data['serial_number'])}`)).body.data.revocation_time,
      ).toBeGreaterThan(0);
    });

    it('whose answer was lost cannot be asked for, and nobody says that it is gone', async () => {
      const { lease } = await issue(backend, settings);
      const { serial: _, pki: __, ...known } = lease.handle;
      await backend.revoke({ ...lease, handle: known }, within());
      expect(await backend.confirm({ ...lease, handle: known }, within())).toEqual({
        state: 'unknowable',
        untilMs: lease.expiresAtMs,
      });
    });

    it('that nobody checks only expires, revoked or not', async () => {
      const { checked_within_seconds: _, ...unchecked } = settings;
      expect(backend.revocability(backend.secretSettings.parse(unchecked))).toMatchObject({ kind: 'expiry-only' });
      const { lease } = await issue(backend, unchecked);
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'unknowable', untilMs: lease.expiresAtMs });
    });

    it('of a role that keeps no certificates does not pass its check', async () => {
      expect(await check({ ...settings, role: 'unstored' })).toEqual([
        expect.stringMatching(/no_store=false|revoke its certificate/),
      ]);
    });

    it('of a name that its role does not allow is refused', async () => {
      await expect(issue(backend, { ...settings, common_name: 'elsewhere.example' })).rejects.toMatchObject({
        kind: 'failed',
      });
    });
  });

  describe('of SSH', () => {
    const settings = { engine: 'ssh', role: 'deploy', token_role: 'mayfly-ssh', valid_principals: ['deploy'] };

    it('is a key pair with a certificate that carries the name of its lease and only expires', async () => {
      expect(await check(settings)).toEqual([]);
      expect(backend.revocability(backend.secretSettings.parse(settings))).toMatchObject({ kind: 'expiry-only' });
      const { lease, data, issued } = await issue(backend, settings, { ttlMs: 60_000 });
      expect(String(data['private_key'])).toContain('PRIVATE KEY');
      const blob = Buffer.from(String(data['signed_key']).split(' ')[1] as string, 'base64').toString('latin1');
      expect(blob).toContain(credentialName(INSTALLATION, lease.leaseId).replaceAll('_', '-'));
      expect(issued.expiresAtMs).toBeLessThanOrEqual(Date.now() + 60_000);
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'unknowable', untilMs: lease.expiresAtMs });
    });

    it('for a user that its role does not allow is refused', async () => {
      await expect(issue(backend, { ...settings, valid_principals: ['root'] })).rejects.toMatchObject({
        kind: 'failed',
      });
    });
  });

  describe('of any other path', () => {
    it('is asked as its declaration says, the seconds ordered in its place, and is taken back by its lease', async () => {
      const settings = {
        engine: 'path',
        method: 'POST',
        path: 'pki/issue/leased',
        body: { common_name: 'b.orders.example', ttl: '{ttl}' },
        revoke: 'lease',
        revocability: { kind: 'eventual', within_seconds: 60 },
        token_role: 'mayfly-pki',
      };
      expect(await check(settings)).toEqual([]);
      const { lease, data } = await issue(backend, settings, { ttlMs: 90_000 });
      const { validFrom, validTo } = new X509Certificate(String(data['certificate']));
      // The engine lets it begin 30 s before.
      expect(Date.parse(validTo) - Date.parse(validFrom)).toBeLessThanOrEqual(120_000);
      expect(await backend.confirm(lease, within())).toMatchObject({ state: 'there' });
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
    });

    it('that gives no lease though it is to be revoked by one is refused, by its check and at an issue', async () => {
      const settings = {
        engine: 'path',
        path: 'secret/data/team/api',
        revoke: 'lease',
        revocability: { kind: 'instant' },
        token_role: 'mayfly-kv',
      };
      expect(await check(settings)).toEqual([expect.stringContaining('without a lease')]);
      await expect(issue(backend, settings)).rejects.toMatchObject({ kind: 'misconfigured' });
    });

    it('that nothing revokes is what its declaration calls it', async () => {
      const settings = {
        engine: 'path',
        path: 'secret/data/team/api',
        revoke: 'none',
        revocability: { kind: 'rotate-only' },
        token_role: 'mayfly-kv',
      };
      const { lease } = await issue(backend, settings);
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'unknowable' });
    });
  });

  it.each([
    ['an engine that there is not', { engine: 'magic' }],
    ['a way out of the mount', { engine: 'kv', path: '../../sys/seal' }],
    ['an encoded way out', { engine: 'kv', path: 'a%2f..%2fsys' }],
    ['a query', { engine: 'kv', path: 'a?version=1' }],
    ['a slash in a role', { engine: 'database', role: 'a/b', host: 'h', database: 'd' }],
    ['a template in a token role', { engine: 'kv', path: 'a', token_role: '{{x}}' }],
    [
      'instant where nothing is revoked',
      { engine: 'path', path: 'a', revoke: 'none', revocability: { kind: 'instant' } },
    ],
    ['an unknown setting', { engine: 'kv', path: 'a', colour: 'red' }],
    ['no engine', {}],
  ])('is refused with %s', (_, settings) => {
    expect(backend.secretSettings.safeParse(settings).success).toBe(false);
  });

  it('is asked for at no other path than its own, though its handle were touched', async () => {
    const { lease } = await issue(backend, { engine: 'kv', path: 'team/api', token_role: 'mayfly-kv' });
    const hostile = {
      ...lease,
      handle: { ...lease.handle, revocability: 'instant', pki: '../sys', serial: 'aa/../../seal' },
    };
    await expect(backend.confirm(hostile, within())).rejects.toMatchObject({ kind: 'misconfigured' });
    expect((await bao.ask('GET', 'sys/health')).body.sealed).toBe(false);
  });

  describe('in a namespace', () => {
    let database: Database;

    beforeAll(async () => {
      database = await startDatabase();
      await bao.set('sys/namespaces/team-a', {});
      await setUpOrders(bao, database, 'team-a');
    }, 60_000);

    afterAll(async () => {
      await database?.close();
    });

    it('is issued, found, confirmed and revoked there, under the shipped policy, and nowhere else', async () => {
      const { file } = await brokerToken(bao, ['mayfly-broker'], 'team-a');
      const there = backendOf({
        address: bao.address,
        namespace: 'team-a',
        auth: { method: 'token', token_file: file },
      });
      const settings = {
        engine: 'database',
        role: 'orders',
        token_role: 'mayfly-orders',
        host: 'h',
        database: 'postgres',
      };
      expect(await there.check({ name: 'it', settings: there.secretSettings.parse(settings) }, within())).toEqual([]);
      const { lease, data } = await issue(there, settings);
      expect(await database.login(data)).toBeNull();
      expect((await findAll(there)).map(({ handle }) => handle)).toEqual([{ lease: lease.handle['lease'] }]);
      const outside = backendOf({ address: bao.address, auth: { method: 'token', token_file: file } });
      await expect(issue(outside, settings)).rejects.toMatchObject({ kind: 'forbidden' });
      await there.revoke(lease, within());
      expect(await there.confirm(lease, within())).toEqual({ state: 'gone' });
      expect(await database.login(data)).toBe('28P01');
      await Promise.all([there.close(), outside.close()]);
    });
  });

  it('that the server has given up on is told as such (a stand-in for that one answer, the rest being the real one)', async () => {
    const database = await startDatabase();
    let relay: Server | undefined;
    try {
      await setUpOrders(bao, database);
      await databaseRole(bao, 'orders');
      let stuck = '';
      relay = createServer((request, response) => {
        if (request.url?.startsWith('/v1/sys/leases?type=irrevocable')) {
          response.end(
            JSON.stringify({
              data: {
                lease_count: 2,
                leases: [{ lease_id: stuck, error: 'failed 6 times' }, { lease_id: 'other/creds/x/1' }],
              },
            }),
          );
          return;
        }
        const body: Buffer[] = [];
        request.on('data', (chunk) => body.push(chunk));
        request.on('end', async () => {
          const init = request.method === 'GET' ? {} : { body: Buffer.concat(body) };
          const reply = await fetch(`${bao.address}${request.url}`, {
            method: String(request.method),
            headers: { 'X-Vault-Token': String(request.headers['x-vault-token']) },
            ...init,
          });
          response.writeHead(reply.status).end(await reply.text());
        });
      });
      await new Promise<void>((resolve) => relay?.listen(0, '127.0.0.1', resolve));
      const address = `http://127.0.0.1:${(relay.address() as { port: number }).port}`;
      const behind = backendOf({
        address,
        auth: { method: 'token', token_file: (await brokerToken(bao, ['root'])).file },
      });
      const settings = {
        engine: 'database',
        role: 'orders',
        token_role: 'mayfly-orders',
        host: 'h',
        database: 'postgres',
      };
      const { lease } = await issue(behind, settings);
      stuck = String(lease.handle['lease']);
      const other = await issue(behind, settings);
      const found = await findAll(behind);
      expect(found.filter(({ givenUp }) => givenUp).map(({ handle }) => handle)).toEqual([{ lease: stuck }]);
      expect(found.map(({ handle }) => handle['lease'])).toContain(other.lease.handle['lease']);
      await behind.revoke(lease, within());
      await behind.revoke(other.lease, within());
      await behind.close();
    } finally {
      relay?.closeAllConnections();
      relay?.close();
      await database.close();
    }
  }, 60_000);
});
