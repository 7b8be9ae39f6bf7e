import { inflateRawSync } from 'node:zlib';

const END_OF_DIRECTORY = 0x06054b50;
const DIRECTORY_ENTRY = 0x02014b50;
const END_BYTES_MIN = 22;
const COMMENT_BYTES_MAX = 0xffff;
const STORED = 0;
const DEFLATED = 8;

/**
 * The content of the first entry whose name fits, or undefined. For archives whose bytes were checked against a pinned hash:
 * it reads the central directory, knows stored and deflated entries, and no zip64.
 */
export function unzipOne(archive: Buffer, fits: (name: string) => boolean, bytesMax: number): Buffer | undefined {
  const end = archive.subarray(-END_BYTES_MIN - COMMENT_BYTES_MAX).lastIndexOf(uint32(END_OF_DIRECTORY));
  if (end === -1) throw new Error('this is no zip archive');
  const record = end + Math.max(0, archive.length - END_BYTES_MIN - COMMENT_BYTES_MAX);
  let at = archive.readUInt32LE(record + 16);
  for (let left = archive.readUInt16LE(record + 10); left > 0; left--) {
    if (archive.readUInt32LE(at) !== DIRECTORY_ENTRY) throw new Error('the zip archive is damaged');
    const method = archive.readUInt16LE(at + 10);
    const packedBytes = archive.readUInt32LE(at + 20);
    const nameBytes = archive.readUInt16LE(at + 28);
    const name = archive.toString('utf8', at + 46, at + 46 + nameBytes);
    if (fits(name)) {
      const local = archive.readUInt32LE(at + 42);
      const start = local + 30 + archive.readUInt16LE(local + 26) + archive.readUInt16LE(local + 28);
      const packed = archive.subarray(start, start + packedBytes);
      if (method === STORED) return packed;
      if (method === DEFLATED) return inflateRawSync(packed, { maxOutputLength: bytesMax });
      throw new Error(`the zip archive packs ${name} in an unknown way`);
    }
    at += 46 + nameBytes + archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32);
  }
  return undefined;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
