import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HandOver, readTarget } from '../../../../src/main/cli/hand-over.js';
import { LeftBehind } from '../../../../src/main/cli/left-behind.js';

const UID = process.geteuid?.() ?? 0;
/** Only root can give a file to somebody else. */
const itAsRoot = UID === 0 ? it : it.skip;

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-left-behind-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const notes = () => join(folder, 'state', 'notes');
const leftBehind = () => new LeftBehind(notes());
const namesOf = () => readdirSync(notes()).map((name) => join(notes(), name));

/** A file at the path, and a note that a process wrote it which is gone. Returns the note's place. */
function leave(path: string, more: Record<string, unknown> = {}): string {
  writeFileSync(path, 'a secret', { mode: 0o600 });
  const others = existsSync(notes()) ? namesOf() : [];
  leftBehind().note(path, lstatSync(path, { bigint: true }));
  const place = namesOf().find((name) => !others.includes(name)) as string;
  writeFileSync(place, JSON.stringify({ ...JSON.parse(readFileSync(place, 'utf8')), process: 'gone', ...more }));
  return place;
}

/** A folder of its own, so that it can go away or be closed. */
function inner(): string {
  const path = join(folder, 'inner');
  mkdirSync(path);
  return path;
}

const removed = (path: string) => `Removed ${path}, which a run that was killed had left.`;

describe('a folder of notes', () => {
  it.each([
    ['can be written by others', () => chmodSync(notes(), 0o777), () => leftBehind()],
    ['can be written by others', () => chmodSync(notes(), 0o720), () => leftBehind()],
    ['belongs to another user', () => {}, () => new LeftBehind(notes(), UID + 1)],
  ])('that %s has nothing removed, and is not written in', (problem, spoil, open) => {
    const path = join(folder, 'db.json');
    leave(path);
    spoil();
    expect(open().clear()).toEqual([
      expect.stringMatching(new RegExp(`^${notes()} ${problem} .*the notes in it are ignored`)),
    ]);
    const attempt = () => new HandOver(open()).put(readTarget(`key=${folder}/key`), { value: 'v' });
    expect(attempt).toThrow(new RegExp(`cannot be noted .* ${notes()} ${problem} .*XDG_STATE_HOME`));
    expect([existsSync(path), namesOf().length, existsSync(join(folder, 'key'))]).toEqual([true, 1, false]);
  });

  it('that is a link has nothing removed, and is not written in', () => {
    const path = join(folder, 'db.json');
    leave(path);
    const link = join(folder, 'link');
    symlinkSync(notes(), link);
    expect(new LeftBehind(link).clear()).toEqual([`${link} is a link or no folder: the notes in it are ignored.`]);
    const attempt = () => new LeftBehind(link).note(path, lstatSync(path, { bigint: true }));
    expect(attempt).toThrow(`${link} is a link or no folder`);
    expect([existsSync(path), namesOf().length]).toEqual([true, 1]);
  });

  it('that is not there is nothing to speak of', () => {
    expect(leftBehind().clear()).toEqual([]);
  });
});

describe('a note', () => {
  it('that others can write is not obeyed', () => {
    const path = join(folder, 'db.json');
    const place = leave(path);
    chmodSync(place, 0o622);
    expect(leftBehind().clear()).toEqual([`${place} can be written by others (mode 622): it is skipped.`]);
    expect(existsSync(path)).toBe(true);
  });

  itAsRoot('of another user is not obeyed', () => {
    const path = join(folder, 'db.json');
    const place = leave(path);
    chownSync(place, UID + 1, 0);
    expect(leftBehind().clear()).toEqual([`${place} belongs to another user (uid ${UID + 1}): it is skipped.`]);
    expect(existsSync(path)).toBe(true);
  });

  it('that is a link is not followed', () => {
    const path = join(folder, 'db.json');
    const place = leave(path);
    const elsewhere = join(folder, 'elsewhere.json');
    writeFileSync(elsewhere, readFileSync(place));
    rmSync(place);
    symlinkSync(elsewhere, place);
    expect(leftBehind().clear()).toEqual([expect.stringContaining(`${place} is a link`)]);
    expect(existsSync(path)).toBe(true);
  });

  it('that is a pipe or a folder holds nobody up, nor does one too long to be one', () => {
    const path = join(folder, 'db.json');
    leave(path);
    const [pipe, sub, long] = ['pipe', 'sub', 'long'].map((name) => join(notes(), name)) as [string, string, string];
    execFileSync('mkfifo', ['-m', '600', pipe]);
    mkdirSync(sub, { mode: 0o700 });
    writeFileSync(long, '', { mode: 0o600 });
    truncateSync(long, 8 * 1024 ** 3);
    expect(leftBehind().clear().sort()).toEqual(
      [
        removed(path),
        `${pipe} is no file: it is skipped.`,
        `${sub} is no file: it is skipped.`,
        `${long} is too long: it is skipped.`,
      ].sort(),
    );
  });

  it.each([
    ['null', 'null'],
    ['a list', '[]'],
    ['a number for a path', { path: 7 }],
    ['a path with a NUL', { path: '/tmp/a\0b' }],
    ['a path from nowhere', { path: 'db.json' }],
    ['no process', { pid: 0 }],
    ['a text for a process', { pid: '../../tmp' }],
    ['no host', { host: undefined }],
  ])('that is no note (%s) is said and removed, and the others are obeyed', (_, forged) => {
    const [other, path] = [join(folder, 'other'), join(folder, 'db.json')];
    const place = leave(other, typeof forged === 'string' ? {} : forged);
    if (typeof forged === 'string') writeFileSync(place, forged);
    leave(path);
    expect(leftBehind().clear().sort()).toEqual([removed(path), `Removed ${place}, which is no note of a run.`].sort());
    expect([existsSync(other), namesOf()]).toEqual([true, []]);
  });

  it('that is being written is left alone; one that was never finished is removed', () => {
    const path = join(folder, 'db.json');
    const place = leave(path);
    truncateSync(place, 20);
    expect([leftBehind().clear(), namesOf()]).toEqual([[], [place]]);
    const before = new Date(Date.now() - 61_000);
    utimesSync(place, before, before);
    expect(leftBehind().clear()).toEqual([`Removed ${place}, which is no note of a run.`]);
    expect(namesOf()).toEqual([]);
  });
});

describe('a file that was left behind', () => {
  it('is forgotten without a word when a file stands where its folder was', () => {
    const at = inner();
    leave(join(at, 'db.json'));
    rmSync(at, { recursive: true });
    writeFileSync(at, '');
    expect([leftBehind().clear(), namesOf()]).toEqual([[], []]);
  });

  it('is forgotten without a word when its folder is gone', () => {
    const at = inner();
    leave(join(at, 'db.json'));
    rmSync(at, { recursive: true });
    expect([leftBehind().clear(), namesOf()]).toEqual([[], []]);
  });

  it('that cannot be reached now is said in one line, and tried again by the next run', () => {
    const at = inner();
    const path = join(at, 'db.json');
    const place = leave(path);
    // What no user, root included, can pass.
    renameSync(at, `${at}.aside`);
    symlinkSync(at, at);
    expect(leftBehind().clear()).toEqual([
      `${path}, which a run that was killed had left, cannot be removed (ELOOP); the next run tries again.`,
    ]);
    expect(namesOf()).toEqual([place]);
    rmSync(at);
    renameSync(`${at}.aside`, at);
    expect([leftBehind().clear(), namesOf()]).toEqual([[removed(path)], []]);
  });

  it('that is open to others is not removed but said, until somebody has looked', () => {
    const path = join(folder, 'db.json');
    const place = leave(path);
    chmodSync(path, 0o644);
    expect(leftBehind().clear()).toEqual([expect.stringContaining('was opened to others: remove it yourself')]);
    expect([existsSync(path), namesOf()]).toEqual([true, [place]]);
    chmodSync(path, 0o400);
    expect(leftBehind().clear()).toEqual([removed(path)]);
  });

  itAsRoot('that was given to another user is theirs', () => {
    const path = join(folder, 'db.json');
    leave(path);
    chownSync(path, UID + 1, 0);
    expect(leftBehind().clear()).toEqual([expect.stringContaining('belongs to another user now and stays')]);
    expect([existsSync(path), namesOf()]).toEqual([true, []]);
  });

  it('is removed, not what a link in its place leads to', () => {
    const [path, target] = [join(folder, 'db.json'), join(folder, 'target')];
    leave(path);
    renameSync(path, target);
    symlinkSync(target, path);
    expect(leftBehind().clear()).toEqual([]);
    expect(existsSync(target)).toBe(true);
  });
});

it('a run whose file cannot be removed says so, keeps its note and goes on to end its task', () => {
  const at = inner();
  const [lost, other] = [join(at, 'db.json'), join(folder, 'other')];
  const handOver = new HandOver(leftBehind());
  for (const path of [lost, other]) handOver.put(readTarget(`key=${path}`), { value: 'v' });
  renameSync(at, `${at}.aside`);
  symlinkSync(at, at);
  expect(handOver.clear()).toEqual([
    `${lost}, which has a secret in it, cannot be removed (ELOOP); the next run tries again.`,
  ]);
  expect([existsSync(other), namesOf().length]).toEqual([false, 1]);
});
