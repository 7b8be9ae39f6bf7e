import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { type TinyClone, tinyClone } from './tiny-clone.js';

interface Prepare {
  nodeProblem(version: string): string | undefined;
  isInstallStale(root: string): boolean;
  isBuildStale(root: string): boolean;
  prepare(options: { root: string }): void;
}

const REPOSITORY = join(import.meta.dirname, '../../..');
// A plain script without types; the interface above is what this test relies on.
const { nodeProblem, isInstallStale, isBuildStale, prepare }: Prepare = await import(
  join(REPOSITORY, 'scripts/prepare.mjs')
);

let clone: TinyClone;
let root: string;
beforeEach(() => {
  clone = tinyClone();
  root = clone.root;
});
afterEach(() => clone.remove());

describe('Node', () => {
  it.each(['20.19.0', '20.20.2', '22.0.0', '24.21.0', '100.0.0'])('%s will do', (version) => {
    expect(nodeProblem(version)).toBeUndefined();
  });

  it.each(['20.18.3', '20.2.0', '18.20.0', '9.99.0', '0.12.0'])(
    '%s is refused in one line that names both',
    (version) => {
      expect(nodeProblem(version)).toMatch(
        new RegExp(`^Mayfly needs Node 20\\.19 or newer, and this is ${version}: \\S+`),
      );
    },
  );
});

describe('dependencies', () => {
  it('are fresh when they were installed after the lock file was written', () => {
    expect(isInstallStale(root)).toBe(false);
  });

  it('are stale when nothing is installed', () => {
    rmSync(join(root, 'node_modules'), { recursive: true });
    expect(isInstallStale(root)).toBe(true);
  });

  it('are stale when an installation was cut off', () => {
    rmSync(join(root, 'node_modules/.package-lock.json'));
    expect(isInstallStale(root)).toBe(true);
  });

  it('are stale when the lock file is newer', () => {
    clone.write('package-lock.json', '{ }');
    utimesSync(join(root, 'node_modules/.package-lock.json'), 1_000, 1_000);
    expect(isInstallStale(root)).toBe(true);
  });
});

describe('the build', () => {
  it('holds the compiled sources and everything that is no TypeScript, and is fresh afterwards', () => {
    expect(isBuildStale(root)).toBe(true);
    prepare({ root });
    expect(readFileSync(join(root, 'dist/one.js'), 'utf8')).toContain('export const one = 1');
    expect(readFileSync(join(root, 'dist/lua/move.lua'), 'utf8')).toBe('return 1\n');
    expect(existsSync(join(root, 'dist/one.ts'))).toBe(false);
    expect(isBuildStale(root)).toBe(false);
  });

  it('is stale after any change: an edit, an asset, a new file, a removed one, an older time', () => {
    prepare({ root });
    const fresh = () => {
      expect(isBuildStale(root)).toBe(true);
      prepare({ root });
      expect(isBuildStale(root)).toBe(false);
    };
    clone.write('src/one.ts', 'export const one: number = 10;\n');
    fresh();
    clone.write('src/lua/move.lua', 'return 22\n');
    fresh();
    clone.write('src/two.ts', 'export const two = 2;\n');
    fresh();
    rmSync(join(root, 'src/two.ts'));
    fresh();
    expect(existsSync(join(root, 'dist/two.js'))).toBe(false);
    utimesSync(join(root, 'src/one.ts'), 5_000, 5_000);
    expect(isBuildStale(root)).toBe(true);
  });

  it('that fails leaves the one before it in place, says so in one line, and leaves nothing half made', () => {
    prepare({ root });
    clone.write('src/one.ts', "export const one: number = 'no';\n");
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        '--input-type=module',
        '-e',
        `import { orOneLine, prepare } from ${JSON.stringify(join(REPOSITORY, 'scripts/prepare.mjs'))};
         await orOneLine(() => prepare({ root: ${JSON.stringify(root)} }));`,
      ],
      { encoding: 'utf8' },
    );
    expect(status).toBe(1);
    expect(stdout).toBe('');
    expect(stderr).toMatch(/src\/one\.ts.*TS2322/);
    expect(stderr.trim().split('\n').at(-1)).toBe('mayfly: the build did not work (its reason is above)');
    expect(readFileSync(join(root, 'dist/one.js'), 'utf8')).toContain('export const one = 1');
    expect(existsSync(join(root, 'node_modules/.cache'))).toBe(true);
    expect(spawnSync('ls', ['-A', join(root, 'node_modules/.cache')], { encoding: 'utf8' }).stdout).toBe('');
    expect(isBuildStale(root)).toBe(true);
  });
});
