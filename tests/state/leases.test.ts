import { newId } from '../../src/core/ids.js';
import { deadBecause, type LeaseRecord } from '../../src/core/lease.js';
import { isBefore } from '../../src/core/position.js';
import type { TaskRecord } from '../../src/core/task.js';
import { STORE_NAMES, STORES, type Store } from './servers.js';
import { AGENT, OPENER, openWorld, QUOTAS, type World } from './world.js';

describe.each(STORE_NAMES)('leases on %s', (name) => {
  let store: Store;
  let world: World;
  let task: TaskRecord;

  beforeAll(async () => {
    store = await STORES[name]();
  });
  afterAll(() => store.stop());
  beforeEach(async () => {
    world = await openWorld({ url: store.url });
    task = await world.openTask();
  });
  afterEach(() => world.close());

  const commit = (lease: LeaseRecord, over: { quotas?: typeof QUOTAS; bundle?: string } = {}) =>
    world.ledger.commitLease({
      lease,
      basis: { position: lease.position, bundle: over.bundle ?? lease.bundle, generations: lease.generations },
      quotas: over.quotas ?? QUOTAS,
      nowMs: world.clock.now(),
      audit: world.audit('token.minted', { lease: lease.id }),
    });
  const intend = (lease: LeaseRecord, quotas = QUOTAS) =>
    world.ledger.openIntent({
      lease,
      intentDeadlineMs: world.clock.now() + 3_000,
      basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
      quotas,
      nowMs: world.clock.now(),
      audit: world.audit('credential.intended', { lease: lease.id }),
    });
  const credential = (more: Partial<LeaseRecord> = {}) =>
    world.tokenFor(task, {
      kind: 'credential',
      secret: 'orders-db',
      backend: 'pg',
      expiresAtMs: world.clock.now() + 60_000,
      ...more,
    });
  const issued = async (more: Partial<LeaseRecord> = {}) => {
    const lease = await credential(more);
    expect(await intend(lease)).toEqual({ outcome: 'committed' });
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    return lease;
  };
  const revoke = (
    leaseIds: string[],
    more: { announce?: boolean; verdict?: { taskId: string; generation: number; bundle: string } } = {},
  ) =>
    world.ledger.revokeLeases({
      leaseIds,
      reason: 'why | not',
      ...more,
      nowMs: world.clock.now(),
      audit: world.audit('leases.revoked'),
    });
  const suspend = () =>
    world.ledger.suspendTask({
      taskId: task.id,
      reason: '',
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.suspended'),
    });
  const end = (taskId = task.id) =>
    world.ledger.endTask({
      taskId,
      state: 'completed',
      reason: '',
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.ended'),
    });

  it('a committed token lease reads back whole', async () => {
    const lease = await world.tokenFor(task, {
      actors: ['spiffe://dev.mayfly/agent/desk'],
      onBehalfOf: 'https://people.example#alice',
      proof: 'jwt-svid',
      binding: 'dpop',
      generations: [1],
    });
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    expect(await world.views.lease(lease.id)).toEqual(lease);
    expect((await world.read(task.id, [lease.id])).leases).toEqual([lease]);
    expect((await world.views.leaseWithAbove(lease.id))?.tasks.map(({ id }) => id)).toEqual([task.id]);
    expect((await world.views.task(task.id))?.liveUntilMs).toBe(lease.expiresAtMs);
  });

  it('a broker that never saw the profile reads the same', async () => {
    const lease = await world.tokenFor(task);
    await commit(lease);
    const other = await openWorld({ url: store.url, cell: task.id.split('_')[1] as string, clock: world.clock });
    expect(await other.views.lease(lease.id)).toEqual(lease);
    await other.close();
  });

  it('the same commit again changes nothing, and another lease under its id is refused loudly', async () => {
    const lease = await world.tokenFor(task);
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    expect((await world.views.leases({ task: task.id, limit: 10 })).items).toHaveLength(1);
    await expect(commit({ ...lease, expiresAtMs: lease.expiresAtMs + 1 })).rejects.toMatchObject({ code: 'internal' });
    await revoke([lease.id]);
    expect(await commit(lease)).toEqual({ outcome: 'not_live', by: lease.id });
  });

  it('nothing is committed below an ended, suspended, expired or unknown task', async () => {
    const lease = await world.tokenFor(task);
    await suspend();
    expect(await commit(lease)).toEqual({ outcome: 'suspended', by: task.id });
    await end();
    expect(await commit(lease)).toEqual({ outcome: 'over', by: task.id });
    const missing = newId('tsk', 'a', world.clock.now());
    expect(await commit({ ...lease, taskId: missing, path: [missing] })).toEqual({ outcome: 'not_found', by: missing });
    const short = await world.openTask({ deadlineMs: world.clock.now() + 1_000 });
    const late = await world.tokenFor(short);
    world.clock.pass(1_000);
    expect(await commit(late)).toEqual({ outcome: 'over', by: short.id });
    expect(await world.views.lease(lease.id)).toBeUndefined();
  });

  it('the end of an ancestor refuses at once whatever hangs below', async () => {
    const child = await world.openTask({ path: task.path });
    const grandchild = await world.openTask({ path: child.path });
    const lease = await world.tokenFor(grandchild);
    expect(lease.generations).toEqual([1, 1, 1]);
    await end();
    expect(await commit(lease)).toEqual({ outcome: 'over', by: task.id });
  });

  it('a context change between read and commit makes it stale, on an ancestor too', async () => {
    const child = await world.openTask({ path: task.path });
    const lease = await world.tokenFor(child);
    await world.ledger.changeContext({
      taskId: task.id,
      generation: 1,
      context: {},
      revoke: false,
      judgeWithinMs: 1,
      nowMs: world.clock.now(),
      audit: world.audit('task.context_changed'),
    });
    expect(await commit(lease)).toEqual({ outcome: 'stale', because: 'generation' });
  });

  it('a stop between read and commit makes it stale: the fence', async () => {
    const lease = await world.tokenFor(task);
    const stop = await world.ledger.revoke({
      revocation: {
        id: newId('rev', 'a', world.clock.now()),
        selector: { team: 'other' },
        reason: '',
        by: 'x',
        createdAtMs: world.clock.now(),
      },
      matches: [{ tool: 'nothing' }],
      untilMs: world.clock.now(),
      nowMs: world.clock.now(),
      audit: world.audit('revocation.applied'),
    });
    expect(isBefore(lease.position, stop.position)).toBe(true);
    expect(await commit(lease)).toEqual({ outcome: 'stale', because: 'fence' });
    expect(await commit({ ...lease, position: stop.position })).toEqual({ outcome: 'committed' });
  });

  it('a lease of another epoch or bundle is stale', async () => {
    const lease = await world.tokenFor(task);
    const [, ms, seq] = lease.position.split('-');
    expect(await commit({ ...lease, position: `1-${ms}-${seq}` })).toEqual({ outcome: 'stale', because: 'epoch' });
    expect(await commit(lease, { bundle: 'sha256:other' })).toEqual({ outcome: 'stale', because: 'bundle' });
  });

  it('a token below a token needs its parent alive and not past its end', async () => {
    const parent = await world.tokenFor(task, { expiresAtMs: world.clock.now() + 10_000 });
    await commit(parent);
    const below = () => world.tokenFor(task, { path: [task.id, parent.id], expiresAtMs: world.clock.now() + 5_000 });
    const child = await below();
    expect(await commit(child)).toEqual({ outcome: 'committed' });
    const found = await world.views.leaseWithAbove(child.id);
    expect(found?.leases.map(({ id }) => id)).toEqual([parent.id]);
    const second = await below();
    await revoke([parent.id]);
    expect(await commit(second)).toEqual({ outcome: 'not_live', by: parent.id });
    const now = await world.views.leaseWithAbove(child.id);
    expect(now && deadBecause(now.lease, { ...now, revoked: false }, world.clock.now())).toBe('lease-above');

    const other = await world.tokenFor(task, { expiresAtMs: world.clock.now() + 1_000 });
    await commit(other);
    const late = await world.tokenFor(task, { path: [task.id, other.id], expiresAtMs: world.clock.now() + 5_000 });
    world.clock.pass(1_000);
    expect(await commit(late)).toEqual({ outcome: 'parent_expired', by: other.id });
    const missing = newId('lse', 'a', world.clock.now());
    expect(await commit({ ...late, path: [task.id, missing] })).toEqual({ outcome: 'not_found', by: missing });
  });

  it('quotas count live leases of the task, the agent and the tree, and free what is dead', async () => {
    const quotas = { leasesPerTask: 2, leasesPerAgent: 3, perTree: 6 };
    const first = await world.tokenFor(task, { expiresAtMs: world.clock.now() + 30_000 });
    expect(await commit(first, { quotas })).toEqual({ outcome: 'committed' });
    expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'committed' });
    expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'quota', by: 'task' });
    const child = await world.openTask({ path: task.path });
    expect(await world.mint(child, {}, quotas)).toEqual({ outcome: 'committed' });
    expect(await world.mint(child, {}, quotas)).toEqual({ outcome: 'quota', by: 'agent' });
    expect(await world.mint(child, { agent: 'spiffe://dev.mayfly/agent/b' }, quotas)).toEqual({ outcome: 'committed' });
    // The tree: two tasks, four leases.
    expect(await world.mint(child, { agent: 'spiffe://dev.mayfly/agent/c' }, { ...quotas, leasesPerTask: 9 })).toEqual({
      outcome: 'quota',
      by: 'tree',
    });
    await revoke([first.id]);
    expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'committed' });
    expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'quota', by: 'task' });
    world.clock.pass(316_000);
    expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'committed' });
    expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'committed' });
  });

  it('a task that was always busy still counts only what lives', async () => {
    const quotas = { leasesPerTask: 20, leasesPerAgent: 20, perTree: 21 };
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < 20; at++) expect(await world.mint(task, {}, quotas)).toEqual({ outcome: 'committed' });
      expect(await world.mint(task, {}, quotas)).toMatchObject({ outcome: 'quota' });
      expect((await world.views.leases({ task: task.id, limit: 500 })).items).toHaveLength(20);
      world.clock.pass(330_000);
    }
  });

  it('a credential is pending before it is active, and active only before its deadline', async () => {
    const lease = await credential();
    expect(await commit(lease)).toEqual({ outcome: 'not_found', by: lease.id });
    expect(await intend(lease)).toEqual({ outcome: 'committed' });
    expect(await intend(lease)).toEqual({ outcome: 'committed' });
    expect(await world.views.lease(lease.id)).toEqual({ ...lease, state: 'pending' });
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    expect(await intend(lease)).toEqual({ outcome: 'not_live', by: lease.id });
    expect(await world.views.lease(lease.id)).toEqual(lease);
    const slow = await credential();
    await intend(slow);
    world.clock.pass(3_000);
    expect(await commit(slow)).toEqual({ outcome: 'too_late', by: slow.id });
  });

  it('a credential whose task ended while it was issued is not committed', async () => {
    const lease = await credential();
    await intend(lease);
    await end();
    expect(await commit(lease)).toEqual({ outcome: 'over', by: task.id });
    expect((await revoke([lease.id])).revoked).toEqual([lease.id]);
    expect(await commit(lease)).toEqual({ outcome: 'not_live', by: lease.id });
  });

  it('a renewal keeps the position and is refused past a cut', async () => {
    const lease = await issued();
    const renew = async () =>
      world.ledger.renewLease({
        leaseId: lease.id,
        expiresAtMs: world.clock.now() + 120_000,
        basis: await world.basis(task.id),
        nowMs: world.clock.now(),
        audit: world.audit('credential.renewed'),
      });
    expect(await renew()).toEqual({ outcome: 'committed' });
    expect(await world.views.lease(lease.id)).toEqual({ ...lease, expiresAtMs: world.clock.now() + 120_000 });
    await suspend();
    await world.ledger.resumeTask({
      taskId: task.id,
      by: OPENER,
      nowMs: world.clock.now(),
      audit: world.audit('task.resumed'),
    });
    expect(await renew()).toEqual({ outcome: 'not_live', by: lease.id });
  });

  it('a credential being revoked is closed by the attempt that was begun, and by no other', async () => {
    const lease = await issued();
    const close = (attempt: number, state: 'revoked' | 'revoking' | 'abandoned') =>
      world.ledger.closeAttempt({
        leaseId: lease.id,
        attempt,
        result:
          state === 'revoking'
            ? { state, problem: 'backend is down', nextAttemptMs: world.clock.now() + 1_000 }
            : state === 'abandoned'
              ? { state, by: 'op', reason: 'gone for good' }
              : { state },
        nowMs: world.clock.now(),
        audit: world.audit('credential.revoked'),
      });
    expect(await close(0, 'revoked')).toEqual({ outcome: 'fenced' });
    expect((await revoke([lease.id])).revoked).toEqual([lease.id]);
    expect(await world.views.lease(lease.id)).toMatchObject({
      state: 'revoking',
      attempts: 0,
      revokedReason: 'why | not',
    });
    expect(await close(0, 'revoking')).toEqual({ outcome: 'closed' });
    expect(await close(0, 'revoked')).toEqual({ outcome: 'fenced' });
    expect(await world.views.lease(lease.id)).toMatchObject({
      state: 'revoking',
      attempts: 1,
      lastProblem: 'backend is down',
    });
    expect(await close(1, 'revoked')).toEqual({ outcome: 'closed' });
    expect(await close(2, 'revoked')).toEqual({ outcome: 'fenced' });
    const closed = await world.views.lease(lease.id);
    expect(closed).toMatchObject({ state: 'revoked', revokedAtMs: world.clock.now() });
    expect(closed).not.toHaveProperty('nextAttemptMs');
    expect((await world.views.leases({ task: task.id, limit: 10 })).items).toEqual([]);
    expect((await world.views.leases({ limit: 10 })).items).toEqual([]);
  });

  it('credentials are counted by backend and state until they are closed', async () => {
    expect(await world.views.credentialCounts()).toEqual([]);
    const [first, second] = [await issued(), await issued()];
    await issued({ backend: 'vault' });
    await intend(await credential());
    await revoke([first.id, second.id]);
    for (let attempt = 0; attempt < 6; attempt++) {
      await world.ledger.closeAttempt({
        leaseId: first.id,
        attempt,
        result: { state: 'revoking', problem: 'down', nextAttemptMs: world.clock.now() },
        nowMs: world.clock.now(),
        audit: world.audit('credential.revoking'),
      });
    }
    const counts = () =>
      world.views
        .credentialCounts()
        .then((all) => all.map((of) => `${of.backend} ${of.state} ${of.count} ${of.stuck}`).sort());
    expect(await counts()).toEqual(['pg pending 1 0', 'pg revoking 2 1', 'vault active 1 0']);
    await world.ledger.closeAttempt({
      leaseId: second.id,
      attempt: 0,
      result: { state: 'revoked' },
      nowMs: world.clock.now(),
      audit: world.audit('credential.revoked'),
    });
    expect(await counts()).toEqual(['pg pending 1 0', 'pg revoking 1 1', 'vault active 1 0']);
  });

  it('moving a token writes an entry only when somebody has to be told', async () => {
    const [quiet, loud, judged, parent] = await Promise.all([0, 1, 2, 3].map(() => world.tokenFor(task)));
    for (const lease of [quiet, loud, judged, parent]) await commit(lease as LeaseRecord);
    await commit(await world.tokenFor(task, { path: [task.id, (parent as LeaseRecord).id] }));
    const before = await world.feed.head();
    expect(await revoke([(quiet as LeaseRecord).id])).toEqual({ revoked: [(quiet as LeaseRecord).id], stale: false });
    expect(await world.feed.head()).toBe(before);
    const verdict = { taskId: task.id, generation: 1, bundle: task.bundle };
    for (const moved of [
      await revoke([(parent as LeaseRecord).id]),
      await revoke([(loud as LeaseRecord).id], { announce: true }),
      await revoke([(judged as LeaseRecord).id], { verdict }),
    ]) {
      expect(moved).toMatchObject({ stale: false, position: expect.any(String), revoked: [expect.any(String)] });
    }
    expect(await world.views.lease((quiet as LeaseRecord).id)).toMatchObject({
      state: 'revoked',
      revokedAtMs: world.clock.now(),
      revokedReason: 'why | not',
    });
  });

  it('a verdict made under another generation or bundle moves nothing', async () => {
    const lease = await world.tokenFor(task);
    await commit(lease);
    const verdict = { taskId: task.id, generation: 1, bundle: task.bundle };
    expect(await revoke([lease.id], { verdict: { ...verdict, generation: 2 } })).toEqual({ revoked: [], stale: true });
    expect(await revoke([lease.id], { verdict: { ...verdict, bundle: 'x' } })).toEqual({ revoked: [], stale: true });
    expect(await world.views.lease(lease.id)).toMatchObject({ state: 'active' });
    expect(await revoke([lease.id], { verdict })).toMatchObject({ revoked: [lease.id] });
  });

  it('what is not live is skipped, and only what moved is answered', async () => {
    const lease = await world.tokenFor(task);
    await commit(lease);
    const missing = newId('lse', 'a', world.clock.now());
    expect((await revoke([missing, lease.id])).revoked).toEqual([lease.id]);
    expect((await revoke([missing, lease.id])).revoked).toEqual([]);
  });

  it('a token without a task is kept too', async () => {
    const { taskId: _, ...lease } = await world.tokenFor(task, {
      path: [],
      generations: [],
      agent: 'https://people.example#alice',
    });
    expect(await commit(lease)).toEqual({ outcome: 'committed' });
    expect(await world.views.leaseWithAbove(lease.id)).toMatchObject({ lease, tasks: [], leases: [] });
    expect((await revoke([lease.id])).revoked).toEqual([lease.id]);
  });

  it('every lease is listed exactly once, of the cell and of a tree, whatever the page', async () => {
    const child = await world.openTask({ path: task.path });
    const inTree: string[] = [];
    for (const [at, where] of [task, task, child, child, child].entries()) {
      const lease = await world.tokenFor(where, { expiresAtMs: world.clock.now() + 100_000 + at });
      await commit(lease);
      inTree.push(lease.id);
      world.clock.pass(700);
    }
    inTree.push((await issued()).id);
    const other = await world.openTask();
    const outside = await world.tokenFor(other, { agent: 'spiffe://dev.mayfly/agent/b' });
    await commit(outside);

    const all = async (filter: { task?: string; agent?: string }, limit: number) => {
      const ids: string[] = [];
      let cursor: string | undefined;
      do {
        const page = await world.views.leases({ ...filter, limit, ...(cursor !== undefined && { cursor }) });
        ids.push(...page.items.map(({ id }) => id));
        cursor = page.cursor;
      } while (cursor !== undefined);
      return ids.sort();
    };
    for (const limit of [1, 2, 500]) {
      expect(await all({ task: task.id }, limit)).toEqual([...inTree].sort());
      expect(await all({ task: child.id }, limit)).toEqual(inTree.slice(2, 5).sort());
      expect(await all({}, limit)).toEqual([...inTree, outside.id].sort());
      expect(await all({ agent: AGENT }, limit)).toEqual([...inTree].sort());
    }
    world.clock.pass(300_000);
    expect(await all({}, 500)).toEqual([inTree.at(-1)]);
  });
});
