import { randomUUID } from 'node:crypto';
import {
  type BigIntStats,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { homedir, hostname } from 'node:os';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { inFolder, readOwn, whoseProblem } from './held-folder.js';

interface Note {
  host: string;
  pid: number;
  /** Tells this process from a later one of the same number. */
  process: string;
  path: string;
  /** Tells our file from a later one at the same path. */
  file: string;
}

/** A path has 4,096 bytes, and in JSON each may have six. */
const NOTE_BYTES_MAX = 65_536;
/** Writing a note takes no time: what is no whole one after this never becomes one. */
const WRITING_MS_MAX = 60_000;

/**
 * Notes about files that hold a secret for as long as a process runs, in a folder that only its user can read. A process that is killed removes
 * nothing; whoever comes next finds its notes and does it. A note has no secret in it, and is there before its file has one. Since a note has a
 * file removed, only those count that nobody else can have written.
 */
export class LeftBehind {
  readonly #dir: string;
  readonly #uid: bigint;

  constructor(dir = defaultDir(), uid = process.geteuid?.() ?? 0) {
    this.#dir = dir;
    this.#uid = BigInt(uid);
  }

  /** A file of this process, still empty, at an absolute path. Returns what forgets it. Throws one line that names the folder when it cannot be noted. */
  note(path: string, file: BigIntStats): () => void {
    const name = `${randomUUID()}.json`;
    const { pid } = process;
    const note: Note = { host: hostname(), pid, process: aliveAs(pid) as string, path, file: identityOf(file) };
    try {
      mkdirSync(this.#dir, { recursive: true, mode: 0o700 });
      this.#within((folder) => writeFileSync(join(folder, name), JSON.stringify(note), { flag: 'wx', mode: 0o600 }));
    } catch (error) {
      throw new Error(`${this.#dir} ${reasonOf(error)}`);
    }
    return () => rmSync(join(this.#dir, name), { force: true });
  }

  /**
   * Removes what processes of this machine left behind that are gone. Returns a line for each file that was removed, and for whatever could not be
   * dealt with. Throws nothing: what one run left must not keep another from its work.
   */
  clear(): string[] {
    try {
      return this.#within((folder) => readdirSync(folder).flatMap((name) => this.#settle(folder, name) ?? []));
    } catch (error) {
      return codeOf(error) === 'ENOENT' ? [] : [`${this.#dir} ${reasonOf(error)}: the notes in it are ignored.`];
    }
  }

  #within<T>(use: (folder: string) => T): T {
    return inFolder(this.#dir, 'refuse', ({ path, stats }) => {
      const problem = whoseProblem(stats, this.#uid);
      if (problem !== undefined) throw new Error(problem);
      return use(path);
    });
  }

  #settle(folder: string, name: string): string | undefined {
    const place = join(folder, name);
    try {
      const { text, modifiedAtMs } = readOwn(place, this.#uid, NOTE_BYTES_MAX);
      const note = parse(text);
      if (note === 'unfinished' && Date.now() - modifiedAtMs < WRITING_MS_MAX) return;
      if (typeof note === 'string') {
        rmSync(place, { force: true });
        return `Removed ${join(this.#dir, name)}, which is no note of a run.`;
      }
      if (note.host !== hostname() || aliveAs(note.pid) === note.process) return;
      const { isSettled, line } = removeFile(note, this.#uid);
      if (isSettled) rmSync(place, { force: true });
      return line;
    } catch (error) {
      return codeOf(error) === 'ENOENT' ? undefined : `${join(this.#dir, name)} ${reasonOf(error)}: it is skipped.`;
    }
  }
}

function defaultDir(): string {
  const state = process.env['XDG_STATE_HOME'];
  return join(state?.startsWith('/') ? state : join(homedir(), '.local/state'), 'mayfly', 'left-behind');
}

/** Ours are written in one go: `unfinished` may still be, `foreign` is whole and not ours. */
function parse(text: string): Note | 'unfinished' | 'foreign' {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return 'unfinished';
  }
  const { host, pid, process, path, file } = (value ?? {}) as Record<string, unknown>;
  const areTexts = [host, process, path, file].every((one) => typeof one === 'string');
  if (!areTexts || !Number.isSafeInteger(pid) || (pid as number) < 1) return 'foreign';
  return isAbsolute(path as string) && !(path as string).includes('\0') ? (value as Note) : 'foreign';
}

/** Settled: nothing of ours is there any more. Else the next run tries again. */
function removeFile({ path, file }: Note, uid: bigint): { isSettled: boolean; line?: string } {
  const left = `${path}, which a run that was killed had left,`;
  try {
    return inFolder(dirname(path), 'follow', (folder) => {
      const place = join(folder.path, basename(path));
      const stats = lstatSync(place, { bigint: true });
      if (!stats.isFile() || identityOf(stats) !== file) return { isSettled: true };
      if (stats.uid !== uid) return { isSettled: true, line: `${left} belongs to another user now and stays.` };
      if (stats.mode & 0o077n) return { isSettled: false, line: `${left} was opened to others: remove it yourself.` };
      unlinkSync(place);
      return { isSettled: true, line: `Removed ${left.slice(0, -1)}.` };
    });
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return { isSettled: true };
    return { isSettled: false, line: `${left} cannot be removed (${code}); the next run tries again.` };
  }
}

/** After the name of what it is about. */
function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return message;
  return code === 'ENOTDIR' || code === 'ELOOP' ? 'is a link or no folder' : `cannot be used (${code})`;
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
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
