import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const REPOSITORY = join(import.meta.dirname, '../../..');

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'mayfly-ci-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** Runs the gate of a clone whose peers, tests and checks are make-believe. */
function gate({ peers = 'exit 0', test = "echo '12 passed, 0 failed'", check = 'exit 0' } = {}) {
  cpSync(join(REPOSITORY, '.ci/run'), join(root, '.ci/run'), { recursive: true });
  mkdirSync(join(root, 'scripts'));
  writeFileSync(join(root, 'scripts/peers.sh'), `echo "peers CI=$CI"\n${peers}\n`);
  mkdirSync(join(root, 'fake'));
  const npm = `#!/usr/bin/env bash\necho "npm $*"\nif [[ $1 == test ]]; then ${test}; else ${check}; fi\n`;
  writeFileSync(join(root, 'fake/npm'), npm);
  chmodSync(join(root, 'fake/npm'), 0o755);
  const { status, stdout } = spawnSync(join(root, '.ci/run'), {
    cwd: tmpdir(),
    encoding: 'utf8',
    env: { ...process.env, PATH: `${join(root, 'fake')}:${process.env['PATH']}` },
  });
  return { status, stdout, last: stdout.trim().split('\n').at(-1) };
}

it('fetches the peers, runs every test, then the checks, and ends with the counts of the tests', () => {
  const { status, stdout } = gate();
  expect(stdout).toBe('peers CI=true\nnpm test\n12 passed, 0 failed\nnpm run check -- --tested\n12 passed, 0 failed\n');
  expect(status).toBe(0);
});

it.each([
  ['a test failed', { test: "echo '11 passed, 1 failed'; exit 1" }, '11 passed, 1 failed'],
  [
    'three tests failed and a check as well',
    { test: "echo '9 passed, 3 failed'; exit 1", check: 'exit 1' },
    '9 passed, 3 failed',
  ],
  ['a check failed', { check: 'exit 1' }, '12 passed, 1 failed'],
  ['a peer cannot be had', { peers: 'exit 1' }, '12 passed, 1 failed'],
  ['the tests passed but their command did not', { test: "echo '12 passed, 0 failed'; exit 3" }, '12 passed, 1 failed'],
  ['the tests died before they counted', { test: 'exit 137' }, '0 passed, 1 failed'],
  ['no test ran', { test: "echo '0 passed, 0 failed'" }, '0 passed, 0 failed'],
])('is red, and goes on to the end, when %s', (_, fakes, line) => {
  const { status, stdout, last } = gate(fakes);
  expect(last).toBe(line);
  expect(status).not.toBe(0);
  expect(stdout).toContain('npm run check -- --tested\n');
});
