import { engineNumber, withEngine } from '../../../../src/plugins/policy/engine.js';
import { callQuestion, cedarEngine, mintQuestion, problemsOf, sampleWith } from './sample.js';

const PERMIT = '@id("yes") permit (principal, action, resource);';
const nested = (body: string) => `@id("deep") permit (principal, action, resource) when { ${body} };`;

/** Each deep enough to run over the end of the engine's own stack. */
const DEEP = {
  parentheses: nested(`${'('.repeat(400)}true${')'.repeat(400)}`),
  sets: nested(`${'['.repeat(400)}1${']'.repeat(400)} == 1`),
  records: nested(`${'{a:'.repeat(400)}1${'}'.repeat(400)} == 1`),
  conditionals: nested(`${'if true then '.repeat(900)}true${' else true'.repeat(900)}`),
  attributes: nested(`context${'.a'.repeat(900)} == 1`),
  sums: nested(`1${' + 1'.repeat(900)} == 1`),
  'parentheses beyond every stack': nested(`${'('.repeat(60_000)}true${')'.repeat(60_000)}`),
};

describe('an engine that was overrun', () => {
  it.each(Object.entries(DEEP))(
    '%s: the bundle is refused, and the one before goes on deciding',
    async (_, policies) => {
      const engine = cedarEngine();
      const policy = await engine.prepare(sampleWith({ a: PERMIT }));
      const problems = await problemsOf(() => engine.prepare(sampleWith({ b: policies })));
      expect(problems).toEqual([expect.stringMatching(/^policies\/b\.cedar.*divide it into several policies$/)]);
      // Never asked before, so the answer comes from the engine.
      expect(policy.decide(mintQuestion())).toMatchObject({ effect: 'allow', errors: [] });
    },
  );

  it('a policy that parses but is deeper than anybody reads is refused too', async () => {
    const policies = nested(`1${' + 1'.repeat(150)} == 1`);
    expect(await problemsOf(() => cedarEngine().prepare(sampleWith({ b: policies })))).toEqual([
      expect.stringContaining('is nested too deeply'),
    ]);
  });

  it('a long chain of conditions is no depth that hurts', async () => {
    const policies = nested(`true${' && true'.repeat(99)}`);
    const policy = await cedarEngine().prepare(sampleWith({ b: policies }));
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
  });

  it('what every prepared bundle had in it is there again', async () => {
    const engine = cedarEngine();
    const [yes, no] = [
      await engine.prepare(sampleWith({ a: PERMIT })),
      await engine.prepare(sampleWith({ a: '@id("no") forbid (principal, action, resource);' })),
    ];
    const before = engineNumber();
    expect(() => withEngine((broken) => broken.policySetTextToParts(DEEP.parentheses))).toThrow();
    expect(engineNumber()).toBe(before + 1);
    expect([yes.decide(mintQuestion()).effect, no.decide(mintQuestion()).policyIds]).toEqual(['allow', ['no']]);
  });
});

describe('an engine that leaks a little of its stack with every exception', () => {
  it('is replaced long before it is dead', async () => {
    const policy = await cedarEngine().prepare(sampleWith({ a: PERMIT }));
    const before = engineNumber();
    for (let n = 0; n < 4_000; n++) {
      expect(() => withEngine((engine) => engine.statefulIsAuthorized({} as never))).toThrow();
    }
    expect(engineNumber()).toBe(before + 20);
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
  });

  it.each([
    ['half a character in a param', mintQuestion({ task: { params: { question: '\ud800' } } })],
    ['half a character in an argument', callQuestion({ order_id: 42, reason: 'x\udc00' })],
    ['half a character in the purpose', mintQuestion({ task: { purpose: '\ud83d' } })],
    ['half a character in a list', mintQuestion({ task: { context: { labels: ['\ud800'] } } })],
    [
      'half a character in an id',
      {
        ...mintQuestion(),
        resource: { type: 'Tool' as const, id: '\ud800', attributes: { name: 'x', api: 'y', sensitivity: 'public' } },
      },
    ],
    ['half a character in a name', mintQuestion({ context: { '\ud800': 'x' } })],
    ['a big integer', mintQuestion({ context: { ttlSecondsRequested: 1n } })],
    ['a fraction', mintQuestion({ context: { ttlSecondsRequested: 0.5 } })],
    ['no number', mintQuestion({ context: { ttlSecondsRequested: Number.NaN } })],
    ['null', mintQuestion({ context: { environment: null } })],
    ['a function', mintQuestion({ context: { environment: () => 'x' } })],
    [
      'a toJSON that throws',
      mintQuestion({
        context: {
          delegator: {
            toJSON: () => {
              throw new Error('x');
            },
          },
        },
      }),
    ],
    [
      'a hundred levels',
      mintQuestion({ context: { environment: JSON.parse(`${'['.repeat(100)}1${']'.repeat(100)}`) } }),
    ],
    [
      'itself',
      (() => {
        const question = mintQuestion();
        question.context['self'] = question.context;
        return question;
      })(),
    ],
    ['a name of the engine', mintQuestion({ context: { environment: { __entity: { type: 'Agent', id: 'x' } } } })],
  ])('%s is denied before it gets there', async (_, question) => {
    const policy = await cedarEngine().prepare(sampleWith({ a: PERMIT }));
    const before = engineNumber();
    for (let n = 0; n < 250; n++) expect(policy.decide(question)).toMatchObject({ effect: 'deny', policyIds: [] });
    expect(policy.decide(question).errors[0]).not.toMatch(/engine failed/);
    // Had it thrown there each time, the instance would have been replaced by now.
    expect(engineNumber()).toBe(before);
  });
});
