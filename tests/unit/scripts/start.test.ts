import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, existsSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fakeNpm, type TinyClone, tinyClone } from './tiny-clone.js';

const CLI = `
declare const process: { argv: string[]; on(name: string, listener: () => void): void; exit(code: number): void };
declare const console: { log(text: string): void };
declare const setInterval: (work: () => void, ms: number) => void;
if (process.argv.includes('--stay')) {
  let signals = 0;
  process.on('SIGTERM', () => { signals += 1; console.log('signals ' + signals); process.exit(7); });
  setInterval(() => {}, 1000);
}
console.log(JSON.stringify(process.argv.slice(2)));
`;

/** What stands in the way of a start: here, the option `--wrong`. */
const CHECK = `
declare const process: { exitCode: number | undefined };
declare const console: { error(text: string): void };
export async function run(words: string[]): Promise<void> {
  if (words[3] !== '--own' || !words.includes('--wrong')) return;
  console.error('Error: --wrong');
  process.exitCode = 1;
}
`;

let clone: TinyClone;
beforeEach(() => {
  clone = tinyClone();
  clone.write('src/main/cli.ts', CLI);
  clone.write('src/main/cli/program.ts', CHECK);
});
afterEach(() => clone.remove());

function run(script: string, words: string[] = [], env: Record<string, string> = {}): SpawnSyncReturns<string> {
  return spawnSync(process.execPath, [join(clone.root, script), ...words], {
    cwd: clone.root,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
}

const lastLine = (text: string) => text.trim().split('\n').at(-1);

describe('npm start', () => {
  it('builds, says so on stderr, and becomes `mayfly dev` with the arguments given', () => {
    const { status, stdout, stderr } = run('scripts/start.mjs', ['--no-postgres', '--port', '0']);
    expect([status, stdout]).toEqual([0, '["dev","--port","0"]\n']);
    expect(stderr).toMatch(/^mayfly: building\nmayfly: done in \d+\.\d s\n$/);
  });

  it('explains its own option before those of `mayfly dev`, and starts no PostgreSQL for that', () => {
    const { status, stdout } = run('scripts/start.mjs', ['--help']);
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^npm start brings up a real PostgreSQL too[\s\S]*--no-postgres[\s\S]*\n\["dev","--help"\]\n$/,
    );
  });

  it('says in one line why it goes without PostgreSQL, and starts all the same', () => {
    run('scripts/start.mjs', ['--no-postgres']);
    const { status, stdout, stderr } = run('scripts/start.mjs', ['--data', join(clone.root, 'data')]);
    expect([status, stdout]).toEqual([0, `["dev","--data",${JSON.stringify(join(clone.root, 'data'))}]\n`]);
    expect(stderr).toMatch(/^mayfly: going without PostgreSQL: [^\n]+\n$/);
  });

  it('says what is in the way of a start before it brings up a PostgreSQL, and nothing else', () => {
    run('scripts/start.mjs', ['--no-postgres']);
    const { status, stdout, stderr } = run('scripts/start.mjs', ['--wrong', '--data', join(clone.root, 'data')]);
    expect([status, stdout, stderr]).toEqual([1, '', 'Error: --wrong\n']);
    expect(existsSync(join(clone.root, 'data'))).toBe(false);
  });

  it('brings up and checks nothing itself for a --dry-run, which `mayfly dev` answers', () => {
    run('scripts/start.mjs', ['--no-postgres']);
    const words = ['--dry-run', '--wrong', '--data', join(clone.root, 'data')];
    const { status, stdout, stderr } = run('scripts/start.mjs', words);
    expect([status, stdout, stderr]).toEqual([0, `${JSON.stringify(['dev', ...words])}\n`, '']);
    expect(existsSync(join(clone.root, 'data'))).toBe(false);
  });

  it('does nothing the second time but start', () => {
    run('scripts/start.mjs', ['--no-postgres']);
    expect(run('scripts/start.mjs', ['--no-postgres']).stderr).toBe('');
  });

  it('installs what is missing first, development tools included, and says so on stderr alone', () => {
    const npm = fakeNpm(clone, 'install');
    rmSync(join(clone.root, 'node_modules'), { recursive: true });
    const { status, stdout, stderr } = run('scripts/start.mjs', ['--no-postgres'], {
      npm_execpath: npm,
      NODE_ENV: 'production',
    });
    expect([status, stdout]).toEqual([0, '["dev"]\n']);
    expect(stderr).toMatch(/^mayfly: installing dependencies .*\nnpm talks\nmayfly: done in .* s\nmayfly: building\n/);
    expect(readFileSync(join(clone.root, 'npm.log'), 'utf8')).toBe('ci --include=dev --no-audit --no-fund\n');
  });

  it('says in one line that an installation failed, and starts nothing', () => {
    const npm = fakeNpm(clone, 'fail');
    rmSync(join(clone.root, 'node_modules'), { recursive: true });
    const { status, stdout, stderr } = run('scripts/start.mjs', [], { npm_execpath: npm });
    expect([status, stdout]).toEqual([1, '']);
    expect(lastLine(stderr)).toBe('mayfly: npm ci did not work (its reason is above): is there a network?');
    expect(existsSync(join(clone.root, 'dist'))).toBe(false);
  });

  it('says in one line that the build failed, and starts nothing, not even the build before', () => {
    run('scripts/start.mjs');
    clone.write('src/one.ts', "export const one: number = 'no';\n");
    const { status, stdout, stderr } = run('scripts/start.mjs');
    expect([status, stdout]).toEqual([1, '']);
    expect(lastLine(stderr)).toBe('mayfly: the build did not work (its reason is above)');
  });

  it('a signal reaches the broker directly, and once', async () => {
    const child = spawn(process.execPath, [join(clone.root, 'scripts/start.mjs'), '--stay'], { cwd: clone.root });
    let stdout = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    await once(child.stdout, 'data');
    child.kill('SIGTERM');
    expect(await once(child, 'close')).toEqual([7, null]);
    expect(stdout).toBe('["dev","--stay"]\nsignals 1\n');
  });
});

describe('bin/mayfly.js', () => {
  it('builds a stale clone and runs the command; data alone is on stdout', () => {
    const { status, stdout } = run('bin/mayfly.js', ['task', 'ls', '-o', 'json']);
    expect([status, stdout]).toEqual([0, '["task","ls","-o","json"]\n']);
  });

  it('works through the link that npx makes', () => {
    run('bin/mayfly.js');
    symlinkSync('../bin/mayfly.js', join(clone.root, 'node_modules/mayfly'));
    expect(run('node_modules/mayfly', ['verify']).stdout).toBe('["verify"]\n');
  });

  it('runs what it has where it is installed without sources and scripts', () => {
    run('bin/mayfly.js');
    const installed = join(clone.root, 'installed');
    for (const path of ['bin', 'dist', 'package.json']) {
      cpSync(join(clone.root, path), join(installed, path), { recursive: true });
    }
    expect(run('installed/bin/mayfly.js', ['doctor'])).toMatchObject({ status: 0, stdout: '["doctor"]\n', stderr: '' });
  });
});
