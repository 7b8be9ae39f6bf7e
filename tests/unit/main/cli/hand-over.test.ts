import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { HandOver, readTarget } from '../../../../src/main/cli/hand-over.js';
import { LeftBehind } from '../../../../src/main/cli/left-behind.js';
import { UsageError } from '../../../../src/main/cli/output.js';

const DATA = { host: 'db.example', port: 5432, username: 'u', password: 'p\'"$x' };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-hand-over-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const notes = () => join(folder, 'state', 'notes');
const leftBehind = () => new LeftBehind(notes());

function handedOver(data: Record<string, string | number>, ...targets: string[]): HandOver {
  const handOver = new HandOver(leftBehind());
  for (const target of targets) handOver.put(readTarget(target), data);
  return handOver;
}

describe('a target', () => {
  it.each([
    '',
    'orders-db',
    '=DB',
    'orders-db=',
    'orders-db:=DB',
    'a:b:c=DB',
    'a b=DB',
    '../x=DB',
    'orders-db=1DB',
    'orders-db=D B',
    'orders-db=db.json',
  ])('%j is refused', (text) => {
    expect(() => readTarget(text)).toThrow(UsageError);
  });

  it.each(['PATH', 'LD_PRELOAD', 'NODE_OPTIONS', 'BASH_ENV', 'MAYFLY_ADDR', 'DYLD_INSERT_LIBRARIES'])(
    'cannot be %s: handing a value over would run something else',
    (name) => {
      expect(() => readTarget(`orders-db=${name}`)).toThrow('a meaning of its own');
    },
  );
});

describe('a secret', () => {
  it('of several fields becomes one variable each', () => {
    expect(handedOver(DATA, 'orders-db=DB').variables).toEqual({
      DB_HOST: 'db.example',
      DB_PORT: '5432',
      DB_USERNAME: 'u',
      DB_PASSWORD: 'p\'"$x',
    });
  });

  it('of one field becomes that variable', () => {
    expect(handedOver({ value: 'v' }, 'key=API_KEY').variables).toEqual({ API_KEY: 'v' });
  });

  it('gives the one field that was asked for', () => {
    expect(handedOver(DATA, 'orders-db:password=PGPASSWORD').variables).toEqual({ PGPASSWORD: DATA.password });
  });

  it.each(['orders-db:nothing=X', 'orders-db:toString=X', 'orders-db:__proto__=X'])('has no field %s', (target) => {
    expect(() => handedOver(DATA, target)).toThrow('it has host, port, username, password');
  });

  it('with a NUL in it is refused for a variable, and not printed', () => {
    const attempt = () => handedOver({ value: 'canary\0' }, 'key=API_KEY');
    expect(attempt).toThrow(UsageError);
    expect(attempt).not.toThrow('canary');
  });

  it('in a file is for our eyes only, and is gone when the command is done', () => {
    const [json, bare] = [join(folder, 'db.json'), join(folder, 'password')];
    const handOver = handedOver(DATA, `orders-db=${json}`, `orders-db:password=${bare}`);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toEqual(DATA);
    expect(readFileSync(bare, 'utf8')).toBe(DATA.password);
    expect(statSync(json).mode & 0o777).toBe(0o600);
    handOver.clear();
    expect([json, bare].filter((path) => existsSync(path))).toEqual([]);
  });

  it('is never written over something that is there, nor through a link, and that is not removed either', () => {
    const [there, link] = [join(folder, 'there'), join(folder, 'link')];
    writeFileSync(there, 'mine');
    symlinkSync(join(folder, 'elsewhere'), link);
    const handOver = new HandOver(leftBehind());
    for (const path of [there, link]) {
      expect(() => handOver.put(readTarget(`orders-db=${path}`), DATA)).toThrow('is there already');
    }
    handOver.clear();
    expect(readFileSync(there, 'utf8')).toBe('mine');
    expect(existsSync(join(folder, 'elsewhere'))).toBe(false);
  });

  it('whose folder is missing is one clear line without its value', () => {
    const attempt = () => handedOver(DATA, `orders-db=${folder}/missing/db`);
    expect(attempt).toThrow('cannot be written (ENOENT)');
  });
});

describe('a file of a process that was killed', () => {
  const path = () => join(folder, 'db.json');
  /** As if another process had written it, which is gone: the notes say so. */
  const killed = (more: Record<string, unknown> = {}) => {
    handedOver(DATA, `orders-db=${path()}`);
    for (const name of readdirSync(notes())) {
      const place = join(notes(), name);
      writeFileSync(place, JSON.stringify({ ...JSON.parse(readFileSync(place, 'utf8')), process: 'gone', ...more }));
    }
  };

  it('is removed by the next one, which may then use the same path', () => {
    killed();
    expect(leftBehind().clear()).toEqual([`Removed ${path()}, which a run that was killed had left.`]);
    expect([existsSync(path()), readdirSync(notes())]).toEqual([false, []]);
    handedOver(DATA, `orders-db=${path()}`).clear();
  });

  it('is noted before it holds anything, without its secret, where only its user can look', () => {
    killed();
    const [name] = readdirSync(notes());
    const note = readFileSync(join(notes(), String(name)), 'utf8');
    for (const value of Object.values(DATA)) expect(note).not.toContain(`"${value}"`);
    expect([statSync(notes()).mode & 0o777, statSync(join(notes(), String(name))).mode & 0o777]).toEqual([
      0o700, 0o600,
    ]);
  });

  it('stays while its process lives, and on another machine', () => {
    const handOver = handedOver(DATA, `orders-db=${path()}`);
    expect(leftBehind().clear()).toEqual([]);
    handOver.clear();
    killed({ host: 'another' });
    expect(leftBehind().clear()).toEqual([]);
    expect(existsSync(path())).toBe(true);
  });

  it('that somebody has put in its place since is theirs', () => {
    killed();
    rmSync(path());
    writeFileSync(join(folder, 'takes the number of the removed one'), '');
    writeFileSync(path(), 'mine');
    expect(leftBehind().clear()).toEqual([]);
    expect([readFileSync(path(), 'utf8'), readdirSync(notes())]).toEqual(['mine', []]);
  });

  it('that cannot be noted is not written', () => {
    writeFileSync(join(folder, 'state'), 'no folder');
    expect(() => handedOver(DATA, `orders-db=${path()}`)).toThrow('cannot be noted to be removed again');
    expect(existsSync(path())).toBe(false);
  });
});
