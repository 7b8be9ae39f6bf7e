import { existsSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BrokerError } from '../../core/errors.js';
import { makeDataFolder } from './data-folder.js';

/** Between the file and what is in it lies a moment. */
const EMPTY_MS_MAX = 5_000;

/**
 * Makes this process the owner of a data folder, until it ends: before anything in there is touched or started, so that of two starts at once one is
 * refused and the other never meets it. What a process that was killed left behind is no obstacle. Repeats do nothing.
 *
 * Throws BrokerError('unavailable') with one line when another process owns it, or when it cannot be written.
 */
export function ownFolder(dataDir: string): void {
  const isNew = !existsSync(dataDir);
  makeDataFolder(dataDir);
  const file = fileOf(dataDir);
  const own = named(process.pid);
  while (!isMade(file, own)) {
    const found = read(file);
    if (found === own) return;
    refuseOwner(dataDir);
    putAway(file, found);
  }
  process.once('exit', () => {
    if (read(file) !== own) return;
    rmSync(file);
    // A start that came to nothing leaves nothing.
    if (isNew && readdirSync(dataDir).length === 0) rmdirSync(dataDir);
  });
}

/** Throws like `ownFolder` when another process owns the folder, and changes nothing. */
export function refuseOwner(dataDir: string): void {
  const found = read(fileOf(dataDir));
  if (found === undefined || found === named(process.pid)) return;
  const pid = Number(found.split(' ')[0]);
  const isHeld = found === '' ? isYoung(fileOf(dataDir)) : pid > 0 && isAlive(pid) && found === named(pid);
  if (!isHeld) return;
  const who = found === '' ? '' : ` (process ${pid})`;
  throw new BrokerError(
    'unavailable',
    `Another start${who} has the folder ${dataDir}. Stop it, or choose another folder: --data DIR`,
  );
}

function fileOf(dataDir: string): string {
  return join(dataDir, 'owner');
}

function isMade(file: string, text: string): boolean {
  try {
    writeFileSync(file, text, { flag: 'wx', mode: 0o600 });
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

/** Process ids are used again, in containers at once; where the system tells it, the time of its start tells one from the next. */
function named(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name of the program, in parentheses, may hold anything.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return `${pid} ${fields[19]}`;
  } catch {
    return `${pid}`;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

function isYoung(file: string): boolean {
  const { mtimeMs } = statSync(file, { throwIfNoEntry: false }) ?? { mtimeMs: 0 };
  return Date.now() - mtimeMs < EMPTY_MS_MAX;
}

/** Takes away what a dead owner left. Another start may have done so already, and be the owner now: then it gets its file back. */
function putAway(file: string, left: string | undefined): void {
  const aside = `${file}.${process.pid}`;
  try {
    renameSync(file, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  const taken = readFileSync(aside, 'utf8');
  if (taken !== left) isMade(file, taken);
  rmSync(aside);
}
