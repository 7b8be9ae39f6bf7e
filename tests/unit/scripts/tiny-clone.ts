import { cpSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';

const REPOSITORY = join(import.meta.dirname, '../../..');

export interface TinyClone {
  root: string;
  /** Writes a file below the root and returns its path. */
  write(path: string, text?: string): string;
  remove(): void;
}

/**
 * A clone with our scripts and two sources of its own, that the real compiler builds in an instant. Its dependencies are
 * "installed": the compiler alone, borrowed from this repository.
 */
export function tinyClone(): TinyClone {
  const root = mkdtempSync(join(tmpdir(), 'mayfly-clone-'));
  const write = (path: string, text = '') => {
    const file = join(root, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  };
  for (const path of ['bin', 'scripts', 'tsconfig.json'])
    cpSync(join(REPOSITORY, path), join(root, path), { recursive: true });
  write('package.json', '{"type": "module"}');
  utimesSync(write('package-lock.json', '{}'), 1_000, 1_000);
  writeModules(write);
  const compilerOptions = { noEmit: false, rootDir: 'src', types: [] };
  write('tsconfig.build.json', JSON.stringify({ extends: './tsconfig.json', compilerOptions, include: ['src'] }));
  write('src/one.ts', 'export const one: number = 1;\n');
  write('src/lua/move.lua', 'return 1\n');
  return { root, write, remove: () => rmSync(root, { recursive: true, force: true }) };
}

function writeModules(write: TinyClone['write']): void {
  const compiler = join(REPOSITORY, 'node_modules/typescript/lib/tsc.js');
  write('node_modules/typescript/package.json', '{"type": "module"}');
  write('node_modules/typescript/bin/tsc', `import ${JSON.stringify(compiler)};`);
  write('node_modules/.package-lock.json');
}

/** A make-believe npm: notes how it was called in `npm.log`, and "installs" when asked to do well. */
export function fakeNpm({ root, write }: TinyClone, does: 'install' | 'fail'): string {
  writeModules((path, text) => write(join('registry', path), text));
  return write(
    'fake/npm-cli.js',
    `import { appendFileSync, cpSync } from 'node:fs';
     appendFileSync(${JSON.stringify(join(root, 'npm.log'))}, process.argv.slice(2).join(' ') + '\\n');
     console.log('npm talks');
     if (${does === 'fail'}) process.exit(1);
     cpSync(${JSON.stringify(join(root, 'registry/node_modules'))}, ${JSON.stringify(join(root, 'node_modules'))}, { recursive: true });`,
  );
}
