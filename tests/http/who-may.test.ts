import { newId } from '../../src/core/ids.js';
import { deadBecause } from '../../src/core/lease.js';
import { svid } from '../fakes/identity.js';
import { EMAILS, ORDERS, REFUNDS } from '../fakes/policy.js';
import type { Answer, Call } from './open-door.js';
import { openWorld, TASK, tokenForm, type World } from './world.js';

/* Who may do what on a task. The rule of this door: operators operate, everything else is allowed, so that what is refused
   here is refused by the verbs themselves. */

type Hand = 'opener' | 'operator' | 'agent' | 'its token' | 'another agent' | 'a tool';
const HANDS: Hand[] = ['opener', 'operator', 'agent', 'its token', 'another agent', 'a tool'];

let world: World;
let own: string;

beforeEach(async () => {
  world = await openWorld();
  const form = { ...tokenForm(svid(REFUNDS), world.task), resource: world.parts.settings.issuer };
  own = (await world.call('POST', '/oauth2/token', { form })).body.access_token;
});
afterEach(() => world.close());

const WHO = {
  opener: 'orchestrator',
  operator: 'operator',
  agent: 'agent',
  'another agent': 'other',
  'a tool': 'tool',
};

function send(hand: Hand, method: string, path: string, call: Call = {}): Promise<Answer> {
  if (hand === 'its token') return world.call(method, path, { headers: { authorization: `Bearer ${own}` }, ...call });
  return world.send(WHO[hand] as 'operator', method, path, call);
}

const patch = (context: Record<string, unknown>): [string, string, Call] => [
  'PATCH',
  '/context',
  { json: { context } },
];
const child = (more = {}): [string, string, Call] => [
  'POST',
  '',
  { json: { ...TASK, parent: 'PARENT', purpose: 'a part of it', ...more } },
];

/** What each of them gets, in the order of HANDS. Who has nothing to do with the task gets what they would get if it were not there. */
const ROWS: [name: string, request: [method: string, path: string, call?: Call], statuses: number[]][] = [
  ['reads it', ['GET', ''], [200, 200, 200, 200, 404, 404]],
  ['says it is alive', ['POST', '/heartbeat'], [403, 403, 200, 200, 404, 404]],
  ['gives it up', ['POST', '/fail'], [200, 200, 200, 200, 404, 404]],
  ['says it is done', ['POST', '/complete'], [200, 200, 403, 403, 404, 404]],
  ['calls it off', ['POST', '/cancel'], [200, 200, 403, 403, 404, 404]],
  ['suspends it', ['POST', '/suspend'], [200, 200, 403, 403, 404, 404]],
  ['resumes it', ['POST', '/resume'], [200, 200, 403, 403, 404, 404]],
  ['sets a context key of its type for agents', patch({ risk: 'high' }), [200, 200, 200, 200, 404, 404]],
  ['sets another context key', patch({ flags: ['odd'] }), [200, 200, 403, 403, 404, 404]],
  ['takes a context key away', patch({ risk: null }), [200, 200, 403, 403, 404, 404]],
];

describe.each(ROWS)('who %s', (_, [method, path, call], statuses) => {
  it.each(HANDS.map((hand, at) => [hand, statuses[at] as number] as const))('%s: %d', async (hand, status) => {
    const answer = await send(hand, method, `/v1/tasks/${world.task}${path}`, call);
    expect([answer.status, answer.body?.code]).toEqual([status, CODES[status]]);
  });
});
const CODES: Record<number, string | undefined> = { 403: 'denied', 404: 'not_found' };

describe('an agent and the context', () => {
  const set = (hand: Hand, risk: unknown) =>
    send(hand, 'PATCH', `/v1/tasks/${world.task}/context`, { json: { context: { risk } } });

  it('tightens, and never loosens what is there', async () => {
    expect((await set('agent', 'medium')).status).toBe(200);
    const loosened = await set('agent', 'low');
    expect([loosened.status, loosened.body.field]).toEqual([403, 'context.risk']);
    expect((await set('opener', 'low')).status).toBe(200);
  });

  it.each(['x', 'HIGH', ' high', 1, ['high']])(
    'never sets what the order does not know, which nobody could tighten after: %j',
    async (risk) => {
      const { status, body } = await set('agent', risk);
      expect([status, body.field]).toEqual([400, 'context.risk']);
      expect((await set('agent', 'high')).status).toBe(200);
      expect((await set('agent', risk)).status).toBe(400);
    },
  );
});

describe('a context that is malformed', () => {
  const open = (context: object, more = {}) =>
    send('opener', 'POST', '/v1/tasks', { json: { ...TASK, ...more, context } });
  const change = (hand: Hand, context: object) =>
    send(hand, 'PATCH', `/v1/tasks/${world.task}/context`, { json: { context } });

  it('is refused with the key, the value and the values there are, when a task opens and later', async () => {
    const answers = [
      await open({ risk: 'HIGH' }),
      await change('opener', { risk: 'HIGH' }),
      await change('operator', { risk: 'HIGH' }),
    ];
    for (const { status, body } of answers) {
      expect([status, body.field]).toEqual([400, 'context.risk']);
      expect(body.detail).toBe('context.risk: must be one of low, medium, high, and is "HIGH".');
    }
    expect((await send('opener', 'GET', `/v1/tasks/${world.task}`)).body.context).toEqual({});
  });

  it.each([{ risk: ' high' }, { risk: null }, { flags: 'pii' }, { ticket: 7 }])(
    'opens no task, no child and none without a type: %j',
    async (context) => {
      const [field] = Object.keys(context).map((key) => `context.${key}`);
      const below = await open(context, { parent: world.task });
      const untyped = { purpose: 'look around', agents: [REFUNDS], scope: { tools: ['orders.read'] }, context };
      const bare = await send('opener', 'POST', '/v1/tasks', { json: untyped });
      for (const answer of [await open(context), below, bare]) {
        expect([answer.status, answer.body.field]).toEqual([400, field]);
      }
    },
  );

  it('opens no task of its own with a token request', async () => {
    const task = { type: 'refund', purpose: 'look', context: { risk: 'HIGH' } };
    const form = {
      ...tokenForm(svid(REFUNDS), world.task),
      authorization_details: JSON.stringify([{ type: 'urn:mayfly:task', task }]),
    };
    const { status, body } = await world.call('POST', '/oauth2/token', { form });
    expect([status, body.error, body.field]).toEqual([400, 'invalid_request', 'context.risk']);
  });

  it.each(['constructor', 'toString', 'valueOf', 'hasOwnProperty', '__defineGetter__'])(
    'is one with a name that every object has: %s',
    async (name) => {
      for (const { status, body } of [await open({ [name]: 'x' }), await change('opener', { [name]: 'x' })]) {
        expect([status, body.field]).toEqual([400, `context.${name}`]);
      }
      expect((await change('agent', { [name]: 'x' })).status).toBe(403);
      const params = await send('opener', 'POST', '/v1/tasks', { json: { ...TASK, params: { [name]: 'x' } } });
      expect([params.status, params.body.field]).toEqual([400, 'params']);
    },
  );
});

describe('a fixed context key', () => {
  const change = (hand: Hand, ticket: string | null) =>
    send(hand, 'PATCH', `/v1/tasks/${world.task}/context`, { json: { context: { ticket } } });

  it.each(['opener', 'operator'] as const)('is set once, also for its %s', async (hand) => {
    expect((await change(hand, 'A')).status).toBe(200);
    expect((await change(hand, 'A')).status).toBe(200);
    for (const other of ['B', null]) {
      const { status, body } = await change(hand, other);
      expect([status, body.field]).toEqual([400, 'context.ticket']);
    }
    expect((await send('opener', 'GET', `/v1/tasks/${world.task}`)).body.context).toEqual({ ticket: 'A' });
  });
});

describe('a child task', () => {
  const open = (hand: Hand, more = {}) => {
    const [method, , call] = child({ ...more, parent: world.task });
    return send(hand, method, '/v1/tasks', call);
  };

  it.each([
    ['opener', 201],
    ['operator', 201],
    ['agent', 201],
    ['another agent', 404],
    ['a tool', 404],
  ] as const)('is opened by %s: %d', async (hand, status) => {
    expect((await open(hand)).status).toBe(status);
  });

  it('hangs below its parent, and ends no later', async () => {
    const { body } = await open('agent', { ttl_seconds: 3_000 });
    const parent = (await send('opener', 'GET', `/v1/tasks/${world.task}`)).body;
    expect(body.path).toEqual([world.task, body.id]);
    expect(body.deadline).toBe(parent.deadline);
    expect(body.self_opened).toBe(true);
  });

  it.each([
    ['a tool', { scope: { tools: ['orders.delete'] } }, 'scope.tools'],
    ['a resource', { scope: { resources: ['https://other.example'] } }, 'scope.resources'],
    ['a secret', { scope: { secrets: ['root'] } }, 'scope.secrets'],
  ])('has at most what its parent has: %s beyond it is refused by its name', async (_, more, field) => {
    const { status, body } = await open('agent', more);
    expect([status, body.field]).toEqual([400, field]);
  });

  it('narrowed once stays narrowed below', async () => {
    const narrow = (await open('agent', { scope: { tools: ['orders.read'] } })).body;
    const below = await send('agent', 'POST', '/v1/tasks', { json: { ...TASK, parent: narrow.id } });
    expect(below.body.scope.tools).toEqual(['orders.read']);
    const wider = { ...TASK, parent: narrow.id, scope: { tools: ['orders.refund'] } };
    expect((await send('agent', 'POST', '/v1/tasks', { json: wider })).status).toBe(400);
  });

  it('may only tighten the context above it, when it opens and later', async () => {
    await send('opener', 'PATCH', `/v1/tasks/${world.task}/context`, { json: { context: { risk: 'medium' } } });
    const looser = await open('agent', { context: { risk: 'low' } });
    expect([looser.status, looser.body.field]).toEqual([400, 'context.risk']);
    const tighter = await open('agent', { context: { risk: 'high' } });
    expect(tighter.status).toBe(201);
    const back = await send('opener', 'PATCH', `/v1/tasks/${tighter.body.id}/context`, {
      json: { context: { risk: 'low' } },
    });
    expect([back.status, back.body.field]).toEqual([400, 'context.risk']);
  });

  it('is at most the fifth of its path', async () => {
    let parent = world.task;
    for (let depth = 2; depth <= 5; depth++) {
      const { status, body } = await send('opener', 'POST', '/v1/tasks', { json: { ...TASK, parent } });
      expect([depth, status]).toEqual([depth, 201]);
      parent = body.id;
    }
    const sixth = await send('opener', 'POST', '/v1/tasks', { json: { ...TASK, parent } });
    expect([sixth.status, sixth.body.field]).toEqual([400, 'parent']);
  });

  it.each([
    ['over', '/complete', 'task_over'],
    ['suspended', '/suspend', 'task_suspended'],
  ])('is not opened below a task that is %s', async (_, move, code) => {
    await send('opener', 'POST', `/v1/tasks/${world.task}${move}`);
    const { status, body } = await open('opener');
    expect([status, body.code]).toEqual([409, code]);
  });

  it('is dead with its parent, at once, and whoever opened the parent controls it', async () => {
    const { body } = await open('agent');
    expect((await send('opener', 'POST', `/v1/tasks/${body.id}/suspend`)).status).toBe(200);
    const other = (await open('agent')).body;
    const { body: minted } = await world.call('POST', '/oauth2/token', { form: tokenForm(svid(REFUNDS), other.id) });
    await send('opener', 'POST', `/v1/tasks/${world.task}/complete`);
    const lease = await world.parts.views.leaseWithAbove(minted.lease_id);
    if (!lease) throw new Error('the lease is gone');
    expect(
      deadBecause(lease.lease, { tasks: lease.tasks, leases: lease.leases, revoked: false }, world.parts.clock.now()),
    ).toBe('task');
  });
});

describe('a task without a type', () => {
  const untyped = { purpose: 'look around', agents: [REFUNDS], scope: { tools: ['orders.read'], resources: [ORDERS] } };

  it('is opened where policy says so, and nowhere else', async () => {
    const asked: unknown[] = [];
    const { rule } = world.parts.policies;
    world.parts.policies.rule = (question) => {
      if (question.action !== 'open') return rule(question);
      asked.push(question.resource.id);
      return question.resource.id === 'untyped' ? 'deny' : 'allow';
    };
    expect((await send('opener', 'POST', '/v1/tasks', { json: untyped })).body.code).toBe('denied');
    world.parts.policies.rule = rule;
    const { status, body } = await send('opener', 'POST', '/v1/tasks', { json: untyped });
    expect([status, body.type, body.risk, body.scope.tools]).toEqual([201, undefined, 'medium', ['orders.read']]);
    expect(asked).toEqual(['untyped']);
  });

  it('of a type that nobody declared is a mistake, with the types there are', async () => {
    const { status, body } = await send('opener', 'POST', '/v1/tasks', { json: { ...untyped, type: 'refnd' } });
    expect([status, body.field, body.hint]).toEqual([400, 'type', 'Declared: refund.']);
  });
});

describe('silence', () => {
  const opened = async (more: object) => {
    const { body } = await send('opener', 'POST', '/v1/tasks', { json: { ...TASK, heartbeat_seconds: 30, ...more } });
    return body.id as string;
  };
  const passes = async (seconds: number) => {
    world.parts.clock.advance(seconds * 1_000);
    await world.parts.schedule.sweep();
  };
  const state = async (id: string) => (await send('operator', 'GET', `/v1/tasks/${id}`)).body.state;

  beforeEach(async () => {
    const { takeJobs } = await import('../../src/edge/jobs/jobs.js');
    await takeJobs(world.parts);
  });

  it('suspends, its opener resumes, and what was given before stays dead', async () => {
    const id = await opened({});
    const { body: minted } = await world.call('POST', '/oauth2/token', { form: tokenForm(svid(REFUNDS), id) });
    await passes(20);
    await send('agent', 'POST', `/v1/tasks/${id}/heartbeat`);
    await passes(20);
    expect(await state(id)).toBe('active');
    await passes(11);
    expect(await state(id)).toBe('suspended');
    expect((await send('agent', 'POST', `/v1/tasks/${id}/resume`)).status).toBe(403);
    expect((await send('opener', 'POST', `/v1/tasks/${id}/resume`)).body.state).toBe('active');
    const lease = await world.send('operator', 'GET', `/v1/leases/${minted.lease_id}`);
    expect(lease.body.dead_because).toBeDefined();
  });

  it('three times as long ends it as silent', async () => {
    const id = await opened({});
    for (let seconds = 0; seconds < 100; seconds += 10) await passes(10);
    expect(await state(id)).toBe('silent');
  });

  it('ends it at once where it is to end', async () => {
    const id = await opened({ on_silence: 'end' });
    await passes(31);
    expect(await state(id)).toBe('silent');
  });

  it('of its opener is no heartbeat, and neither is that of an agent which the task does not name', async () => {
    const id = await opened({});
    await passes(29);
    expect((await send('opener', 'POST', `/v1/tasks/${id}/heartbeat`)).status).toBe(403);
    expect((await world.call('POST', `/v1/tasks/${id}/heartbeat`, { as: svid(EMAILS) })).status).toBe(404);
    await passes(2);
    expect(await state(id)).toBe('suspended');
  });
});

describe('not yours', () => {
  /** The calls of the stores that one request makes, by name, in order. */
  async function callsOf(path: string, method = 'GET'): Promise<string[]> {
    const calls: string[] = [];
    let depth = 0;
    const { ledger, views } = world.parts;
    const watched = new Map<object, Map<string, unknown>>();
    for (const store of [ledger, views] as unknown as Record<string, unknown>[]) {
      const before = new Map<string, unknown>();
      const names = new Set([...Object.keys(store), ...Object.getOwnPropertyNames(Object.getPrototypeOf(store))]);
      for (const name of names) {
        const call = store[name];
        if (typeof call !== 'function' || name === 'constructor') continue;
        before.set(name, Object.hasOwn(store, name) ? call : undefined);
        store[name] = (...words: unknown[]) => {
          // What a store calls of itself is its own affair.
          if (depth === 0) calls.push(name);
          depth++;
          try {
            return (call as (...all: unknown[]) => unknown).apply(store, words);
          } finally {
            depth--;
          }
        };
      }
      watched.set(store, before);
    }
    const answer = await world.send('other', method, path);
    expect(answer.status).toBe(404);
    for (const [store, before] of watched) {
      for (const [name, call] of before) {
        if (call === undefined) delete (store as Record<string, unknown>)[name];
        else (store as Record<string, unknown>)[name] = call;
      }
    }
    return calls;
  }

  it.each(['GET', 'POST'])('costs what not there costs: the same calls of the stores (%s)', async (method) => {
    const end = method === 'POST' ? '/complete' : '';
    const nowhere = newId('tsk', 'a', world.parts.clock.now());
    const theirs = await callsOf(`/v1/tasks/${world.task}${end}`, method);
    expect(theirs.length).toBeGreaterThan(1);
    expect(await callsOf(`/v1/tasks/${nowhere}${end}`, method)).toEqual(theirs);
  });

  it('at the token endpoint too', async () => {
    const nowhere = newId('tsk', 'a', world.parts.clock.now());
    const ask = async (task: string) =>
      (await world.call('POST', '/oauth2/token', { form: tokenForm(svid(EMAILS), task) })).body;
    const [theirs, none] = [await ask(world.task), await ask(nowhere)];
    for (const body of [theirs, none]) {
      expect(body).toMatchObject({ error: 'invalid_authorization_details', code: 'not_found' });
    }
    expect({ ...theirs, decision_id: '', request_id: '' }).toEqual({ ...none, decision_id: '', request_id: '' });
  });
});
