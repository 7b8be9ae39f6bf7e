import { takeJobs } from '../../../src/edge/jobs/jobs.js';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { type Knock, knockAt, REFUNDS } from '../../fakes/knock.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

/* How an agent is declared in the bundle, and what becomes of that, with the real policy engine on the sample bundle. */

const FILE = 'agents/refunds.yaml';
type Files = Record<string, string>;

let clock: VirtualClock;
let door: FakeDoor;
let knock: Knock;

beforeEach(() => {
  clock = new VirtualClock(Date.now());
});
afterEach(() => door.close());

async function open(bundle?: (files: Files) => Files): Promise<void> {
  door = await openFakeDoor({ clock, ...(bundle && { bundle }) });
  knock = knockAt(door);
  await takeJobs(door.parts);
}

/** The declaration of the agent with one line changed, added (`undefined` before) or taken away. */
function declared(from: RegExp | undefined, to: string): (files: Files) => Files {
  return (files) => {
    const text = files[FILE] as string;
    const next = from ? text.replace(from, to) : `${text}${to}\n`;
    if (next === text) throw new Error('the sample bundle has no such line');
    return { ...files, [FILE]: next };
  };
}

/** What an operator puts in place of the bundle that is there, and the work that follows from it. */
async function put(change: (files: Files) => Files): Promise<void> {
  const operator = await knock.operator('operator-1');
  const { body } = await operator('GET', '/v1/bundle');
  const activated = await operator('PUT', '/v1/bundle', { files: change(body.files) });
  if (activated.status !== 200) throw new Error(`not activated: ${activated.text}`);
  await door.parts.stores.schedule.sweep();
}

const mint = async (tool = 'orders.read') =>
  knock.minted(knock.exchange('/agent/refunds', await knock.task(), { scope: tool }));
const isActive = async (token: string) => (await knock.introspect(token)).body.active;
const records = (type: string) => door.parts.line.state.audit.filter((one) => one.type === type);

describe('who is not declared', () => {
  it('gets nothing, and is told which name may have been meant', async () => {
    await open();
    const { status, body } = await knock.token(knock.exchange('/agent/refund', await knock.task()));
    expect([status, body.error, body.hint]).toEqual([
      400,
      'access_denied',
      expect.stringContaining('did you mean /agent/refunds?'),
    ]);
    expect(body.decision_id).toMatch(/^dec_a_/);
  });

  it.each([
    ['opens no task', () => knock.api('POST', '/v1/tasks', '/orchestrator/unknown', { purpose: 'x', agents: [] })],
    ['reads no task', async () => knock.api('GET', `/v1/tasks/${await knock.task()}`, '/agent/unknown')],
  ])('%s, and is told no more than that it is not known', async (_, send) => {
    await open();
    const { status, body } = await send();
    expect([status, body.code]).toEqual([401, 'identity_rejected']);
  });

  it('cannot be named in a task', async () => {
    await open();
    const { status, body } = await knock.api('POST', '/v1/tasks', '/orchestrator/workflow', {
      type: 'refund',
      params: { order_id: 1 },
      purpose: 'x',
      agents: ['spiffe://dev.mayfly/agent/refund'],
    });
    expect([status, body.field]).toEqual([400, 'agents.0']);
    expect(body.hint).toContain('/agent/refunds');
  });
});

describe('an agent past its review date', () => {
  it('gets what policy says of it, from the day itself on: here nothing new, by a policy that is named', async () => {
    await open();
    const before = await mint();
    clock.set(Date.parse('2031-06-30T00:00:00Z') - 60_000);
    await mint();
    clock.set(Date.parse('2031-06-30T00:00:00Z'));
    const task = await knock.task();
    const { status, body } = await knock.token(knock.exchange('/agent/refunds', task));
    expect([status, body.error]).toEqual([400, 'access_denied']);
    const [refusal] = records('request.refused').filter(({ id }) => id === body.decision_id);
    expect(refusal?.policyIds).toContain('unreviewed-agents-get-nothing');
    expect(before.claims['exp']).toBeLessThan(Date.parse('2031-06-30T00:00:00Z') / 1000);
  });

  it('gets the same as before where policy says nothing of reviews', async () => {
    await open((files) => {
      const { 'policies/research.test.yaml': _, ...rest } = files;
      const name = 'policies/tokens.cedar';
      return { ...rest, [name]: (files[name] as string).replace(/@id\("unreviewed[\s\S]*$/, '') };
    });
    clock.set(Date.parse('2031-07-01T00:00:00Z'));
    expect((await mint()).answer.status).toBe(200);
  });
});

describe('a changed declaration is judged against every live lease', () => {
  it.each([
    ['the tool is no longer its own', /tools: \[orders.read, orders.refund\]/, 'tools: [orders.refund]'],
    ['a riskier tier has shorter lives', /risk_tier: 2/, 'risk_tier: 4'],
    ['it is retired', undefined, 'retired: true'],
    ['its review is overdue', /review_by: .*/, 'review_by: 2020-01-01'],
    ['another owner answers for it', /owner: .*/, 'owner: somebody@dev.example'],
    ['another team has it', /team: .*/, 'team: fraud'],
    ['it is in another environment', /environment: .*/, 'environment: staging'],
    ['it is somebody else now', /agent\/refunds/, 'agent/refunds-2'],
  ])('a token dies when %s', async (_, from, to) => {
    await open();
    const { token, claims } = await mint();
    expect(await isActive(token)).toBe(true);
    await put(declared(from, to));
    expect(await isActive(token)).toBe(false);
    const verdicts = records('lease.re_evaluated').filter(({ lease }) => lease === claims['jti']);
    expect(verdicts).toHaveLength(1);
    expect(verdicts[0]?.reasons?.[0]).toMatch(/^(policy|its agent)/);
  });

  it.each([
    ['a label', /handles: money/, 'handles: cash'],
    ['the model', /example-model-large/, 'example-model-2'],
    ['a later review', /review_by: .*/, 'review_by: 2032-01-01'],
    ['a tool it did not ask for', /tools: \[orders.read, orders.refund\]/, 'tools: [orders.read]'],
  ])('a token that would be given again lives on: %s', async (_, from, to) => {
    await open((files) => withoutCallPolicies(files));
    const { token } = await mint();
    await put(declared(from, to));
    expect(await isActive(token)).toBe(true);
  });

  it('others keep what they have', async () => {
    await open();
    const research = { agents: ['spiffe://dev.mayfly/agent/research'], type: 'research', params: { question: 'x' } };
    const other = await knock.minted(
      knock.exchange('/agent/research', await knock.task(research), {
        resource: 'https://search.example',
        scope: 'search.query',
      }),
    );
    await put(declared(undefined, 'retired: true'));
    expect((await knock.introspect(other.token, '/tool/search')).body.active).toBe(true);
  });

  it('a preview says beforehand which leases would die and why, and changes nothing', async () => {
    await open();
    const { token, claims } = await mint();
    const operator = await knock.operator('operator-1');
    const { body } = await operator('GET', '/v1/bundle');
    const preview = await operator('POST', '/v1/bundle/preview', {
      files: declared(undefined, 'retired: true')(body.files),
    });
    expect(preview.status).toBe(200);
    expect(JSON.stringify(preview.body)).toContain(claims['jti']);
    expect(JSON.stringify(preview.body)).toContain('its agent is no longer declared');
    expect(await isActive(token)).toBe(true);
  });
});

describe('three identities, never mixed', () => {
  it('the record of a token names the workload, the person it acts for and the model it runs, each in its place', async () => {
    await open();
    const person = knock.person('alice');
    const { claims } = await knock.minted({
      ...knock.exchange('/agent/refunds', await knock.task()),
      subject_token: person,
      subject_token_type: 'urn:ietf:params:oauth:token-type:id_token',
      actor_token: knock.svid('/agent/refunds'),
      actor_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    });
    const [minted] = records('token.minted').filter(({ lease }) => lease === claims['jti']);
    expect(minted?.actor).toEqual({
      workload: REFUNDS,
      model: 'example-model-large',
      onBehalfOf: 'https://people.dev.mayfly#alice',
      proof: 'jwt-svid',
    });
  });

  it('an asserted name is recorded as asserted, and never as a person', async () => {
    await open();
    const task = await knock.task({ on_behalf_of: 'carol' });
    const [opened] = records('task.opened').filter((one) => one.task === task);
    expect(opened?.actor).toMatchObject({ workload: 'spiffe://dev.mayfly/orchestrator/workflow', onBehalfOf: 'carol' });
    expect(opened?.actor).not.toHaveProperty('person');
    expect(opened?.detail).toMatchObject({ on_behalf_of: { name: 'carol', proven: false } });
  });
});

/** Policies on single calls tie a token to the bundle it was minted under; without them it can outlive a change. */
function withoutCallPolicies(files: Files): Files {
  return Object.fromEntries(
    Object.entries(files)
      .filter(([name]) => !name.endsWith('.test.yaml') && name !== 'policies/refunds.cedar')
      .map(([name, text]) => [name, text]),
  );
}

describe('a bundle under which nobody could activate another one', () => {
  it.each([
    ['an empty one', (): Files => ({})],
    ['one without the policies of people', ({ 'policies/people.cedar': _, ...rest }: Files): Files => rest],
  ])('%s is refused, and the last good one stays', async (_, change) => {
    await open();
    const operator = await knock.operator('operator-1');
    const before = (await operator('GET', '/v1/bundle')).body;
    const { status, body } = await operator('PUT', '/v1/bundle', { files: change(before.files) });
    expect([status, body.code]).toEqual([400, 'bundle_invalid']);
    expect(body.problems).toEqual([expect.stringMatching(/could not activate another one/)]);
    expect((await operator('GET', '/v1/bundle')).body.digest).toBe(before.digest);
  });
});
