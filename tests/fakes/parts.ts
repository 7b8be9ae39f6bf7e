import { secretChecks } from '../../src/broker/check-secrets.js';
import type { BrokerSettings, Parts } from '../../src/broker/parts.js';
import type { Bundle } from '../../src/core/bundle.js';
import type { OperationalEvent } from '../../src/core/observe.js';
import { selectorHash } from '../../src/core/selector.js';
import type { Backend } from '../../src/plugins/backends/contract.js';
import { FakeBackend, fakeBackends } from './backend.js';
import { FakeIdentity, FakeTrustBundles } from './identity.js';
import type { LedgerBugs, Line } from './line.js';
import { FakePolicies, fakeBundle, type Rule } from './policy.js';
import { FakeKeyRing, fakeSigner } from './signer.js';
import { type FakeStores, fakeStores } from './stores.js';
import { VirtualClock } from './virtual-clock.js';

export const ISSUER = 'https://mayfly.example';

export const FAKE_SETTINGS: BrokerSettings = {
  issuer: ISSUER,
  mtlsIssuer: 'https://mayfly.example:7118',
  cell: 'a',
  ttlMsDefault: 300_000,
  ttlMsMax: 900_000,
  taskTtlMsMax: 86_400_000,
  taskTtlMsDefault: 3_600_000,
  operatorTtlMs: 300_000,
  personTokenAgeMsMax: 300_000,
  identityLeftMsMin: 60_000,
  skewMs: 30_000,
  quotas: { leasesPerTask: 1_000, leasesPerAgent: 1_000, perTree: 10_000 },
  dpopWindowMs: 60_000,
  dpopNonceRequired: false,
  judgeWithinMs: 5_000,
  judgeBundleWithinMs: 60_000,
  probeShare: 0,
};

/** Parts made of fakes, with the fakes' own handles, so that a test can turn the clock, flip policy and look inside. */
export interface FakeParts extends Parts {
  clock: VirtualClock;
  identity: FakeIdentity;
  trustBundles: FakeTrustBundles;
  policies: FakePolicies;
  keys: FakeKeyRing;
  feed: FakeStores['feed'];
  schedule: FakeStores['schedule'];
  stores: FakeStores;
  line: Line;
  events: OperationalEvent[];
}

export interface FakePartsOptions {
  clock?: VirtualClock;
  /** A second broker on the same line: give it the first one's. */
  line?: Line;
  /** Instead of stores of its own. */
  stores?: FakeStores;
  /** All known to this broker; the first is active on a new line. Default: the sample. */
  bundles?: { bundle: Bundle; rule?: Rule }[];
  bugs?: LedgerBugs;
  rule?: Rule;
  settings?: Partial<BrokerSettings>;
  backends?: Backend[];
  /** Replaces single parts at the end. */
  parts?: Partial<Parts>;
}

/** One broker in memory: a sample bundle is active (fakes/policy.ts), policy allows everything unless `rule` says otherwise. */
export function fakeParts(options: FakePartsOptions = {}): FakeParts {
  const clock = options.clock ?? new VirtualClock();
  const bundles = options.bundles ?? [{ bundle: fakeBundle('sample') }];
  const active = bundles[0]?.bundle;
  const settings = { ...FAKE_SETTINGS, ...options.settings };
  const stores =
    options.stores ??
    fakeStores({
      clock,
      cell: settings.cell,
      ...(active && { bundle: { digest: active.digest, files: active.files } }),
      ...(options.line && { line: options.line }),
      ...(options.bugs && { bugs: options.bugs }),
    });
  const policies = new FakePolicies(stores.views, options.rule);
  for (const { bundle, rule } of bundles) policies.know(bundle, rule);
  const events: OperationalEvent[] = [];
  const backends = options.parts?.backends ?? fakeBackends(...(options.backends ?? [new FakeBackend(clock)]));
  return {
    settings,
    clock,
    observe: (event) => events.push(event),
    identity: new FakeIdentity(clock),
    trustBundles: new FakeTrustBundles(),
    bundleFormat: policies,
    policyEngine: policies,
    policies,
    signer: fakeSigner(),
    keys: new FakeKeyRing(),
    backends,
    secretChecks: secretChecks({ backends, policies, clock, observe: (event) => events.push(event) }),
    untaken: new Map(),
    ledger: stores.ledger,
    views: stores.views,
    feed: stores.feed,
    schedule: stores.schedule,
    replayGuard: stores.replayGuard,
    auditLog: stores.auditLog,
    health: stores.health,
    selectorHash: selectorHash(stores.line.cellKey),
    cellKey: stores.line.cellKey,
    stores,
    line: stores.line,
    events,
    ...options.parts,
  } as FakeParts;
}
