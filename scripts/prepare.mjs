// What a clone needs before anything of it can run: a Node that is new enough, its dependencies, and a build. It uses
// nothing but Node (and nothing newer than Node 16, so that an old one gets as far as being told so).
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { copyAssets } from './copy-assets.mjs';

export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
const NODE_OLDEST = [20, 19];

/** One line, or undefined when this Node will do. */
export function nodeProblem(version) {
  const [major, minor] = version.split('.').map(Number);
  if (major > NODE_OLDEST[0] || (major === NODE_OLDEST[0] && minor >= NODE_OLDEST[1])) return undefined;
  return `Mayfly needs Node ${NODE_OLDEST.join('.')} or newer, and this is ${version}: see https://nodejs.org/en/download`;
}

/** Installs when node_modules is missing or older than the lock file, and builds when `dist` is stale. Talks on stderr. */
export function prepare({ root = ROOT, build = true } = {}) {
  const problem = nodeProblem(process.versions.node);
  if (problem) throw new Preparation(problem);
  if (isInstallStale(root)) install(root);
  if (build && isBuildStale(root)) buildAll(root);
}

/** A step that did not work out; its message is the one line to show. */
export class Preparation extends Error {}

/** Runs a script's main part: what went wrong in the preparation is one line and exit code 1. */
export async function orOneLine(main) {
  try {
    await main();
  } catch (error) {
    if (!(error instanceof Preparation)) throw error;
    process.stderr.write(`mayfly: ${error.message}\n`);
    process.exitCode = 1;
  }
}

export function isInstallStale(root) {
  // npm writes this file when an installation is complete, so an interrupted one is seen as missing.
  const installed = join(root, 'node_modules/.package-lock.json');
  return !existsSync(installed) || statSync(installed).mtimeMs < statSync(join(root, 'package-lock.json')).mtimeMs;
}

function install(root) {
  step(
    'installing dependencies (about half a minute, once)',
    'npm ci did not work (its reason is above): is there a network?',
    () => {
      // `npm start` says which npm it is; its script runs under this Node whatever PATH holds.
      const npm = process.env.npm_execpath;
      const words = ['ci', '--include=dev', '--no-audit', '--no-fund'];
      return npm?.endsWith('npm-cli.js') ? run(root, process.execPath, [npm, ...words]) : run(root, 'npm', words);
    },
  );
}

/** The sources' names, times and sizes: one look at the file system says whether `dist` was built from what is there. */
function fingerprint(root) {
  const files = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json', ...filesBelow(root, 'src')];
  const hash = createHash('sha256');
  for (const file of files.sort()) {
    const { mtimeMs, size } = statSync(join(root, file));
    hash.update(`${file} ${mtimeMs} ${size}\n`);
  }
  return hash.digest('hex');
}

function filesBelow(root, folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    return entry.isDirectory() ? filesBelow(root, path) : [path];
  });
}

export function isBuildStale(root) {
  const stamp = join(root, 'dist/.built-from');
  return !existsSync(stamp) || readFileSync(stamp, 'utf8') !== fingerprint(root);
}

function buildAll(root) {
  step('building', 'the build did not work (its reason is above)', () => {
    // Built beside its place and moved there, so that somebody who starts meanwhile does not run half of it. What
    // was read before the build is what it is stamped with: an edit during the build makes it stale.
    const stamp = fingerprint(root);
    const making = join(root, 'node_modules/.cache', `mayfly-dist-${process.pid}`);
    const old = `${making}-old`;
    const dist = join(root, 'dist');
    try {
      mkdirSync(making, { recursive: true });
      const compiler = join(root, 'node_modules/typescript/bin/tsc');
      if (!run(root, process.execPath, [compiler, '-p', 'tsconfig.build.json', '--outDir', making])) return false;
      copyAssets(join(root, 'src'), making);
      writeFileSync(join(making, '.built-from'), stamp);
      if (existsSync(dist)) renameSync(dist, old);
      renameSync(making, dist);
      return true;
    } finally {
      for (const folder of [making, old]) rmSync(folder, { recursive: true, force: true });
    }
  });
}

function step(doing, problem, work) {
  process.stderr.write(`mayfly: ${doing}\n`);
  const startedAtMs = Date.now();
  if (!work()) throw new Preparation(problem);
  process.stderr.write(`mayfly: done in ${((Date.now() - startedAtMs) / 1_000).toFixed(1)} s\n`);
}

/** True when the command ended well. All it says goes to stderr: stdout is for data. */
function run(cwd, command, words) {
  const { status, error } = spawnSync(command, words, {
    cwd,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32' && command === 'npm',
  });
  if (error) process.stderr.write(`${error.message}\n`);
  return status === 0;
}
