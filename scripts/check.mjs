// npm run check: the gate, the same here and in CI. Runs every step, whatever the others say, and ends with a table.
//   --tested   the tests have just been run: leave the fast ones out
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { orOneLine, prepare, ROOT } from './prepare.mjs';

/** What dependency-cruiser has to have seen at least: with a parser that fails it sees nothing, and is content. */
const MODULES_MIN = 20;

const tool = (path, ...words) => [join(ROOT, 'node_modules', path), ...words];
const steps = [
  { name: 'types', command: tool('typescript/bin/tsc', '-p', 'tsconfig.json') },
  { name: 'build', command: [join(ROOT, 'scripts/build.mjs')] },
  { name: 'lint and format', command: tool('@biomejs/biome/bin/biome', 'check', '--error-on-warnings', '.') },
  {
    name: 'walls',
    command: tool('dependency-cruiser/bin/dependency-cruise.mjs', '--config', '.dependency-cruiser.cjs', 'src'),
    alsoHolds: (said) => Number(/\((\d+) modules/.exec(said)?.[1] ?? 0) >= MODULES_MIN,
  },
  { name: 'dead code', command: tool('knip/bin/knip.js') },
  {
    name: 'dead code in what ships',
    command: tool('knip/bin/knip.js', '--production', '--exclude', 'types', '--tags=-internal'),
  },
  { name: 'package', command: tool('publint/src/cli.js', '--strict') },
  ...(process.argv.includes('--tested')
    ? []
    : [{ name: 'fast tests', command: [join(ROOT, 'scripts/test.mjs'), '--fast'] }]),
];

await orOneLine(async () => {
  prepare({ build: false });
  const results = [];
  for (const { name, command, alsoHolds } of steps) {
    process.stdout.write(`\n== ${name}\n`);
    const startedAtMs = Date.now();
    const { status, said } = await run(command);
    const isGood = status === 0 && (alsoHolds?.(said) ?? true);
    results.push({ name, isGood, seconds: (Date.now() - startedAtMs) / 1_000 });
  }
  process.stdout.write('\n');
  for (const { name, isGood, seconds } of results) {
    process.stdout.write(`${isGood ? 'ok    ' : 'FAILED'}  ${name.padEnd(26)} ${seconds.toFixed(1).padStart(6)} s\n`);
  }
  if (results.some(({ isGood }) => !isGood)) process.exitCode = 1;
});

/** Runs one step, shows what it says as it says it, and keeps it. */
function run(command) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, command, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const [from, to] of [
      [child.stdout, process.stdout],
      [child.stderr, process.stderr],
    ]) {
      from.on('data', (chunk) => {
        said += chunk;
        to.write(chunk);
      });
    }
    child.on('error', (error) => resolve({ status: 1, said: String(error) }));
    child.on('close', (status) => resolve({ status, said }));
  });
}
