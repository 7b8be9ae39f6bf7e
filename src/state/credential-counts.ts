import type { LeaseState } from '../core/lease.js';
import type { Cell } from './cell.js';
import type { CredentialCount } from './stores.js';

const PAGE = 500;

/** Goes through the credentials that are not closed, three short fields of each, in pages that hold nobody up. */
export async function countCredentials({ line, keys }: Cell): Promise<CredentialCount[]> {
  const counts = new Map<string, CredentialCount>();
  for (let from = '-'; ; ) {
    const ids = await line.ask((client) => client.zrangebylex(keys.named('credentials'), from, '+', 'LIMIT', 0, PAGE));
    const last = ids.at(-1);
    // (An empty pipeline on a Cluster is never answered.)
    if (last === undefined) return [...counts.values()];
    const rows = await line.ask(async (client) => {
      const pipeline = client.pipeline();
      for (const id of ids) pipeline.hmget(keys.credential(id), 'backend', 'state', 'stuck');
      return ((await pipeline.exec()) ?? []).map(([error, row]) => {
        if (error) throw error;
        return row as (string | null)[];
      });
    });
    for (const [backend, state, stuck] of rows) if (state) note(counts, backend ?? '', state, Boolean(stuck));
    if (ids.length < PAGE) return [...counts.values()];
    from = `(${last}`;
  }
}

function note(counts: Map<string, CredentialCount>, backend: string, text: string, isStuck: boolean): void {
  const state = text as LeaseState;
  const key = `${backend} ${state}`;
  const of = counts.get(key) ?? { backend, state, count: 0, stuck: 0 };
  of.count += 1;
  if (isStuck) of.stuck += 1;
  counts.set(key, of);
}
