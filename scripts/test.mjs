// npm test: every test that this machine can run. Needs nothing before it but Node.
//   --fast     only the tests that need no service
// Further arguments go to jest. The last line is `N passed, N failed`; with no test run, that is a failure too.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { orOneLine, Preparation, prepare, ROOT } from './prepare.mjs';

await orOneLine(async () => {
  const words = process.argv.slice(2).filter((word) => word !== '--fast');
  const isFast = process.argv.includes('--fast');
  prepare({ build: !isFast });
  // Where no Redis is installed, one is fetched once for all tests.
  process.env.MAYFLY_TOOLS_DIR ??= join(ROOT, '.data/tools');
  const { suites, leftOut } = isFast ? { suites: [], leftOut: undefined } : chooseSuites();
  if (suites.length > 0) await fetchRedis();
  // The tests of real processes have time-outs to keep, and wait most of the time: two files at once, when nothing else wants the cores.
  const runs = [
    runJest(['fast'], words),
    ...(suites.length > 0 ? [runJest(suites, ['--maxWorkers=2', ...words])] : []),
  ];
  const sum = (count) => runs.reduce((total, run) => total + run[count], 0);
  const [passed, failed, skipped] = [sum('passed'), sum('failed'), sum('skipped')];
  if (skipped > 0) process.stdout.write(`${skipped} skipped\n`);
  if (leftOut) process.stdout.write(`left out: ${leftOut}\n`);
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  if (failed > 0 || passed === 0) process.exitCode = 1;
});

/** Once, before two tests at a time want it. */
async function fetchRedis() {
  const { findRedisBinary } = await import('../dist/main/dev/redis-binary.js');
  const say = (line) => process.stdout.write(`${line}\n`);
  await findRedisBinary({ toolsDir: process.env.MAYFLY_TOOLS_DIR, allowFetch: true, say }).catch(({ message }) => {
    throw new Preparation(message);
  });
}

/** What only the tests of the chart want; without it they say so themselves, and the other peers are used all the same. */
const CHART_PEERS = ['helm', 'kubernetes-validate'];

/** The suite `peers` runs where all its peers are, but for those of the chart. */
function chooseSuites() {
  const { status, stdout } = spawnSync('bash', [join(ROOT, 'scripts/peers.sh'), '--check'], { encoding: 'utf8' });
  if (status === 0) return { suites: ['real', 'peers'], leftOut: undefined };
  const missing = (stdout ?? '')
    .split('\n')
    .filter((line) => line.endsWith('missing'))
    .map((line) => line.split(' ')[0]);
  const names = missing.length > 0 ? missing.join(', ') : 'bash';
  if (missing.length > 0 && missing.every((name) => CHART_PEERS.includes(name))) {
    return {
      suites: ['real', 'peers'],
      leftOut: `the tests of the chart, for want of ${names} (scripts/peers.sh fetches them)`,
    };
  }
  return { suites: ['real'], leftOut: `tests/peers, for want of ${names} (scripts/peers.sh fetches them)` };
}

function runJest(suites, words) {
  const folder = mkdtempSync(join(tmpdir(), 'mayfly-test-'));
  const report = join(folder, 'report.json');
  try {
    // Two workers at least: jest takes a worker anew when it has grown, and cannot do that with itself.
    const isSetByHand = words.some((word) => /^(-w|-i|--maxWorkers|--runInBand)/.test(word));
    const workers = isSetByHand ? [] : [`--maxWorkers=${Math.max(2, availableParallelism() - 1)}`];
    const chosen = ['--passWithNoTests', ...words];
    const { status } = spawnSync(
      process.execPath,
      [
        '--disable-warning=ExperimentalWarning',
        '--experimental-vm-modules',
        join(ROOT, 'node_modules/jest/bin/jest.js'),
        ...['--selectProjects', ...suites],
        ...['--json', `--outputFile=${report}`],
        ...workers,
        ...chosen,
      ],
      { cwd: ROOT, stdio: 'inherit' },
    );
    if (!existsSync(report)) return { passed: 0, failed: status === 0 ? 0 : 1, skipped: 0 };
    const { numPassedTests, numFailedTests, numRuntimeErrorTestSuites, numPendingTests, numTodoTests, success } =
      JSON.parse(readFileSync(report, 'utf8'));
    const failed = numFailedTests + numRuntimeErrorTestSuites;
    // Whatever else jest was unhappy with (an error after the last test) is one failure too.
    return {
      passed: numPassedTests,
      failed: failed || (success && status === 0 ? 0 : 1),
      skipped: numPendingTests + numTodoTests,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
