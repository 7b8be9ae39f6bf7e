import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Encryption } from '../../src/state/encryption.js';

const VALUE = 'canary-value-77f2';
const rootKey = randomBytes(32);

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), 'mayfly-encrypt-'));
  writeFileSync(join(dir, 'root.key'), `${rootKey.toString('base64')}\n`, { mode: 0o600 });
});
afterAll(() => rmSync(dir, { recursive: true }));

function encrypt(input: string | Buffer, ...more: string[]) {
  const { MAYFLY_ROOT_KEY_FILE: _, MAYFLY_CELL: __, ...env } = process.env;
  const run = spawnSync(process.execPath, [resolve('bin/mayfly.js'), 'secret', 'encrypt', ...more], { input, env });
  return { status: run.status, said: run.stderr.toString(), printed: run.stdout.toString() };
}

const withKey = (input: string | Buffer, ...more: string[]) =>
  encrypt(input, '--root-key-file', join(dir, 'root.key'), ...more);

const decrypted = (printed: string, { cell = 'a', name = 'pager' } = {}) =>
  new Encryption(rootKey, cell).decrypt('backend', name, printed.trim()).toString();

describe('mayfly secret encrypt', () => {
  it('prints what a backend of kind static decrypts, and the value nowhere', () => {
    const { status, said, printed } = withKey(`${VALUE}\n`, '--name', 'pager');
    expect(status).toBe(0);
    expect(said + printed).not.toContain(VALUE);
    expect(decrypted(printed)).toBe(VALUE);
  });

  it('takes away one line’s end and no other', () => {
    expect(decrypted(withKey('a\n\n', '--name', 'pager').printed)).toBe('a\n');
    expect(decrypted(withKey('a\r\n', '--name', 'pager').printed)).toBe('a');
    expect(decrypted(withKey('a', '--name', 'pager').printed)).toBe('a');
  });

  it('binds it to the name and the cell', () => {
    const { printed } = withKey(VALUE, '--name', 'pager', '--cell', 'b');
    expect(decrypted(printed, { cell: 'b' })).toBe(VALUE);
    expect(() => decrypted(printed)).toThrow();
    expect(() => decrypted(printed, { cell: 'b', name: 'maps' })).toThrow();
  });

  it.each<[string, () => ReturnType<typeof encrypt>, RegExp]>([
    ['no name', () => withKey(VALUE), /--name/],
    ['a name that is a path', () => withKey(VALUE, '--name', '../pager'), /--name must be/],
    ['no value', () => withKey('', '--name', 'pager'), /no value/],
    ['an empty line', () => withKey('\n', '--name', 'pager'), /no value/],
    ['no text', () => withKey(Buffer.from([0xff, 0xfe]), '--name', 'pager'), /not UTF-8/],
    ['too much', () => withKey('x'.repeat(33_000), '--name', 'pager'), /longer than 32 KiB/],
    ['no root key', () => encrypt(VALUE, '--name', 'pager'), /--config FILE or --root-key-file FILE/],
    ['a cell that is none', () => withKey(VALUE, '--name', 'pager', '--cell', 'A B'), /--cell/],
  ])('%s: one clear line, exit 1, and nothing printed', (_, run, said) => {
    const { status, said: heard, printed } = run();
    expect({ status, printed }).toEqual({ status: 1, printed: '' });
    expect(heard).toMatch(said);
    expect(heard).not.toContain(VALUE);
  });
});
