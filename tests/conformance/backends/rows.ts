import type { BackendKind } from '../../../src/plugins/backends/registry.js';
import type { Harness } from './harness.js';
import { oauthHarness } from './oauth.js';
import { postgresHarness } from './postgres.js';
import { staticHarness } from './static.js';
import { vaultHarness } from './vault.js';

/** A new kind does not compile until it has its row: what it needs decides in which suite of tests it runs (jest.config.mjs). */
export const rows: Record<BackendKind, { suite: 'real' | 'peers'; harness: Harness }> = {
  postgres: { suite: 'real', harness: postgresHarness },
  vault: { suite: 'peers', harness: vaultHarness },
  oauth: { suite: 'real', harness: oauthHarness },
  static: { suite: 'real', harness: staticHarness },
};

export function rowsOf(suite: 'real' | 'peers'): [string, Harness][] {
  return Object.entries(rows).flatMap(([kind, row]) =>
    row.suite === suite ? [[kind, row.harness] as [string, Harness]] : [],
  );
}
