import type { Bundle } from '../../src/core/bundle.js';
import type { PolicyQuestion } from '../../src/core/decision.js';
import { BrokerError } from '../../src/core/errors.js';
import type { PolicyEngine } from '../../src/plugins/policy/contract.js';
import type { policyEngines } from '../../src/plugins/policy/registry.js';
import { cedarEngine, mintQuestion, sampleWith } from '../unit/plugins/policy/sample.js';

/** What an engine has to bring to be held to the contract. */
interface Harness {
  engine(): PolicyEngine;
  /** A bundle whose policies answer every question with that effect; `ask` with a limit of two minutes. */
  bundle(effect: 'allow' | 'deny' | 'ask' | 'nothing' | 'error'): Bundle;
  /** A bundle whose policies cannot be used. */
  broken(): Bundle;
}

/** A new kind does not compile until it has its row. */
const HARNESSES: Record<keyof typeof policyEngines, Harness> = {
  cedar: {
    engine: () => cedarEngine(),
    bundle: (effect) =>
      sampleWith({
        all: {
          allow: '@id("yes") permit (principal, action, resource);',
          ask: '@id("yes") @max_ttl("2m") @approval("security:1") permit (principal, action, resource);',
          deny: '@id("yes") permit (principal, action, resource); @id("no") forbid (principal, action, resource);',
          nothing: '',
          error:
            '@id("yes") permit (principal, action, resource); @id("err") forbid (principal, action == Action::"mint", resource) when { 9223372036854775807 + context.ttlSecondsRequested == 0 };',
        }[effect],
      }),
    broken: () => sampleWith({ all: 'permit everything' }),
  },
};

const HOSTILE: [string, unknown][] = [
  ['nothing', undefined],
  ['null', null],
  ['a text', 'x'],
  ['an empty mapping', {}],
  ['a mapping of the wrong things', { task: 1, environment: [], dataSensitivity: {}, proof: null }],
];

describe.each(Object.entries(HARNESSES))('policy engine %s', (_, harness) => {
  const decide = async (effect: Parameters<Harness['bundle']>[0], question: PolicyQuestion = mintQuestion()) =>
    (await harness.engine().prepare(harness.bundle(effect))).decide(question);

  it('allows what a policy permits, and names it', async () => {
    expect(await decide('allow')).toMatchObject({ effect: 'allow', policyIds: ['yes'], errors: [] });
  });

  it('denies by default, by no policy', async () => {
    expect(await decide('nothing')).toMatchObject({ effect: 'deny', policyIds: [], errors: [] });
  });

  it('denies what a policy forbids, and names that one alone', async () => {
    expect(await decide('deny')).toMatchObject({ effect: 'deny', policyIds: ['no'], errors: [] });
  });

  it('asks where an approval is wanted, with the limits of the policies', async () => {
    expect(await decide('ask')).toMatchObject({ effect: 'ask', limits: { ttlMsMax: 120_000, approval: 'security:1' } });
  });

  it('denies when a policy fails, and says so', async () => {
    const decision = await decide('error');
    expect(decision.effect).toBe('deny');
    expect(decision.errors).not.toEqual([]);
  });

  it.each(HOSTILE)('denies with an error, and does not throw, when the context is %s', async (_what, context) => {
    const decision = await decide('allow', { ...mintQuestion(), context: context as never });
    expect(decision.effect).toBe('deny');
    expect(decision.errors).not.toEqual([]);
  });

  it.each(['principal', 'resource'] as const)('denies with an error when the %s is missing', async (part) => {
    const decision = await decide('allow', { ...mintQuestion(), [part]: undefined as never });
    expect(decision).toMatchObject({ effect: 'deny', errors: [expect.any(String)] });
  });

  it('answers the same question the same way', async () => {
    const policy = await harness.engine().prepare(harness.bundle('ask'));
    expect(policy.decide(mintQuestion())).toEqual(policy.decide(mintQuestion()));
  });

  it('every decision names the bundle it was made under', async () => {
    const policy = await harness.engine().prepare(harness.bundle('allow'));
    expect(policy.decide(mintQuestion()).bundle).toBe(policy.bundle.digest);
    expect(policy.decide({} as never).bundle).toBe(policy.bundle.digest);
  });

  it('refuses a broken bundle with its problems, and decides on by the one before', async () => {
    const engine = harness.engine();
    const policy = await engine.prepare(harness.bundle('allow'));
    const refusal = await engine.prepare(harness.broken()).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(BrokerError);
    expect(refusal).toMatchObject({ code: 'bundle_invalid', detail: { problems: [expect.any(String)] } });
    expect(policy.decide(mintQuestion()).effect).toBe('allow');
  });

  it('several bundles decide side by side', async () => {
    const engine = harness.engine();
    const allow = await engine.prepare(harness.bundle('allow'));
    const deny = await engine.prepare(harness.bundle('deny'));
    for (const n of [1, 2, 3]) {
      const question = mintQuestion({ task: { id: `tsk_a_${n}` }, principal: { team: `t${n}` } });
      expect([allow.decide(question).effect, deny.decide(question).effect]).toEqual(['allow', 'deny']);
    }
  });

  it('explains a denial, and only a denial', async () => {
    const engine = harness.engine();
    expect((await engine.prepare(harness.bundle('nothing'))).nearestMiss(mintQuestion())).toEqual(expect.any(String));
    expect((await engine.prepare(harness.bundle('allow'))).nearestMiss(mintQuestion())).toBeUndefined();
  });

  it('does not throw when asked to explain nonsense, and marks tokens when in doubt', async () => {
    const policy = await harness.engine().prepare(harness.bundle('allow'));
    expect(() => policy.nearestMiss({} as never)).not.toThrow();
    expect(policy.constrainsCalls({} as never)).toBe(true);
  });
});
