import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Bounded } from '../../../src/state/bounded.js';
import { HeadFile } from '../../../src/state/head-file.js';
import { type Acknowledged, Memory } from '../../../src/state/memory.js';
import { compareStreamIds, streamIdAfter } from '../../../src/state/stream-id.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-memory-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const lift = (lockId: string, atMs: number) => ({ kind: 'lift', lockId, atMs, audit: {} }) as unknown as Acknowledged;
const idsOf = (memory: Memory) => memory.lately().map((one) => (one as { lockId: string }).lockId);

describe('what a broker acknowledged', () => {
  it('is there after a restart, in order', () => {
    const memory = new Memory(dir, 'a');
    for (const id of ['one', 'two', 'three']) memory.remember(lift(id, 1_000));
    expect(idsOf(new Memory(dir, 'a'))).toEqual(['one', 'two', 'three']);
  });

  it('is not another cell’s', () => {
    new Memory(dir, 'a').remember(lift('one', 1_000));
    expect(idsOf(new Memory(dir, 'b'))).toEqual([]);
  });

  it('is forgotten after a minute, and the files with it', () => {
    const memory = new Memory(dir, 'a');
    memory.forget(0);
    memory.remember(lift('one', 1_000));
    memory.forget(61_000);
    expect(idsOf(memory)).toEqual(['one']);
    memory.forget(61_001);
    expect(idsOf(memory)).toEqual([]);
    memory.remember(lift('two', 100_000));
    memory.forget(122_100);
    memory.forget(190_000);
    expect(idsOf(new Memory(dir, 'a'))).toEqual([]);
  });

  it('a line that a crash cut is no line, and those before it count', () => {
    new Memory(dir, 'a').remember(lift('one', 1_000));
    appendFileSync(join(dir, 'acknowledged-a.ndjson'), '{"kind":"li');
    expect(idsOf(new Memory(dir, 'a'))).toEqual(['one']);
  });

  it('is nobody else’s to read', () => {
    new Memory(dir, 'a').remember(lift('one', 1_000));
    expect(statSync(join(dir, 'acknowledged-a.ndjson')).mode & 0o077).toBe(0);
  });
});

describe('the head file', () => {
  const head = { epoch: 1_795_000_000, lastWrite: '1-2', beats: ['a', 'b'] };

  it('gives back what was written last', () => {
    const file = new HeadFile(dir, 'a');
    expect(file.read()).toBeUndefined();
    file.write({ ...head, epoch: 1 });
    file.write(head);
    expect(new HeadFile(dir, 'a').read()).toEqual(head);
    expect(existsSync(join(dir, 'head-a.json.new'))).toBe(false);
    expect(JSON.parse(readFileSync(join(dir, 'head-a.json'), 'utf8'))).toEqual(head);
  });

  it.each(['', '{', 'null', '[]', '{"epoch":"1","lastWrite":"","beats":[]}', '{"epoch":1,"beats":[]}'])(
    'that holds %j was seen by nobody',
    (text) => {
      writeFileSync(join(dir, 'head-a.json'), text);
      expect(new HeadFile(dir, 'a').read()).toBeUndefined();
    },
  );
});

describe('a bounded map', () => {
  it('forgets what was not used for the longest time', () => {
    const map = new Bounded<number>(2);
    map.set('a', 1);
    map.set('b', 2);
    map.get('a');
    map.set('c', 3);
    expect([map.get('a'), map.get('b'), map.get('c')]).toEqual([1, undefined, 3]);
    map.set('a', 4);
    map.set('d', 5);
    expect([map.get('a'), map.get('c'), map.get('d')]).toEqual([4, undefined, 5]);
  });
});

describe('stream ids', () => {
  it('are compared as integers, not as text', () => {
    expect(compareStreamIds('9-0', '10-0')).toBeLessThan(0);
    expect(compareStreamIds('5-9', '5-10')).toBeLessThan(0);
    expect(compareStreamIds('5-1', '5-1')).toBe(0);
    expect(streamIdAfter('5-9')).toBe('5-10');
  });
});
