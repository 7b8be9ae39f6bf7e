import { newId } from '../../src/core/ids.js';
import { comparePositions, ORIGIN } from '../../src/core/position.js';
import type { Match } from '../../src/core/revocations.js';
import type { FeedFrame, LockRecord, RevocationRecord } from '../../src/state/stores.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { OPENER, openWorld, type World } from './world.js';

describe.each(STORE_NAMES)('revocations, locks and the feed on %s', (name) => {
  let store: Store;
  let world: World;

  beforeAll(async () => {
    store = await STORES[name]();
  });
  afterAll(() => store.stop());
  beforeEach(async () => {
    world = await openWorld({ url: store.url });
  });
  afterEach(() => world.close());

  const revoke = (matches: Match[], lock?: LockRecord, id = newId('rev', 'a', world.clock.now())) =>
    world.ledger.revoke({
      revocation: { id, selector: { team: 'payments' }, reason: 'stop', by: 'alice', createdAtMs: world.clock.now() },
      matches,
      untilMs: world.clock.now() + 960_000,
      ...(lock && { lock }),
      nowMs: world.clock.now(),
      audit: world.audit('revocation.applied'),
    });
  const lockNamed = (more: Partial<LockRecord> = {}): LockRecord => ({
    id: newId('lck', 'a', world.clock.now()),
    selector: { team: 'payments' },
    reason: 'stop',
    by: 'alice',
    createdAtMs: world.clock.now(),
    ...more,
  });
  const lift = (lockId: string, by: string, secondPersonNeeded = true) =>
    world.ledger.liftLock({
      lockId,
      by,
      secondPersonNeeded,
      nowMs: world.clock.now(),
      audit: world.audit('lock.lifted'),
    });

  /** Takes frames until one satisfies `enough`. */
  const follow = async (from: string | undefined, enough: (frame: FeedFrame) => boolean): Promise<FeedFrame[]> => {
    const stop = new AbortController();
    const frames: FeedFrame[] = [];
    for await (const frame of world.feed.follow({ ...(from !== undefined && { from }), signal: stop.signal })) {
      frames.push(frame);
      if (enough(frame)) stop.abort();
    }
    return frames;
  };

  it('a revocation is applied once and has a position of its own', async () => {
    const id = newId('rev', 'a', world.clock.now());
    const before = await world.feed.head();
    const first = await revoke([{ client: 'x' }, { sel: ['h'] }], undefined, id);
    expect(first).toEqual({ outcome: 'applied', position: await world.feed.head() });
    expect(comparePositions(before, first.position)).toBeLessThan(0);
    expect(await revoke([{ client: 'x' }], undefined, id)).toEqual({ outcome: 'already', position: first.position });
    expect((await world.read()).fence).toBe(first.position);
    expect(await world.views.revocation(id)).toMatchObject({ id, position: first.position, cursor: '' });
    expect((await world.views.revocations({ limit: 5 })).items.map((one) => one.id)).toEqual([id]);
  });

  it('a revocation of credentials only moves the fence and tells verifiers nothing', async () => {
    const { position } = await revoke([]);
    expect((await world.read()).fence).toBe(position);
    await world.feed.reached(position, 1_000);
    const frames = await follow(undefined, (frame) => frame.kind === 'head');
    expect(frames.filter((frame) => frame.kind === 'entry' && frame.entry.pos === position)).toEqual([]);
  });

  it('progress moves from cursor to cursor, so two workers never count twice', async () => {
    const id = newId('rev', 'a', world.clock.now());
    await revoke([{ client: 'x' }], undefined, id);
    const hit = { leases: 500, credentials: 2, tasks: ['t1', 't2'], agents: ['a'], remains: {} };
    const advance = (fromCursor: string, cursor: string, done = false) =>
      world.ledger.advanceRevocation({ id, fromCursor, cursor, hit, done, nowMs: world.clock.now() });
    expect(await advance('', 'a')).toEqual({ outcome: 'advanced' });
    expect(await advance('', 'a')).toEqual({ outcome: 'moved_on' });
    expect(await advance('a', '', true)).toEqual({ outcome: 'advanced' });
    expect(await advance('', 'x')).toEqual({ outcome: 'moved_on' });
    expect(await world.views.revocation(id)).toMatchObject({
      found: { leases: 1_000, credentials: 4, tasks: 2, agents: 1 },
      done: true,
      finishedAtMs: world.clock.now(),
    });
    expect(
      await world.ledger.advanceRevocation({ id: 'none', fromCursor: '', cursor: '', hit, done: false, nowMs: 0 }),
    ).toEqual({
      outcome: 'not_found',
    });
  });

  it('what pages hit adds up; a task or an agent that several pages name counts once', async () => {
    const id = newId('rev', 'a', world.clock.now());
    await revoke([{ client: 'x' }], undefined, id);
    expect(await world.views.revocation(id)).not.toHaveProperty('found');
    const PAGES = 8;
    for (let page = 0; page < PAGES; page++) {
      const tasks = Array.from({ length: 100 }, (_, at) => `tsk_a_${page * 50 + at}`);
      const ends = 1_000 * ((page * 3) % PAGES);
      const hit = {
        leases: 400,
        credentials: page,
        tasks,
        agents: [`agent-${page % 3}`],
        remains: page > 1 ? { [`https://r${page % 2}.example`]: ends } : {},
      };
      const [fromCursor, cursor] = [page === 0 ? '' : String(page), String(page + 1)];
      await world.ledger.advanceRevocation({ id, fromCursor, cursor, hit, done: page === PAGES - 1, nowMs: 0 });
    }
    const { found, remains } = (await world.views.revocation(id)) as RevocationRecord;
    expect(found).toEqual({ leases: 3_200, credentials: 28, tasks: expect.any(Number), agents: 3 });
    // 450 different ones; they are counted in constant memory, to within a percent or so.
    expect(Math.abs((found?.tasks ?? 0) - 450)).toBeLessThan(10);
    expect(remains).toEqual({ 'https://r0.example': 6_000, 'https://r1.example': 7_000 });
  });

  it('a lock is read by every broker until it is lifted or expires', async () => {
    const short = lockNamed({ expiresAtMs: world.clock.now() + 1_000 });
    const long = lockNamed();
    await revoke([{ client: 'x' }], short);
    await revoke([{ client: 'x' }], long);
    expect((await world.read()).locks.map(({ id }) => id).sort()).toEqual([short.id, long.id].sort());
    expect(await world.views.lock(long.id)).toEqual(long);
    world.clock.pass(1_000);
    expect((await world.read()).locks).toEqual([long]);
    expect(await lift(short.id, 'alice')).toEqual({ outcome: 'not_found' });
    expect(await lift(long.id, 'alice', false)).toEqual({ outcome: 'lifted' });
    expect((await world.read()).locks).toEqual([]);
    expect(await world.views.locks(world.clock.now())).toEqual([]);
  });

  it('lifting a lock needs a second person within a quarter of an hour', async () => {
    const lock = lockNamed();
    await revoke([{ client: 'x' }], lock);
    expect(await lift(lock.id, 'alice')).toEqual({ outcome: 'requested' });
    expect(await lift(lock.id, 'alice')).toEqual({ outcome: 'requested' });
    world.clock.pass(15 * 60_000);
    expect(await lift(lock.id, 'bob')).toEqual({ outcome: 'requested' });
    expect(await lift(lock.id, 'bob')).toEqual({ outcome: 'requested' });
    expect(await lift(lock.id, 'alice')).toEqual({ outcome: 'lifted' });
    expect(await lift(lock.id, 'alice')).toEqual({ outcome: 'not_found' });
  });

  it('the own table kills what an entry names, as soon as it is reached', async () => {
    const task = await world.openTask();
    const lease = await world.tokenFor(task);
    const { position } = await revoke([{ client: lease.agent }]);
    await world.feed.reached(position, 1_000);
    const claims = {
      iss: 'i',
      sub: lease.agent,
      aud: 'a',
      client_id: lease.agent,
      iat: 1,
      exp: 2,
      jti: lease.id,
      scope: '',
      authorization_details: [],
      mayfly: { cell: 'a', path: lease.path, pos: lease.position, sel: [], bundle: lease.bundle },
    };
    expect(world.feed.table().find(claims as never, 'k')).toMatchObject({ pos: position });
    expect(
      world.feed.table().find({ ...claims, mayfly: { ...claims.mayfly, pos: position } } as never, 'k'),
    ).toBeUndefined();
  });

  it('waiting for a position that never comes ends in `unavailable`', async () => {
    const [epoch] = world.feed.position().split('-');
    await expect(world.feed.reached(`${epoch}-999999999999999-0`, 20)).rejects.toMatchObject({ code: 'unavailable' });
  });

  it('a new reader gets a reset, the whole feed and the head, then deltas as they come', async () => {
    const first = await revoke([{ client: 'one' }]);
    const frames: FeedFrame[] = [];
    const stop = new AbortController();
    let second: { position: string } | undefined;
    for await (const frame of world.feed.follow({ signal: stop.signal })) {
      frames.push(frame);
      if (frame.kind === 'head' && !second) second = await revoke([{ client: 'two' }]);
      if (frame.kind === 'head' && frame.position === second?.position) stop.abort();
    }
    expect(frames[0]).toEqual({ kind: 'reset' });
    const entries = frames.flatMap((frame) => (frame.kind === 'entry' ? [frame.entry] : []));
    expect(entries.map(({ match }) => match)).toEqual([{ all: true }, { client: 'one' }, { client: 'two' }]);
    expect(entries.map(({ pos }) => pos).slice(1)).toEqual([first.position, second?.position]);
    const heads = frames.flatMap((frame) => (frame.kind === 'head' ? [frame.position] : []));
    expect([...heads].sort(comparePositions)).toEqual(heads);
  });

  it('a reader that comes back gets what it missed, and no reset', async () => {
    const { position } = await revoke([{ client: 'one' }]);
    await revoke([{ client: 'two' }]);
    const frames = await follow(position, (frame) => frame.kind === 'head');
    expect(frames.map((frame) => (frame.kind === 'entry' ? frame.entry.match : frame.kind))).toEqual([
      { client: 'two' },
      'head',
    ]);
  });

  it('a reader ahead of the head or of another epoch begins again', async () => {
    const [epoch, ms] = (await world.feed.head()).split('-');
    for (const from of [`${epoch}-${Number(ms) + 60_000}-0`, `${Number(epoch) - 1}-${ms}-0`, ORIGIN]) {
      const frames = await follow(from, (frame) => frame.kind === 'head');
      expect(frames[0]).toEqual({ kind: 'reset' });
    }
  });

  it('readers are known by what they acknowledged, for an hour', async () => {
    const position = await world.feed.head();
    await world.feed.acknowledge(
      'spiffe://dev.mayfly/tool/orders',
      ['https://orders.example'],
      position,
      world.clock.now(),
    );
    expect(await world.feed.readers()).toEqual([
      {
        name: 'spiffe://dev.mayfly/tool/orders',
        resources: ['https://orders.example'],
        position,
        acknowledgedAtMs: world.clock.now(),
      },
    ]);
    world.clock.pass(3_600_001);
    expect(await world.feed.readers()).toEqual([]);
  });

  it('a tainted key is told for ever', async () => {
    const save = (fromVersion: number, taintedKid?: string) =>
      world.ledger.saveKeyRing({
        ring: { keys: ['secret'] },
        fromVersion,
        ...(taintedKid && { taintedKid }),
        nowMs: world.clock.now(),
        audit: world.audit('key.moved'),
      });
    expect(await save(0)).toEqual({ outcome: 'saved', version: 1 });
    expect(await save(0)).toEqual({ outcome: 'moved_on', version: 1 });
    expect(await save(1, 'key-1')).toEqual({ outcome: 'saved', version: 2 });
    expect(await world.views.keyRing()).toEqual({ ring: { keys: ['secret'] }, version: 2 });
    const frames = await follow(undefined, (frame) => frame.kind === 'head');
    expect(frames).toContainEqual({
      kind: 'entry',
      entry: { pos: await world.feed.head(), untilMs: null, match: { key: 'key-1' } },
    });
  });

  it('a bundle is activated once; again only when somebody says so', async () => {
    const activate = (digest: string, again = false) =>
      world.ledger.activateBundle({
        digest,
        files: { name: digest },
        again,
        nowMs: world.clock.now(),
        audit: world.audit('bundle.activated'),
      });
    expect(await activate('sha256:one')).toEqual({ outcome: 'already', active: 'sha256:one' });
    world.clock.pass(1);
    expect(await activate('sha256:two')).toMatchObject({
      outcome: 'activated',
      active: 'sha256:two',
      position: await world.feed.head(),
    });
    expect(await activate('sha256:one')).toEqual({ outcome: 'seen', active: 'sha256:two' });
    expect(await world.views.activeBundle()).toEqual({ digest: 'sha256:two', files: { name: 'sha256:two' } });
    expect(await activate('sha256:one', true)).toMatchObject({ outcome: 'activated', active: 'sha256:one' });
    expect((await world.views.bundles()).map(({ digest, active }) => [digest, active])).toEqual([
      ['sha256:two', false],
      ['sha256:one', true],
    ]);
    expect(await world.views.bundleFiles('sha256:none')).toBeUndefined();
  });

  it('two brokers are one: what one revokes the other knows', async () => {
    const cell = (await world.openTask()).id.split('_')[1] as string;
    const other = await openWorld({ url: store.url, cell, clock: world.clock });
    const task = await other.openTask();
    expect(await world.views.task(task.id)).toEqual(task);
    expect(await world.mint(task)).toEqual({ outcome: 'committed' });
    const reply = await other.ledger.endTask({
      taskId: task.id,
      state: 'failed',
      reason: '',
      by: OPENER,
      nowMs: other.clock.now(),
      audit: other.audit('task.ended'),
    });
    await world.feed.reached((reply as { position: string }).position, 1_000);
    expect(await world.mint(task).catch((error: Error) => error)).toMatchObject({ outcome: 'over' });
    await other.close();
  });
});
