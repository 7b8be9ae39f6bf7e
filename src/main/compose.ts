import { secretChecks } from '../broker/check-secrets.js';
import type { BrokerSettings, Parts } from '../broker/parts.js';
import { ensureKeys } from '../broker/rotate-keys.js';
import type { Observe } from '../core/observe.js';
import { selectorHash } from '../core/selector.js';
import { type Clock, systemClock } from '../core/time.js';
import { guardBackends } from '../plugins/backends/guard.js';
import { openBackends } from '../plugins/backends/open.js';
import { createIdentity } from '../plugins/identity/identity.js';
import { bundleFormat } from '../plugins/policy/bundle.js';
import { policyEngines } from '../plugins/policy/registry.js';
import { localSigner } from '../plugins/signers/local.js';
import { openStores } from '../state/open-stores.js';
import { activePolicies } from './active-policies.js';
import { backendDeps } from './backend-deps.js';
import type { Config } from './config.js';
import { keyRing } from './key-ring.js';
import { type Metrics, timed } from './metrics.js';

export interface Composed {
  parts: Parts;
  close(): Promise<void>;
}

/** Puts one broker together from its configuration: the only place where contracts meet what fulfils them. */
export async function compose(
  config: Config,
  given: {
    redisUrl: string | string[];
    rootKey: Uint8Array;
    observe: Observe;
    role: 'all' | 'api' | 'worker';
    metrics?: Metrics;
    clock?: Clock;
  },
): Promise<Composed> {
  const { observe, role } = given;
  const clock = given.clock ?? systemClock;
  const settings = settingsOf(config);
  const { proof, bundles } = await createIdentity(config.identity, {
    clock,
    issuer: settings.issuer,
    observe: ({ type, ...event }) =>
      observe({ event: `identity.${type}`, level: type === 'bundle_changed' ? 'info' : 'warn', ...event }),
  });
  const stores = await closing([() => bundles.close()], () =>
    openStores({
      url: given.redisUrl,
      cell: settings.cell,
      rootKey: given.rootKey,
      clock,
      observe,
      dataDir: config.data_dir,
      keyPrefix: config.redis.key_prefix,
      role,
    }),
  );
  const engine = await policyEngines[config.policy.kind].create(config.policy, {
    clock,
    onSlow: (slow) => observe({ event: 'policy.slow', level: 'warn', ...slow }),
  });
  const policyEngine = given.metrics ? timed(engine, config.policy.kind, given.metrics) : engine;
  const cellKey = await closing([() => stores.close(), () => bundles.close()], () => stores.views.cellKey());
  const signer = localSigner();
  const keys = keyRing(stores.views);
  const opened = await closing([() => stores.close(), () => bundles.close()], () =>
    openBackends(config.backends, backendDeps({ rootKey: given.rootKey, settings, clock, observe, signer, keys })),
  );
  const policies = activePolicies({ views: stores.views, format: bundleFormat, engine: policyEngine, observe });
  const backends = guardBackends(opened, { clock, observe });
  const parts: Parts = {
    settings,
    clock,
    observe,
    identity: proof,
    trustBundles: bundles,
    bundleFormat,
    policyEngine,
    policies,
    signer,
    keys,
    backends,
    secretChecks: secretChecks({ backends, policies, clock, observe }),
    untaken: new Map(),
    ledger: stores.ledger,
    views: stores.views,
    feed: stores.feed,
    schedule: stores.schedule,
    replayGuard: stores.replayGuard,
    auditLog: stores.auditLog,
    health: stores.health,
    selectorHash: selectorHash(cellKey),
    cellKey,
  };
  await closing([() => backends.close(), () => stores.close(), () => bundles.close()], () => ensureKeys(parts));
  return {
    parts,
    async close() {
      await bundles.close();
      await stores.close();
      await backends.close();
    },
  };
}

/** Does one step of the start; when it fails, what was opened before is closed again. */
async function closing<Made>(opened: (() => Promise<unknown>)[], step: () => Promise<Made>): Promise<Made> {
  try {
    return await step();
  } catch (error) {
    for (const close of opened) await close().catch(() => undefined);
    throw error;
  }
}

function settingsOf(config: Config): BrokerSettings {
  const { tokens, tasks, quotas } = config;
  return {
    issuer: config.issuer,
    ...(config.mtls?.issuer !== undefined && { mtlsIssuer: config.mtls.issuer }),
    cell: config.cell,
    ttlMsDefault: tokens.ttl_seconds * 1000,
    ttlMsMax: tokens.ttl_seconds_max * 1000,
    taskTtlMsDefault: tasks.ttl_seconds * 1000,
    taskTtlMsMax: tasks.ttl_seconds_max * 1000,
    operatorTtlMs: tokens.operator_ttl_seconds * 1000,
    personTokenAgeMsMax: tokens.person_token_age_seconds_max * 1000,
    identityLeftMsMin: tokens.identity_left_seconds_min * 1000,
    skewMs: 30_000,
    quotas: {
      leasesPerTask: quotas.leases_per_task,
      leasesPerAgent: quotas.leases_per_agent,
      perTree: quotas.per_tree,
    },
    dpopWindowMs: tokens.dpop_window_seconds * 1000,
    dpopNonceRequired: tokens.dpop_nonce_required,
    judgeWithinMs: tasks.judge_within_seconds * 1000,
    judgeBundleWithinMs: tasks.judge_bundle_within_seconds * 1000,
    probeShare: config.backends_probe_share,
  };
}
