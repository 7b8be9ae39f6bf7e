import { createHash } from 'node:crypto';
import { BUNDLE_LIMITS, bundleFormat, digestOf, isBundleFile } from '../../../../src/plugins/policy/bundle.js';
import { problemsOf, sampleFiles } from './sample.js';

const AGENT = `
spiffe_id: spiffe://prod.example/agent/a
owner: o@example.com
team: t
risk_tier: 2
environment: production
`;
const RESOURCE = `
resource: https://a.example
description: A
owners: [spiffe://prod.example/tool/a]
enforcement: feed
sensitivity: internal
tools: [a.read, { name: a.write, arguments: { id: integer, what: any } }]
`;
const TASK = `
type: work
description: Work
resources: [https://a.example]
tools: [a.read]
ttl_max: 15m
risk: low
`;
const SECRET = 'name: a-db\nbackend: vault\nsensitivity: restricted\nttl_max: 10m\n';

const refused = (files: Record<string, string>) =>
  problemsOf(() => bundleFormat.parse({ 'resources/a.yaml': RESOURCE, 'secrets/a.yaml': SECRET, ...files }));

describe('a bundle that is well written', () => {
  it('says inside what it says in its files', () => {
    const bundle = bundleFormat.parse({
      'agents/a.yaml': `${AGENT}model: m\ntools: [a.read]\nlabels: { pii: "yes" }\nreview_by: 2031-01-31
standing_exceptions: [{ secret: a-db, reason: legacy, until: 2030-12-31, owner: o@example.com }]\n`,
      'orchestrators/o.yaml': AGENT.replace('agent/a', 'orchestrator/*'),
      'resources/a.yaml': RESOURCE,
      'secrets/a.yaml': SECRET,
      'tasks/w.yaml': `${TASK}secrets: [a-db]
params: { id: { type: integer, required: true, minimum: 1, maximum: 9 }, code: { type: string, pattern: "^[A-Z]{2}\\\\d+$" }, kind: { type: string, values: [x, y] }, note: string }
context: { environment: [sandbox, production], labels: add-only, ticket: fixed }
agent_settable: [labels]\n`,
      'policies/a.cedar': '// nothing',
    });
    expect(bundle.workloads).toEqual([
      {
        spiffeId: 'spiffe://prod.example/agent/a',
        role: 'agent',
        owner: 'o@example.com',
        team: 't',
        riskTier: 2,
        environment: 'production',
        model: 'm',
        tools: ['a.read'],
        labels: { pii: 'yes' },
        reviewBy: '2031-01-31',
        retired: false,
        standingExceptions: [{ secret: 'a-db', reason: 'legacy', until: '2030-12-31', owner: 'o@example.com' }],
      },
      expect.objectContaining({ spiffeId: 'spiffe://prod.example/orchestrator/*', role: 'orchestrator', tools: [] }),
    ]);
    expect(bundle.taskTypes.get('work')).toEqual({
      type: 'work',
      description: 'Work',
      params: {
        id: { type: 'integer', required: true, minimum: 1, maximum: 9 },
        code: { type: 'string', required: false, pattern: '^[A-Z]{2}\\d+$' },
        kind: { type: 'string', required: false, values: ['x', 'y'] },
        note: { type: 'string', required: false },
      },
      tools: ['a.read'],
      resources: ['https://a.example'],
      secrets: ['a-db'],
      ttlMsMax: 900_000,
      risk: 'low',
      context: {
        environment: { kind: 'ordered', values: ['sandbox', 'production'] },
        labels: { kind: 'add-only' },
        ticket: { kind: 'fixed' },
      },
      agentSettable: ['labels'],
    });
    expect(bundle.resources.get('https://a.example')).toEqual({
      resource: 'https://a.example',
      description: 'A',
      owners: ['spiffe://prod.example/tool/a'],
      tools: ['a.read', 'a.write'],
      toolArguments: new Map([['a.write', { declared: { id: 'integer', what: 'any' }, others: 'refuse' }]]),
      enforcement: 'feed',
      sensitivity: 'internal',
    });
    expect(bundle.secrets.get('a-db')).toEqual({
      name: 'a-db',
      backend: 'vault',
      sensitivity: 'restricted',
      ttlMsMax: 600_000,
      settings: {},
    });
    expect([...bundle.policies]).toEqual([['policies/a.cedar', '// nothing']]);
  });

  it('a file may hold a list of declarations', () => {
    const two = `- ${AGENT.trim().replaceAll('\n', '\n  ')}\n- ${AGENT.trim().replace('agent/a', 'agent/b').replaceAll('\n', '\n  ')}\n`;
    expect(bundleFormat.parse({ 'agents/all.yaml': two }).workloads.map((each) => each.spiffeId)).toEqual([
      'spiffe://prod.example/agent/a',
      'spiffe://prod.example/agent/b',
    ]);
  });

  it('an empty bundle is a bundle: nothing is declared and nothing permitted', () => {
    expect(bundleFormat.parse({}).workloads).toEqual([]);
  });
});

describe('the digest', () => {
  it('is the SHA-256 of path, NUL, length in bytes, NUL, content, in the order of the paths', () => {
    const hash = createHash('sha256')
      .update('a\0' + '2\0ä')
      .update('b\0' + '1\0x')
      .digest('hex');
    expect(digestOf({ b: 'x', a: 'ä' })).toBe(`sha256:${hash}`);
  });

  it('does not depend on the order in which the files were read', () => {
    const files = sampleFiles();
    const turned = Object.fromEntries(Object.entries(files).reverse());
    expect(bundleFormat.parse(turned).digest).toBe(bundleFormat.parse(files).digest);
  });

  it.each([
    ['another content', { a: 'y', b: '' }],
    ['another path', { c: 'x', b: '' }],
    ['a file less', { a: 'x' }],
    ['content moved to the next file', { a: '', b: 'x' }],
  ])('%s is another digest', (_, files) => {
    expect(digestOf(files as unknown as Record<string, string>)).not.toBe(digestOf({ a: 'x', b: '' }));
  });
});

describe('which files belong to a bundle', () => {
  it.each(['agents/a.yaml', 'policies/a.cedar', 'policies/a-b.test.yaml'])('%s does', (path) => {
    expect(isBundleFile(path)).toBe(true);
  });

  it.each([
    'README.md',
    'agents/a.yml',
    'agents/deep/a.yaml',
    'agents/../a.yaml',
    '/agents/a.yaml',
    'agents/.yaml.swp',
    'policies/a.yaml',
    'policies/a.cedar~',
    'mayfly.yaml',
    'agents/a.yaml\n',
  ])('%j does not, and is refused by name', async (path) => {
    expect(isBundleFile(path)).toBe(false);
    expect(await refused({ [path]: AGENT })).toEqual([expect.stringContaining('is no file of a bundle')]);
  });
});

describe('what is wrong is named: file, field, what, what to do', () => {
  const agent = (change: string) => ({ 'agents/a.yaml': AGENT + change });
  const task = (change: string) => ({ 'tasks/w.yaml': TASK + change });
  const without = (text: string, key: string) => text.replace(new RegExp(`^${key}:.*\n`, 'm'), '');

  it.each<[string, Record<string, string>, string | RegExp]>([
    ['a missing field', { 'agents/a.yaml': without(AGENT, 'owner') }, 'agents/a.yaml: owner: is missing; write a text'],
    ['an unknown field', agent('tool: [a.read]'), 'agents/a.yaml: tool: is not known here; did you mean "tools"?'],
    ['an unknown field like no other', agent('zzzzzzzz: 1'), 'agents/a.yaml: zzzzzzzz: is not known here'],
    [
      'an unknown field deeper down',
      task('params: { id: { type: integer, requird: true } }'),
      'tasks/w.yaml: params.id.requird: is not known here; did you mean "required"?',
    ],
    [
      'a value of another type',
      { 'agents/a.yaml': AGENT.replace('risk_tier: 2', 'risk_tier: two') },
      'agents/a.yaml: risk_tier: must be 1, 2, 3 or 4',
    ],
    [
      'a tier that does not exist',
      { 'agents/a.yaml': AGENT.replace('risk_tier: 2', 'risk_tier: 5') },
      'agents/a.yaml: risk_tier: must be 1, 2, 3 or 4',
    ],
    [
      'a number where a text belongs',
      { 'agents/a.yaml': AGENT.replace('team: t', 'team: 7') },
      'agents/a.yaml: team: must be a text',
    ],
    ['a text where a list belongs', agent('tools: a.read'), 'agents/a.yaml: tools: must be a list'],
    [
      'a bad SPIFFE ID',
      { 'agents/a.yaml': AGENT.replace('spiffe://prod.example', 'spiffe://Prod.example') },
      /^agents\/a\.yaml: spiffe_id: must be a SPIFFE ID/,
    ],
    [
      'a trust domain without a path',
      { 'agents/a.yaml': AGENT.replace('/agent/a', '') },
      /spiffe_id: must be a SPIFFE ID/,
    ],
    ['a pattern in the middle', { 'agents/a.yaml': AGENT.replace('agent/a', '*/a') }, /spiffe_id: must be a SPIFFE ID/],
    [
      'a pattern for part of a segment',
      { 'agents/a.yaml': AGENT.replace('agent/a', 'agent/a*') },
      /spiffe_id: must be a SPIFFE ID/,
    ],
    [
      'a tool nobody declares',
      agent('tools: [a.raed]'),
      'agents/a.yaml: tools: there is no tool "a.raed" in this bundle; did you mean "a.read"?',
    ],
    [
      'a tool with a name that no scope can hold',
      agent('tools: ["a read"]'),
      'agents/a.yaml: tools.0: must be 1 to 64 letters, digits, "_", "." or "-"',
    ],
    [
      'a label with a reserved name',
      agent('labels: { __proto__: x }'),
      'agents/a.yaml: __proto__ is not a name that can be used here',
    ],
    [
      'a date that does not exist',
      agent('review_by: 2031-02-30'),
      'agents/a.yaml: review_by: must be a date such as 2027-06-30',
    ],
    [
      'an exception without an end',
      agent('standing_exceptions: [{ secret: a-db, reason: r, owner: o }]'),
      'agents/a.yaml: standing_exceptions.0.until: is missing; write a text',
    ],
    [
      'an exception for a secret nobody declares',
      agent('standing_exceptions: [{ secret: b-db, reason: r, owner: o, until: 2030-01-01 }]'),
      'agents/a.yaml: standing_exceptions: there is no secret "b-db" in this bundle; did you mean "a-db"?',
    ],
    [
      'an orchestrator with exceptions',
      { 'orchestrators/o.yaml': `${AGENT}standing_exceptions: []` },
      'orchestrators/o.yaml: standing_exceptions: is not known here',
    ],
    [
      'a workload declared twice',
      { ...agent(''), 'orchestrators/o.yaml': AGENT },
      'orchestrators/o.yaml: spiffe_id "spiffe://prod.example/agent/a" is declared twice, first in agents/a.yaml; keep one',
    ],
    [
      'a task type declared twice',
      { 'tasks/a.yaml': TASK, 'tasks/b.yaml': TASK },
      'tasks/b.yaml: type "work" is declared twice, first in tasks/a.yaml; keep one',
    ],
    [
      'a task type called untyped',
      { 'tasks/a.yaml': TASK.replace('work', 'untyped') },
      /^tasks\/a\.yaml: type: must not be "untyped"/,
    ],
    [
      'a tool declared twice',
      { 'resources/b.yaml': RESOURCE.replace('a.example', 'b.example') },
      /^resources\/b\.yaml: tool "a\.read" is declared twice, first in resources\/a\.yaml/,
    ],
    [
      'a resource declared twice',
      { 'resources/b.yaml': RESOURCE.replace(/tools:.*/, '') },
      /^resources\/b\.yaml: resource "https:\/\/a\.example" is declared twice/,
    ],
    [
      'a resource with a fragment',
      { 'resources/b.yaml': RESOURCE.replace('a.example', 'b.example#x').replace(/tools:.*/, '') },
      /^resources\/b\.yaml: resource: must be an absolute URI without a fragment/,
    ],
    [
      'a relative resource',
      { 'resources/b.yaml': RESOURCE.replace('https://a.example', '/orders').replace(/tools:.*/, '') },
      /resource: must be an absolute URI/,
    ],
    [
      'a resource with a space',
      { 'resources/b.yaml': RESOURCE.replace('https://a.example', '"https://b example"').replace(/tools:.*/, '') },
      /resource: must be an absolute URI/,
    ],
    [
      'a resource without owners',
      {
        'resources/b.yaml': RESOURCE.replace('a.example', 'b.example')
          .replace(/owners:.*/, 'owners: []')
          .replace(/tools:.*/, ''),
      },
      'resources/b.yaml: owners: must name at least one owner: the workload that enforces',
    ],
    [
      'an owner by pattern',
      {
        'resources/b.yaml': RESOURCE.replace('a.example', 'b.example')
          .replace('tool/a', 'tool/*')
          .replace(/tools:.*/, ''),
      },
      /owners\.0: must be a SPIFFE ID/,
    ],
    [
      'an enforcement that does not exist',
      {
        'resources/b.yaml': RESOURCE.replace('a.example', 'b.example')
          .replace('feed', 'feeds')
          .replace(/tools:.*/, ''),
      },
      /enforcement: must be "feed" or "introspection" or .*; did you mean "feed"\?/,
    ],
    [
      'an argument of an unknown type',
      {
        'resources/b.yaml': RESOURCE.replace('a.example', 'b.example').replace(
          /tools:.*/,
          'tools: [{ name: b, arguments: { id: int } }]',
        ),
      },
      /^resources\/b\.yaml: tools\.0\.arguments\.id: must be "string"/,
    ],
    [
      'an argument with two types',
      {
        'resources/b.yaml': RESOURCE.replace('a.example', 'b.example').replace(
          /tools:.*/,
          'tools: [{ name: b, arguments: { id: string } }]',
        ),
      },
      /^resources\/b\.yaml: tools\.b\.arguments\.id: is string here and integer in a\.write; .*declare it "any"/,
    ],
    [
      'a resource nobody declares',
      { 'tasks/w.yaml': TASK.replace('https://a.example', 'https://b.example') },
      'tasks/w.yaml: resources: there is no resource "https://b.example" in this bundle; did you mean "https://a.example"?',
    ],
    [
      'a secret nobody declares',
      task('secrets: [nope-at-all]'),
      'tasks/w.yaml: secrets: there is no secret "nope-at-all" in this bundle',
    ],
    [
      'a tool whose resource the task does not have',
      { 'tasks/w.yaml': without(TASK, 'resources') },
      'tasks/w.yaml: tools: "a.read" belongs to https://a.example, which is not in resources; add it there',
    ],
    [
      'a duration that is none',
      { 'tasks/w.yaml': TASK.replace('15m', 'soon') },
      'tasks/w.yaml: ttl_max: must be a duration between 1s and 30d, such as 5m',
    ],
    [
      'a duration too long',
      { 'tasks/w.yaml': TASK.replace('15m', '31d') },
      'tasks/w.yaml: ttl_max: must be a duration between 1s and 30d, such as 5m',
    ],
    [
      'a param with a reserved name',
      task('params: { __entity: string }'),
      /params\.__entity: the name must be a letter/,
    ],
    ['a param of an unknown type', task('params: { id: number }'), /^tasks\/w\.yaml: params\.id: /],
    [
      'bounds on a string',
      task('params: { id: { type: string, minimum: 1 } }'),
      'tasks/w.yaml: params.id: minimum and maximum are for integers; a string takes pattern or values',
    ],
    [
      'a pattern on an integer',
      task('params: { id: { type: integer, pattern: "^1$" } }'),
      'tasks/w.yaml: params.id: pattern and values are for strings; an integer takes minimum and maximum',
    ],
    [
      'bounds that nothing fits',
      task('params: { id: { type: integer, minimum: 2, maximum: 1 } }'),
      'tasks/w.yaml: params.id: minimum is above maximum, so nothing fits',
    ],
    [
      'a context order of one value',
      task('context: { environment: [sandbox] }'),
      /^tasks\/w\.yaml: context\.environment: must (be|list)/,
    ],
    [
      'a context order with a value twice',
      task('context: { environment: [a, b, a] }'),
      'tasks/w.yaml: context.environment: lists a value twice; an order has each once',
    ],
    [
      'an unknown context order',
      task('context: { environment: grows }'),
      'tasks/w.yaml: context.environment: must be a list of values from loose to tight, "add-only" or "fixed"',
    ],
    [
      'an agent-settable key without an order',
      task('context: { risk: [low, high] }\nagent_settable: [rsk]'),
      'tasks/w.yaml: agent_settable: "rsk" is not in context; did you mean "risk"?',
    ],
    [
      'a param with two types',
      {
        'tasks/a.yaml': `${TASK}params: { id: string }`,
        'tasks/b.yaml': `${TASK.replace('work', 'play')}params: { id: integer }`,
      },
      'tasks/b.yaml: params.id: is integer here and string in task type "work"; a policy reads one type, so rename one of them',
    ],
    [
      'a context key of two kinds',
      {
        'tasks/a.yaml': `${TASK}context: { x: add-only }`,
        'tasks/b.yaml': `${TASK.replace('work', 'play')}context: { x: fixed }`,
      },
      'tasks/b.yaml: context.x: is one value here and a set (add-only) in task type "work"; a policy reads one type, so rename one of them',
    ],
    ['a file that is no YAML', { 'agents/a.yaml': 'a: [' }, /^agents\/a\.yaml line \d+: /],
    ['a key twice', agent('team: u'), /^agents\/a\.yaml line \d+: Map keys must be unique/],
    [
      'an alias',
      {
        'agents/a.yaml': AGENT.replace('owner: o@example.com', 'owner: &o o@example.com').replace(
          'team: t',
          'team: *o',
        ),
      },
      'agents/a.yaml: uses an alias (*name); write the value out',
    ],
    [
      'two documents in a file',
      { 'agents/a.yaml': `${AGENT}---\n${AGENT}` },
      /^agents\/a\.yaml line \d+: .*multiple documents/,
    ],
    ['a tag', agent('model: !!js/function "x"'), /^agents\/a\.yaml line \d+: Unresolved tag/],
    [
      'an empty file',
      { 'agents/a.yaml': '# nothing\n' },
      'agents/a.yaml: is empty; write one declaration, or a list of them',
    ],
    [
      'a text instead of a declaration',
      { 'agents/a.yaml': 'spiffe://prod.example/agent/a' },
      'agents/a.yaml: is empty; write one declaration, or a list of them',
    ],
    [
      'a second declaration in a list',
      { 'agents/a.yaml': `- ${AGENT.trim().replaceAll('\n', '\n  ')}\n- {}` },
      /^agents\/a\.yaml: 2\. spiffe_id: is missing/,
    ],
  ])('%s', async (_, files, problem) => {
    expect(await refused(files)).toContainEqual(problem instanceof RegExp ? expect.stringMatching(problem) : problem);
  });

  it('all of it at once, in the order of the files', async () => {
    const problems = await refused({
      'agents/b.yaml': `${AGENT}tool: x\ntols: y`,
      'agents/a.yaml': without(AGENT, 'team'),
      'tasks/w.yaml': TASK.replace('risk: low', 'risk: lowish'),
    });
    expect(problems.map((problem) => problem.split(': ').slice(0, 2).join(': '))).toEqual([
      'agents/a.yaml: team',
      'agents/b.yaml: tool',
      'agents/b.yaml: tols',
      'tasks/w.yaml: risk',
    ]);
  });

  it('a flood of problems is cut off with their number', async () => {
    const keys = Array.from({ length: 300 }, (_, n) => `zz${n}qqqq: 1`).join('\n');
    const problems = await refused(agent(keys));
    expect(problems).toHaveLength(51);
    expect(problems[50]).toBe('and 250 more');
  });
});

describe('patterns for params', () => {
  const pattern = (text: string) =>
    problemsOf(() =>
      bundleFormat.parse({
        'resources/a.yaml': RESOURCE,
        'tasks/w.yaml': `${TASK}params: { id: { type: string, pattern: ${JSON.stringify(text)} } }`,
      }),
    );

  it.each(['^[A-Z]{2}-[0-9]+$', '^(a|b)$', '^\\d{1,9}$', '^ord_[a-z0-9]*$'])('%s is accepted', async (text) => {
    await expect(pattern(text)).rejects.toThrow('it was accepted');
  });

  it.each([
    ['without its ends', '[a-z]'],
    ['with one end', '^[a-z]'],
    ['with an escaped end', '^a\\$'],
    ['with an alternative that escapes the ends', '^a|b$'],
    ['with a group that repeats', '^(a+)+$'],
    ['with a counted group', '^(a|aa){9}$'],
    ['with two unbounded repetitions', '^a*a*$'],
    ['with a counted and an unbounded repetition', '^a{1,}a*$'],
    ['with look-ahead', '^(?=a)a$'],
    ['with a back-reference', '^(a)\\1$'],
    ['with a named back-reference', '^(?<x>a)\\k<x>$'],
    ['that does not compile', '^[z-a]$'],
  ])('one %s is refused', async (_, text) => {
    expect(await pattern(text)).toEqual([
      expect.stringContaining('params.id.pattern: must be a regular expression from ^ to $'),
    ]);
  });
});

describe('bounds', () => {
  it('a file that is too long is refused before it is read', async () => {
    const long = '#'.repeat(BUNDLE_LIMITS.fileBytes + 1);
    expect(await refused({ 'agents/a.yaml': long })).toEqual([
      expect.stringMatching(/^agents\/a\.yaml: is 262145 bytes long, at most 262144 are read/),
    ]);
  });

  it('length is counted in bytes', async () => {
    const long = `#${'ä'.repeat(BUNDLE_LIMITS.fileBytes / 2)}`;
    expect(await refused({ 'agents/a.yaml': long })).toEqual([expect.stringContaining('262145 bytes')]);
  });

  it('a bundle that is too long is refused', async () => {
    const files = Object.fromEntries(
      Array.from({ length: 33 }, (_, n) => [`policies/p${n}.cedar`, ' '.repeat(BUNDLE_LIMITS.fileBytes)]),
    );
    expect(await refused(files)).toEqual([expect.stringMatching(/^the bundle: is \d+ bytes long/)]);
  });

  it('a bundle of too many files is refused', async () => {
    const files = Object.fromEntries(
      Array.from({ length: BUNDLE_LIMITS.files + 1 }, (_, n) => [`policies/p${n}.cedar`, '']),
    );
    expect(await refused(files)).toEqual([expect.stringMatching(/^the bundle: has \d+ files/)]);
  });
});
