import { bundleFormat } from '../../../../src/plugins/policy/bundle.js';
import { runPolicyTests } from '../../../../src/plugins/policy/policy-tests.js';
import { cedarEngine, problemsOf, sampleFiles, sampleWith } from './sample.js';

const run = (test: string, policies = '@id("yes") @max_ttl("5m") permit (principal, action, resource);') =>
  runPolicyTests(
    sampleWith({ all: policies }, { 'policies/a.test.yaml': `trust_domain: dev.mayfly\n${test}` }),
    cedarEngine(),
  );

const caseOf = (change: Record<string, string> = {}) => {
  const fields = {
    name: 'n',
    principal: '/agent/refunds',
    action: 'mint',
    resource: 'orders.read',
    task: '{ type: refund, params: { order_id: 1 } }',
    expect: 'allow',
    ...change,
  };
  return `tests:\n  - { ${Object.entries(fields)
    .map(([key, value]) => `${key}: ${value}`)
    .join(', ')} }\n`;
};

describe('the sample bundle', () => {
  it('keeps every promise its tests make', async () => {
    const results = await runPolicyTests(bundleFormat.parse(sampleFiles()), cedarEngine());
    expect(results.filter((each) => !each.passed)).toEqual([]);
    expect(results.length).toBeGreaterThan(35);
  });

  it('has no policy that its tests would not miss', async () => {
    const files = sampleFiles();
    const unmissed: string[] = [];
    for (const [path, text] of Object.entries(files)) {
      if (!path.endsWith('.cedar')) continue;
      for (const id of [...text.matchAll(/^@id\("([^"]+)"\)/gm)].map((match) => match[1] as string)) {
        const without = text.replace(new RegExp(`^@id\\("${id}"\\)[^;]*;`, 'm'), '');
        const results = await runPolicyTests(bundleFormat.parse({ ...files, [path]: without }), cedarEngine());
        if (results.every((each) => each.passed)) unmissed.push(id);
      }
    }
    expect(unmissed).toEqual([]);
  });
});

describe('a policy test', () => {
  it('passes when the decision, the policies and the limits are the expected ones', async () => {
    const results = await run(caseOf({ policies: '[yes]', limits: '{ max_ttl: 5m }' }));
    expect(results).toEqual([{ file: 'policies/a.test.yaml', name: 'n', passed: true }]);
  });

  it.each([
    ['another effect', { expect: 'deny' }, 'expected deny, got allow (by yes)'],
    ['other policies', { policies: '[no]' }, 'expected it by no, got yes'],
    ['no policies', { policies: '[]' }, 'expected it by no policy, got yes'],
    ['another limit', { limits: '{ max_ttl: 2m }' }, 'expected ttlMsMax 120000, got 300000'],
    ['a limit that is not there', { limits: '{ binding: dpop }' }, 'expected binding dpop, got none'],
    [
      'a principal nobody declares',
      { principal: '/agent/refund' },
      'there is no workload "/agent/refund" in this bundle; did you mean "spiffe://dev.mayfly/agent/refunds"?',
    ],
    [
      'a resource nobody declares',
      { resource: 'orders.reed' },
      '"orders.reed" is nothing that mint can be asked about in this bundle; did you mean "orders.read"?',
    ],
    ['a task that the file does not have', { task: 'refnd' }, 'there is no task "refnd" in this file'],
  ])('fails on %s, in words', async (_, change, message) => {
    expect(await run(caseOf(change))).toEqual([expect.objectContaining({ passed: false, message })]);
  });

  it('expecting a deny fails when the question could not even be decided', async () => {
    const [result] = await run(caseOf({ expect: 'deny', context: '{ enviroment: sandbox }' }));
    expect(result).toMatchObject({ passed: false, message: expect.stringContaining('could not be decided') });
  });

  it('that fails says what was nearest', async () => {
    const [result] = await run(
      caseOf(),
      '@id("sand") permit (principal, action == Action::"mint", resource) when { context.environment == "sandbox" };',
    );
    expect(result?.message).toBe(
      'expected allow, got deny; policy sand would permit it if context.environment were "sandbox"',
    );
  });

  it.each([
    [
      'without a trust domain',
      { 'policies/a.test.yaml': caseOf() },
      /^policies\/a\.test\.yaml: trust_domain: is missing/,
    ],
    [
      'with a field nobody knows',
      { 'policies/a.test.yaml': `trust_domain: a\n${caseOf({ expct: 'x' })}` },
      /tests\.0\.expct: is not known here; did you mean "expect"\?/,
    ],
    [
      'with an action nobody knows',
      { 'policies/a.test.yaml': `trust_domain: a\n${caseOf({ action: 'mnt' })}` },
      /tests\.0\.action: must be .*; did you mean "mint"\?/,
    ],
    ['without tests', { 'policies/a.test.yaml': 'trust_domain: a\ntests: []\n' }, /tests: must hold at least one test/],
    ['that is no YAML', { 'policies/a.test.yaml': 'a: [' }, /^policies\/a\.test\.yaml line/],
  ])('file %s is refused by name', async (_, files, problem) => {
    const problems = await problemsOf(() =>
      runPolicyTests(sampleWith({}, files as unknown as Record<string, string>), cedarEngine()),
    );
    expect(problems.join('\n')).toMatch(problem);
  });
});
