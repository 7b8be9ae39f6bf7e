import type { Route } from '../../src/edge/http/route.js';
import { routes } from '../../src/edge/http/routes/index.js';
import { openWorld, TASK, type Who, type World } from './world.js';

/** What a hurried hand pastes between the slashes. */
const PASSWORD = 'hunter2!correct horse';
const WHO: Who[] = ['agent', 'orchestrator', 'operator', 'tool'];

const named = routes.filter(({ path, auth }) => path.includes('{') && auth !== 'none');

let world: World;
beforeEach(async () => {
  world = await openWorld();
});
afterEach(() => world.close());

const written = () => JSON.stringify([world.parts.line.state.audit, world.parts.events]);

it.each(named.map((route): [string, Route] => [`${route.method} ${route.path}`, route]))(
  'what is written where an id or a name belongs, and is none, reaches neither record nor log: %s',
  async (_, { method, path }) => {
    for (const who of WHO) {
      for (const body of [{ reason: 'r' }, { task: world.task }, { context: { risk: 'high' } }, TASK, undefined]) {
        const at = path.replaceAll(/\{\w+\}/g, encodeURIComponent(PASSWORD));
        const { status } = await world.send(who, method, at, body && method !== 'GET' ? { json: body } : {});
        expect(status).toBeGreaterThanOrEqual(400);
      }
    }
    expect(written()).not.toContain('hunter2');
  },
);

it('nor what is written where a task or its type belongs in a body', async () => {
  await world.send('agent', 'POST', '/v1/secrets/orders-db', { json: { task: PASSWORD } });
  await world.send('orchestrator', 'POST', '/v1/tasks', {
    json: { ...TASK, type: PASSWORD, parent: world.task.replace(/..$/, 'zz') },
  });
  await world.send('orchestrator', 'POST', '/v1/tasks', { json: { ...TASK, parent: PASSWORD } });
  expect(written()).not.toContain('hunter2');
});

it('a name or an id that has its form is recorded as it was asked for, whether or not it is there', async () => {
  await world.send('agent', 'POST', '/v1/secrets/order-db', { json: { task: world.task } });
  await world.send('other', 'GET', `/v1/leases/${world.lease}`);
  await world.send('other', 'GET', '/v1/tasks/ref:run-77');
  const refusals = world.parts.line.state.audit.filter(({ type }) => type === 'request.refused').slice(-3);
  expect(refusals).toMatchObject([
    { detail: { secret: 'order-db' }, reasons: [`order-db for ${world.task}`] },
    { lease: world.lease },
    { task: 'ref:run-77' },
  ]);
});
