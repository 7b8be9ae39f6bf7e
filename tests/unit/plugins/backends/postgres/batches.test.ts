import { jest } from '@jest/globals';
import { Batches } from '../../../../../src/plugins/backends/postgres/batches.js';

function collecting(
  settings: {
    max?: number;
    collectMs?: number;
    collectMsMax?: number;
    inFlightMax?: number;
    fails?: (items: number[]) => boolean;
    mayBeOne?: boolean;
  } = {},
) {
  const ran: number[][] = [];
  const gates: (() => void)[] = [];
  let atOnce = 0;
  let most = 0;
  const batches = new Batches<number, number>({
    max: settings.max ?? 3,
    collectMs: settings.collectMs ?? 1,
    collectMsMax: settings.collectMsMax ?? 1,
    inFlightMax: settings.inFlightMax ?? 2,
    mayBeOne: () => settings.mayBeOne ?? true,
    run: async (items) => {
      ran.push(items);
      atOnce += 1;
      most = Math.max(most, atOnce);
      await new Promise<void>((resolve) => gates.push(resolve));
      atOnce -= 1;
      if (settings.fails?.(items)) throw new Error(`failed: ${items}`);
      return items.map((item) => item * 10);
    },
  });
  /** Lets everything that is in flight, and what comes after it, go on. */
  const go = async (until: Promise<unknown>) => {
    let isOver = false;
    const end = until.then(
      () => (isOver = true),
      () => (isOver = true),
    );
    while (!isOver) {
      for (const open of gates.splice(0)) open();
      await Promise.race([end, new Promise((resolve) => setImmediate(resolve))]);
    }
  };
  return { batches, ran, go, atOnceMax: () => most };
}

describe('what comes within a moment', () => {
  it('is done together, and each gets its own result', async () => {
    const { batches, ran, go } = collecting();
    const results = Promise.all([batches.add(1), batches.add(2)]);
    await go(results);
    expect(await results).toEqual([10, 20]);
    expect(ran).toEqual([[1, 2]]);
  });

  it('waits for company as long as the last had some, up to a bound: one alone hardly waits', async () => {
    jest.useFakeTimers({ doNotFake: ['setImmediate'] });
    try {
      const { batches, ran, go } = collecting({ max: 5, collectMs: 6, collectMsMax: 20 });
      const waits = async (items: number[], waitedMs: number) => {
        const results = Promise.all(items.map((item) => batches.add(item)));
        jest.advanceTimersByTime(waitedMs - 1);
        const before = ran.length;
        jest.advanceTimersByTime(1);
        expect([before + 1, ran.at(-1)]).toEqual([ran.length, items]);
        await go(results);
      };
      await waits([1, 2], 6);
      await waits([3, 4, 5, 6], 12);
      await waits([7], 20);
      await waits([8], 6);
    } finally {
      jest.useRealTimers();
    }
  });

  it('is done in parts no longer than allowed, no more of them at a time than allowed, in order', async () => {
    const { batches, ran, go } = collecting();
    const results = Promise.all(Array.from({ length: 11 }, (_, at) => batches.add(at)));
    expect(ran).toEqual([
      [0, 1, 2],
      [3, 4, 5],
    ]);
    await go(results);
    expect(ran.map((items) => items.length)).toEqual([3, 3, 3, 2]);
    expect(await results).toEqual(Array.from({ length: 11 }, (_, at) => at * 10));
  });

  it('is done one by one, and no more of them at a time than batches may be in flight', async () => {
    const { batches, ran, go, atOnceMax } = collecting({ max: 5, inFlightMax: 1, fails: (items) => items.length > 1 });
    const results = Promise.all([1, 2, 3, 4, 5].map((item) => batches.add(item)));
    await go(results);
    expect(ran).toEqual([[1, 2, 3, 4, 5], [1], [2], [3], [4], [5]]);
    expect([await results, atOnceMax()]).toEqual([[10, 20, 30, 40, 50], 1]);
  });

  it('is done one by one when one of it may be to blame: the others succeed', async () => {
    const { batches, ran, go } = collecting({ fails: (items) => items.includes(2) });
    const results = Promise.allSettled([1, 2, 3].map((item) => batches.add(item)));
    await go(results);
    expect(await results).toMatchObject([{ value: 10 }, { reason: { message: 'failed: 2' } }, { value: 30 }]);
    expect(ran).toEqual([[1, 2, 3], [1], [2], [3]]);
  });

  it('fails together when no single one can be to blame', async () => {
    const { batches, ran, go } = collecting({ fails: () => true, mayBeOne: false });
    const results = Promise.allSettled([1, 2].map((item) => batches.add(item)));
    await go(results);
    expect((await results).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(ran).toEqual([[1, 2]]);
  });
});
