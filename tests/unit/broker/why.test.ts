import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { type Answer, type Knock, knockAt } from '../../fakes/knock.js';

/* What `mayfly why` says, with the real policy engine on the sample bundle. */

describe('why a refusal was one', () => {
  let door: FakeDoor;
  let knock: Knock;
  let operator: Awaited<ReturnType<Knock['operator']>>;

  beforeAll(async () => {
    door = await openFakeDoor();
    knock = knockAt(door);
    operator = await knock.operator('operator-1');
  });
  afterAll(() => door.close());

  const why = async ({ status, body }: Answer) => {
    expect([status, body.decision_id]).toEqual([expect.any(Number), expect.stringMatching(/^dec_a_/)]);
    const explained = await operator('POST', '/v1/why', { about: body.decision_id });
    expect(explained.status).toBe(200);
    return explained.body;
  };

  it('an agent that nobody declared: which name may have been meant', async () => {
    const refused = await knock.token(knock.exchange('/agent/refund', await knock.task()));
    const { because, record } = await why(refused);
    expect(because).toContain('nearest miss: agent not listed; did you mean /agent/refunds?');
    expect(because).toContain('answered denied');
    expect(record.detail.inputs).toEqual({ principal: 'spiffe://dev.mayfly/agent/refund', action: 'mint' });
  });

  it('a policy that forbids: which one, and what policy was told', async () => {
    const task = await knock.task({ context: { risk: 'high' } });
    const refused = await knock.token(knock.exchange('/agent/refunds', task, { scope: 'orders.refund' }));
    const { because, record } = await why(refused);
    expect(because).toContain('determined by refunds-stop-at-high-risk');
    expect(because.join('\n')).toMatch(/nearest miss: policy refunds-stop-at-high-risk forbids it because/);
    expect(record.detail.inputs).toMatchObject({
      principal: { type: 'Agent', id: 'spiffe://dev.mayfly/agent/refunds' },
      action: 'mint',
      resource: { type: 'Tool', id: 'orders.refund' },
      context: { task: { id: task, params: { order_id: 42 } } },
    });
  });

  it('no policy that permits: the conditions that were not met', async () => {
    const refused = await knock.api('POST', '/v1/tasks', '/orchestrator/workflow', {
      purpose: 'anything at all',
      agents: ['spiffe://dev.mayfly/agent/refunds'],
    });
    const { because, record } = await why(refused);
    expect(because.join('\n')).toMatch(/nearest miss: /);
    expect(record.detail.inputs).toMatchObject({ action: 'open' });
  });

  it('nobody else is told: to them there is no such record', async () => {
    const refused = await knock.token(knock.exchange('/agent/refund', await knock.task()));
    const about = { about: refused.body.decision_id };
    for (const path of ['/agent/refunds', '/agent/research', '/orchestrator/workflow', '/tool/orders']) {
      expect([path, (await knock.api('POST', '/v1/why', path, about)).status]).toEqual([path, 404]);
    }
  });

  it("to the agent itself its own refusal is explained, and somebody else's is not there", async () => {
    const task = await knock.task({ context: { risk: 'high' } });
    const refused = await knock.token(knock.exchange('/agent/refunds', task, { scope: 'orders.refund' }));
    const about = { about: refused.body.decision_id };
    const own = await knock.api('POST', '/v1/why', '/agent/refunds', about);
    expect([own.status, own.body.because.join('\n')]).toEqual([200, expect.stringContaining('nearest miss')]);
    expect((await knock.api('POST', '/v1/why', '/agent/research', about)).status).toBe(404);
  });
});

describe('why a lock holds', () => {
  let door: FakeDoor;
  let knock: Knock;
  let operator: Awaited<ReturnType<Knock['operator']>>;

  beforeEach(async () => {
    door = await openFakeDoor();
    knock = knockAt(door);
    operator = await knock.operator('operator-1');
  });
  afterEach(() => door.close());

  const lock = async (more: Record<string, unknown> = {}): Promise<string> => {
    const made = await operator('POST', '/v1/locks', { selector: { tool: 'orders.refund' }, reason: 'drill', ...more });
    expect(made.status).toBe(201);
    return made.body.lock.id;
  };
  const why = async (about: string) => (await operator('POST', '/v1/why', { about })).body;

  it('the id that a refusal names leads to who set the lock, why, and until when', async () => {
    const task = await knock.task();
    await lock({ expires_in: 60 });
    const refused = await knock.token(knock.exchange('/agent/refunds', task, { scope: 'orders.refund' }));
    const [id] = JSON.stringify(refused.body).match(/lck_a_[0-9a-z]{26}/) as string[];
    const { because, lock: told } = await why(id as string);
    expect(told).toMatchObject({ id, selector: { tool: 'orders.refund' }, reason: 'drill', system: false });
    expect(because).toEqual([
      `${told.by} set it at ${told.created_at}: drill`,
      `nothing new is given to what it names until ${told.expires_at}`,
    ]);
  });

  it('one without an end is there until two people lift it; who asked first is told; a lifted one is not there', async () => {
    const id = await lock();
    expect((await why(id)).because[1]).toBe('nothing new is given to what it names until two people lift it');
    await operator('DELETE', `/v1/locks/${id}`);
    expect((await why(id)).because[2]).toMatch(/operator-1 asked to lift it at 20/);
    await (await knock.operator('operator-2'))('DELETE', `/v1/locks/${id}`);
    expect(await operator('POST', '/v1/why', { about: id })).toMatchObject({
      status: 404,
      body: { detail: 'There is no such lock, or it is not yours.' },
    });
  });

  it('nobody but operators is told: to others there is no such lock', async () => {
    const about = { about: await lock() };
    for (const path of ['/agent/refunds', '/orchestrator/workflow', '/tool/orders']) {
      expect([path, (await knock.api('POST', '/v1/why', path, about)).status]).toEqual([path, 404]);
    }
  });
});

describe('why a token is worth nothing though its record says that it is active', () => {
  let door: FakeDoor;
  let knock: Knock;

  beforeEach(async () => {
    door = await openFakeDoor();
    knock = knockAt(door);
  });
  afterEach(() => door.close());

  // Signed in anew: what kills the token kills the operator's.
  const operate = async (method: string, path: string, body?: unknown) =>
    (await knock.operator('operator-1'))(method, path, body);
  const mint = async () => knock.minted(knock.exchange('/agent/refunds', await knock.task()));
  const told = async (lease: string) => [
    (await operate('GET', `/v1/leases/${lease}`)).body.dead_because,
    (await operate('POST', '/v1/why', { about: lease })).body.because[0],
  ];

  it('the epoch was raised', async () => {
    const { claims } = await mint();
    expect(await told(claims.jti)).toEqual([undefined, 'the lease is live']);
    expect((await operate('POST', '/v1/recover', { reason: 'drill' })).status).toBe(200);
    expect(await told(claims.jti)).toEqual(['epoch', expect.stringContaining('the epoch was raised')]);
  });

  it('its key is tainted', async () => {
    const { claims, header } = await mint();
    const kid = header['kid'] as string;
    expect((await operate('POST', `/v1/keys/${kid}/taint`, { reason: 'drill' })).status).toBe(200);
    expect(await told(claims.jti)).toEqual(['tainted-key', `the key that signed it is tainted: ${kid}`]);
  });
});
