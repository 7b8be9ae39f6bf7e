import { readFileSync } from 'node:fs';
import {
  type Bao,
  type Database,
  databaseRole,
  describeVault,
  ROOT,
  setUpOrders,
  startBao,
  startDatabase,
} from './vault-world.js';

/** config/vault/mayfly-broker.hcl at a real OpenBao, driven past everything that the broker itself would ask. */
describeVault('the policy that is shipped for the broker', () => {
  let bao: Bao;
  let database: Database;
  let broker: { token: string };
  let leaseOf: (role: string) => Promise<string>;

  const TOKEN = { display_name: 'mayfly_test', ttl: '60s', explicit_max_ttl: '60s' };

  beforeAll(async () => {
    [bao, database] = await Promise.all([startBao(), startDatabase()]);
    await setUpOrders(bao, database);
    await databaseRole(bao, 'payroll');
    await bao.set('secret/data/api', { data: { key: 'of-the-test' } });
    const { body } = await bao.set('auth/token/create', {
      policies: ['mayfly-broker'],
      no_default_policy: true,
      ttl: '1h',
    });
    broker = { token: body.auth.client_token };
    leaseOf = async (role) => {
      const made = await bao.set(`auth/token/create/mayfly-${role}`, { ...TOKEN, display_name: `of-${role}` });
      return (await bao.ask('GET', `database/creds/${role}`, undefined, { token: made.body.auth.client_token })).body
        .lease_id;
    };
  }, 60_000);

  afterAll(async () => {
    await database?.close();
    bao?.close();
  });

  it('lets it make the token of a lease, by its role, under the policy of that role alone', async () => {
    const { status, body } = await bao.ask('POST', 'auth/token/create/mayfly-orders', TOKEN, broker);
    expect(status).toBe(200);
    expect(body.auth).toMatchObject({ policies: ['mayfly-orders'], orphan: true });
    const own = { token: body.auth.client_token };
    expect((await bao.ask('GET', 'database/creds/orders', undefined, own)).status).toBe(200);
    for (const path of ['database/creds/payroll', 'secret/data/api', 'auth/token/lookup-self', 'sys/mounts']) {
      expect([path, (await bao.ask('GET', path, undefined, own)).status]).toEqual([path, 403]);
    }
  });

  it('is the policy of the token role as it is shipped, too', async () => {
    const shipped = readFileSync('config/vault/mayfly-orders.hcl', 'utf8');
    await bao.policy('mayfly-orders', shipped);
    const { body } = await bao.ask(
      'POST',
      'auth/token/create/mayfly-orders',
      { ...TOKEN, display_name: 'mayfly_shipped' },
      broker,
    );
    const own = { token: body.auth.client_token };
    expect((await bao.ask('GET', 'database/creds/orders', undefined, own)).status).toBe(200);
    expect((await bao.ask('GET', 'database/creds/payroll', undefined, own)).status).toBe(403);
  });

  it.each([
    ['policies', ['root']],
    ['policies', ['mayfly-payroll']],
    ['id', 'a-token-of-its-choice'],
    ['num_uses', 1],
    ['period', '24h'],
    ['no_parent', true],
    ['type', 'batch'],
    ['entity_alias', 'somebody'],
    ['no_default_policy', false],
    ['display_name', 'somebody'],
  ])('does not let it choose %s of a token (%j)', async (name, value) => {
    const { status } = await bao.ask('POST', 'auth/token/create/mayfly-orders', { ...TOKEN, [name]: value }, broker);
    expect(status).toBe(403);
  });

  it.each(['display_name', 'ttl', 'explicit_max_ttl'])('does not let it leave out %s', async (name) => {
    const { [name as keyof typeof TOKEN]: _, ...rest } = TOKEN;
    expect((await bao.ask('POST', 'auth/token/create/mayfly-orders', rest, broker)).status).toBe(403);
  });

  it.each([
    ['POST', 'auth/token/create', {}],
    ['POST', 'auth/token/create-orphan', {}],
    ['POST', 'auth/token/create/mayfly-payroll', TOKEN],
    ['POST', 'auth/token/create/mayfly-orders/x', TOKEN],
    ['POST', 'auth/token/roles/mayfly-orders', { orphan: false }],
    ['GET', 'auth/token/roles/mayfly-orders', undefined],
    ['LIST', 'auth/token/accessors', undefined],
    ['POST', 'auth/token/lookup', { token: ROOT }],
    ['POST', 'auth/token/revoke', { token: ROOT }],
    ['POST', 'auth/token/revoke-orphan', { token: ROOT }],
    ['POST', 'auth/token/renew', { token: ROOT }],
    ['GET', 'database/creds/orders', undefined],
    ['GET', 'database/creds/payroll', undefined],
    ['GET', 'database/config/orders', undefined],
    ['POST', 'database/config/orders', { username: 'x' }],
    ['POST', 'database/rotate-root/orders', {}],
    ['GET', 'database/roles/orders', undefined],
    ['POST', 'database/roles/orders', { creation_statements: ['x'] }],
    ['GET', 'secret/data/api', undefined],
    ['POST', 'secret/data/api', { data: {} }],
    ['GET', 'sys/mounts', undefined],
    ['POST', 'sys/mounts/mine', { type: 'kv' }],
    ['GET', 'sys/policies/acl/mayfly-broker', undefined],
    ['POST', 'sys/policies/acl/mayfly-broker', { policy: 'path "*" { capabilities = ["sudo"] }' }],
    ['LIST', 'sys/policies/acl', undefined],
    ['GET', 'sys/auth', undefined],
    ['GET', 'sys/audit', undefined],
    ['POST', 'sys/seal', {}],
    ['POST', 'sys/leases/revoke-prefix/database/creds/orders', {}],
    ['POST', 'sys/leases/revoke-force/database/creds/orders', {}],
    ['POST', 'sys/revoke-prefix/database/creds/orders', {}],
    ['POST', 'sys/leases/tidy', {}],
    ['LIST', 'sys/leases/lookup/', undefined],
    ['LIST', 'sys/leases/lookup/database/creds/', undefined],
    ['LIST', 'sys/leases/lookup/database/creds/payroll/', undefined],
    ['LIST', 'sys/leases/lookup/auth/token/create/', undefined],
    ['GET', 'sys/leases/count?type=irrevocable', undefined],
    ['POST', 'identity/entity', { name: 'x' }],
    ['GET', 'sys/raw/core', undefined],
    ['GET', 'cubbyhole/x', undefined],
  ])('refuses %s %s', async (method, path, body) => {
    const { status } = await bao.ask(method, path, body, broker);
    expect(status).toBe(403);
  });

  it('does not let it look up, renew or revoke the lease of another secret, by any spelling', async () => {
    const id = await leaseOf('payroll');
    for (const [path, body] of [
      ['sys/leases/lookup', { lease_id: id }],
      ['sys/leases/renew', { lease_id: id, increment: 60 }],
      ['sys/leases/revoke', { lease_id: id, sync: true }],
      ['sys/leases/revoke', { lease_id: `database/creds/orders/../payroll/${id.split('/').at(-1)}`, sync: true }],
      ['sys/leases/revoke', { url_lease_id: id, sync: true }],
      [`sys/leases/revoke/${id}`, {}],
      [`sys/leases/renew/${id}`, {}],
      ['sys/revoke', { lease_id: id }],
      [`sys/revoke/${id}`, {}],
      ['sys/renew', { lease_id: id }],
    ] as const) {
      const { status } = await bao.ask('POST', path, body, broker);
      // An id that leads nowhere is no lease, and does nothing.
      expect([
        path,
        status === 403 || status === 400 || (status === 204 && String(Object.values(body)[0]).includes('..')),
      ]).toEqual([path, true]);
    }
    expect((await bao.ask('POST', 'sys/leases/lookup', { lease_id: id })).status).toBe(200);
  });

  it('lets it look up, renew, list and revoke the leases of its secret', async () => {
    const id = await leaseOf('orders');
    expect((await bao.ask('POST', 'sys/leases/lookup', { lease_id: id }, broker)).status).toBe(200);
    expect((await bao.ask('POST', 'sys/leases/renew', { lease_id: id, increment: 60 }, broker)).status).toBe(200);
    const { body } = await bao.ask('LIST', 'sys/leases/lookup/database/creds/orders/', undefined, broker);
    expect(body.data.keys).toContain(id.split('/').at(-1));
    expect((await bao.ask('POST', 'sys/leases/revoke', { lease_id: id, sync: true }, broker)).status).toBe(204);
    expect((await bao.ask('GET', 'sys/leases?type=irrevocable', undefined, broker)).status).toBe(200);
  });
});
