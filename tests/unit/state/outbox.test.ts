import { jest } from '@jest/globals';
import { Outbox } from '../../../src/state/outbox.js';

const WAIT_MS_EACH = 10;
const WAIT_MS_MAX = 25;
/** After a piece of two. */
const WAIT_MS = 20;
const UNHEARD_MS_MAX = 1_000;

/** An outbox whose pieces are under way until they are told to have come or not. */
function held({ together = 3, waitingMax = 100 } = {}) {
  const sent: string[][] = [];
  const ends: { come(): void; fail(): void }[] = [];
  const outbox = new Outbox<string>({
    together,
    waitMsEach: WAIT_MS_EACH,
    waitMsMax: WAIT_MS_MAX,
    unheardMsMax: UNHEARD_MS_MAX,
    waitingMax,
    send: (items) => {
      sent.push(items);
      return new Promise<void>((resolve, reject) => {
        ends.push({ come: resolve, fail: () => reject(new Error('lost')) });
      });
    },
  });
  return { outbox, sent, last: () => ends.at(-1) };
}

const pass = (ms: number) => jest.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

it('the first is sent at once and alone; what comes while it is under way goes together, in order', async () => {
  const { outbox, sent, last } = held();
  for (const item of ['a', 'b', 'c']) outbox.add(item);
  await pass(2 * WAIT_MS);
  expect(sent).toEqual([['a']]);
  last()?.come();
  await pass(0);
  expect(sent).toEqual([['a'], ['b', 'c']]);
});

it('what comes one after the other, each when the last has come, never waits', async () => {
  const { outbox, sent, last } = held();
  for (const item of ['a', 'b', 'c']) {
    outbox.add(item);
    last()?.come();
    await pass(0);
  }
  expect(sent).toEqual([['a'], ['b'], ['c']]);
});

it('what comes within a moment of a piece that had company waits for the moment to pass', async () => {
  const { outbox, sent, last } = held();
  for (const item of ['a', 'b', 'c']) outbox.add(item);
  last()?.come();
  await pass(0);
  last()?.come();
  outbox.add('d');
  await pass(WAIT_MS - 1);
  outbox.add('e');
  expect(sent).toEqual([['a'], ['b', 'c']]);
  await pass(1);
  expect(sent).toEqual([['a'], ['b', 'c'], ['d', 'e']]);
});

it('the more a piece had, the longer the next one waits, up to a bound', async () => {
  const { outbox, sent, last } = held({ together: 4 });
  for (const item of ['a', 'b', 'c', 'd', 'e']) outbox.add(item);
  last()?.come();
  await pass(0);
  last()?.come();
  outbox.add('f');
  await pass(WAIT_MS_MAX - 1);
  expect(sent).toEqual([['a'], ['b', 'c', 'd', 'e']]);
  await pass(1);
  expect(sent.at(-1)).toEqual(['f']);
});

it('when more wait than one piece holds, the next leaves as soon as the last has come', async () => {
  const { outbox, sent, last } = held();
  for (const item of ['a', 'b', 'c', 'd', 'e']) outbox.add(item);
  last()?.come();
  await pass(WAIT_MS);
  expect(sent.at(-1)).toEqual(['b', 'c', 'd']);
  last()?.come();
  await pass(0);
  expect(sent.at(-1)).toEqual(['e']);
});

it('what could not be sent is dropped, and keeps nothing after it back', async () => {
  const { outbox, sent, last } = held();
  outbox.add('a');
  outbox.add('b');
  last()?.fail();
  await pass(WAIT_MS);
  expect(sent).toEqual([['a'], ['b']]);
});

it('a piece that nothing is ever heard of keeps what comes after it back for a while, and no longer', async () => {
  const { outbox, sent } = held();
  outbox.add('a');
  outbox.add('b');
  await pass(UNHEARD_MS_MAX - 1);
  expect(sent).toEqual([['a']]);
  await pass(1);
  expect(sent).toEqual([['a'], ['b']]);
});

it('no more wait than may, and none after it was dropped', async () => {
  const { outbox, sent, last } = held({ waitingMax: 2 });
  for (const item of ['a', 'b', 'c', 'd']) outbox.add(item);
  last()?.come();
  await pass(WAIT_MS);
  expect(sent).toEqual([['a'], ['b', 'c']]);
  outbox.add('e');
  outbox.drop();
  last()?.come();
  await pass(WAIT_MS);
  expect(sent).toEqual([['a'], ['b', 'c']]);
});
