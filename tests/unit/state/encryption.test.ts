import { Encryption } from '../../../src/state/encryption.js';

const rootKey = new Uint8Array(32).fill(1);
const encryption = new Encryption(rootKey, 'a');
const plain = Buffer.from('what rests in Redis');

describe('encryption', () => {
  it('gives back what it took', () => {
    expect(encryption.decrypt('key-ring', 'here', encryption.encrypt('key-ring', 'here', plain))).toEqual(plain);
    expect(encryption.decrypt('answer', '', encryption.encrypt('answer', '', Buffer.alloc(0)))).toHaveLength(0);
  });

  it('never gives the same text twice for the same value', () => {
    expect(encryption.encrypt('answer', 'here', plain)).not.toBe(encryption.encrypt('answer', 'here', plain));
  });

  it.each([
    ['another place', () => encryption.decrypt('key-ring', 'there', encryption.encrypt('key-ring', 'here', plain))],
    ['another purpose', () => encryption.decrypt('answer', 'here', encryption.encrypt('key-ring', 'here', plain))],
    [
      'another cell',
      () => new Encryption(rootKey, 'b').decrypt('answer', 'here', encryption.encrypt('answer', 'here', plain)),
    ],
    [
      'another root key',
      () =>
        new Encryption(new Uint8Array(32), 'a').decrypt('answer', 'here', encryption.encrypt('answer', 'here', plain)),
    ],
    ['nothing', () => encryption.decrypt('answer', 'here', '')],
    ['a stub', () => encryption.decrypt('answer', 'here', 'AAAA')],
  ])('refuses %s', (_, refused) => {
    expect(refused).toThrow(expect.objectContaining({ code: 'internal' }));
  });

  it('refuses a value of which any byte was changed', () => {
    const bytes = Buffer.from(encryption.encrypt('answer', 'here', plain), 'base64url');
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] as number) ^ 1;
      expect(() => encryption.decrypt('answer', 'here', changed.toString('base64url'))).toThrow();
    }
  });

  it('a root key has 32 bytes', () => {
    for (const length of [0, 16, 31, 33, 64]) expect(() => new Encryption(new Uint8Array(length), 'a')).toThrow();
  });
});

describe('signing', () => {
  const text = '{"id":"lck_a_1"}';
  const signed = encryption.sign('lock', 'locks', text);

  it('gives back what it took, text in the clear', () => {
    expect(encryption.verify('lock', 'locks', signed)).toBe(text);
    expect(signed.endsWith(text)).toBe(true);
  });

  it.each([
    ['changed text', () => encryption.verify('lock', 'locks', signed.replace('1"', '2"'))],
    ['no proof', () => encryption.verify('lock', 'locks', text)],
    ['an empty proof', () => encryption.verify('lock', 'locks', `.${text}`)],
    ['half a proof', () => encryption.verify('lock', 'locks', signed.slice(20))],
    ['another place', () => encryption.verify('lock', 'elsewhere', signed)],
    ['another purpose', () => encryption.verify('bundle', 'locks', signed)],
    ['another cell', () => new Encryption(rootKey, 'b').verify('lock', 'locks', signed)],
    ['another root key', () => new Encryption(new Uint8Array(32), 'a').verify('lock', 'locks', signed)],
    ['nothing', () => encryption.verify('lock', 'locks', '')],
  ])('refuses %s', (_, refused) => {
    expect(refused).toThrow(expect.objectContaining({ code: 'internal' }));
  });

  it('says in the error neither the text nor a key', () => {
    const thrown = (() => {
      try {
        encryption.verify('lock', 'locks', 'AAAA.secret');
      } catch (error) {
        return error as { message: string; detail: { reason: string } };
      }
      return undefined;
    })();
    expect(thrown?.message).toBe('Something went wrong inside.');
    expect(thrown?.detail.reason).not.toContain('secret');
  });
});
