import type { ActivePolicies } from '../broker/parts.js';
import { BrokerError } from '../core/errors.js';
import type { Observe } from '../core/observe.js';
import type { BundleFormat, PolicyEngine, PreparedPolicy } from '../plugins/policy/contract.js';
import type { Views } from '../state/stores.js';

/**
 * The policies of the bundle that Redis names active, as this broker has loaded them. A broker grants nothing on any other: it is asked for the
 * digest that a read brought, and when that is not the loaded one it loads it and says `unavailable` meanwhile.
 */
export function activePolicies(deps: {
  views: Views;
  format: BundleFormat;
  engine: PolicyEngine;
  observe: Observe;
}): ActivePolicies {
  let loaded: PreparedPolicy | undefined;
  let loading: Promise<PreparedPolicy> | undefined;

  async function load(): Promise<PreparedPolicy> {
    const active = await deps.views.activeBundle();
    if (!active) throw new BrokerError('unavailable', 'No bundle is active yet.', { retryAfterSeconds: 1 });
    if (loaded?.bundle.digest === active.digest) return loaded;
    const bundle = deps.format.parse(active.files);
    if (bundle.digest !== active.digest) {
      throw new BrokerError('unavailable', 'The active bundle is not what its digest says.', { reason: bundle.digest });
    }
    loaded = await deps.engine.prepare(bundle);
    deps.observe({ event: 'bundle.loaded', level: 'info', digest: bundle.digest });
    return loaded;
  }

  const refresh = (): Promise<PreparedPolicy> => {
    loading ??= load().finally(() => {
      loading = undefined;
    });
    return loading;
  };

  return {
    refresh,
    current: () => loaded,
    of(digest) {
      if (loaded?.bundle.digest === digest) return loaded;
      refresh().catch((error: unknown) => {
        deps.observe({
          event: 'bundle.not_loaded',
          level: 'error',
          problem: error instanceof Error ? error.message : 'unknown',
        });
      });
      throw new BrokerError('unavailable', 'This broker is loading the active bundle.', {
        retryAfterSeconds: 1,
        reason: digest,
      });
    },
  };
}
