import { openFakeDoor } from '../../fakes/door.js';
import { knockAt } from '../../fakes/knock.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

it('locks are listed newest first, in whichever order the store has them', async () => {
  const clock = new VirtualClock(Date.now());
  const door = await openFakeDoor({ clock });
  try {
    const operator = await knockAt(door).operator('operator-1');
    const set: string[] = [];
    for (const reason of ['a', 'b', 'c']) {
      const made = await operator('POST', '/v1/locks', { selector: { tool: 'orders.refund' }, reason });
      set.push(made.body.lock.id);
      clock.advance(1_000);
    }
    const { body } = await operator('GET', '/v1/locks');
    expect(body.items.map(({ id }: { id: string }) => id)).toEqual(set.reverse());
  } finally {
    await door.close();
  }
});
