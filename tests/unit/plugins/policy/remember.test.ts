import type { Context } from '@cedar-policy/cedar-wasm/nodejs';
import { jest } from '@jest/globals';
import fc from 'fast-check';
import type { Bundle } from '../../../../src/core/bundle.js';
import type { Decision, PolicyQuestion } from '../../../../src/core/decision.js';
import { withEngine } from '../../../../src/plugins/policy/engine.js';
import { readPolicies } from '../../../../src/plugins/policy/policy-text.js';
import { toEngine } from '../../../../src/plugins/policy/question.js';
import { DecisionMemory, QuestionMemory } from '../../../../src/plugins/policy/remember.js';
import { cedarSchema, declaredAttributes } from '../../../../src/plugins/policy/schema.js';
import { callQuestion, cedarEngine, mintQuestion, NOW_MS, sampleWith } from './sample.js';

const decision = (change: Partial<Decision> = {}): Decision => ({
  effect: 'allow',
  policyIds: ['p'],
  limits: {},
  errors: [],
  bundle: 'sha256:0',
  volatile: false,
  ...change,
});

describe('the memory of decisions', () => {
  it('asks once for the same inputs', () => {
    const memory = new DecisionMemory(10);
    let asked = 0;
    const decide = () => {
      asked += 1;
      return decision();
    };
    expect(memory.recall('a', decide)).toBe(memory.recall('a', decide));
    memory.recall('b', decide);
    expect(asked).toBe(2);
  });

  it.each([
    ['volatile', decision({ volatile: true })],
    ['made of errors', decision({ effect: 'deny', errors: ['broken'] })],
  ])('does not keep what is %s', (_, made) => {
    const memory = new DecisionMemory(10);
    memory.recall('a', () => made);
    expect(memory.size).toBe(0);
  });

  it('keeps denials, too', () => {
    const memory = new DecisionMemory(10);
    memory.recall('a', () => decision({ effect: 'deny' }));
    expect(memory.recall('a', () => decision()).effect).toBe('deny');
  });

  it('has an end, and forgets what was asked longest ago', () => {
    const memory = new DecisionMemory(2);
    for (const key of ['a', 'b', 'a', 'c']) memory.recall(key, () => decision({ policyIds: [key] }));
    expect(memory.size).toBe(2);
    expect(memory.recall('a', () => decision({ policyIds: ['new'] })).policyIds).toEqual(['a']);
    expect(memory.recall('b', () => decision({ policyIds: ['new'] })).policyIds).toEqual(['new']);
  });

  it('does not let one caller fill it with long inputs', () => {
    const memory = new DecisionMemory(10);
    memory.recall('x'.repeat(100_000), () => decision());
    expect(memory.size).toBe(0);
  });
});

describe('the memory of whole questions', () => {
  const changes: Parameters<typeof mintQuestion>[0][] = [
    { principal: { team: 'insights' } },
    { principal: { labels: { handles: 'mail' } } },
    { principal: { tools: [] } },
    { task: { generation: 7 } },
    { task: { params: { order_id: 43 } } },
    { task: { params: {} } },
    { task: { context: { labels: ['pii'] } } },
    { context: { onBehalfOf: { subject: 'a', proven: false } } },
    { context: { ttlSecondsRequested: 1 } },
  ];
  const asks = (memory: QuestionMemory, question: PolicyQuestion) => {
    let isAsked = false;
    memory.recall(question, () => {
      isAsked = true;
      return decision();
    });
    return isAsked;
  };

  it('asks once for the same question, in whichever order it is put together', () => {
    const memory = new QuestionMemory(10);
    const { context, ...rest } = mintQuestion();
    expect(asks(memory, { context, ...rest })).toBe(true);
    expect(asks(memory, mintQuestion())).toBe(false);
  });

  it.each(changes)('asks again when anything in it is another: %j', (change) => {
    const memory = new QuestionMemory(10);
    asks(memory, mintQuestion());
    expect(asks(memory, mintQuestion(change))).toBe(true);
    expect(asks(memory, mintQuestion())).toBe(true);
  });

  it('asks again when what was asked about was changed in place', () => {
    const memory = new QuestionMemory(10);
    const question = mintQuestion();
    asks(memory, question);
    (question.context['task'] as { context: Record<string, unknown> }).context['risk'] = 'high';
    expect(asks(memory, question)).toBe(true);
  });

  it('takes what is undefined for not there, and a value that is no JSON for another one', () => {
    const memory = new QuestionMemory(10);
    asks(memory, mintQuestion({ context: { note: undefined, at: '1970-01-01T00:00:00.000Z' } }));
    expect(asks(memory, mintQuestion({ context: { at: '1970-01-01T00:00:00.000Z' } }))).toBe(false);
    expect(asks(memory, mintQuestion({ context: { at: new Date(0) } }))).toBe(true);
  });

  it.each([
    ['volatile', decision({ volatile: true })],
    ['made of errors', decision({ effect: 'deny', errors: ['broken'] })],
  ])('does not keep what is %s', (_, made) => {
    const memory = new QuestionMemory(10);
    memory.recall(mintQuestion(), () => made);
    expect(asks(memory, mintQuestion())).toBe(true);
  });
});

/** Every input a policy of this bundle reads somewhere. */
const POLICIES = `
@id("teams") @max_ttl("5m") permit (principal is Agent, action == Action::"mint", resource is Tool in Api::"https://orders.example")
when { principal.team == "payments" && principal.riskTier < 3 && principal.tools.contains(resource.name) };
@id("labelled") permit (principal is Agent, action in [Action::"mint", Action::"call"], resource)
when { principal.hasTag("handles") && principal.getTag("handles") == "money" };
@id("person") @max_ttl("1m") permit (principal is Agent, action in [Action::"mint", Action::"call"], resource)
when { context has onBehalfOf && context.onBehalfOf.proven && context.task.depth == 1 };
@id("model") permit (principal is Agent, action == Action::"mint", resource) when { principal has model && principal.model == "small" };
@id("risk") forbid (principal, action == Action::"mint", resource)
when { context.task.context has risk && context.task.context.risk == "high" };
@id("set") forbid (principal, action == Action::"mint", resource)
when { context.task.context has labels && context.task.context.labels.containsAny(["pii", "secret"]) };
@id("order") forbid (principal, action in [Action::"mint", Action::"call"], resource is Tool)
unless { context.task.params has order_id && context.task.params.order_id > 0 };
@id("arguments") forbid (principal, action == Action::"call", resource)
when { context.task.params has order_id }
unless { context.task.params has order_id && context.arguments has order_id && context.arguments.order_id == context.task.params.order_id };
@id("public") forbid (principal, action == Action::"mint", resource) when { resource.sensitivity == "restricted" };
`;

const maybe = <T>(values: fc.Arbitrary<T>) => fc.option(values, { nil: undefined });

const VALUES = {
  call: fc.boolean(),
  tool: fc.constantFrom('orders.read', 'orders.refund', 'search.query'),
  team: fc.constantFrom('payments', 'insights'),
  riskTier: fc.constantFrom(2, 3),
  tools: fc.constantFrom(['orders.read'], ['orders.read', 'orders.refund'], []),
  labels: fc.constantFrom({}, { handles: 'money' }, { handles: 'mail' }),
  model: maybe(fc.constantFrom('small', 'large')),
  depth: fc.constantFrom(1, 2),
  params: fc.constantFrom<object[]>({}, { order_id: 0 }, { order_id: 42 }, { order_id: '42' }),
  taskContext: fc.constantFrom<object[]>({}, { risk: 'high' }, { risk: 'low' }, { labels: ['pii'] }, { labels: ['x'] }),
  generation: fc.constantFrom(0, 1),
  given: fc.constantFrom<object[]>({}, { order_id: 42 }, { order_id: 0 }),
  onBehalfOf: maybe(fc.constantFrom({ subject: 'a', proven: true }, { subject: 'b', proven: false })),
  sensitivity: maybe(fc.constantFrom('restricted', 'public')),
};

type Values = { [K in keyof typeof VALUES]: (typeof VALUES)[K] extends fc.Arbitrary<infer T> ? T : never };

/** A question that one policy alone permits, so that each single value decides. */
const GOOD: Values = {
  call: false,
  tool: 'orders.read',
  team: 'payments',
  riskTier: 2,
  tools: ['orders.read', 'orders.refund'],
  labels: {},
  model: undefined,
  depth: 1,
  params: { order_id: 42 },
  taskContext: {},
  generation: 0,
  given: {},
  onBehalfOf: undefined,
  sensitivity: undefined,
};

const oneValue = fc.oneof(
  ...Object.entries(VALUES).map(([name, values]) =>
    (values as fc.Arbitrary<unknown>).map((value): Partial<Values> => ({ [name]: value })),
  ),
);

/** Neighbours of the good question, two steps far at most: what a key leaves out is what differs between neighbours. */
const neighbours = fc.array(fc.tuple(oneValue, oneValue), { minLength: 20, maxLength: 40 }).map((steps) =>
  steps
    .flatMap(([one, other]) => [
      { ...GOOD, ...one },
      { ...GOOD, ...one, ...other },
    ])
    .map(questionOf),
);

function questionOf(values: Values): PolicyQuestion {
  const { call, tool, team, riskTier, tools, labels, model, depth, params, taskContext, generation } = values;
  const change = {
    tool,
    principal: { team, riskTier, tools, labels, model },
    task: { depth, params, context: taskContext, generation },
    context: { onBehalfOf: values.onBehalfOf },
  };
  const made = call ? callQuestion(tool === 'orders.refund' ? values.given : {}, change) : mintQuestion(change);
  const attributes = values.sensitivity === undefined ? {} : { sensitivity: values.sensitivity };
  return {
    ...made,
    principal: mintQuestion(change).principal,
    resource: { ...made.resource, attributes },
  };
}

/** The whole set, with nothing left out and nothing remembered. */
function plainly(bundle: Bundle): (asked: PolicyQuestion) => Pick<Decision, 'effect' | 'policyIds'> {
  const declared = declaredAttributes(bundle);
  const all = Object.fromEntries(readPolicies(bundle.policies, []).map(({ id, text }) => [id, text]));
  withEngine((engine) => engine.preparsePolicySet('oracle', { staticPolicies: all }));
  withEngine((engine) => engine.preparseSchema('oracle', cedarSchema(declared)));
  return (asked) => {
    const made = toEngine(asked, bundle, declared, NOW_MS);
    if (made.errors.length > 0) return { effect: 'deny', policyIds: [] };
    const answer = withEngine((engine) =>
      engine.statefulIsAuthorized({
        ...made.asked,
        context: made.asked.context as Context,
        preparsedSchemaName: 'oracle',
        preparsedPolicySetId: 'oracle',
        validateRequest: true,
      }),
    );
    if (answer.type === 'failure' || answer.response.diagnostics.errors.length > 0) {
      return { effect: 'deny', policyIds: [] };
    }
    return { effect: answer.response.decision, policyIds: [...answer.response.diagnostics.reason].sort() };
  };
}

describe('a remembered decision', () => {
  it('is the one that the whole set of policies makes of the question, whatever was asked before', async () => {
    const bundle = sampleWith({ all: POLICIES });
    const policy = await cedarEngine().prepare(bundle);
    const decidePlainly = plainly(bundle);
    const seen = new Set<string>();
    fc.assert(
      fc.property(neighbours, (questions) => {
        for (const asked of questions) {
          const { effect, policyIds } = policy.decide(asked);
          expect({ effect, policyIds }).toEqual(decidePlainly(asked));
          seen.add([asked.action, effect, ...policyIds].join(' '));
        }
      }),
      { numRuns: 60 },
    );
    // A generator that only ever makes one kind of question would prove nothing.
    expect(seen.size).toBeGreaterThan(12);
  });

  it('is not asked for again while nothing that policies read has changed', async () => {
    let evaluated = 0;
    const onSlow = () => {
      evaluated += 1;
    };
    const policy = await cedarEngine({ onSlow }, { slow_ms: 1 }).prepare(sampleWith({ all: POLICIES }));
    let nowMs = 0;
    const clock = jest.spyOn(performance, 'now').mockImplementation(() => (nowMs += 10));
    policy.decide(mintQuestion());
    policy.decide(
      mintQuestion({ task: { id: 'tsk_a_01h455vb4pex5vsknk084sn02r', generation: 7, purpose: 'another' } }),
    );
    expect(evaluated).toBe(1);
    policy.decide(mintQuestion({ principal: { team: 'insights' } }));
    policy.decide(mintQuestion({ task: { context: { risk: 'high' } } }));
    expect(evaluated).toBe(3);
    clock.mockRestore();
  });

  it('a value that no policy reads is still checked', async () => {
    const policy = await cedarEngine().prepare(sampleWith({ all: POLICIES }));
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
    expect(policy.decide(mintQuestion({ task: { params: { order_id: 42, question: 7 } } })).effect).toBe('deny');
  });

  it('cannot be changed by whoever got it', async () => {
    const policy = await cedarEngine().prepare(sampleWith({ all: POLICIES }));
    const first = policy.decide(mintQuestion());
    expect(() => first.policyIds.push('mine')).toThrow(TypeError);
    expect(() => Object.assign(first.limits, { ttlMsMax: 1 })).toThrow(TypeError);
    expect(() => Object.assign(first, { effect: 'deny' })).toThrow(TypeError);
  });
});
