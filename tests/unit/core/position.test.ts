import fc from 'fast-check';
import {
  comparePositions,
  epochOf,
  isBefore,
  isPosition,
  latest,
  ORIGIN,
  placeOf,
  positionOf,
} from '../../../src/core/position.js';

const part = fc.integer({ min: 0, max: 999_999_999_999_999 });
const position = fc.tuple(part, part, part).map((parts) => parts.join('-'));

it('a position is its epoch and the stream id under it', () => {
  const text = positionOf(1_795_300_000, '1795382752123-4');
  expect(text).toBe('1795300000-1795382752123-4');
  expect(epochOf(text)).toBe(1_795_300_000);
  expect(placeOf(text)).toEqual({ epoch: 1_795_300_000, ms: 1_795_382_752_123, seq: 4 });
});

it('the origin is before everything else', () => {
  fc.assert(fc.property(position, (one) => comparePositions(ORIGIN, one) <= 0));
});

it.each([
  ['9-1-1', '10-0-0'],
  ['5-999-9', '5-1000-0'],
  ['5-1000-9', '5-1000-10'],
  ['5-99999999999999-0', '6-0-0'],
])('%s is before %s, as integers are', (a, b) => {
  expect(isBefore(a, b)).toBe(true);
  expect(isBefore(b, a)).toBe(false);
});

it('no position is before itself', () => {
  fc.assert(fc.property(position, (one) => !isBefore(one, one)));
});

it('places are compared as the three integers they are', () => {
  const triple = fc.tuple(part, part, part);
  const big = (parts: number[]) => parts.reduce((sum, one) => sum * 10n ** 15n + BigInt(one), 0n);
  fc.assert(fc.property(triple, triple, (a, b) => isBefore(a.join('-'), b.join('-')) === big(a) < big(b)));
});

it('the latest of several is one of them, and none is after it', () => {
  fc.assert(
    fc.property(fc.array(position, { minLength: 1 }), (all) => {
      const last = latest(...all);
      return all.includes(last) && all.every((one) => !isBefore(last, one));
    }),
  );
  expect(latest()).toBe(ORIGIN);
});

it.each([
  '',
  '1-2',
  '1-2-3-4',
  '1-2-x',
  '-1-2-3',
  '1-2-3\n',
  ' 1-2-3',
  '1-2-1e3',
  '1-2-1000000000000000',
  5,
  null,
  ['1-2-3'],
])('%j is no position', (value) => {
  expect(isPosition(value)).toBe(false);
});
