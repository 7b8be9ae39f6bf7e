// npm run bench: prints a table and writes JSON. Each row is a ratio to a peer or floor of the same run; absolute times on a shared machine mean
// little. --quick: a look whether it runs. --full: also a million live leases. Names of groups (mint openbao verify
// decision feed due bulk secrets) choose some.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { orOneLine, prepare, ROOT } from './prepare.mjs';

await orOneLine(async () => {
  prepare();
  process.chdir(ROOT);
  process.env.MAYFLY_TOOLS_DIR ??= join(ROOT, '.data/tools');
  const words = process.argv.slice(2);
  const quick = words.includes('--quick');
  const full = words.includes('--full');
  const chosen = words.filter((word) => !word.startsWith('--'));
  const { openWorld } = await import('../tests/bench/world.mjs');
  const rows = await import('../tests/bench/rows.mjs');
  const { dueRows } = await import('../tests/bench/due.mjs');
  const { openBaoRows } = await import('../tests/bench/openbao.mjs');
  const { secretRows } = await import('../tests/bench/secret-rows.mjs');
  const groups = {
    mint: async () => rows.mintRows(await world(), quick ? { seconds: 1, rounds: 1 } : { seconds: 4, rounds: 3 }),
    openbao: async () => openBaoRows(await world(), quick ? { seconds: 1, rounds: 1 } : { seconds: 4, rounds: 3 }),
    verify: async () => rows.verifyRows(await world(), { quick }),
    decision: () => rows.decisionRows(),
    feed: async () => rows.feedRows(await world(), { quick }),
    due: async () => dueRows(await world(), { count: quick ? 500 : 10_000 }),
    bulk: async () =>
      rows.bulkRows(await world(), {
        counts: quick ? [1_000, 2_000] : full ? [1_000, 10_000, 100_000, 1_000_000] : [1_000, 10_000, 100_000],
      }),
    secrets: () =>
      secretRows(quick ? { cycles: 100, burst: 100, samples: 10 } : { cycles: 1_500, burst: 1_000, samples: 60 }),
  };
  // Opened when the first group wants it: the secrets have a world of their own.
  let shared;
  const world = () => (shared ??= openWorld());
  const measured = [];
  try {
    for (const [name, measure] of Object.entries(groups)) {
      if (chosen.length > 0 && !chosen.includes(name)) continue;
      process.stderr.write(`bench: ${name}\n`);
      measured.push(...(await measure()));
    }
  } finally {
    await (await shared)?.close();
  }
  for (const one of measured) {
    const meets = (bound) => bound === undefined || (one.more ? one.ratio >= bound : one.ratio <= bound);
    one.met = one.floor === undefined ? '' : meets(one.aim) ? 'aim' : meets(one.floor) ? 'floor' : 'MISSED';
    const bounds = one.floor === undefined ? '' : `floor ${one.floor}, aim ${one.aim}`;
    process.stdout.write(
      `${one.row.padEnd(66)} ${one.ratio.toFixed(2).padStart(8)}  ${one.met.padEnd(7)} ${bounds.padEnd(22)} ours ${one.ours}${one.peer ? `, peer ${one.peer}` : ''}\n`,
    );
  }
  mkdirSync(join(ROOT, 'bench-results'), { recursive: true });
  writeFileSync(
    join(ROOT, 'bench-results/latest.json'),
    `${JSON.stringify({ node: process.version, quick, rows: measured }, null, 2)}\n`,
  );
});
