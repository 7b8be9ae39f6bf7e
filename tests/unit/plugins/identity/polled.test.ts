import { type BundleContent, readSpiffeBundle } from '../../../../src/plugins/identity/bundle-document.js';
import { polledSource } from '../../../../src/plugins/identity/sources/polled.js';
import { handTimer } from './hand-timer.js';

const content = (hintSeconds?: number): BundleContent =>
  readSpiffeBundle(
    JSON.stringify(hintSeconds === undefined ? { keys: [] } : { keys: [], spiffe_refresh_hint: hintSeconds }),
  );

async function started(looks: (() => BundleContent)[], intervalMs = 300_000) {
  const timer = handTimer();
  const told: string[] = [];
  let looked = 0;
  const source = polledSource({
    description: 'test',
    async look() {
      const next = looks[Math.min(looked, looks.length - 1)] as () => BundleContent;
      looked += 1;
      return next();
    },
    setTimer: timer.setTimer,
    intervalMs,
  });
  await source.start({ deliver: () => told.push('delivered'), fail: (problem) => told.push(problem) });
  return { source, timer, told, looked: () => looked };
}

const down = () => {
  throw new Error('down');
};

it('looks again after the hint', async () => {
  const { timer, told } = await started([() => content(60)]);
  expect(told).toEqual(['delivered']);
  expect(timer.delays()).toEqual([60_000]);
});

it('looks again after the usual interval when there is no hint', async () => {
  expect((await started([() => content()])).timer.delays()).toEqual([300_000]);
});

it.each([
  [0, 1_000],
  [1, 1_000],
  [100_000, 3_600_000],
])('a hint of %i s is kept within bounds', async (hint, delayMs) => {
  expect((await started([() => content(hint)])).timer.delays()).toEqual([delayMs]);
});

it('after a failure it comes back sooner, waits twice as long each time, and never longer than the interval', async () => {
  const { source, timer, told } = await started([down], 60_000);
  const delays: (number | undefined)[] = [timer.delays()[0]];
  for (let time = 0; time < 5; time += 1) {
    timer.fireNext();
    await source.refresh();
    delays.push(timer.delays()[0]);
  }
  expect(delays).toEqual([5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
  expect(new Set(told)).toEqual(new Set(['down']));
});

it('a success ends the back-off', async () => {
  const { source, timer, told } = await started([down, down, () => content(120)]);
  await source.refresh();
  await source.refresh();
  expect(told).toEqual(['down', 'down', 'delivered']);
  expect(timer.delays()).toEqual([120_000]);
});

it('two looks at once are one', async () => {
  const { source, looked } = await started([() => content(60)]);
  await Promise.all([source.refresh(), source.refresh(), source.refresh()]);
  expect(looked()).toBe(2);
});

it('after close nothing is told and nothing waits', async () => {
  const { source, timer, told } = await started([() => content(60)]);
  const late = source.refresh();
  await source.close();
  await late;
  expect(told).toEqual(['delivered']);
  expect(timer.delays()).toEqual([]);
});
