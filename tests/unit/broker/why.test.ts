import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { type Answer, type Knock, knockAt } from '../../fakes/knock.js';

/* What `mayfly why` says of refusals, with the real policy engine on the sample bundle. */

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
