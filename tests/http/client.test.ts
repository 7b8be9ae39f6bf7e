import { Denied, InvalidRequest, Mayfly, type MayflyOptions, NotFound, Revoked } from '../../src/client/mayfly.js';
import { type Fetch, nodeFetch } from '../../src/client/transport.js';
import { createVerifier, type TokenRefusal, type Verifier } from '../../src/client/verifier.js';
import { FAKE_SETTINGS, ISSUER } from '../fakes/parts.js';
import { ORDERS, REFUNDS } from '../fakes/policy.js';
import { bearer } from './open-door.js';
import { NAMES, openWorld, TASK, type Who, type World } from './world.js';

/** The client against the real door: whatever one of them says differently from the other fails here. */

let world: World;
let verifier: Verifier | undefined;

beforeEach(async () => {
  world = await openWorld();
});

afterEach(async () => {
  await verifier?.close();
  verifier = undefined;
  await world.close();
});

function as(who: Exclude<Who, 'nobody'>, more: Partial<MayflyOptions> = {}): Mayfly {
  const token = async () => bearer(NAMES[who]);
  const isPerson = who === 'operator' || who === 'second';
  return new Mayfly({
    url: world.url,
    issuer: ISSUER,
    clock: world.parts.clock,
    identity: isPerson ? { person: token } : { bearer: token },
    ...more,
  });
}

async function verifying(): Promise<Verifier> {
  verifier = createVerifier({
    issuer: ISSUER,
    url: world.url,
    audience: ORDERS,
    identity: { bearer: async () => bearer(NAMES.tool) },
    clock: world.parts.clock,
    elapsedMs: () => 0,
  });
  await verifier.ready();
  return verifier;
}

const reasonOf = (attempt: Promise<unknown>) =>
  attempt.then(
    () => 'taken',
    (refusal: TokenRefusal) => refusal.reason,
  );

/** A verdict changes when the feed has brought the news. */
async function until<T>(ask: () => Promise<T>, wanted: T): Promise<void> {
  for (let left = 200; left > 0; left--) {
    if ((await ask()) === wanted) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  throw new Error(`never ${String(wanted)}`);
}

describe('the story', () => {
  it('a token for a task is taken, and refused once the task is completed', async () => {
    const verifier = await verifying();
    const task = await as('orchestrator').tasks.start({ ...TASK });
    const token = await as('agent').token({ task: task.id, resource: ORDERS });
    const verify = () => verifier.verify(token.accessToken.expose());
    expect(await verify()).toMatchObject({ agent: REFUNDS, taskId: task.id, tools: token.tools });
    await as('orchestrator').tasks.complete(task.id);
    await until(() => reasonOf(verify()), 'revoked');
  });

  it('a token bound by DPoP is taken with its headers only', async () => {
    const verifier = await verifying();
    const token = await as('agent').token({ task: world.task, resource: ORDERS, binding: 'dpop' });
    expect(token.type).toBe('DPoP');
    const url = `${ORDERS}/orders/42`;
    const { authorization, dpop } = token.headers('GET', url);
    const presented = { scheme: 'DPoP' as const, method: 'GET', url };
    const text = authorization?.slice('DPoP '.length) as string;
    await expect(verifier.verify(text, { ...presented, dpop: dpop as string })).resolves.toBeDefined();
    expect(await reasonOf(verifier.verify(text, presented))).toBe('dpop');
  });

  it('a lock refuses what was given, and what would be', async () => {
    const verifier = await verifying();
    const token = await as('agent').token({ task: world.task, resource: ORDERS });
    const { lock, preview } = await as('operator').locks.make({ agent: REFUNDS }, 'drill');
    expect([lock?.reason, preview.agents]).toEqual(['drill', [REFUNDS]]);
    await until(() => reasonOf(verifier.verify(token.accessToken.expose())), 'revoked');
    await expect(as('agent').token({ task: world.task, resource: ORDERS })).rejects.toBeInstanceOf(Denied);
    expect(await as('operator').locks.lift(lock?.id as string)).toBe('requested');
    expect(await as('second').locks.lift(lock?.id as string)).toBe('lifted');
    const again = await as('agent').token({ task: world.task, resource: ORDERS });
    await until(() => reasonOf(verifier.verify(again.accessToken.expose())), 'taken');
  });

  it('a tainted key refuses its tokens', async () => {
    const verifier = await verifying();
    const token = await as('agent').token({ task: world.task, resource: ORDERS });
    await verifier.verify(token.accessToken.expose());
    const { items } = await as('operator').keys.list();
    const active = items.find(({ state }) => state === 'active')?.kid as string;
    expect((await as('operator').keys.taint(active, 'drill')).state).toBe('tainted');
    await until(async () => (await reasonOf(verifier.verify(token.accessToken.expose()))) === 'taken', false);
  });

  it('the broker knows up to where the verifier has acknowledged', async () => {
    const verifier = await verifying();
    await as('operator').revocations.make({ owner: 'somebody' }, 'drill');
    const position = async () => (await as('operator').feed.readers()).items[0]?.position;
    await until(async () => (await position()) === verifier.status().feed.position, true);
  });
});

describe('tasks', () => {
  it('withTask completes when the work is done, and gives its result', async () => {
    let id = '';
    const result = await as('orchestrator').withTask({ ...TASK, ttl: '5m' }, async (task) => {
      id = task.id;
      return 42;
    });
    expect([result, (await as('orchestrator').tasks.get(id)).state]).toEqual([42, 'completed']);
  });

  it('withTask fails when the work throws, and the record names only the kind of error', async () => {
    let id = '';
    const work = as('orchestrator').withTask({ ...TASK }, async (task) => {
      id = task.id;
      throw new RangeError('the secret is hunter2');
    });
    await expect(work).rejects.toThrow('hunter2');
    expect(await as('orchestrator').tasks.get(id)).toMatchObject({ state: 'failed', end_reason: 'RangeError' });
  });

  it('await using completes at the end of the block', async () => {
    let id = '';
    {
      await using task = await as('orchestrator').task({ ...TASK });
      id = task.id;
    }
    expect((await as('orchestrator').tasks.get(id)).state).toBe('completed');
  });

  it('a task keeps one token per resource and tools until three quarters of its life are over', async () => {
    const task = await as('agent').join(world.task);
    const first = await task.token(ORDERS);
    expect(await task.token(ORDERS)).toBe(first);
    world.parts.clock.advance(FAKE_SETTINGS.ttlMsDefault * 0.75);
    const second = await task.token(ORDERS).catch((error: unknown) => error);
    expect(second).not.toBe(first);
  });

  it('its signal aborts when somebody else ends it, and it gives nothing more', async () => {
    const task = await as('agent').join(world.task);
    const aborted = new Promise((resolve) => task.signal.addEventListener('abort', resolve));
    await as('orchestrator').tasks.cancel(world.task, 'not wanted');
    await aborted;
    expect(task.signal.reason).toBeInstanceOf(Revoked);
    await expect(task.token(ORDERS)).rejects.toBeInstanceOf(Revoked);
  });

  it('suspend, resume, context and heartbeat do what their routes do', async () => {
    const { tasks } = as('orchestrator');
    expect((await tasks.suspend(world.task, 'wait')).state).toBe('suspended');
    const resumed = await tasks.resume(world.task);
    expect(resumed.state).toBe('active');
    const { task } = await tasks.setContext(world.task, { note: 'x' }, { generation: resumed.generation });
    expect(task.generation).toBe(resumed.generation + 1);
    expect((await as('agent').tasks.heartbeat(world.task)).id).toBe(world.task);
    expect((await tasks.list({ live: true })).items.map(({ id }) => id)).toContain(world.task);
  });

  it('a ref opens one task, however often it is put', async () => {
    const { ref: _, ...body } = { ...TASK, ref: '' };
    const first = await as('orchestrator').tasks.put({ ...body, ref: 'run/7' });
    expect((await as('orchestrator').tasks.put({ ...body, ref: 'run/7' })).id).toBe(first.id);
    expect((await as('orchestrator').tasks.get('ref:run/7')).id).toBe(first.id);
  });

  it('events begin with the task as it is, and end with its end', async () => {
    const kinds: string[] = [];
    for await (const { kind, task } of as('orchestrator').tasks.events(world.task)) {
      kinds.push(`${kind} ${task.state}`);
      if (kinds.length === 1) await as('orchestrator').tasks.complete(world.task);
    }
    expect(kinds).toEqual(['opened active', 'ended completed']);
  });
});

describe('questions', () => {
  it('leases, revocations, locks, keys, audit, why, bundle and health are answered', async () => {
    const operator = as('operator');
    expect((await operator.leases.get(world.lease)).id).toBe(world.lease);
    const { items } = await operator.leases.list({ task: world.task });
    expect(items.filter(({ kind }) => kind === 'token').map(({ id }) => id)).toEqual([world.lease]);
    const listed = async (query: Parameters<typeof operator.leases.list>[0]) =>
      (await operator.leases.list(query)).items.map(({ id }) => id);
    expect(await listed({ live: true, given_for: 'task' })).toContain(world.lease);
    expect(await listed({ live: false })).not.toContain(world.lease);
    // The operator asks with one.
    const operators = await listed({ given_for: 'operator' });
    expect([operators.length > 0, operators.includes(world.lease)]).toEqual([true, false]);
    expect((await operator.revocations.list()).items.map(({ id }) => id)).toContain(world.revocation);
    expect((await operator.revocations.get(world.revocation)).reason).toBe('drill');
    expect((await operator.revocations.preview({ agent: REFUNDS })).preview.leases).toBe(1);
    expect((await operator.locks.list()).items.map(({ id }) => id)).toEqual([world.lock]);
    expect((await operator.audit({ task: world.task })).items.length).toBeGreaterThan(0);
    expect(await operator.why(world.task)).toBeDefined();
    expect((await operator.bundle.get()).digest).toBeDefined();
    expect((await operator.health()).checks).toBeDefined();
    expect(await as('tool').introspect(world.toolToken)).toMatchObject({ active: true, jti: world.lease });
    await as('agent').revokeToken(world.toolToken);
    expect(await as('tool').introspect(world.toolToken)).toEqual({ active: false });
  });

  it('an operator token is fetched once, and again when it is about to end', async () => {
    const asked: string[] = [];
    const fetch: Fetch = (url, init) => {
      asked.push(new URL(url).pathname);
      return nodeFetch()(url, init);
    };
    const exchanges = () => asked.filter((path) => path === '/oauth2/token').length;
    const operator = as('operator', { fetch });
    await operator.locks.list();
    await operator.locks.list();
    expect(exchanges()).toBe(1);
    world.parts.clock.advance(FAKE_SETTINGS.operatorTtlMs - 20_000);
    await operator.locks.list().catch(() => undefined);
    expect(exchanges()).toBe(2);
  });
});

describe('refusals', () => {
  it('are errors with code, status, decision and exit code', async () => {
    const error = await as('other')
      .tasks.get(world.task)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(NotFound);
    expect(error).toMatchObject({
      code: 'not_found',
      status: 404,
      exitCode: 2,
      decisionId: expect.stringMatching(/^dec_/),
    });
  });

  it('name the field that is wrong', async () => {
    const error = await as('orchestrator')
      .tasks.start({ ...TASK, ttl_seconds: -1 })
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(InvalidRequest);
    expect(error).toMatchObject({ field: expect.stringContaining('ttl_seconds'), exitCode: 1 });
  });

  it('after the end of a task are Revoked', async () => {
    await as('orchestrator').tasks.fail(world.task);
    await expect(as('agent').token({ task: world.task, resource: ORDERS })).rejects.toMatchObject({
      name: 'Revoked',
      code: 'task_over',
    });
  });
});
