// Which suites of jest this machine can run beside the fast ones, and what is left out for want of what.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './prepare.mjs';

/** What only the tests of the chart want; without it they say so themselves, and the other peers are used all the same. */
const CHART_PEERS = ['helm', 'kubernetes-validate'];

/** The suite `peers` runs where all its peers are, but for those of the chart. */
export function chooseSuites() {
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
