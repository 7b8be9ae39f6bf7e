import { jest } from '@jest/globals';
import type { PreparedPolicy } from '../../../../src/plugins/policy/contract.js';
import { callQuestion, cedarEngine, mintQuestion, NOW_MS, problemsOf, REFUNDS, sampleWith } from './sample.js';

const PERMIT = '@id("yes") permit (principal, action, resource);';

const prepare = (policies: string, deps = {}, settings = {}): Promise<PreparedPolicy> =>
  cedarEngine(deps, settings).prepare(sampleWith({ all: policies }));

describe('deciding', () => {
  it('what no policy permits is denied, by nobody', async () => {
    const policy = await prepare('');
    expect(policy.decide(mintQuestion())).toMatchObject({ effect: 'deny', policyIds: [], errors: [] });
  });

  it('an allow names the policies that permitted it and the bundle it was made under', async () => {
    const policy = await prepare(`${PERMIT} @id("also") permit (principal is Agent, action, resource);`);
    expect(policy.decide(mintQuestion())).toEqual({
      effect: 'allow',
      policyIds: ['also', 'yes'],
      limits: {},
      errors: [],
      bundle: policy.bundle.digest,
      volatile: false,
    });
  });

  it('one forbid beats every permit, and is the one named', async () => {
    const policy = await prepare(`${PERMIT} @id("no") forbid (principal, action == Action::"mint", resource);`);
    expect(policy.decide(mintQuestion())).toMatchObject({ effect: 'deny', policyIds: ['no'] });
  });

  it('an error while evaluating is a deny, whatever else permits, and says which policy', async () => {
    const policy = await prepare(`${PERMIT}
      @id("overflows") forbid (principal, action == Action::"mint", resource)
      when { context.ttlSecondsRequested * 9223372036854775807 > 0 };`);
    const decision = policy.decide(mintQuestion());
    expect(decision.effect).toBe('deny');
    expect(decision.errors).toEqual([expect.stringMatching(/^policy overflows: .*overflow/)]);
  });

  it('a label that is not there is an error, and so a deny', async () => {
    const policy = await prepare(
      `${PERMIT} @id("tag") forbid (principal is Agent, action, resource) when { principal.hasTag("a") && principal.getTag("a") == "b" };`,
    );
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
    expect(policy.decide(mintQuestion({ principal: { labels: { a: 'b' } } }))).toMatchObject({ policyIds: ['tag'] });
  });

  it.each([
    ['a missing context value', mintQuestion({ context: { environment: undefined } })],
    ['a context value of another type', mintQuestion({ context: { environment: 7 } })],
    ['a context value that the schema does not know', mintQuestion({ context: { surprise: true } })],
    ['a missing attribute of the principal', mintQuestion({ principal: { riskTier: undefined } })],
    ['an attribute of another type', mintQuestion({ principal: { tools: 'orders.read' } })],
    ['a resource the action does not have', { ...mintQuestion(), action: 'read' as const }],
    ['no context at all', { ...mintQuestion(), context: {} }],
    ['an action nobody knows', { ...mintQuestion(), action: 'own' as never }],
    ['null as context', { ...mintQuestion(), context: null as never }],
    ['a context that cannot be written as JSON', mintQuestion({ context: { environment: 10n } })],
    ['a param of another type', mintQuestion({ task: { params: { order_id: '42' } } })],
    ['a param that was changed by parsing it', mintQuestion({ task: { params: { order_id: 2 ** 53 } } })],
    [
      'a param that is an object in disguise',
      mintQuestion({ task: { params: { order_id: { __extn: { fn: 'decimal', arg: '1' } } } } }),
    ],
    ['params that are a list', mintQuestion({ task: { params: [42] } })],
    ['a task context value of another type', mintQuestion({ task: { context: { risk: ['low'] } } })],
    ['an add-only value with a number in it', mintQuestion({ task: { context: { labels: ['a', 1] } } })],
  ])('%s is a deny with its error, not an exception', async (_, question) => {
    const decision = (await prepare(PERMIT)).decide(question);
    expect(decision).toMatchObject({ effect: 'deny', policyIds: [] });
    expect(decision.errors).not.toEqual([]);
  });

  it('no error repeats what callers wrote', async () => {
    const policy = await prepare(PERMIT);
    const question = mintQuestion({ task: { params: { question: 's3cret' } }, context: { environment: 7 } });
    expect(JSON.stringify(policy.decide(question))).not.toContain('s3cret');
  });

  it('params and context keys that nobody declared do not reach policy', async () => {
    const policy = await prepare(PERMIT);
    const task = { params: { order_id: 42, extra: { deep: true } }, context: { mood: ['fine', 3] } };
    expect(policy.decide(mintQuestion({ task })).effect).toBe('allow');
  });

  it('the bundle says which audience a tool belongs to and how sensitive it is, where the question does not', async () => {
    const policy = await prepare(
      '@id("orders") permit (principal, action, resource in Api::"https://orders.example") when { resource.sensitivity == "confidential" };',
    );
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
    expect(policy.decide(mintQuestion({ tool: 'search.query' })).effect).toBe('deny');
  });

  it('a task without a type finds nothing declared and the highest risk', async () => {
    const policy = await prepare(
      '@id("u") permit (principal, action == Action::"open", resource) when { resource.risk == "high" && resource.tools.isEmpty() && resource.ttlSecondsMax == 0 };',
    );
    const { id, attributes } = mintQuestion().principal;
    const task = {
      type: 'untyped',
      params: {},
      purpose: '',
      tools: [],
      resources: [],
      secrets: [],
      agents: [],
      ttlSeconds: 60,
      context: {},
    };
    const question = {
      action: 'open' as const,
      context: { task, selfOpened: false },
      principal: { type: 'Agent' as const, id, attributes },
    };
    expect(policy.decide({ ...question, resource: { type: 'TaskType', id: 'untyped', attributes: {} } }).effect).toBe(
      'allow',
    );
    expect(policy.decide({ ...question, resource: { type: 'TaskType', id: 'refund', attributes: {} } }).effect).toBe(
      'deny',
    );
  });
});

describe('opening a task below a parent', () => {
  const open = (parent: unknown) => {
    const { principal, context } = mintQuestion();
    const task = {
      type: 'research',
      params: {},
      purpose: '',
      tools: [],
      resources: [],
      secrets: [],
      agents: [],
      ttlSeconds: 60,
      context: {},
    };
    return {
      principal,
      action: 'open' as const,
      resource: { type: 'TaskType' as const, id: 'research', attributes: {} },
      context: { task, parent: parent ?? context['task'], selfOpened: true },
    };
  };

  it('policy sees the parent as it sees any task', async () => {
    const policy = await prepare(
      '@id("below") permit (principal is Agent, action == Action::"open", resource) when { context has parent && context.parent.agents.contains(principal.spiffeId) };',
    );
    expect(policy.decide(open(undefined)).effect).toBe('allow');
    expect(policy.decide(open(mintQuestion({ task: { agents: [] } }).context['task'])).effect).toBe('deny');
  });

  it('what users wrote of the parent is checked, too', async () => {
    const { task } = mintQuestion({ task: { params: { order_id: 'x' } } }).context;
    expect((await prepare(PERMIT)).decide(open(task))).toMatchObject({ effect: 'deny', errors: [expect.any(String)] });
  });
});

describe('who is not declared', () => {
  it.each([
    ['an agent', { type: 'Agent' as const, id: 'spiffe://dev.mayfly/agent/other' }],
    ['an agent that says it is an orchestrator', { type: 'Orchestrator' as const, id: REFUNDS }],
    ['an agent below a declared one', { type: 'Agent' as const, id: `${REFUNDS}/child` }],
    ['something that is no SPIFFE ID', { type: 'Agent' as const, id: 'constructor' }],
  ])('%s gets nothing, whatever policies permit', async (_, principal) => {
    const question = mintQuestion();
    const policy = await prepare(PERMIT);
    expect(policy.decide({ ...question, principal: { ...question.principal, ...principal } })).toMatchObject({
      effect: 'deny',
      errors: [expect.stringMatching(/^agent not listed/)],
    });
  });
});

describe('the arguments of a call', () => {
  const bound = `${PERMIT} @id("bound") forbid (principal, action == Action::"call", resource == Tool::"orders.refund")
    unless { context.arguments has order_id && context.task.params has order_id && context.arguments.order_id == context.task.params.order_id };`;

  it('are held to the params of the task', async () => {
    const policy = await prepare(bound);
    expect(policy.decide(callQuestion({ order_id: 42 })).effect).toBe('allow');
    expect(policy.decide(callQuestion({ order_id: 43 }))).toMatchObject({ effect: 'deny', policyIds: ['bound'] });
    expect(policy.decide(callQuestion({}))).toMatchObject({ effect: 'deny', policyIds: ['bound'] });
  });

  it.each([
    ['of another type', { order_id: '42' }],
    ['that is not a whole number', { order_id: 42.5 }],
    ['beyond what a number can hold', { order_id: 2 ** 60 }],
    ['that the tool does not declare', { order_id: 42, order_ids: [43] }],
    ['with a name from the prototype', JSON.parse('{"order_id":42,"__proto__":{"order_id":43}}')],
    ['called constructor', { order_id: 42, constructor: 1 }],
    ['that are a list', [42]],
    ['that are not there', undefined],
    ['that are null', null],
  ])('%s are a deny', async (_, given) => {
    const decision = (await prepare(bound)).decide(callQuestion(given));
    expect(decision.effect).toBe('deny');
    expect(decision.errors).not.toEqual([]);
  });

  it('of a tool that declares none are let through unseen', async () => {
    const policy = await prepare(PERMIT);
    expect(policy.decide(callQuestion({ anything: [{ deep: 1 }] }, { tool: 'orders.read' })).effect).toBe('allow');
  });

  it('an argument declared by another tool is not lent to one that does not declare it', async () => {
    const policy = await prepare(
      '@id("a") permit (principal, action == Action::"call", resource) when { context.arguments has order_id };',
    );
    expect(policy.decide(callQuestion({ order_id: 42 })).effect).toBe('allow');
    expect(policy.decide(callQuestion({ order_id: 42 }, { tool: 'orders.read' })).effect).toBe('deny');
  });
});

describe('limits', () => {
  it('the strictest of all permitting policies holds, and of those that do not permit nothing', async () => {
    const policy = await prepare(`
      @id("a") @max_ttl("5m") @max_calls("20") @binding("any") @revocability("eventual") permit (principal, action, resource);
      @id("b") @max_ttl("2m") @max_calls("30") @binding("dpop") @revocability("instant") permit (principal, action, resource);
      @id("c") @max_ttl("1s") permit (principal, action, resource) when { principal is Person };`);
    expect(policy.decide(mintQuestion()).limits).toEqual({
      ttlMsMax: 120_000,
      callsMax: 20,
      binding: 'dpop',
      revocability: 'instant',
    });
  });

  it('an approval makes it an ask; approvals of several roles are all needed', async () => {
    const policy = await prepare(`
      @id("a") @approval("security:1") permit (principal, action, resource);
      @id("b") @approval("security:2") permit (principal, action, resource);
      @id("c") @approval("finance:1") permit (principal, action, resource);`);
    expect(policy.decide(mintQuestion())).toMatchObject({
      effect: 'ask',
      limits: { approval: 'finance:1,security:2' },
    });
  });

  it('bindings that exclude each other are a deny that names them', async () => {
    const policy = await prepare(`
      @id("a") @binding("dpop") permit (principal, action, resource);
      @id("b") @binding("mtls") permit (principal, action, resource);`);
    expect(policy.decide(mintQuestion())).toMatchObject({ effect: 'deny', errors: [expect.stringContaining('a, b')] });
  });
});

describe('what is refused when a bundle is loaded', () => {
  const refused = (policies: Record<string, string>) => problemsOf(() => cedarEngine().prepare(sampleWith(policies)));
  const head = 'permit (principal, action, resource)';

  it.each([
    ['a policy that does not parse', '\n\nnonsense', /^policies\/a\.cedar line 3: /],
    ['a policy without @id', `${head};`, /^policies\/a\.cedar line 1: needs @id/],
    ['an @id of other characters', `@id("a b") ${head};`, /needs @id/],
    ['an @id used twice', `@id("a") ${head};\n@id("a") ${head};`, /line 2: @id\("a"\) is used twice/],
    [
      'an unknown annotation',
      `@id("a") @max_tll("5m") ${head};`,
      /policy a: @max_tll is not known here; did you mean "max_ttl"\?/,
    ],
    ['an annotation called like a method', `@id("a") @toString("x") ${head};`, /@toString is not known here/],
    ['a duration that is none', `@id("a") @max_ttl("soon") ${head};`, /@max_ttl\("soon"\) must be a duration/],
    ['a duration of nothing', `@id("a") @max_ttl("0s") ${head};`, /must be a duration/],
    ['calls that are no number', `@id("a") @max_calls("-1") ${head};`, /@max_calls\("-1"\) must be a whole number/],
    ['an unknown binding', `@id("a") @binding("tls") ${head};`, /must be "dpop", "mtls" or "any"/],
    ['an unknown revocability', `@id("a") @revocability("soon") ${head};`, /must be "instant"/],
    ['an approval by nobody', `@id("a") @approval("security") ${head};`, /such as "security:2"/],
    ['a limit on a forbid', '@id("a") @max_ttl("5m") forbid (principal, action, resource);', /a forbid gives nothing/],
    ['a template', '@id("a") permit (principal == ?principal, action, resource);', /holds a template/],
    [
      'an attribute that does not exist',
      `@id("a") ${head} when { context.task.prams has x };`,
      /^policies\/a\.cedar: policy a: /,
    ],
    [
      'an optional attribute without has',
      '@id("a") permit (principal, action == Action::"mint", resource) when { context.task.params.order_id == 1 };',
      /policy a: .*optional/,
    ],
    [
      'a comparison of two types',
      '@id("a") permit (principal, action == Action::"mint", resource) when { context.environment == 1 };',
      /policy a: /,
    ],
    [
      'an action that does not exist',
      '@id("a") permit (principal, action == Action::"mnt", resource);',
      /policy a: .*mnt/,
    ],
    ['a type that does not exist', '@id("a") permit (principal is Agnt, action, resource);', /policy a: .*Agnt/],
    [
      'a policy that can never apply',
      '@id("a") permit (principal is Person, action == Action::"mint", resource);',
      /policy a: /,
    ],
    [
      'a condition no task type or tool can meet',
      `@id("a") ${head} when { context has arguments && context.arguments has nope };`,
      /policy a: /,
    ],
    [
      'a look-alike letter',
      '@id("a") permit (principal, action == Action::"mint", resource) when { context.environment == "pr\u043Eduction" };',
      /policy a: /,
    ],
  ])('%s, by name', async (_, text, problem) => {
    expect((await refused({ a: text })).join('\n')).toMatch(problem);
  });

  it('all problems at once', async () => {
    const problems = await refused({
      a: `${head};\n@id("b") @what("x") ${head};`,
      c: '@id("c") permit (principal is Agnt, action, resource);',
    });
    expect(problems.map((problem) => problem.split(':')[0])).toEqual([
      'policies/a.cedar line 1',
      'policies/a.cedar line 2',
      'policies/c.cedar',
    ]);
  });

  it('what was prepared before stays usable', async () => {
    const engine = cedarEngine();
    const policy = await engine.prepare(sampleWith({ a: PERMIT }));
    await expect(engine.prepare(sampleWith({ a: 'nonsense' }))).rejects.toThrow('The bundle has one problem');
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
  });
});

describe('several bundles at once', () => {
  it('each decides by its own policies, however many were prepared after it', async () => {
    const engine = cedarEngine();
    const prepared = [];
    for (let n = 0; n < 10; n++) {
      const rule = n % 2 === 0 ? PERMIT : '@id("no") forbid (principal, action, resource);';
      prepared.push(
        await engine.prepare(sampleWith({ a: `@id("n${n}") permit (principal is Person, action, resource); ${rule}` })),
      );
    }
    for (const round of [1, 2]) {
      // Another question each round, so that no answer comes out of the memory.
      const question = mintQuestion({ principal: { team: `team ${round}` } });
      expect(prepared.map((policy) => policy.decide(question).effect)).toEqual(
        prepared.map((_, n) => (n % 2 === 0 ? 'allow' : 'deny')),
      );
    }
  });

  it('a decision names the bundle that made it', async () => {
    const engine = cedarEngine();
    const [first, second] = [
      await engine.prepare(sampleWith({ a: PERMIT })),
      await engine.prepare(sampleWith({ b: PERMIT })),
    ];
    expect(first.decide(mintQuestion()).bundle).toBe(first.bundle.digest);
    expect(second.decide(mintQuestion()).bundle).toBe(second.bundle.digest);
    expect(first.bundle.digest).not.toBe(second.bundle.digest);
  });
});

describe('time and counts', () => {
  const untilNoon = `@id("morning") permit (principal, action, resource) when { context.now < datetime("2030-01-15T12:00:00Z") };`;

  it('a policy that reads the time is asked again each time', async () => {
    let nowMs = NOW_MS - 1;
    const policy = await prepare(untilNoon, { clock: { now: () => nowMs } });
    expect(policy.decide(mintQuestion())).toMatchObject({ effect: 'allow', volatile: true });
    nowMs += 1;
    expect(policy.decide(mintQuestion())).toMatchObject({ effect: 'deny', volatile: true });
  });

  it('a question may bring its own time', async () => {
    const policy = await prepare(untilNoon);
    expect(policy.decide(mintQuestion({ context: { now: 0 } })).effect).toBe('allow');
    expect(policy.decide(mintQuestion({ context: { now: Number.NaN } })).effect).toBe('deny');
  });

  it('a policy that counts calls is volatile', async () => {
    const policy = await prepare(
      '@id("few") permit (principal, action == Action::"call", resource) when { context.calls < 3 };',
    );
    expect(policy.decide(callQuestion({}, { context: { calls: 2 } }))).toMatchObject({
      effect: 'allow',
      volatile: true,
    });
    expect(policy.decide(callQuestion({}, { context: { calls: 3 } }))).toMatchObject({ effect: 'deny' });
  });

  it('policies about other actions do not make a decision volatile', async () => {
    const policy = await prepare(
      `${PERMIT} @id("few") forbid (principal, action == Action::"call", resource) when { context.calls > 3 };`,
    );
    expect(policy.decide(mintQuestion()).volatile).toBe(false);
  });
});

describe('whether policy decides single calls', () => {
  const constrains = async (policies: string, tool = 'orders.refund') =>
    (await prepare(policies)).constrainsCalls(mintQuestion({ tool }));

  it.each([
    [
      'arguments',
      '@id("a") forbid (principal, action == Action::"call", resource == Tool::"orders.refund") unless { context.arguments has order_id };',
    ],
    [
      'counts',
      '@id("a") forbid (principal, action == Action::"call", resource == Tool::"orders.refund") when { context.calls > 3 };',
    ],
    [
      'time',
      '@id("a") forbid (principal, action, resource == Tool::"orders.refund") when { context.now > datetime("2030-01-01") };',
    ],
    ['a budget of calls', '@id("a") @max_calls("3") permit (principal, action, resource == Tool::"orders.refund");'],
    ['approvals', '@id("a") @approval("security:1") permit (principal, action, resource == Tool::"orders.refund");'],
    [
      'the whole context',
      '@id("a") permit (principal, action == Action::"call", resource == Tool::"orders.refund") when { [context].contains(context) };',
    ],
  ])('by %s it does, for the tool that the policy names', async (_, policy) => {
    expect(await constrains(`${PERMIT} ${policy}`)).toBe(true);
    expect(await constrains(`${PERMIT} ${policy}`, 'orders.read')).toBe(false);
  });

  it('policies that decide alike at every call do not', async () => {
    expect(
      await constrains(`${PERMIT} @id("a") forbid (principal, action, resource) when { principal is Person };`),
    ).toBe(false);
  });

  it('a policy for another type of task does not', async () => {
    const other =
      '@id("a") forbid (principal, action == Action::"call", resource) when { context.task.type == "research" && context.calls > 3 };';
    expect(await constrains(`${PERMIT} ${other}`)).toBe(false);
  });
});

describe('when it goes wrong', () => {
  it('an evaluation over the limit is reported, with what it was about', async () => {
    const clock = jest.spyOn(performance, 'now');
    let elapsedMs = 0;
    clock.mockImplementation(() => (elapsedMs += 60));
    const slow: unknown[] = [];
    const policy = await prepare(PERMIT, { onSlow: (event: unknown) => slow.push(event) });
    policy.decide(mintQuestion());
    clock.mockRestore();
    expect(slow).toEqual([{ action: 'mint', elapsedMs: 60, policies: 1 }]);
  });

  it('attributes that throw when read are a deny', async () => {
    const policy = await prepare(PERMIT);
    const question = mintQuestion();
    Object.defineProperty(question.context, 'environment', {
      enumerable: true,
      get: () => {
        throw new Error('broken');
      },
    });
    expect(policy.decide(question)).toMatchObject({ effect: 'deny', errors: ['the policy engine failed: broken'] });
  });
});

const sample = async () => {
  const { sampleFiles } = await import('./sample.js');
  const { bundleFormat } = await import('../../../../src/plugins/policy/bundle.js');
  return cedarEngine().prepare(bundleFormat.parse(sampleFiles()));
};

describe('the sample policies and a word that nobody knows', () => {
  it.each(['HIGH', ' high', 'x', ''])('a refund task whose risk is %j gets nothing', async (risk) => {
    const policy = await sample();
    expect(policy.decide(mintQuestion({ task: { context: { risk: 'medium' } } })).effect).toBe('allow');
    expect(policy.decide(mintQuestion({ task: { context: { risk } } })).effect).toBe('deny');
  });

  it('an environment that is not the agent’s gets nothing', async () => {
    const policy = await sample();
    expect(policy.decide(mintQuestion({ context: { environment: 'Production' } })).effect).toBe('deny');
  });
});

describe('the nearest miss', () => {
  it.each([
    [
      'an agent nobody declared',
      { ...mintQuestion(), principal: { ...mintQuestion().principal, id: 'spiffe://dev.mayfly/agent/refund' } },
      'agent not listed; did you mean /agent/refunds?',
    ],
    [
      'an agent of another trust domain',
      { ...mintQuestion(), principal: { ...mintQuestion().principal, id: 'spiffe://dev.mayfli/agent/refunds' } },
      `agent not listed; did you mean ${REFUNDS}?`,
    ],
    [
      'an agent like no other',
      { ...mintQuestion(), principal: { ...mintQuestion().principal, id: 'spiffe://elsewhere.example/x' } },
      'agent not listed',
    ],
    [
      'a tool nobody declared',
      mintQuestion({ tool: 'orders.reed' }),
      'tool orders.reed is not declared in any resource; did you mean "orders.read"?',
    ],
    [
      'a tool outside the declaration',
      mintQuestion({ principal: { tools: ['orders.read'] }, tool: 'orders.refund' }),
      "tool orders.refund is not in this agent's declaration (policy agents-use-tools-of-their-task)",
    ],
    [
      'a tool outside the task',
      mintQuestion({ task: { tools: ['orders.read'] }, tool: 'orders.refund' }),
      'tool orders.refund is not among the tools of the task (policy agents-use-tools-of-their-task)',
    ],
    [
      'a task that does not name the agent',
      mintQuestion({ task: { agents: [] } }),
      'this agent is not named in the task (policy agents-use-tools-of-their-task)',
    ],
    [
      'another environment',
      mintQuestion({ context: { environment: 'staging' } }),
      'policy agents-use-tools-of-their-task would permit it if context.environment == principal.environment',
    ],
    [
      'a forbid',
      mintQuestion({ task: { context: { risk: 'high' } } }),
      'policy refunds-stop-at-high-risk forbids it because context.task.type == "refund" and context.task.context has risk and !["low", "medium"].contains(context.task.context.risk)',
    ],
    [
      'an unmet unless',
      callQuestion({ order_id: 43 }),
      /^policy refund-only-the-order-of-the-task forbids it; it would not if .*context\.arguments\.order_id == context\.task\.params\.order_id/,
    ],
  ])('%s is said in words', async (_, question, words) => {
    const policy = await sample();
    expect(policy.decide(question).effect).toBe('deny');
    expect(policy.nearestMiss(question)).toEqual(words instanceof RegExp ? expect.stringMatching(words) : words);
  });

  it('a literal that was not met is named with the value it wants', async () => {
    const policy = await prepare(
      '@id("only-sandbox") permit (principal, action, resource is Tool) when { context.environment == "sandbox" };',
    );
    expect(policy.nearestMiss(mintQuestion())).toBe(
      'policy only-sandbox would permit it if context.environment were "sandbox"',
    );
  });

  it('what is allowed has none', async () => {
    expect((await sample()).nearestMiss(mintQuestion())).toBeUndefined();
  });

  it('what no policy is about says so', async () => {
    const policy = await prepare('@id("p") permit (principal is Person, action, resource);');
    expect(policy.nearestMiss(mintQuestion())).toBe('no policy lets an Agent mint a Tool like this one');
  });
});
