import { OnceEach, Remembered } from '../../../src/client/remembered.js';

describe('remembered values', () => {
  it('never are more than allowed', () => {
    const remembered = new Remembered<number>(100);
    for (let at = 0; at < 1_000; at++) remembered.set(`k${at}`, at);
    expect(remembered.size).toBeLessThanOrEqual(100);
    expect(remembered.get('k999')).toBe(999);
    expect(remembered.get('k0')).toBeUndefined();
  });

  it('that are used outlive those that are not', () => {
    const remembered = new Remembered<number>(100);
    remembered.set('used', 1);
    remembered.set('unused', 2);
    for (let at = 0; at < 500; at++) {
      remembered.set(`k${at}`, at);
      expect(remembered.get('used')).toBe(1);
    }
    expect(remembered.get('unused')).toBeUndefined();
  });

  it('of one key are the latest', () => {
    const remembered = new Remembered<number>(4);
    for (let at = 0; at < 10; at++) remembered.set('k', at);
    expect([remembered.get('k'), remembered.size]).toEqual([9, 1]);
  });
});

describe('what may happen once', () => {
  it('happens once until its end, and anew after it', () => {
    const once = new OnceEach(10);
    expect([once.take('a', 100, 0), once.take('a', 100, 99), once.take('b', 100, 99)]).toEqual([
      'new',
      'repeated',
      'new',
    ]);
    expect(once.take('a', 200, 100)).toBe('new');
  });

  it('does not happen when there is no room to remember it', () => {
    const once = new OnceEach(2);
    once.take('a', 100, 0);
    once.take('b', 50, 0);
    expect(once.take('c', 100, 49)).toBe('full');
    expect(once.take('c', 100, 50)).toBe('new');
    expect(once.take('a', 100, 50)).toBe('repeated');
  });
});
