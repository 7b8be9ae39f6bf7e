import { deflateRawSync } from 'node:zlib';
import { unzipOne } from '../../../../src/main/dev/unzip.js';

interface Entry {
  name: string;
  content: string;
  method?: number;
}

/** A zip archive written by hand from APPNOTE 4.3; checksums are left out, since the reader relies on a hash of the whole. */
function zip(entries: Entry[], comment = ''): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, content, method = 8 } of entries) {
    const packed = method === 8 ? deflateRawSync(content) : Buffer.from(content);
    const local = Buffer.alloc(30);
    local.writeUInt32LE(0x04034b50);
    local.writeUInt16LE(method, 8);
    local.writeUInt32LE(packed.length, 18);
    local.writeUInt32LE(content.length, 22);
    local.writeUInt16LE(name.length, 26);
    // A local header may have an extra field of another length than the directory's.
    local.writeUInt16LE(4, 28);
    locals.push(local, Buffer.from(name), Buffer.alloc(4), packed);
    const entry = Buffer.alloc(46);
    entry.writeUInt32LE(0x02014b50);
    entry.writeUInt16LE(method, 10);
    entry.writeUInt32LE(packed.length, 20);
    entry.writeUInt32LE(content.length, 24);
    entry.writeUInt16LE(name.length, 28);
    entry.writeUInt16LE(2, 30);
    entry.writeUInt16LE(3, 32);
    entry.writeUInt32LE(offset, 42);
    directory.push(entry, Buffer.from(name), Buffer.alloc(5));
    offset += 30 + name.length + 4 + packed.length;
  }
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(Buffer.concat(directory).length, 12);
  end.writeUInt32LE(offset, 16);
  end.writeUInt16LE(comment.length, 20);
  return Buffer.concat([...locals, ...directory, end, Buffer.from(comment)]);
}

const entries: Entry[] = [
  { name: 'first.txt', content: 'one' },
  { name: 'bin/server', content: 'two '.repeat(1_000) },
  { name: 'plain', content: 'three', method: 0 },
];

it.each(entries)('the entry $name comes out as it went in', ({ name, content }) => {
  expect(unzipOne(zip(entries), (other) => other === name, 10_000)?.toString()).toBe(content);
});

it('the first entry that fits is taken', () => {
  expect(unzipOne(zip(entries), () => true, 10_000)?.toString()).toBe('one');
});

it('an archive with a comment, and one larger than the longest comment, are read', () => {
  const large = [{ name: 'large', content: 'x'.repeat(100_000), method: 0 }, ...entries];
  expect(unzipOne(zip(large, 'a comment'), (name) => name === 'first.txt', 10_000)?.toString()).toBe('one');
});

it('nothing fits: undefined', () => {
  expect(unzipOne(zip(entries), () => false, 10_000)).toBeUndefined();
});

it('an entry that unpacks to more than the bound is refused', () => {
  expect(() => unzipOne(zip(entries), (name) => name === 'bin/server', 3_999)).toThrow();
});

it.each([
  ['no archive', Buffer.from('this is plain text that is long enough')],
  ['nothing', Buffer.alloc(0)],
  ['a directory that is elsewhere', zip(entries).fill(0, 0, 30).subarray(10)],
])('%s is refused', (_, bytes) => {
  expect(() => unzipOne(bytes, () => false, 10_000)).toThrow();
});

it('an unknown way of packing is refused by name', () => {
  const odd = zip([{ name: 'odd', content: 'x', method: 0 }]);
  odd.writeUInt16LE(12, odd.indexOf(Buffer.from([0x50, 0x4b, 1, 2])) + 10);
  expect(() => unzipOne(odd, () => true, 10_000)).toThrow('packs odd in an unknown way');
});
