import { MayflyError } from '../../client/mayfly-error.js';
import { findWorkload, nearestWorkload } from '../../core/bundle.js';
import { parseSpiffeId, pathOf } from '../../core/spiffe-id.js';
import { spiffeIdOf } from './agent-option.js';
import { connect } from './connection.js';
import { say } from './output.js';

/** A broker tells a stranger nothing but that it is one; whoever runs the development broker may look up whom `--as` was meant to name. */
export async function sayWhoWasMeant(as: string | undefined, error: unknown): Promise<void> {
  const id = as?.startsWith('/') ? parseSpiffeId(spiffeIdOf(as)) : undefined;
  if (!id || !(error instanceof MayflyError) || error.code !== 'identity_rejected') return;
  try {
    const { mayfly } = await connect({});
    const { bundleFormat } = await import('../../plugins/policy/bundle.js');
    const bundle = bundleFormat.parse((await mayfly.bundle.get()).files);
    if (findWorkload(bundle, id)) return;
    const near = parseSpiffeId(nearestWorkload(bundle, id));
    say(`  --as: nobody declared ${as}${near ? `; did you mean ${pathOf(near)}?` : '.'}`);
  } catch {
    // Nothing more is known to whoever asks.
  }
}
