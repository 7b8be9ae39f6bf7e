import { randomBytes } from 'node:crypto';
import { readCursor, writeCursor } from '../../../src/core/cursor.js';

const KEY = randomBytes(32);
const ASKED = { list: 'leases', caller: 'spiffe://dev.mayfly/agent/a', filter: { task: 'tsk_a_1', state: undefined } };
const PLACE = 'r.1790000000000~lse_a_01m8jxbn5xf3rbjjw6jddc1k46';

it('goes on where its page ended, for the same caller in the same list with the same filters', () => {
  const cursor = writeCursor(KEY, ASKED, PLACE);
  expect(readCursor(KEY, ASKED, cursor)).toBe(PLACE);
  expect(readCursor(KEY, { ...ASKED, filter: { task: 'tsk_a_1' } }, cursor)).toBe(PLACE);
});

it('shows nobody its place, nor that it is the same one', () => {
  const cursor = writeCursor(KEY, ASKED, PLACE);
  expect(Buffer.from(cursor, 'base64url').toString('latin1')).not.toMatch(/lse_|17900/);
  expect(writeCursor(KEY, ASKED, PLACE)).not.toBe(cursor);
});

it.each([
  ['another list', KEY, { ...ASKED, list: 'tasks' }],
  ['another caller', KEY, { ...ASKED, caller: 'spiffe://dev.mayfly/agent/b' }],
  ['another filter', KEY, { ...ASKED, filter: { task: 'tsk_a_2' } }],
  ['a filter more', KEY, { ...ASKED, filter: { task: 'tsk_a_1', state: 'active' } }],
  ['another cell', randomBytes(32), ASKED],
])('is nothing for %s', (_, key, asked) => {
  const cursor = writeCursor(KEY, ASKED, PLACE);
  expect(() => readCursor(key, asked, cursor)).toThrow('cursor: not one that this list gave.');
});

it('is nothing once it was changed, cut, lengthened, spelled otherwise or made up', () => {
  const cursor = writeCursor(KEY, ASKED, PLACE);
  const changed = [...cursor].map((own, at) => cursor.slice(0, at) + (own === 'A' ? 'B' : 'A') + cursor.slice(at + 1));
  const others = [
    cursor.slice(0, -1),
    cursor.slice(0, 20),
    `${cursor}A`,
    `${cursor}=`,
    `${cursor}\n`,
    '',
    'after~x',
    'é',
  ];
  for (const other of [...changed, ...others]) {
    expect(() => readCursor(KEY, ASKED, other)).toThrow('cursor: not one that this list gave.');
  }
});
