import { type BigIntStats, closeSync, constants, existsSync, fstatSync, openSync, readFileSync } from 'node:fs';

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = constants;
const WRITABLE_BY_OTHERS = 0o022n;

/** An open folder. `path` leads into this very folder, whatever is renamed or linked meanwhile (on Linux; elsewhere it is the path given). */
export interface HeldFolder {
  path: string;
  stats: BigIntStats;
}

/** Opens a folder for as long as `use` runs. A link is followed only when `links` says so. Throws what `open` throws, ENOTDIR for no folder. */
export function inFolder<T>(path: string, links: 'follow' | 'refuse', use: (folder: HeldFolder) => T): T {
  const file = openSync(path, O_RDONLY | O_DIRECTORY | (links === 'refuse' ? O_NOFOLLOW : 0));
  try {
    const held = `/proc/self/fd/${file}`;
    return use({ path: existsSync(held) ? held : path, stats: fstatSync(file, { bigint: true }) });
  } finally {
    closeSync(file);
  }
}

/** The text of a file that nobody else can have written. Throws for anything else; never waits, as a pipe would make it, nor follows a link. */
export function readOwn(path: string, uid: bigint, bytesMax: number): { text: string; modifiedAtMs: number } {
  const file = openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  try {
    const stats = fstatSync(file, { bigint: true });
    const problem = stats.isFile() ? whoseProblem(stats, uid) : 'is no file';
    if (problem !== undefined) throw new Error(problem);
    if (stats.size > bytesMax) throw new Error('is too long');
    return { text: readFileSync(file, 'utf8'), modifiedAtMs: Number(stats.mtimeMs) };
  } finally {
    closeSync(file);
  }
}

/** Why what is in there may be somebody else's. Undefined: it is ours alone. */
export function whoseProblem({ uid, mode }: BigIntStats, ourUid: bigint): string | undefined {
  if (uid !== ourUid) return `belongs to another user (uid ${uid})`;
  return mode & WRITABLE_BY_OTHERS ? `can be written by others (mode ${(mode & 0o7777n).toString(8)})` : undefined;
}
