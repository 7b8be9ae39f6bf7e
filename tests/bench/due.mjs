// Everything due at one instant: the deadlines of many tasks, and how late each was ended by the broker's worker.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { newId } from '../../dist/core/ids.js';
import { systemClock } from '../../dist/core/time.js';
import { openStores } from '../../dist/state/open-stores.js';
import { ORDERS, quantile, REFUNDS, until } from './world.mjs';

const AT_ONCE = 64;
/** A task more is opened in this time on a busy machine. */
const OPEN_MS = 3;

export async function dueRows(world, { count }) {
  const stores = await openStores({
    url: world.redis.url,
    cell: 'a',
    rootKey: Buffer.from(readFileSync(join(world.dir, 'root.key'), 'utf8'), 'base64'),
    clock: systemClock,
    observe: () => {},
    dataDir: join(world.dir, 'due'),
    role: 'api',
  });
  try {
    const deadlineMs = Date.now() + 5_000 + OPEN_MS * count;
    const ids = [];
    const open = async () => {
      const nowMs = Date.now();
      const reading = await stores.ledger.read({ nowMs });
      const id = newId('tsk', 'a', nowMs);
      const outcome = await stores.ledger.startTask({
        charter: {
          id,
          path: [id],
          params: {},
          purpose: 'bench',
          risk: 'low',
          opener: 'bench',
          openerKind: 'orchestrator',
          agents: [REFUNDS],
          scope: { tools: ['orders.read'], resources: [ORDERS], secrets: [] },
          selfOpened: false,
          createdAtMs: nowMs,
          deadlineMs,
          onSilence: 'suspend',
          onContextChange: 're-evaluate',
          bundle: reading.bundle,
        },
        context: {},
        basis: { position: reading.position, bundle: reading.bundle, generations: [] },
        quotas: { leasesPerTask: 1e7, leasesPerAgent: 1e7, perTree: 1e7 },
        nowMs,
        audit: { id: newId('dec', 'a', nowMs), atMs: nowMs, type: 'task.opened', actor: {} },
      });
      if (outcome.outcome !== 'opened') throw new Error(JSON.stringify(outcome));
      ids.push(id);
    };
    // A call that a busy machine let time out is made again; a task that was opened all the same is not looked at.
    const surely = () => until(() => open().then(() => true));
    for (let at = 0; at < count; at += AT_ONCE) {
      await Promise.all(Array.from({ length: Math.min(AT_ONCE, count - at) }, surely));
    }
    if (Date.now() > deadlineMs) throw new Error('the tasks were due before all of them were open');
    const last = ids.at(-1);
    const lateMs = [];
    await until(async () => Date.now() > deadlineMs && (await stores.views.task(last)).endedAtMs, 120_000);
    for (const id of ids) {
      await until(async () => (await stores.views.task(id)).endedAtMs);
      lateMs.push((await stores.views.task(id)).endedAtMs - deadlineMs);
    }
    const p99 = quantile(lateMs, 0.99);
    return [
      {
        row: `${count} due at once, lateness p99 (ms)`,
        ours: `${p99} ms (p50 ${quantile(lateMs, 0.5)} ms)`,
        peer: '',
        ratio: p99,
        floor: 500,
        aim: 120,
        more: false,
      },
    ];
  } finally {
    await stores.close();
  }
}
