import { NAMES, openWorld, TASK, type World } from './world.js';

/* A store of less than is promised, a full one, an epoch that is not confirmed: nothing is given, and whoever stops and asks comes in. */

let world: World;

beforeEach(async () => {
  world = await openWorld();
  world.parts.line.closed = 'redis persistence: no append-only file';
});
afterEach(() => world.close());

it('an operator who was not signed in before signs in, learns why nothing is given, and stops', async () => {
  const ask = await world.operator(NAMES.operator);
  const health = await ask('GET', '/v1/health');
  expect([health.status, health.body.grants_closed]).toEqual([200, world.parts.line.closed]);
  const selector = { team: 'payments' };
  const stop = await ask('POST', '/v1/locks', { json: { selector, reason: 'an incident' } });
  expect(stop.status).toBe(201);
  expect((await ask('GET', '/v1/audit')).status).toBe(200);
  expect((await ask('POST', '/v1/why', { json: { about: world.decision } })).status).toBe(200);
});

it('nobody else is given anything', async () => {
  const opened = await world.send('orchestrator', 'POST', '/v1/tasks', { json: TASK });
  expect([opened.status, opened.body.code]).toEqual([503, 'unavailable']);
  const secret = await world.send('agent', 'POST', '/v1/secrets/orders-db', { json: { task: world.task } });
  expect([secret.status, secret.body.code]).toEqual([503, 'unavailable']);
});
