import { reconcile } from '../../src/broker/reconcile.js';
import { newId } from '../../src/core/ids.js';
import type { FakeBackend } from '../fakes/backend.js';
import type { VirtualClock } from '../fakes/virtual-clock.js';
import { NAMES, openWorld, type World } from './world.js';

let world: World;
beforeEach(async () => {
  world = await openWorld();
});
afterEach(() => world.close());

const clock = () => world.parts.clock as VirtualClock;
const backend = () => world.parts.backends.get('pg') as FakeBackend;

describe('GET /v1/backends', () => {
  it('200: what there is, and what is under way there', async () => {
    const { status, body } = await world.send('operator', 'GET', '/v1/backends');
    expect([status, body]).toEqual([
      200,
      {
        items: [
          {
            name: 'pg',
            kind: 'fake',
            state: 'up',
            breaker: 'closed',
            pending: 0,
            active: 1,
            revoking: 1,
            stuck: 0,
            secrets: [{ name: 'orders-db', open: true }],
          },
        ],
      },
    ]);
  });

  it('200: when it was last compared with the leases, and what was found there that was nobody’s', async () => {
    const stranger = newId('lse', 'a', clock().now());
    backend().plant(stranger);
    for (let turn = 0; turn < 2; turn++) {
      await reconcile(world.parts, backend(), new AbortController().signal);
      if (turn === 0) clock().advance(20_000);
    }
    const { body } = await world.send('operator', 'GET', '/v1/backends');
    expect(body.items[0]).toMatchObject({
      reconciled_at: new Date(clock().now()).toISOString(),
      orphans: 0,
      orphans_ever: 1,
      lost: 0,
    });
  });

  it.each(['agent', 'orchestrator', 'tool'] as const)('403: %s does not look behind the broker', async (who) => {
    expect((await world.send(who, 'GET', '/v1/backends')).status).toBe(403);
  });

  it('401: nobody', async () => {
    expect((await world.send('nobody', 'GET', '/v1/backends')).status).toBe(401);
  });
});

describe('POST /v1/backends/{name}/check', () => {
  it('404: a backend that this broker does not have', async () => {
    expect((await world.send('operator', 'POST', '/v1/backends/nothing/check', { json: {} })).status).toBe(404);
  });

  it('403: not for an agent, and nothing is asked of the backend', async () => {
    backend().calls.length = 0;
    expect((await world.call('POST', '/v1/backends/pg/check', { as: NAMES.agent, json: {} })).status).toBe(403);
    expect(backend().calls).toEqual([]);
  });
});
