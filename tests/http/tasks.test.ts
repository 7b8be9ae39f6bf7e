import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { BrokerError } from '../../src/core/errors.js';
import { svid } from '../fakes/identity.js';
import { EMAILS, ORCHESTRATOR, REFUNDS } from '../fakes/policy.js';
import { NAMES, openWorld, TASK, tokenForm, type World } from './world.js';

let world: World;
beforeEach(async () => {
  world = await openWorld();
});
afterEach(() => world.close());

const post = (path: string, json: unknown = {}, headers = {}) =>
  world.send('orchestrator', 'POST', path, { json, headers });

describe('POST /v1/tasks', () => {
  it("201: snake_case with units, and keys that are the caller's untouched", async () => {
    const context = { someKey: { innerKey: 1 }, risk: 'low' };
    const { status, body, headers } = await post('/v1/tasks', {
      ...TASK,
      ref: 'run-9',
      context,
      heartbeat_seconds: 30,
      on_silence: 'end',
      on_context_change: 'revoke',
      scope: { tools: ['orders.read'] },
      on_behalf_of: 'carol',
    });
    expect(status).toBe(201);
    expect(headers.get('location')).toBe(`/v1/tasks/${body.id}`);
    expect(body).toEqual({
      id: expect.stringMatching(/^tsk_a_/),
      ref: 'run-9',
      type: 'refund',
      params: { order_id: '42' },
      purpose: 'Refund order 42',
      risk: 'medium',
      path: [body.id],
      state: 'active',
      generation: expect.any(Number),
      opener: ORCHESTRATOR,
      opener_kind: 'orchestrator',
      self_opened: false,
      on_behalf_of: { name: 'carol', proven: false },
      agents: [REFUNDS],
      scope: { tools: ['orders.read'], resources: expect.any(Array), secrets: expect.any(Array) },
      context,
      created_at: '2027-01-15T08:00:00.000Z',
      deadline: '2027-01-15T08:05:00.000Z',
      heartbeat_seconds: 30,
      on_silence: 'end',
      on_context_change: 'revoke',
      bundle: expect.stringMatching(/^sha256:/),
      warnings: ['No task type declares the context key someKey: no policy sees it.'],
      ...(body.last_heartbeat_at && { last_heartbeat_at: expect.any(String) }),
    });
  });

  it('201: a misspelt context key is kept, as keys are free, and told with the one that may be meant', async () => {
    const { status, body } = await post('/v1/tasks', { ...TASK, context: { rsik: 'high', risk: 'low' } });
    expect([status, body.context]).toEqual([201, { rsik: 'high', risk: 'low' }]);
    expect(body.warnings).toEqual([
      'No task type declares the context key rsik: no policy sees it; did you mean "risk"?',
    ]);
    const declared = await post('/v1/tasks', { ...TASK, context: { risk: 'low' } });
    expect([declared.status, declared.body.warnings]).toEqual([201, undefined]);
  });

  it('201: an agent that a lock keeps from getting anything is told with the lock, as long as it holds', async () => {
    const stop = (selector: object) =>
      world.send('operator', 'POST', '/v1/locks', { json: { selector, reason: 'stolen', expires_in: 60 } });
    const { id } = (await stop({ agent: REFUNDS })).body.lock;
    await stop({ agent: REFUNDS, tool: 'orders.refund' });
    const { status, body } = await post('/v1/tasks', { ...TASK, agents: [EMAILS, REFUNDS] });
    expect([status, body.warnings]).toEqual([
      201,
      [`Lock ${id} forbids to give anything to ${REFUNDS} for it: stolen`],
    ]);
    await world.parts.clock.advance(61_000);
    expect((await post('/v1/tasks', TASK)).body.warnings).toBeUndefined();
  });

  it('201: that no agent is named is told: nobody can join', async () => {
    const { status, body } = await post('/v1/tasks', { ...TASK, agents: [] });
    expect([status, body.warnings]).toEqual([201, ['No agent is named in agents: nobody can join this task.']]);
  });

  it('200: the same ref again is the same task', async () => {
    const first = await post('/v1/tasks', { ...TASK, ref: 'again' });
    const second = await post('/v1/tasks', { ...TASK, ref: 'again' });
    expect([first.status, second.status]).toEqual([201, 200]);
    expect(second.body.id).toBe(first.body.id);
  });

  it.each([
    ['ttl_seconds', 0],
    ['ttl_seconds', 1.5],
    ['ttl_seconds', '5m'],
    ['heartbeat_seconds', -1],
    ['on_silence', 'ignore'],
    ['on_context_change', 'nothing'],
    ['purpose', ''],
    ['purpose', 'x'.repeat(2000)],
    ['agents', 'spiffe://dev.mayfly/agent/refunds'],
    ['agents', Array.from({ length: 65 }, () => REFUNDS)],
    ['params', [1]],
    ['params', Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`k${at}`, 1]))],
    ['context', null],
    ['ref', 'with space'],
    ['ref', ''],
    ['scope.tools', undefined],
  ])('400: %s that is %p', async (field, value) => {
    const bad = field === 'scope.tools' ? { scope: { tools: 'orders.read' } } : { [field]: value };
    const { status, body } = await post('/v1/tasks', { ...TASK, ...bad });
    expect([status, body.code, body.field]).toEqual([400, 'invalid_request', field]);
  });
});

describe('PUT /v1/tasks/ref:<ref>', () => {
  it('201 then 200, and found by its ref everywhere', async () => {
    const put = () => world.send('orchestrator', 'PUT', '/v1/tasks/ref:job%2F7', { json: TASK });
    const [first, second] = [await put(), await put()];
    expect([first.status, second.status, second.body.id]).toEqual([201, 200, first.body.id]);
    expect(first.body.ref).toBe('job/7');
    expect((await world.send('orchestrator', 'GET', '/v1/tasks/ref:job%2F7')).body.id).toBe(first.body.id);
    expect((await post('/v1/tasks/ref:job%2F7/complete')).body.state).toBe('completed');
  });

  it.each(['run-1', 'ref:', 'ref:a%20b', 'tsk_a_x'])('400: put at %s', async (at) => {
    expect((await world.send('orchestrator', 'PUT', `/v1/tasks/${at}`, { json: TASK })).status).toBe(400);
  });

  it('400: a ref in the body as well', async () => {
    const { status, body } = await world.send('orchestrator', 'PUT', '/v1/tasks/ref:a', {
      json: { ...TASK, ref: 'b' },
    });
    expect([status, body.field]).toEqual([400, 'ref']);
  });
});

describe('a ref is one task', () => {
  const other = { scope: { tools: ['orders.read'] }, on_behalf_of: 'carol' };

  it.each<[field: string, change: object, first?: object]>([
    ['params.order_id', { params: { order_id: '43' } }],
    [
      'params.order_id',
      { params: { order_id: '42', more: 1 }, type: undefined },
      { type: undefined, params: { order_id: '41' } },
    ],
    ['type', { type: undefined }],
    ['agents', { agents: [REFUNDS, EMAILS] }],
    ['scope.tools', { scope: { tools: ['orders.read', 'orders.refund'] } }, other],
    ['on_behalf_of', { on_behalf_of: 'dave' }, other],
  ])(
    '409: what is asked for by it differs from what is there in %s, and nothing is opened',
    async (field, change, first = {}) => {
      const there = (await post('/v1/tasks', { ...TASK, ...first, ref: 'one' })).body;
      for (const again of [
        await post('/v1/tasks', { ...TASK, ...first, ...change, ref: 'one' }),
        await world.send('orchestrator', 'PUT', '/v1/tasks/ref:one', { json: { ...TASK, ...first, ...change } }),
      ]) {
        expect([again.status, again.body]).toEqual([
          409,
          expect.objectContaining({ code: 'conflict', field, hint: expect.stringContaining(there.id) }),
        ]);
      }
      expect((await world.send('orchestrator', 'GET', '/v1/tasks/ref:one')).body).toEqual(there);
    },
  );

  it('409: it was opened below another task', async () => {
    await post('/v1/tasks', { ...TASK, ref: 'one' });
    const below = await post('/v1/tasks', { ...TASK, ref: 'one', parent: world.task });
    expect([below.status, below.body.field]).toEqual([409, 'parent']);
  });

  it('200: agents in another order, another purpose, context or time, and a scope that is not said, ask for the same', async () => {
    const agents = [REFUNDS, EMAILS];
    const first = await post('/v1/tasks', { ...TASK, ...other, agents, ref: 'one' });
    const { scope: _, ...said } = other;
    const again = { ...TASK, ...said, agents: [EMAILS, REFUNDS, REFUNDS], purpose: 'again', ttl_seconds: 60 };
    const second = await post('/v1/tasks', { ...again, context: { risk: 'low' }, ref: 'one' });
    expect([second.status, second.body.id]).toEqual([200, first.body.id]);
  });
});

describe('ends', () => {
  it('200: the first one wins and repeats answer the same', async () => {
    const done = await post(`/v1/tasks/${world.task}/complete`, { reason: 'refunded' });
    expect(done.body).toMatchObject({ state: 'completed', end_reason: 'refunded', ended_by: ORCHESTRATOR });
    const late = await post(`/v1/tasks/${world.task}/fail`);
    expect([late.status, late.body.state]).toEqual([200, 'completed']);
  });

  it('whoever goes on with a task that is over hears why it ended', async () => {
    await post(`/v1/tasks/${world.task}/fail`, { reason: 'no stock' });
    const late = await post(`/v1/tasks/${world.task}/resume`);
    expect([late.body.code, late.body.detail]).toEqual(['task_over', 'The task is over: failed (no stock).']);
  });

  it('202: by a ref that is not opened yet; it opens ended', async () => {
    const kept = await post('/v1/tasks/ref:early/cancel');
    expect([kept.status, kept.body]).toEqual([202, { ref: 'early', kept: true }]);
    expect((await post('/v1/tasks', { ...TASK, ref: 'early' })).body.state).toBe('cancelled');
  });

  it('403: an agent of the task does not complete it', async () => {
    const { status, body } = await world.send('agent', 'POST', `/v1/tasks/${world.task}/complete`);
    expect([status, body.code]).toEqual([403, 'denied']);
    expect(body.decision_id).toMatch(/^dec_a_/);
  });

  it('200: no body, and no Content-Type, is no reason', async () => {
    expect((await world.send('orchestrator', 'POST', `/v1/tasks/${world.task}/complete`)).status).toBe(200);
  });
});

describe('PATCH /v1/tasks/{id}/context', () => {
  const patch = (json: unknown, headers = {}) =>
    world.send('orchestrator', 'PATCH', `/v1/tasks/${world.task}/context`, { json, headers });

  it('200: a preview names what would die and changes nothing', async () => {
    const { body } = await patch({ context: { risk: 'high' }, dry_run: true });
    expect(body.preview).toEqual({
      kept: expect.any(Number),
      dying: expect.any(Number),
      revoked: expect.any(Array),
      at_least: false,
    });
    expect(body.task.generation).toBe(
      (await world.send('orchestrator', 'GET', `/v1/tasks/${world.task}`)).body.generation,
    );
  });

  it('200: a dry run of a task that loses everything by any change says so, of each lease', async () => {
    const json = { ...TASK, on_context_change: 'revoke' };
    const { id } = (await world.send('orchestrator', 'POST', '/v1/tasks', { json })).body;
    const token = await world.call('POST', '/oauth2/token', { form: tokenForm(svid(REFUNDS), id) });
    expect(token.status).toBe(200);
    const change = (dry: boolean) =>
      world.send('orchestrator', 'PATCH', `/v1/tasks/${id}/context`, {
        json: { context: { risk: 'low' }, dry_run: dry },
      });
    expect((await change(true)).body.preview).toMatchObject({
      kept: 0,
      dying: 1,
      revoked: [{ agent: REFUNDS, reason: expect.stringContaining('lose everything') }],
    });
    expect((await change(false)).status).toBe(200);
  });

  it.each([true, false])('200: a misspelt key is told (dry_run: %s), but for taking it away again', async (dryRun) => {
    const told = ['No task type declares the context key rsik: no policy sees it; did you mean "risk"?'];
    const change = async (rsik: unknown) => (await patch({ context: { rsik }, dry_run: dryRun })).body.warnings;
    expect([await change(null), await change('high')]).toEqual([told, told]);
    expect(await change(null)).toEqual(dryRun ? told : undefined);
  });

  it('412: the task changed meanwhile', async () => {
    await patch({ context: { risk: 'high' } });
    const { status, body } = await patch({ context: { risk: 'high' }, generation: 0 });
    expect([status, body.code]).toEqual([412, 'generation_mismatch']);
  });

  it('200: as application/merge-patch+json too', async () => {
    const { status } = await patch({ context: { risk: 'high' } }, { 'content-type': 'application/merge-patch+json' });
    expect(status).toBe(200);
  });
});

describe('GET /v1/tasks', () => {
  it('200: pages with a cursor until there is no more', async () => {
    for (const ref of ['a', 'b', 'c']) await post('/v1/tasks', { ...TASK, ref });
    const ids: string[] = [];
    let cursor: string | undefined;
    do {
      const query = cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`;
      const { body } = await world.send('orchestrator', 'GET', `/v1/tasks?limit=2${query}`);
      expect(body.items.length).toBeLessThanOrEqual(2);
      ids.push(...body.items.map((task: { id: string }) => task.id));
      cursor = body.next_cursor;
    } while (cursor !== undefined);
    expect(new Set(ids).size).toBe(4);
  });

  it.each(['limit=0', 'limit=501', 'limit=x', 'live=maybe', 'cursor='.padEnd(600, 'x')])('400: %s', async (query) => {
    expect((await world.send('orchestrator', 'GET', `/v1/tasks?${query}`)).status).toBe(400);
  });
});

describe('a cursor that no page ended with', () => {
  it.each(['tasks', 'leases', 'revocations', 'audit', 'secrets'])('is refused by its name: %s', async (list) => {
    for (const cursor of ['AAAA', '~', '%01']) {
      const { status, body } = await world.send('operator', 'GET', `/v1/${list}?cursor=${cursor}`);
      expect([cursor, status, body.field]).toEqual([cursor, 400, 'cursor']);
    }
  });

  it('goes on only where it was given: in its list, with its filters, for its caller, as it is', async () => {
    for (const ref of ['a', 'b', 'c']) await post('/v1/tasks', { ...TASK, ref });
    const list = '/v1/tasks?live=true&limit=2';
    const cursor: string = (await world.send('operator', 'GET', list)).body.next_cursor;
    const ask = (who: 'operator' | 'second' | 'orchestrator', path: string, text = cursor) =>
      world.send(who, 'GET', `${path}&cursor=${encodeURIComponent(text)}`);
    expect((await ask('operator', list)).status).toBe(200);
    expect((await ask('operator', '/v1/tasks?live=true&limit=7')).status).toBe(200);
    const place = cursor.slice(22);
    const elsewhere = [
      ask('operator', '/v1/tasks?limit=2'),
      ask('operator', '/v1/tasks?live=false&limit=2'),
      ask('operator', '/v1/revocations?limit=2'),
      ask('second', list),
      ask('orchestrator', list),
      ask('operator', list, place),
      ask('operator', list, `${cursor}0`),
      ask('operator', list, `${'A'.repeat(22)}${place}`),
    ];
    for (const { status, body } of await Promise.all(elsewhere)) {
      expect([status, body.field]).toEqual([400, 'cursor']);
    }
  });
});

describe('Idempotency-Key', () => {
  const keyed = (json: unknown, key = 'key-1') => post('/v1/tasks', json, { 'idempotency-key': key });

  it('the same request gets the same answer, and one task is opened', async () => {
    const first = await keyed(TASK);
    const second = await keyed(TASK);
    expect([second.status, second.body]).toEqual([first.status, first.body]);
    expect(second.headers.get('location')).toBe(first.headers.get('location'));
    expect(second.headers.get('idempotent-replayed')).toBe('true');
    expect((await world.send('orchestrator', 'GET', '/v1/tasks')).body.items).toHaveLength(2);
  });

  it('422: another body', async () => {
    await keyed(TASK);
    const { status, body } = await keyed({ ...TASK, purpose: 'Another' });
    expect([status, body.code]).toEqual([422, 'key_reused']);
  });

  it("another caller's key, and another key, are others", async () => {
    const first = await keyed(TASK);
    const theirs = await world.send('operator', 'POST', '/v1/tasks', {
      json: TASK,
      headers: { 'idempotency-key': 'key-1' },
    });
    expect(theirs.body.id).not.toBe(first.body.id);
    expect((await keyed(TASK, 'key-2')).body.id).not.toBe(first.body.id);
  });

  it('a request that failed gives its key back', async () => {
    expect((await keyed({ ...TASK, agents: ['spiffe://dev.mayfly/agent/unknown'] })).status).toBe(400);
    expect((await keyed(TASK)).status).toBe(201);
  });

  it('401: authority is asked for again before a kept answer', async () => {
    await keyed(TASK);
    const { status } = await world.call('POST', '/v1/tasks', { json: TASK, headers: { 'idempotency-key': 'key-1' } });
    expect(status).toBe(401);
  });

  it('404: a kept answer about what the caller may no longer see', async () => {
    const first = await keyed(TASK);
    world.parts.line.state.tasks.delete(first.body.id);
    const { status, text } = await keyed(TASK);
    expect(status).toBe(404);
    expect(text).not.toContain(first.body.id);
  });

  it('409: while the first one is not answered', async () => {
    let goOn = () => {};
    const held = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const start = world.parts.ledger.startTask.bind(world.parts.ledger);
    let isThere = () => {};
    const there = new Promise<void>((resolve) => {
      isThere = resolve;
    });
    world.parts.ledger.startTask = async (write) => {
      isThere();
      await held;
      return start(write);
    };
    const first = keyed(TASK);
    await there;
    const second = await keyed(TASK);
    expect([second.status, second.headers.get('retry-after')]).toEqual([409, '1']);
    goOn();
    expect((await first).status).toBe(201);
  });

  it('503: fails closed when nobody remembers keys', async () => {
    world.parts.replayGuard.claim = async () => {
      throw new BrokerError('unavailable', 'Not now.');
    };
    expect((await keyed(TASK)).status).toBe(503);
    expect((await post('/v1/tasks', TASK)).status).toBe(201);
  });

  it('201: what was done is answered, even when the answer cannot be kept; its key stays taken', async () => {
    world.parts.replayGuard.answer = async () => {
      throw new BrokerError('unavailable', 'Not now.');
    };
    expect((await keyed(TASK)).status).toBe(201);
    expect((await keyed(TASK)).status).toBe(409);
  });

  it.each(['', 'a b', 'x'.repeat(256)])('400: "%s" is no key', async (key) => {
    const { status, body } = await keyed(TASK, key);
    expect([status, body.field]).toEqual([400, 'idempotency-key']);
  });

  it('a lock is set once', async () => {
    const call = {
      json: { selector: { agent: REFUNDS }, reason: 'drill' },
      headers: { 'idempotency-key': 'lock-1' },
    };
    const [first, second] = [
      await world.send('operator', 'POST', '/v1/locks', call),
      await world.send('operator', 'POST', '/v1/locks', call),
    ];
    expect([second.status, second.body.lock.id]).toEqual([201, first.body.lock.id]);
  });
});

describe('locks', () => {
  it('202 for the first person, 204 for a second one; 404 when it is gone', async () => {
    const path = `/v1/locks/${world.lock}`;
    expect((await world.send('operator', 'DELETE', path)).body).toEqual({ id: world.lock, state: 'requested' });
    expect((await world.send('operator', 'DELETE', path)).status).toBe(202);
    const second = await world.send('second', 'DELETE', path);
    expect([second.status, second.text]).toEqual([204, '']);
    expect((await world.send('second', 'DELETE', path)).status).toBe(404);
  });

  it('201: what is locked is dead at once and says so', async () => {
    const { body } = await world.send('operator', 'POST', '/v1/locks', {
      json: { selector: { agent: REFUNDS }, reason: 'stolen', expires_in: 600 },
    });
    expect(body.lock).toMatchObject({ selector: { agent: REFUNDS }, expires_at: '2027-01-15T08:10:00.000Z' });
    expect(body.preview).toMatchObject({ agents: [REFUNDS], leases: 1, at_least: false });
    const lease = await world.send('agent', 'GET', `/v1/leases/${world.lease}`);
    expect(lease.status).toBe(200);
    const asked = await world.call('POST', '/oauth2/introspect', { as: NAMES.tool, form: { token: world.toolToken } });
    expect(asked.body).toEqual({ active: false });
  });

  it('400: a selector that names nothing, or something unknown', async () => {
    for (const selector of [{}, { agnet: REFUNDS }, { agent: '' }, { all: 'true' }]) {
      const { status } = await world.send('operator', 'POST', '/v1/locks', { json: { selector, reason: 'x' } });
      expect(status).toBe(400);
    }
  });
});
