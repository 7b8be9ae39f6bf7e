import type { WorkloadDeclaration } from '../../../src/core/agent.js';
import {
  type Bundle,
  findWorkload,
  nearestWorkload,
  resourceOfTool,
  resourcesOwnedBy,
} from '../../../src/core/bundle.js';
import type { SpiffeId } from '../../../src/core/spiffe-id.js';

const workload = (spiffeId: string): WorkloadDeclaration => ({
  spiffeId,
  role: 'agent',
  owner: 'o',
  team: 't',
  riskTier: 1,
  environment: 'production',
  tools: [],
  labels: {},
  retired: false,
  standingExceptions: [],
});

const resource = (name: string, owners: string[], tools: string[]) =>
  [
    name,
    {
      resource: name,
      description: '',
      owners,
      tools,
      toolArguments: new Map(),
      enforcement: 'feed',
      sensitivity: 'public',
    },
  ] as const;

const bundleOf = (...ids: string[]): Bundle => ({
  digest: 'sha256:0',
  workloads: ids.map(workload),
  taskTypes: new Map(),
  resources: new Map([
    resource('https://a.example', ['spiffe://td/tool/a', 'spiffe://td/tool/both'], ['a.read']),
    resource('https://b.example', ['spiffe://td/tool/both'], ['b.read']),
  ]),
  secrets: new Map(),
  policies: new Map(),
  files: {},
});

const find = (bundle: Bundle, id: string) => findWorkload(bundle, id as SpiffeId)?.spiffeId;

describe('finding a declared workload', () => {
  const bundle = bundleOf('spiffe://td/agent/*', 'spiffe://td/agent/a', 'spiffe://td/agent/b/*', 'spiffe://td/*');

  it.each([
    ['its exact ID comes before a pattern', 'spiffe://td/agent/a', 'spiffe://td/agent/a'],
    ['a pattern holds any last segment', 'spiffe://td/agent/x', 'spiffe://td/agent/*'],
    ['a deeper pattern holds its own level', 'spiffe://td/agent/b/x', 'spiffe://td/agent/b/*'],
    ['a pattern may stand right below the trust domain', 'spiffe://td/agent', 'spiffe://td/*'],
  ])('%s', (_, id, declared) => {
    expect(find(bundle, id)).toBe(declared);
  });

  it.each([
    ['below what a pattern holds', 'spiffe://td/agent/x/y'],
    ['in another trust domain', 'spiffe://other/agent/a'],
    ['in a trust domain that begins alike', 'spiffe://td2/agent/a'],
    ['with the pattern itself as its ID', 'spiffe://td/agents/x'],
    ['below an exact ID', 'spiffe://td/agent/a/x'],
  ])('a workload %s is not declared', (_, id) => {
    expect(find(bundle, id)).toBeUndefined();
  });

  it('nothing of the language is a workload', () => {
    expect(find(bundleOf(), 'constructor')).toBeUndefined();
    expect(find(bundleOf(), '__proto__')).toBeUndefined();
  });

  it('thousands of declarations are looked up, not searched', () => {
    const large = bundleOf(...Array.from({ length: 20_000 }, (_, n) => `spiffe://td/agent/n${n}`));
    expect(find(large, 'spiffe://td/agent/n19999')).toBe('spiffe://td/agent/n19999');
    const walked = new Proxy(large.workloads, {
      get: () => {
        throw new Error('searched again');
      },
    });
    large.workloads = walked;
    expect(find(large, 'spiffe://td/agent/n1')).toBe('spiffe://td/agent/n1');
    expect(find(large, 'spiffe://td/agent/none')).toBeUndefined();
  });

  it('one bundle never answers for another', () => {
    const [one, other] = [bundleOf('spiffe://td/agent/a'), bundleOf('spiffe://td/agent/b')];
    expect(find(one, 'spiffe://td/agent/b')).toBeUndefined();
    expect(find(other, 'spiffe://td/agent/a')).toBeUndefined();
  });

  it('a mistyped one has a nearest', () => {
    expect(nearestWorkload(bundleOf('spiffe://td/agent/refunds'), 'spiffe://td/agent/refund')).toBe(
      'spiffe://td/agent/refunds',
    );
    expect(nearestWorkload(bundleOf('spiffe://td/agent/refunds'), 'spiffe://elsewhere/x')).toBeUndefined();
  });
});

describe('who owns what', () => {
  it('a workload owns the resources that list it', () => {
    expect(resourcesOwnedBy(bundleOf(), 'spiffe://td/tool/a' as SpiffeId)).toEqual(['https://a.example']);
    expect(resourcesOwnedBy(bundleOf(), 'spiffe://td/tool/both' as SpiffeId)).toEqual([
      'https://a.example',
      'https://b.example',
    ]);
    expect(resourcesOwnedBy(bundleOf(), 'spiffe://td/tool' as SpiffeId)).toEqual([]);
  });

  it('a tool belongs to the resource that lists it', () => {
    expect(resourceOfTool(bundleOf(), 'b.read')?.resource).toBe('https://b.example');
    expect(resourceOfTool(bundleOf(), 'c.read')).toBeUndefined();
    expect(resourceOfTool(bundleOf(), 'constructor')).toBeUndefined();
  });
});
