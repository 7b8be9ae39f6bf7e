import { idTimeMs, isId, newId, parseId } from '../../../src/core/ids.js';

const NOW_MS = 1_795_382_752_123;

it('an id says what it names and where it lives', () => {
  const id = newId('tsk', 'eu1', NOW_MS);
  expect(id).toMatch(/^tsk_eu1_[0-7][0-9a-hjkmnp-tv-z]{25}$/);
  expect(parseId(id)).toEqual({ kind: 'tsk', cell: 'eu1' });
});

it('ids sort by the time they were made at', () => {
  const times = [0, 1, NOW_MS - 1, NOW_MS, NOW_MS + 1, 2 ** 47];
  const ids = times.map((atMs) => newId('lse', 'a', atMs));
  expect([...ids].sort()).toEqual(ids);
});

it.each([0, 1, NOW_MS, 2 ** 47, 2 ** 48 - 1])('an id made at %d says so', (atMs) => {
  expect(idTimeMs(newId('lse', 'eu1', atMs))).toBe(atMs);
});

it.each(['', 'lse_a_', 'x'.repeat(40)])('%j is no id and was made at no time', (text) => {
  expect(idTimeMs(text)).toBe(0);
});

it('it is a UUID of version 7 in base 32: the time in front, version and variant in their places', () => {
  const text = newId('dec', 'a', NOW_MS).split('_')[2] as string;
  const bits = [...text].reduce((sum, one) => sum * 32n + BigInt('0123456789abcdefghjkmnpqrstvwxyz'.indexOf(one)), 0n);
  expect(bits >> 80n).toBe(BigInt(NOW_MS));
  expect((bits >> 76n) & 0xfn).toBe(7n);
  expect((bits >> 62n) & 3n).toBe(2n);
});

it('a thousand of one moment are all different', () => {
  expect(new Set(Array.from({ length: 1_000 }, () => newId('req', 'a', NOW_MS))).size).toBe(1_000);
});

it('it has nothing that a queue, a URL or a shell would trip over', () => {
  expect(newId('rev', 'a', NOW_MS)).toMatch(/^[a-z0-9_]+$/);
});

const GOOD = newId('tsk', 'a', NOW_MS);

it.each([
  '',
  'tsk_a_',
  GOOD.toUpperCase(),
  `${GOOD}\n`,
  ` ${GOOD}`,
  `${GOOD}0`,
  GOOD.slice(0, -1),
  GOOD.replace('tsk', 'xyz'),
  GOOD.replace('_a_', '_a:b_'),
  GOOD.replace('_a_', '_waytoolong_'),
  GOOD.replace('_a_', '__'),
  GOOD.replace(/.$/, 'u'),
  GOOD.replace(/_a_./, '_a_8'),
  '__proto__',
])('%j is no id', (text) => {
  expect(parseId(text)).toBeUndefined();
});

it('an id of one kind is none of another', () => {
  expect(isId('tsk', GOOD)).toBe(true);
  expect(isId('lse', GOOD)).toBe(false);
  expect(isId('tsk', { toString: () => GOOD })).toBe(false);
});
