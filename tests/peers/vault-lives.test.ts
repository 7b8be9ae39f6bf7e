import type { Issued } from '../../src/plugins/backends/contract.js';
import { eventually } from './spire.js';
import {
  accessorOf,
  type Bao,
  backendOf,
  backendUnder,
  brokerToken,
  type Database,
  databaseRole,
  describeVault,
  issue,
  type Lease,
  type OrdersWorld,
  openOrders,
  type TestBackend,
  tokenRole,
  within,
} from './vault-world.js';

/** Renewing, probing and checking a secret of a real OpenBao and a real PostgreSQL. */
describeVault('a database secret of a real OpenBao', () => {
  let world: OrdersWorld;
  let bao: Bao;
  let database: Database;
  let backend: TestBackend;
  let orders: Record<string, unknown>;

  beforeAll(async () => {
    world = await openOrders();
    ({ bao, database, orders } = world);
    backend = world.newBackend();
  }, 60_000);

  afterAll(async () => {
    await backend?.close();
    await world?.close();
  });

  afterEach(() => world.clear());

  const validUntilMs = async (username: unknown) => {
    const [row = {}] = await database.query('select rolvaliduntil from pg_roles where rolname = $1', [username]);
    return (row['rolvaliduntil'] as Date).getTime();
  };

  const renew = async (lease: Lease, untilMs: number) => {
    const renewed = await backend.renew?.(lease, untilMs, within());
    if (renewed === undefined) throw new Error('it cannot renew');
    return renewed;
  };

  const probe = (lease: Lease, data: Issued['data']) => backend.probe?.(lease, data, within());

  describe('renewed', () => {
    it('lives on to the new end, and so do its token and its user', async () => {
      const { lease, data } = await issue(backend, orders, { ttlMs: 60_000 });
      const wishedMs = Date.now() + 1_800_000;
      const { expiresAtMs } = await renew(lease, wishedMs);
      expect(wishedMs - expiresAtMs).toBeLessThan(2_000);
      const { body } = await bao.ask('POST', 'auth/token/lookup-accessor', { accessor: accessorOf(lease) });
      expect(body.data.ttl).toBeGreaterThanOrEqual(1_800);
      expect(await validUntilMs(data['username'])).toBeGreaterThanOrEqual(expiresAtMs);
      await backend.revoke(lease, within());
      expect(await database.login(data)).toBe('28P01');
    });

    it('ends no later than its role allows, however long was wished', async () => {
      const { lease } = await issue(backend, orders);
      const { expiresAtMs } = await renew(lease, Date.now() + 7_200_000);
      expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 3_600_000);
      expect(expiresAtMs).toBeGreaterThan(Date.now() + 3_500_000);
    });

    it('ends no later than the longest life that its declaration gives it', async () => {
      const { lease } = await issue(backend, { ...orders, renewable_seconds_max: 400 }, { ttlMs: 60_000 });
      const { expiresAtMs } = await renew(lease, Date.now() + 1_800_000);
      expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 400_000);
      expect(expiresAtMs).toBeGreaterThan(Date.now() + 390_000);
    });

    it('ends no later than its token, where the token role sets a longest life', async () => {
      const root = await backendUnder(bao, ['root']);
      const policy = 'path "database/creds/orders" { capabilities = ["read"] }';
      await tokenRole(bao, 'capped', policy, { token_explicit_max_ttl: 300 });
      const { lease } = await issue(root, { ...orders, token_role: 'capped' }, { ttlMs: 60_000 });
      const { expiresAtMs } = (await root.renew?.(lease, Date.now() + 1_800_000, within())) ?? { expiresAtMs: 0 };
      expect(expiresAtMs).toBeLessThanOrEqual(Date.now() + 300_000);
      expect(expiresAtMs).toBeGreaterThan(Date.now() + 280_000);
      await root.close();
    });

    it.each([
      ['revoked', async (lease: Lease) => await backend.revoke(lease, within())],
      [
        'left without its token',
        async ({ handle }: Lease) => {
          await bao.set('auth/token/revoke-accessor', { accessor: accessorOf({ handle }) });
        },
      ],
    ])('after it was %s is refused, and does not come back', async (_, end) => {
      const { lease, data } = await issue(backend, orders);
      await end(lease);
      await expect(renew(lease, Date.now() + 600_000)).rejects.toMatchObject({
        name: 'BackendProblem',
      });
      await eventually(async () => {
        if ((await database.login(data)) !== '28P01') throw new Error('still there');
      });
    });

    it('is not offered when its declaration says so', async () => {
      const { issued } = await issue(backend, { ...orders, renewable_seconds_max: 0 });
      expect(issued.renewable).toBe(false);
    });
  });

  describe('probed', () => {
    it('is accepted while it lives, and refused once dead while the control is let in', async () => {
      const { lease, issued } = await issue(backend, orders);
      expect(await probe(lease, issued.data)).toEqual({
        credential: 'accepted',
        control: 'accepted',
      });
      await backend.revoke(lease, within());
      expect(await probe(lease, issued.data)).toEqual({
        credential: 'refused',
        control: 'accepted',
      });
      expect(await database.roles()).toEqual([]);
    });

    it('proves nothing when the database lets nobody in', async () => {
      const { lease, issued } = await issue(backend, orders);
      await backend.revoke(lease, within());
      // The engine is connected already and goes on making users; whoever comes anew is turned away.
      await database.query('alter database postgres allow_connections false', [], 'template1');
      try {
        expect(await probe(lease, issued.data)).toEqual({ credential: 'refused', control: 'refused' });
      } finally {
        await database.query('alter database postgres allow_connections true', [], 'template1');
      }
    });

    it('proves nothing where the way to the database is another than said', async () => {
      const { lease, issued } = await issue(backend, orders);
      await backend.revoke(lease, within());
      const wrong = { ...lease, handle: { ...lease.handle, probe: 'tls' } };
      expect(await probe(wrong, issued.data)).toEqual({ credential: 'unclear', control: 'refused' });
    });

    it('says nothing of what has no way to its database', async () => {
      const { lease, issued } = await issue(backend, { ...orders, probe: undefined });
      expect(await probe(lease, issued.data)).toEqual({ credential: 'unclear', control: 'refused' });
    });

    it('fails as a problem of the backend when the OpenBao gives no control', async () => {
      const { lease, issued } = await issue(backend, orders);
      await backend.revoke(lease, within());
      database.proxy.set('refuse');
      await expect(probe(lease, issued.data)).rejects.toMatchObject({ name: 'BackendProblem' });
    });
  });

  describe('checked', () => {
    const check = async (settings: Record<string, unknown>, by: TestBackend = backend) =>
      await by.check({ name: 'orders-db', settings: by.secretSettings.parse(settings) }, within());

    const wide = async () => {
      return await backendUnder(bao, ['root']);
    };

    it('has nothing wrong as the documentation sets it up, and leaves nothing behind', async () => {
      expect(await check(orders)).toEqual([]);
      expect(await database.roles()).toEqual([]);
      expect((await bao.ask('LIST', 'sys/leases/lookup/auth/token/create/mayfly-orders/')).status).toBe(404);
    });

    it.each([
      ['auth/token/create/mayfly-orders', 'lacks update on auth/token/create/mayfly-orders'],
      ['sys/leases/revoke', 'lacks update on sys/leases/revoke'],
      ['sys/leases/lookup/database/creds/orders/', 'lacks list and sudo on sys/leases/lookup/database/creds/orders/'],
      ['sys/leases', 'lacks read and sudo on sys/leases'],
      ['auth/token/revoke-accessor', 'lacks update on auth/token/revoke-accessor'],
    ])('says which right is missing: %s', async (path, said) => {
      await bao.policy(
        'lacking',
        `${(await bao.ask('GET', 'sys/policies/acl/mayfly-broker')).body.data.policy}\npath "${path}" { capabilities = ["deny"] }`,
      );
      const other = await backendUnder(bao, ['lacking']);
      expect(await check(orders, other)).toEqual([expect.stringContaining(said)]);
      await other.close();
    });

    it.each([
      ['orphan', { orphan: false }, 'set orphan=true'],
      ['batch', { token_type: 'batch', renewable: false }, 'status 400'],
      ['uses', { token_num_uses: 5 }, 'set token_num_uses=0'],
      ['root', { allowed_policies: ['root'] }, 'root tokens'],
    ])('refuses a token role that makes the wrong tokens: %s', async (name, wrong, said) => {
      const other = await wide();
      const role = `wrong-${name}`;
      await tokenRole(bao, role, 'path "database/creds/orders" { capabilities = ["read"] }', wrong);
      const problems = await check({ ...orders, token_role: role }, other);
      expect(problems).toEqual([expect.stringContaining(said)]);
      await other.close();
    });

    it('finds that sessions go on after the revocation, as PostgreSQL’s default has it', async () => {
      const other = await wide();
      await databaseRole(bao, 'lasting', { revocation_statements: [] });
      expect(await check({ ...orders, role: 'lasting', token_role: 'mayfly-lasting' }, other)).toEqual([
        expect.stringContaining('pg_terminate_backend'),
      ]);
      await other.close();
    });

    it.each([
      ['a database that is not there', { database: 'nobody' }, 'login to the database'],
      ['TLS where there is none', { probe: { tls: true } }, 'login to the database'],
      ['a role that is not there', { role: 'nobody' }, 'sys/leases/lookup/database/creds/nobody/'],
    ])('finds %s', async (_, wrong, said) => {
      expect(await check({ ...orders, ...wrong })).toEqual([expect.stringContaining(said)]);
    });

    it('says that the server is not there', async () => {
      const other = backendOf({
        address: 'http://127.0.0.1:1',
        auth: { method: 'token', token_file: (await brokerToken(bao)).file },
      });
      await expect(check(orders, other)).rejects.toMatchObject({
        kind: 'unreachable',
        message: expect.stringContaining('ECONNREFUSED'),
      });
      await other.close();
    });
  });
});
