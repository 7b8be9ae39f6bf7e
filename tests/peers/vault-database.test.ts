import { leaseIdOfName } from '../../src/core/credential.js';
import { BackendProblem, type Found } from '../../src/plugins/backends/contract.js';
import { startFaultProxy } from './fault-proxy.js';
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
  findAll,
  INSTALLATION,
  issue,
  type Lease,
  type OrdersWorld,
  openOrders,
  orderOf,
  type TestBackend,
  within,
} from './vault-world.js';

describeVault('a PostgreSQL user from the database engine of a real OpenBao', () => {
  let world: OrdersWorld;
  let bao: Bao;
  let database: Database;
  let backend: TestBackend;
  let orders: Record<string, unknown>;
  let newBackend: OrdersWorld['newBackend'];

  beforeAll(async () => {
    world = await openOrders();
    ({ bao, database, orders, newBackend } = world);
    backend = world.newBackend();
  }, 60_000);

  afterAll(async () => {
    await backend?.close();
    await world?.close();
  });

  afterEach(() => world.clear());

  const asLease = ({ handle }: Found): Lease => ({ leaseId: '', handle, expiresAtMs: 0, settings: {} });

  const tokens = async () => {
    const reply = await bao.ask('LIST', 'sys/leases/lookup/auth/token/create/mayfly-orders/');
    return reply.status === 404 ? 0 : reply.body.data.keys.length;
  };

  it('logs in, carries the name of its lease, and is gone once it was revoked', async () => {
    const { lease, data, issued } = await issue(backend, orders);
    expect(data).toEqual({
      host: '127.0.0.1',
      port: database.proxy.port,
      database: 'postgres',
      username: expect.any(String),
      password: expect.any(String),
    });
    expect(await database.login(data)).toBeNull();
    const name = String(data['username'])
      .replace(/^token-/, '')
      .replaceAll('-', '_');
    expect(leaseIdOfName(INSTALLATION, name)).toBe(lease.leaseId);
    expect(issued).toMatchObject({ renewable: true, expiresAtMs: lease.expiresAtMs });
    expect(await backend.confirm(lease, within())).toMatchObject({ state: 'there' });
    await backend.revoke(lease, within());
    expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
    expect(await database.login(data)).toBe('28P01');
    expect(await database.roles()).toEqual([]);
  });

  it('loses the session that it has open', async () => {
    const { lease, data } = await issue(backend, orders);
    const session = await database.session(data);
    const ended = new Promise((resolve) => session.once('end', () => resolve('ended')));
    await backend.revoke(lease, within());
    expect(await ended).toBe('ended');
  });

  it('is made with an orphan token that outlives it by a minute, reads this one secret and names its lease', async () => {
    const { lease } = await issue(backend, { ...orders, renewable_seconds_max: 0 }, { ttlMs: 120_000 });
    const { body } = await bao.ask('POST', 'auth/token/lookup-accessor', { accessor: accessorOf(lease) });
    expect(body.data).toMatchObject({
      orphan: true,
      renewable: false,
      type: 'service',
      num_uses: 0,
      policies: ['mayfly-orders'],
      explicit_max_ttl: 180,
      meta: { mayfly_lease: lease.leaseId, mayfly_agent: 'spiffe://dev.mayfly/agent/refunds' },
    });
    expect(body.data.display_name.replaceAll('-', '_')).toBe(`token_${lease.handle['name']}`);
    await backend.revoke(lease, within());
    expect(await tokens()).toBe(0);
  });

  it('has nothing in its handle that gives access', async () => {
    const { lease, data } = await issue(backend, orders);
    expect(JSON.stringify(lease.handle)).not.toContain(data['password']);
    expect(
      Object.keys(lease.handle)
        .map((name) => name.replace(/^accessor_.*/, 'accessor_'))
        .sort(),
    ).toEqual(
      [
        'accessor_',
        'asked_at',
        'engine',
        'lease',
        'name',
        'place',
        'probe',
        'renewable_until',
        'revocability',
        'token_role',
        'username',
      ].sort(),
    );
  });

  it('lives on when the broker’s own token is revoked, and dies by another login', async () => {
    const { file, accessor } = await brokerToken(bao);
    const other = backendOf({ address: bao.address, auth: { method: 'token', token_file: file } });
    const { lease, data } = await issue(other, orders);
    await bao.set('auth/token/revoke-accessor', { accessor });
    await expect(issue(other, orders)).rejects.toMatchObject({ kind: 'forbidden' });
    expect(await database.login(data)).toBeNull();
    await backend.revoke(lease, within());
    expect(await database.login(data)).toBe('28P01');
    await other.close();
  });

  it('ends when its lease at the OpenBao ends, though longer was ordered', async () => {
    await databaseRole(bao, 'brief', { default_ttl: '30s', max_ttl: '60s' });
    const wide = await backendUnder(bao, ['root']);
    const { lease, issued } = await issue(wide, { ...orders, role: 'brief', token_role: 'mayfly-brief' });
    expect(issued.expiresAtMs - Date.now()).toBeLessThanOrEqual(30_000);
    expect(issued.expiresAtMs - Date.now()).toBeGreaterThan(20_000);
    await wide.revoke(lease, within());
    await wide.close();
  });

  describe('revoking', () => {
    it('does nothing twice, nor at the same time, nor to what never was', async () => {
      const { lease, data } = await issue(backend, orders);
      await Promise.all([1, 2, 3].map(() => backend.revoke(lease, within())));
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
      expect(await database.login(data)).toBe('28P01');
      const never = {
        ...lease,
        handle: { ...lease.handle, lease: 'database/creds/orders/never', accessor_1: 'never' },
      };
      await backend.revoke(never, within());
      expect(await backend.confirm(never, within())).toEqual({ state: 'gone' });
    });

    it('with the database unreachable is a failure that leaves it alive, says so without host, user or database, and works once it is back', async () => {
      const { lease, data } = await issue(backend, orders);
      database.proxy.set('refuse');
      const problem = await backend.revoke(lease, within()).catch((error) => error);
      expect(problem).toBeInstanceOf(BackendProblem);
      expect(problem).toMatchObject({
        kind: 'failed',
        isSure: false,
        message: expect.stringContaining('failed to revoke entry'),
      });
      for (const word of [
        '127.0.0.1',
        String(database.proxy.port),
        database.superuser.user,
        String(data['username']),
      ]) {
        expect(`${problem.message}${problem.stack}${String(problem.cause)}`).not.toContain(`=${word}`);
        expect(problem.message).not.toContain(word);
      }
      expect(await backend.confirm(lease, within())).toMatchObject({ state: 'there' });
      expect(await database.login(data)).toBeNull();
      // Its token is still there too: by the lease first, until that is done.
      expect(await tokens()).toBe(1);
      database.proxy.set('pass');
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
      expect(await database.login(data)).toBe('28P01');
      expect(await tokens()).toBe(0);
    });

    it('works after the database was really stopped and started again', async () => {
      const { lease, data } = await issue(backend, orders);
      await database.stop();
      await expect(backend.revoke(lease, within())).rejects.toMatchObject({ kind: 'failed' });
      expect(await backend.confirm(lease, within())).toMatchObject({ state: 'there' });
      await database.start();
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
      expect(await database.login(data)).toBe('28P01');
    }, 60_000);

    it('by the token alone is not believed while the lease waits: with the database away it is there, however the answers look', async () => {
      const { lease, data } = await issue(backend, orders);
      const { lease: _, ...known } = lease.handle;
      const lost = { ...lease, handle: known };
      expect(await backend.confirm(lost, within())).toMatchObject({
        state: 'there',
        detail: expect.stringContaining('token'),
      });
      database.proxy.set('refuse');
      await backend.revoke(lost, within());
      expect(await tokens()).toBe(0);
      expect(await backend.confirm(lost, within())).toMatchObject({
        state: 'there',
        detail: expect.stringContaining('waiting'),
      });
      expect(await database.login(data)).toBeNull();
      database.proxy.set('pass');
      // By its id it is done at once; by itself the server would try again later.
      await backend.revoke(lease, within());
      expect(await backend.confirm(lost, within())).toEqual({ state: 'gone' });
      expect(await database.login(data)).toBe('28P01');
    });

    it('by the token alone, the database being there, ends in gone, and the database agrees', async () => {
      const { lease, data } = await issue(backend, orders);
      const { lease: _, ...known } = lease.handle;
      const lost = { ...lease, handle: known };
      await backend.revoke(lost, within());
      await eventually(async () => {
        const { state } = await backend.confirm(lost, within());
        if (state !== 'gone') throw new Error(state);
      });
      expect(await database.login(data)).toBe('28P01');
    });

    it('is confirmed by token though another lease of the same place lives', async () => {
      const other = await issue(backend, orders);
      const { lease } = await issue(backend, orders);
      const { lease: _, ...known } = lease.handle;
      const lost = { ...lease, handle: known };
      await backend.revoke(lost, within());
      await eventually(async () => {
        const { state } = await backend.confirm(lost, within());
        if (state !== 'gone') throw new Error(state);
      });
      expect(await database.login(other.data)).toBeNull();
    });

    it('of what was planned only is nothing, and it is gone', async () => {
      const { lease } = orderOf(backend, orders);
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
    });
  });

  describe('an issue', () => {
    it('whose answer is lost leaves a handle that leads to it', async () => {
      await using lossy = await startFaultProxy(bao.port);
      const behind = newBackend({ address: `http://127.0.0.1:${lossy.port}` });
      const { order, lease } = orderOf(behind, orders, { timeoutMs: 2_000, note: async () => lossy.set('swallow') });
      await expect(behind.issue(order)).rejects.toMatchObject({ kind: 'timeout', isSure: false });
      expect(await database.roles()).toHaveLength(1);
      expect(accessorOf(lease)).toBeDefined();
      expect(lease.handle['lease']).toBeUndefined();
      lossy.set('pass');
      await behind.revoke(lease, within());
      await eventually(async () => {
        const { state } = await behind.confirm(lease, within());
        if (state !== 'gone') throw new Error(state);
      });
      expect(await database.roles()).toEqual([]);
      await behind.close();
    });

    it('that cannot note its accessor reads nothing and takes its token back', async () => {
      const { order } = orderOf(backend, orders, {
        note: async () => {
          throw new Error('the lease is pending no more');
        },
      });
      await expect(backend.issue(order)).rejects.toThrow('pending no more');
      expect(await tokens()).toBe(0);
      expect(await database.roles()).toEqual([]);
    });

    it('past its deadline makes nothing', async () => {
      const { order } = orderOf(backend, orders);
      await expect(backend.issue({ ...order, deadlineMs: Date.now() - 1 })).rejects.toMatchObject({
        kind: 'too_late',
        isSure: true,
      });
      expect(await tokens()).toBe(0);
    });

    it('whose deadline passes while it notes reads nothing', async () => {
      const { order, lease } = orderOf(backend, orders, {
        note: () => new Promise((resolve) => setTimeout(resolve, order.deadlineMs - Date.now() + 1)),
        timeoutMs: 500,
      });
      await expect(backend.issue({ ...order, signal: within() })).rejects.toMatchObject({
        kind: 'too_late',
        isSure: false,
      });
      expect(await database.roles()).toEqual([]);
      await backend.revoke(lease, within());
      expect(await tokens()).toBe(0);
    });

    it('with the database away fails, and its token leads to nothing', async () => {
      database.proxy.set('refuse');
      const { order, lease } = orderOf(backend, orders);
      await expect(backend.issue(order)).rejects.toMatchObject({ kind: 'failed', isSure: false });
      await backend.revoke(lease, within());
      expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
    });

    it.each([
      ['of a role that its token may not read', { role: 'nobody' }, 'forbidden'],
      ['by a token role that is not the broker’s', { token_role: 'mayfly-nobody' }, 'forbidden'],
      ['from a mount that is not there', { mount: 'elsewhere' }, 'forbidden'],
    ])('%s is refused', async (_, wrong, kind) => {
      const { order } = orderOf(backend, { ...orders, ...wrong });
      await expect(backend.issue(order)).rejects.toMatchObject({ kind });
    });

    it('keeps hostile words out of every path and statement', async () => {
      const { order, lease } = orderOf(backend, orders);
      const hostile = `x'; DROP ROLE postgres; -- {{name}} ../../sys/seal %2e%2e \u0000\n"`;
      const issued = await backend.issue({ ...order, agent: hostile, taskId: hostile });
      lease.handle = { ...lease.handle, ...issued.handle };
      const { body } = await bao.ask('POST', 'auth/token/lookup-accessor', { accessor: accessorOf(lease) });
      expect(body.data.meta['mayfly_agent']).toBe(hostile);
      expect(await database.login(issued.data.expose())).toBeNull();
      await backend.revoke(lease, within());
      expect(await database.query("select 1 from pg_roles where rolname = 'postgres'")).toHaveLength(1);
    });
  });

  describe('finding', () => {
    it('shows what is there by the id that stands in its lease, and not what was revoked', async () => {
      const [one, two] = [await issue(backend, orders), await issue(backend, orders)];
      const ids = [one, two].map(({ lease }) => lease.handle['lease']);
      expect((await findAll(backend)).map(({ handle }) => handle['lease']).sort()).toEqual([...ids].sort());
      expect(backend.covers?.(one.lease)).toBe(true);
      await backend.revoke(one.lease, within());
      expect((await findAll(backend)).map(({ handle }) => handle)).toEqual([{ lease: ids[1] }]);
    });

    it('tells how old it is, to one who never saw it before, and no age of what is gone', async () => {
      const { lease } = await issue(backend, orders);
      const [first] = await findAll(backend);
      expect(await first?.ageMs?.(within())).toBeLessThan(5_000);
      const other = newBackend();
      orderOf(other, orders);
      await eventually(async () => {
        const [again] = await findAll(other);
        expect(await again?.ageMs?.(within())).toBeGreaterThanOrEqual(2_000);
      });
      await other.close();
      await backend.revoke(lease, within());
      expect(await first?.ageMs?.(within())).toBeUndefined();
    });

    it('is not hidden by another secret whose place it may not list, and does not claim to cover that one', async () => {
      const other = newBackend();
      const { lease } = await issue(other, orders);
      const wrong = orderOf(other, { ...orders, role: 'nobody' });
      expect((await findAll(other)).map(({ handle }) => handle)).toEqual([{ lease: lease.handle['lease'] }]);
      expect(other.covers?.(lease)).toBe(true);
      expect(
        other.covers?.({ ...wrong.lease, handle: { ...wrong.lease.handle, lease: 'database/creds/nobody/x' } }),
      ).toBe(false);
      await findAll(other);
      expect(other.events.filter(({ event }) => event === 'backend.not_listed')).toHaveLength(1);
      await other.close();
    });

    it('fails when the server does not answer: what was not seen is not gone', async () => {
      await using proxy = await startFaultProxy(bao.port);
      const other = newBackend({
        address: `http://127.0.0.1:${proxy.port}`,
        revoke_timeout_seconds: 0.5,
        issue_timeout_seconds: 0.5,
      });
      await issue(other, orders);
      proxy.set('silent');
      await expect(findAll(other)).rejects.toMatchObject({ kind: 'timeout' });
      proxy.set('refuse');
      await expect(findAll(other)).rejects.toMatchObject({ kind: 'unreachable' });
      await other.close();
    });

    it('leaves a shared place alone, and does not claim to cover it', async () => {
      const other = newBackend();
      const { lease } = await issue(other, { ...orders, is_shared: true });
      expect(await findAll(other)).toEqual([]);
      expect(other.covers?.(lease)).toBe(false);
      await other.revoke(lease, within());
      await other.close();
    });

    it('shows a credential whose token was revoked while it was being made: it outlives its token, and dies by its id', async () => {
      await bao.set('database/roles/orders', {
        db_name: 'orders',
        creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`, 'SELECT pg_sleep(2)'],
        revocation_statements: [`DROP ROLE IF EXISTS "{{name}}"`],
        default_ttl: '15m',
        max_ttl: '1h',
      });
      try {
        const { order, lease } = orderOf(backend, orders, { timeoutMs: 10_000 });
        const made = backend.issue(order);
        await eventually(async () => {
          const [busy] = await database.query(
            "select 1 from pg_stat_activity where query like 'SELECT pg_sleep%' and state = 'active'",
          );
          if (busy === undefined) throw new Error('not asked yet');
        });
        await backend.revoke(lease, within());
        // All that its handle leads to is gone.
        expect(await backend.confirm(lease, within())).toEqual({ state: 'gone' });
        const { data } = await made;
        expect(await database.login(data.expose())).toBeNull();
        const [orphan, ...others] = await findAll(backend);
        expect(others).toEqual([]);
        await backend.revoke(asLease(orphan as Found), within());
        expect(await backend.confirm(asLease(orphan as Found), within())).toEqual({ state: 'gone' });
        expect(await database.login(data.expose())).toBe('28P01');
      } finally {
        await databaseRole(bao, 'orders');
      }
    }, 30_000);
  });
});
