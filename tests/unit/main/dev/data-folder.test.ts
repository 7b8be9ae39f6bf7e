import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeDataFolder, refuseDataFolder } from '../../../../src/main/dev/data-folder.js';

let parent: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), 'mayfly-data-'));
});
afterEach(() => rmSync(parent, { recursive: true }));

describe('the data folder', () => {
  it('is made with those above it, for our eyes only, and taken as it is the second time', () => {
    const dir = join(parent, 'a/b');
    makeDataFolder(dir);
    makeDataFolder(dir);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
  });

  it('below a file is one clear line', () => {
    writeFileSync(join(parent, 'file'), '');
    expect(() => makeDataFolder(join(parent, 'file/x'))).toThrow('cannot be written. Choose another: --data DIR');
  });

  it('is refused below a file, and taken below a folder, without being made', () => {
    writeFileSync(join(parent, 'file'), '');
    expect(() => refuseDataFolder(join(parent, 'file/x/y'))).toThrow(`The data folder ${parent}/file/x/y cannot be`);
    refuseDataFolder(join(parent, 'a/b'));
    expect(readdirSync(parent)).toEqual(['file']);
  });

  const itOnLinux = process.platform === 'linux' ? it : it.skip; // Only Linux has such a file system at a known place.
  itOnLinux('where the file system takes none is one clear line, not a start that never ends', () => {
    expect(() => makeDataFolder('/proc/mayfly/data')).toThrow('cannot be written. Choose another: --data DIR');
  });
});
