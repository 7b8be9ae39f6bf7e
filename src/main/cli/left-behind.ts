import { randomUUID } from 'node:crypto';
import { type BigIntStats, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, hostname } from 'node:os';
import { join } from 'node:path';

interface Note {
  host: string;
  pid: number;
  /** Tells this process from a later one of the same number. */
  process: string;
  path: string;
  /** Tells our file from a later one at the same path. */
  file: string;
}

/**
 * Notes about files that hold a secret for as long as a process runs, in a folder that only its user can read. A process that is killed removes
 * nothing; whoever comes next finds its notes and does it. A note has no secret in it, and is there before its file has one.
 */
export class LeftBehind {
  readonly #dir: string;

  constructor(dir = defaultDir()) {
    this.#dir = dir;
  }

  /** A file of this process, still empty, at an absolute path. Returns what forgets it. Throws when it cannot be noted. */
  note(path: string, file: BigIntStats): () => void {
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
    const place = join(this.#dir, `${randomUUID()}.json`);
    const { pid } = process;
    const note: Note = { host: hostname(), pid, process: aliveAs(pid) as string, path, file: identityOf(file) };
    writeFileSync(place, JSON.stringify(note), { flag: 'wx', mode: 0o600 });
    return () => rmSync(place, { force: true });
  }

  /** Removes what processes of this machine left behind that are gone. Returns the paths. */
  clear(): string[] {
    const removed: string[] = [];
    for (const place of placesIn(this.#dir)) {
      const note = read(place);
      if (!note || note.host !== hostname() || aliveAs(note.pid) === note.process) continue;
      const there = lstatSync(note.path, { bigint: true, throwIfNoEntry: false });
      if (there && identityOf(there) === note.file) {
        rmSync(note.path, { force: true });
        removed.push(note.path);
      }
      rmSync(place, { force: true });
    }
    return removed;
  }
}

function defaultDir(): string {
  const state = process.env['XDG_STATE_HOME'];
  return join(state?.startsWith('/') ? state : join(homedir(), '.local/state'), 'mayfly', 'left-behind');
}

function placesIn(dir: string): string[] {
  try {
    return readdirSync(dir).map((name) => join(dir, name));
  } catch {
    return [];
  }
}

/** Undefined: it is being written, or went meanwhile. */
function read(place: string): Note | undefined {
  try {
    return JSON.parse(readFileSync(place, 'utf8')) as Note;
  } catch {
    return undefined;
  }
}

function identityOf({ dev, ino, birthtimeNs }: BigIntStats): string {
  return [dev, ino, birthtimeNs].join(':');
}

/** Undefined: there is no such process. Linux tells when it started; elsewhere its number has to do. */
function aliveAs(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in brackets, may hold anything. The 22nd field is the start, in ticks since the machine's.
    const startedAt = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}:${startedAt}`;
  } catch {
    return isThere(pid) ? 'alive' : undefined;
  }
}

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
