import { Hands } from '../../../src/state/hands.js';
import type { Job } from '../../../src/state/stores.js';

const drain = (id: string): Job => ({ name: 'drain-task', id });

/** Hands whose work goes on until it is let go. */
function held(max: number, waitingMax = 100) {
  const begun: string[] = [];
  const letGo = new Map<string, () => void>();
  const hands = new Hands(max, waitingMax, ({ id }) => {
    begun.push(id);
    return new Promise((resolve) => letGo.set(id, resolve));
  });
  return { hands, begun, letGo: (id: string) => letGo.get(id)?.() };
}

const turns = () => new Promise((resolve) => setImmediate(resolve));

it('never does more at a time than it has hands, and takes the others in order', async () => {
  const { hands, begun, letGo } = held(2);
  const all = ['a', 'b', 'c', 'd'].map((id) => hands.give(drain(id)));
  expect(begun).toEqual(['a', 'b']);
  letGo('b');
  await all[1];
  await turns();
  expect(begun).toEqual(['a', 'b', 'c']);
  for (const id of ['a', 'c']) letGo(id);
  await turns();
  letGo('d');
  await Promise.all(all);
});

it('does not take twice what waits already, but tells the same names of different work apart', async () => {
  const { hands, begun, letGo } = held(1);
  const first = hands.give(drain('a'));
  const others = [hands.give(drain('b')), hands.give(drain('b')), hands.give({ name: 'watch-task', id: 'b' })];
  await others[1];
  letGo('a');
  await first;
  for (let turn = 0; turn < 2; turn++) {
    letGo('b');
    await turns();
  }
  await Promise.all(others);
  expect(begun).toEqual(['a', 'b', 'b']);
});

it('what comes when too many wait is not taken, and keeps nobody waiting', async () => {
  const { hands, begun } = held(1, 2);
  for (const id of ['a', 'b', 'c']) void hands.give(drain(id));
  await hands.give(drain('d'));
  expect(begun).toEqual(['a']);
});

it('when it drops its work, whoever waited for it is let go', async () => {
  const { hands, begun, letGo } = held(1);
  const all = ['a', 'b'].map((id) => hands.give(drain(id)));
  hands.drop();
  await all[1];
  letGo('a');
  await Promise.all(all);
  expect(begun).toEqual(['a']);
});
