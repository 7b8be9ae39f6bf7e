import { setTimeout as delay } from 'node:timers/promises';
import { newId } from '../../src/core/ids.js';
import { isBefore } from '../../src/core/position.js';
import type { FeedFrame } from '../../src/state/stores.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { openWorld, type World } from './world.js';

describe.each(STORE_NAMES)('a feed that grows, on %s', (name) => {
  let store: Store;
  let world: World;

  beforeAll(async () => {
    store = await STORES[name]();
  });
  afterAll(() => store.stop());
  afterEach(() => world.close());

  const revoke = async (client: string, untilMs: number) => {
    const { position } = await world.ledger.revoke({
      revocation: {
        id: newId('rev', 'a', world.clock.now()),
        selector: { agent: client },
        reason: '',
        by: 'x',
        createdAtMs: world.clock.now(),
      },
      matches: [{ client }],
      untilMs,
      nowMs: world.clock.now(),
      audit: world.audit('revocation.applied'),
    });
    await world.feed.reached(position, 1_000);
    return position;
  };
  const snapshot = async (of: World): Promise<FeedFrame[]> => {
    const stop = new AbortController();
    const frames: FeedFrame[] = [];
    for await (const frame of of.feed.follow({ signal: stop.signal })) {
      frames.push(frame);
      if (frame.kind === 'head') stop.abort();
    }
    return frames;
  };
  const matches = (frames: FeedFrame[]) =>
    frames.flatMap((frame) => (frame.kind === 'entry' ? [JSON.stringify(frame.entry.match)] : []));
  /** Waits until the worker has dropped an entry: until a broker that begins now does not know it. */
  const trimmed = async (client: string) => {
    const deadline = performance.now() + 10_000;
    for (;;) {
      const other = await stranger();
      const seen = matches(await snapshot(other));
      await other.close();
      if (!seen.includes(`{"client":"${client}"}`)) return;
      if (performance.now() > deadline) throw new Error(`the entry for ${client} is still there`);
      await delay(100);
    }
  };
  /** A second broker, which knows only what Redis has. */
  const stranger = () => openWorld({ url: store.url, cell: cellOf(world), clock: world.clock, role: 'api' });

  it('keeps an entry until nothing it can kill is left, and not longer', async () => {
    world = await openWorld({ url: store.url, role: 'worker' });
    await revoke('short', world.clock.now() + 1_000);
    await revoke('long', world.clock.now() + 3_600_000);
    world.clock.pass(999_000);
    await trimmed('short');
    const other = await stranger();
    const seen = matches(await snapshot(other));
    expect(seen).toContain('{"client":"long"}');
    expect(seen).not.toContain('{"client":"short"}');
    await other.close();
  });

  it('turns its oldest quarter into one cut-off: fewer entries, nothing un-revoked, keys stay', async () => {
    world = await openWorld({ url: store.url, role: 'worker', limits: { feedEntriesMax: 20 } });
    await world.ledger.saveKeyRing({
      ring: {},
      fromVersion: 0,
      taintedKid: 'bad',
      nowMs: world.clock.now(),
      audit: world.audit('key.moved'),
    });
    const task = await world.openTask();
    const old = await world.tokenFor(task);
    await world.mint(task);
    const places: string[] = [];
    for (let at = 0; at < 24; at++) places.push(await revoke(`client-${at}`, world.clock.now() + 3_600_000));
    const fresh = await world.tokenFor(task);
    await trimmed('client-0');

    const other = await stranger();
    for (const broker of [world, other]) {
      const frames = await snapshot(broker);
      const seen = matches(frames);
      expect(seen).toContain('{"key":"bad"}');
      expect(seen).not.toContain('{"client":"client-0"}');
      expect(seen).toContain('{"client":"client-23"}');
      expect(seen.length).toBeLessThan(24);
      const claimsOf = (position: string) =>
        ({
          iss: 'i',
          sub: 'nobody',
          aud: 'a',
          client_id: 'nobody',
          iat: 1,
          exp: 2,
          jti: old.id,
          scope: '',
          authorization_details: [],
          mayfly: { cell: 'a', path: [task.id], pos: position, sel: [], bundle: 'b' },
        }) as never;
      // What the dropped entries killed is dead, and so is everything as old: it is minted again.
      expect(broker.feed.table().find(claimsOf(old.position), 'k')).toBeDefined();
      expect(broker.feed.table().find(claimsOf(fresh.position), 'k')).toBeUndefined();
      const head = frames.at(-1) as { position: string };
      expect(isBefore(fresh.position, head.position)).toBe(true);
      expect(head.position).toBe(await broker.feed.head());
    }
    expect((await world.read()).fence).toBe(await world.feed.head());
    await other.close();
  });
});

function cellOf(world: World): string {
  return world.audit('request.refused').id.split('_')[1] as string;
}
