import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ownFolder, refuseOwner } from '../../../../src/main/dev/folder-owner.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-owner-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const owner = () => join(dir, 'owner');
const ownPid = () => Number(readFileSync(owner(), 'utf8').split(' ')[0]);

async function withOther(work: (pid: number) => void): Promise<void> {
  const other = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: ['pipe', 'ignore', 'ignore'] });
  await once(other, 'spawn');
  try {
    work(other.pid as number);
  } finally {
    other.kill('SIGKILL');
    await once(other, 'exit');
  }
}

describe('the owner of a data folder', () => {
  it('is one process, which may say so again, and whose folder is made with it', () => {
    const below = join(dir, 'data');
    ownFolder(below);
    ownFolder(below);
    expect(() => refuseOwner(below)).not.toThrow();
    expect(readdirSync(below)).toEqual(['owner']);
  });

  const itOnLinux = process.platform === 'linux' ? it : it.skip; // Only Linux says when a process started.
  itOnLinux('that lives keeps the folder, and is named with what to do', async () => {
    await withOther((pid) => {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      writeFileSync(owner(), `${pid} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19]}`);
      for (const take of [ownFolder, refuseOwner])
        expect(() => take(dir)).toThrow(
          `Another start (process ${pid}) has the folder ${dir}. Stop it, or choose another folder: --data DIR`,
        );
      expect(ownPid()).toBe(pid);
    });
  });

  itOnLinux('that is dead keeps nothing, also when its process id is used again', async () => {
    await withOther((pid) => {
      writeFileSync(owner(), `${pid} 1`);
      ownFolder(dir);
      expect(ownPid()).toBe(process.pid);
      expect(readdirSync(dir)).toEqual(['owner']);
    });
  });

  it('that has not said yet who it is keeps the folder for the moment that this takes', () => {
    writeFileSync(owner(), '');
    expect(() => ownFolder(dir)).toThrow(`Another start has the folder ${dir}`);
    utimesSync(owner(), 1, 1);
    ownFolder(dir);
    expect(ownPid()).toBe(process.pid);
  });

  it('is looked for without leaving a trace', () => {
    refuseOwner(join(dir, 'data'));
    expect(existsSync(join(dir, 'data'))).toBe(false);
  });
});
