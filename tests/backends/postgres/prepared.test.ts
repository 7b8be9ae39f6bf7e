import { DATABASE, startServer, type TestServer } from './server.js';
import { type Given, openWorld, stateOf } from './world.js';

let server: TestServer;
let world: ReturnType<typeof openWorld>;
let careful: ReturnType<typeof openWorld>;
beforeAll(async () => {
  server = await startServer({ managers: 1, settings: { max_prepared_transactions: 10 } });
  world = openWorld(server, { prepared_transactions: 'roll_back', revoke_timeout_seconds: 10 });
  careful = openWorld(server, { revoke_timeout_seconds: 10 });
}, 90_000);
afterAll(async () => {
  await world?.backend.close();
  await careful?.backend.close();
  await server?.stop();
});

async function prepare(given: Given, sql: string, name = 'theirs'): Promise<void> {
  // As on a server where somebody forgot to take it away.
  await server.ask('grant execute on function lo_create to public', DATABASE);
  const session = await world.logIn(given);
  await session.query(`begin; ${sql}; prepare transaction '${name}'`);
  await session.end();
}

const prepared = () => server.ask('select gid from pg_prepared_xacts');

describe('on a server that allows prepared transactions', () => {
  it('a secret is refused, unless the configuration says to roll them back', async () => {
    expect((await careful.check()).join()).toMatch(/allows 10 prepared transactions.*roll_back/);
    expect(await world.check()).toEqual([]);
  });

  it('those of a revoked role are rolled back, and their locks are gone', async () => {
    const given = await world.issue();
    await prepare(given, 'lock table public.orders in access share mode; select lo_create(0)');
    await world.revoke(given);
    expect(await world.confirm(given)).toEqual({ state: 'gone' });
    expect(await prepared()).toEqual([]);
    await server.ask('begin; lock table public.orders in access exclusive mode nowait; rollback', DATABASE);
  });

  it('one that holds the role’s own row does not keep it from being barred', async () => {
    const given = await world.issue();
    await prepare(given, "alter role current_user password 'mine'");
    await world.revoke(given);
    expect(await world.confirm(given)).toEqual({ state: 'gone' });
    expect(await prepared()).toEqual([]);
    expect(await stateOf(world.logIn(given))).toBe('28P01');
  });

  it('one with a hostile name is rolled back too', async () => {
    const given = await world.issue();
    await prepare(given, 'select 1; select lo_create(0)', "x''; DROP ROLE postgres; --");
    await world.revoke(given);
    expect(await world.confirm(given)).toEqual({ state: 'gone' });
    expect(await prepared()).toEqual([]);
  });

  it('where that is not wanted they are a residue: the role is barred and kept, so that it can still be done', async () => {
    const given = await careful.issue();
    await prepare(given, 'select lo_create(0)');
    await careful.revoke(given);
    expect(await careful.confirm(given)).toEqual({
      state: 'gone',
      residue: 'the role itself, which cannot log in; 1 prepared transaction',
    });
    expect(await stateOf(world.logIn(given))).toBe('28000');
    await world.revoke(given);
    expect(await careful.confirm(given)).toEqual({ state: 'gone' });
    expect(await prepared()).toEqual([]);
  });

  it('one whose role somebody dropped is a residue, and said', async () => {
    const given = await world.issue();
    await prepare(given, 'lock table public.orders in access share mode');
    await server.ask(`drop role ${given.data['username']}`);
    expect(await world.confirm(given)).toEqual({ state: 'gone', residue: '1 prepared transaction' });
    await server.ask("rollback prepared 'theirs'", DATABASE);
    expect(await world.confirm(given)).toEqual({ state: 'gone' });
  });
});
