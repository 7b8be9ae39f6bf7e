import { startServer, type TestServer } from './server.js';
import { openWorld, stateOf } from './world.js';

let server: TestServer;
let world: ReturnType<typeof openWorld>;
beforeAll(async () => {
  server = await startServer();
  world = openWorld(server);
}, 60_000);
afterAll(async () => {
  await world.backend.close();
  await server.stop();
});

describe('an issued role', () => {
  it('logs in and reads what its group may read', async () => {
    expect(await world.check()).toEqual([]);
    const given = await world.issue();
    const session = await world.logIn(given);
    const { rows } = await session.query('select count(*)::int from public.orders');
    expect(rows).toEqual([{ count: 500 }]);
    await session.end();
    await world.revoke(given);
    expect(await world.confirm(given)).toEqual({ state: 'gone' });
    expect(await stateOf(world.logIn(given))).toBe('28P01');
  });
});
