import type { FakeBackend } from '../fakes/backend.js';
import type { VirtualClock } from '../fakes/virtual-clock.js';
import type { Call } from './open-door.js';
import { openWorld, TASK, type World } from './world.js';

let world: World;
beforeEach(async () => {
  world = await openWorld();
});
afterEach(() => world.close());

const backend = () => world.parts.backends.get('pg') as FakeBackend;
const clock = () => world.parts.clock as VirtualClock;
const ask = (json: Record<string, unknown> = {}, more: Call = {}) =>
  world.send('agent', 'POST', '/v1/secrets/orders-db', { json: { task: world.task, ...json }, ...more });
const renew = (json: Record<string, unknown> = {}, lease = world.credential) =>
  world.send('agent', 'POST', `/v1/leases/${lease}/renew`, { json });
const end = (verb: string) => world.send('orchestrator', 'POST', `/v1/tasks/${world.task}/${verb}`, { json: {} });
const keyed = (key: string) => ({ headers: { 'idempotency-key': key } });

describe('POST /v1/secrets/{name}', () => {
  it.each([1, 4])(
    '400: a life of %i s, which would be over before it could be used, and nothing is made',
    async (life) => {
      const before = backend().live();
      const { status, body } = await ask({ ttl_seconds: life });
      expect([status, body.field, body.detail]).toEqual([
        400,
        'ttl_seconds',
        'A credential lives for 5 seconds at least.',
      ]);
      expect(backend().live()).toEqual(before);
    },
  );

  it('200: told in whole seconds, never more than is left when it is answered, and never none', async () => {
    clock().advance(990);
    backend().onMade = () => clock().advance(1_500);
    const { status, body } = await ask({ ttl_seconds: 5 });
    expect(status).toBe(200);
    const { expires_at } = (await world.send('agent', 'GET', `/v1/leases/${body.lease_id}`)).body;
    expect(body.lease_duration).toBe(Math.floor((Date.parse(expires_at) - clock().now()) / 1_000));
    expect(body.lease_duration).toBeGreaterThanOrEqual(1);
  });

  it('503 with Retry-After: making it took nearly all of its life, and it is taken back', async () => {
    let asked = '';
    backend().onMade = (leaseId) => {
      asked = leaseId;
      clock().advance(1_900);
    };
    const { commitLease } = world.parts.ledger;
    world.parts.ledger.commitLease = async (write) => {
      const outcome = await commitLease.call(world.parts.ledger, write);
      clock().advance(2_500);
      return outcome;
    };
    const { status, headers } = await ask({ ttl_seconds: 5 });
    expect([status, headers.get('retry-after')]).toEqual([503, '5']);
    expect(world.parts.line.state.leases.get(asked)?.state).toBe('revoking');
  });

  it('409: the task is over, or about to be', async () => {
    const { body: task } = await world.send('orchestrator', 'POST', '/v1/tasks', {
      json: { ...TASK, ttl_seconds: 60 },
    });
    clock().advance(56_000);
    const late = await ask({ task: task.id });
    expect([late.status, late.body.code]).toEqual([409, 'task_over']);
    await end('complete');
    const { status, body } = await ask();
    expect([status, body.code]).toEqual([409, 'task_over']);
  });

  it('409: the task is suspended', async () => {
    await end('suspend');
    const { status, body } = await ask();
    expect([status, body.code]).toEqual([409, 'task_suspended']);
  });

  it('409: its task ended while it was made, and it is taken back', async () => {
    let asked = '';
    backend().onMade = async (leaseId) => {
      asked = leaseId;
      await end('complete');
    };
    const { status, body } = await ask();
    expect([status, body.code]).toEqual([409, 'task_over']);
    expect(world.parts.line.state.leases.get(asked)?.state).toBe('revoking');
  });

  it('409 with Retry-After: another request with the same key came first', async () => {
    let meanwhile: Awaited<ReturnType<typeof ask>> | undefined;
    const first = await ask({}, keyed('k'));
    const { revokeLeases } = world.parts.ledger;
    world.parts.ledger.revokeLeases = async (write) => {
      world.parts.ledger.revokeLeases = revokeLeases;
      meanwhile = await ask({}, keyed('k'));
      return revokeLeases.call(world.parts.ledger, write);
    };
    const { status, body, headers } = await ask({}, keyed('k'));
    expect([status, body.code, headers.get('retry-after')]).toEqual([409, 'conflict', '1']);
    expect([meanwhile?.status, meanwhile?.body.replaces]).toEqual([200, first.body.lease_id]);
  });

  it('409: its key came again before it was made, and nothing is made', async () => {
    let meanwhile: Awaited<ReturnType<typeof ask>> | undefined;
    const before = backend().live();
    const { openIntent } = world.parts.ledger;
    world.parts.ledger.openIntent = async (write) => {
      world.parts.ledger.openIntent = openIntent;
      meanwhile = await ask({}, keyed('k'));
      return openIntent.call(world.parts.ledger, write);
    };
    const { status, body } = await ask({}, keyed('k'));
    expect([status, body.code]).toEqual([409, 'conflict']);
    expect(meanwhile?.status).toBe(200);
    expect(backend().live()).toEqual([...before, meanwhile?.body.lease_id]);
  });

  it('422: the key came with another body', async () => {
    await ask({}, keyed('k'));
    const { status, body } = await ask({ ttl_seconds: 60 }, keyed('k'));
    expect([status, body.code, body.field]).toEqual([422, 'key_reused', 'idempotency-key']);
  });

  it('429 with Retry-After: the task has as many leases as it may have, and nothing is made', async () => {
    world.parts.settings.quotas = { ...world.parts.settings.quotas, leasesPerTask: 2 };
    const before = backend().live();
    const { status, body, headers } = await ask();
    expect([status, body.code, headers.get('retry-after')]).toEqual([429, 'quota_exceeded', '10']);
    expect(backend().live()).toEqual(before);
  });

  it.each(['unreachable', 'timeout', 'busy', 'sealed'] as const)(
    '503 with Retry-After: its backend is %s, and the body does not say more than that it cannot be had',
    async (kind) => {
      backend().down = kind;
      const { status, body, headers, text } = await ask();
      expect([status, body.code, headers.get('retry-after')]).toEqual([503, 'unavailable', '5']);
      expect(text).not.toContain(kind);
    },
  );

  it('503 with Retry-After: its check fails, and the backend is not asked', async () => {
    backend().problems = ['a right is missing'];
    await world.send('operator', 'POST', '/v1/backends/pg/check', { json: {} });
    backend().calls.length = 0;
    const { status, headers, text } = await ask();
    expect([status, headers.get('retry-after')]).toEqual([503, '5']);
    expect(text).not.toContain('a right is missing');
    expect(backend().calls).toEqual([]);
  });

  it('503 with Retry-After: Redis is out', async () => {
    world.parts.line.out = true;
    const { status, headers } = await ask();
    world.parts.line.out = false;
    expect([status, headers.get('retry-after')]).toEqual([503, '1']);
  });

  it('400: its name in another spelling', async () => {
    const { status } = await world.send('agent', 'POST', '/v1/secrets/orders%2Ddb', { json: { task: world.task } });
    expect(status).toBe(400);
  });
});

describe('POST /v1/leases/{id}/renew', () => {
  /** One of twenty seconds, half of which have passed. */
  const short = async () => {
    const { body } = await ask({ ttl_seconds: 20 });
    clock().advance(10_000);
    return body.lease_id as string;
  };

  it('409: it is revoked already, cannot be renewed, or is a token', async () => {
    for (const lease of [world.dying, world.lease]) {
      const { status, body } = await renew({}, lease);
      expect([status, body.code]).toEqual([409, 'conflict']);
    }
  });

  it('409: less than a second of it is left, and it is given no more', async () => {
    const lease = await short();
    clock().advance(9_100);
    const { status, body } = await renew({ increment_seconds: 1 }, lease);
    expect([status, body.code]).toEqual([409, 'conflict']);
  });

  it('503 with Retry-After: another renewal is under way', async () => {
    const lease = await short();
    let meanwhile: Awaited<ReturnType<typeof renew>> | undefined;
    const { renewLease } = world.parts.ledger;
    world.parts.ledger.renewLease = async (write) => {
      world.parts.ledger.renewLease = renewLease;
      meanwhile = await renew({}, lease);
      return renewLease.call(world.parts.ledger, write);
    };
    expect((await renew({}, lease)).status).toBe(200);
    expect([meanwhile?.status, meanwhile?.headers.get('retry-after')]).toEqual([503, '1']);
  });

  it('503 with Retry-After: its backend does not answer', async () => {
    const lease = await short();
    backend().down = 'timeout';
    const { status, headers } = await renew({}, lease);
    expect([status, headers.get('retry-after')]).toEqual([503, '5']);
  });
});
