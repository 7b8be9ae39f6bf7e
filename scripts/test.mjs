// npm test: every test that this machine can run. Needs nothing before it but Node.
//   --fast     only the tests that need no service
// Further arguments go to jest. The last line is `N passed, N failed`; with no test run, that is a failure too.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { chooseSuites } from './choose-suites.mjs';
import { orOneLine, Preparation, prepare, ROOT } from './prepare.mjs';

/** Files that fill up what they run on, or hold it to a time: one after the other. */
const ALONE = 'tests/(e2e/(drain|credentials/(canary|load|outage))|peers/(vault-crash|secret-metrics))';

await orOneLine(async () => {
  const words = process.argv.slice(2).filter((word) => word !== '--fast');
  const isFast = process.argv.includes('--fast');
  prepare({ build: !isFast });
  // Where no Redis is installed, one is fetched once for all tests.
  process.env.MAYFLY_TOOLS_DIR ??= join(ROOT, '.data/tools');
  const { suites, leftOut } = isFast ? { suites: [], leftOut: undefined } : chooseSuites();
  if (suites.length > 0) await fetchRedis();
  const runs = [runJest(['fast'], words), ...(suites.length > 0 ? ofRealProcesses(suites, words) : [])];
  const sum = (count) => runs.reduce((total, run) => total + run[count], 0);
  const [passed, failed, skipped] = [sum('passed'), sum('failed'), sum('skipped')];
  if (skipped > 0) process.stdout.write(`${skipped} skipped\n`);
  if (leftOut) process.stdout.write(`left out: ${leftOut}\n`);
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  if (failed > 0 || passed === 0) process.exitCode = 1;
});

/** They have time-outs to keep, and wait most of the time: two files at once, when nothing else wants the cores. */
function ofRealProcesses(suites, words) {
  if (words.length > 0) return [runJest(suites, ['--runInBand', ...words])];
  return [
    runJest(suites, ['--maxWorkers=2', `--testPathIgnorePatterns=${ALONE}`]),
    runJest(suites, ['--runInBand', ALONE]),
  ];
}

/** Once, before two tests at a time want it. */
async function fetchRedis() {
  const { findRedisBinary } = await import('../dist/main/dev/redis-binary.js');
  const say = (line) => process.stdout.write(`${line}\n`);
  await findRedisBinary({ toolsDir: process.env.MAYFLY_TOOLS_DIR, allowFetch: true, say }).catch(({ message }) => {
    throw new Preparation(message);
  });
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
