import { Outbox } from '../../../src/state/outbox.js';

/** An outbox whose pieces are under way until they are told to have come or not. */
function held({ together = 3, waitingMax = 100 } = {}) {
  const sent: string[][] = [];
  const ends: { come(): void; fail(): void }[] = [];
  const outbox = new Outbox<string>({
    together,
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

const turns = () => new Promise((resolve) => setImmediate(resolve));

it('the first is sent at once and alone; what comes meanwhile goes together, in order', async () => {
  const { outbox, sent, last } = held();
  for (const item of ['a', 'b', 'c', 'd', 'e']) outbox.add(item);
  expect(sent).toEqual([['a']]);
  last()?.come();
  await turns();
  expect(sent).toEqual([['a'], ['b', 'c', 'd']]);
  last()?.come();
  await turns();
  last()?.come();
  await turns();
  expect(sent).toEqual([['a'], ['b', 'c', 'd'], ['e']]);
  outbox.add('f');
  expect(sent.at(-1)).toEqual(['f']);
});

it('what could not be sent is dropped, and keeps nothing after it back', async () => {
  const { outbox, sent, last } = held();
  outbox.add('a');
  outbox.add('b');
  last()?.fail();
  await turns();
  expect(sent).toEqual([['a'], ['b']]);
});

it('no more wait than may, and none after it was dropped', async () => {
  const { outbox, sent, last } = held({ waitingMax: 2 });
  for (const item of ['a', 'b', 'c', 'd']) outbox.add(item);
  last()?.come();
  await turns();
  expect(sent).toEqual([['a'], ['b', 'c']]);
  outbox.add('e');
  outbox.drop();
  last()?.come();
  await turns();
  expect(sent).toEqual([['a'], ['b', 'c']]);
});
