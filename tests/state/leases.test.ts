import { Redis } from 'ioredis';
import { newId } from '../../src/core/ids.js';
import { deadBecause, type LeaseRecord } from '../../src/core/lease.js';
import { isBefore } from '../../src/core/position.js';
import { Secret } from '../../src/core/secret.js';
import type { TaskRecord } from '../../src/core/task.js';
import type { Ledger } from '../../src/state/stores.js';
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
  const intend = (lease: LeaseRecord, quotas = QUOTAS, requestKey?: string) =>
    world.ledger.openIntent({
      lease,
      intentDeadlineMs: world.clock.now() + 3_000,
      basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
      quotas,
      ...(requestKey !== undefined && { requestKey }),
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
  const revoke = (leaseIds: string[], more: Partial<Parameters<World['ledger']['revokeLeases']>[0]> = {}) =>
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

  it('more leases than a script takes are revoked all the same, with one record', async () => {
    const task = await world.openTask();
    const leases = await Promise.all(Array.from({ length: 501 }, () => world.tokenFor(task)));
    const basis = await world.basis(task.id);
    const quotas = { leasesPerTask: 1_000, leasesPerAgent: 1_000, perTree: 1_000 };
    const { nowMs } = world.clock;
    for (const lease of leases) {
      const audit = world.audit('token.minted');
      expect(await world.ledger.commitLease({ lease, basis, quotas, nowMs, audit })).toEqual({ outcome: 'committed' });
    }
    const audit = world.audit('leases.revoked', { task: task.id });
    const leaseIds = leases.map(({ id }) => id);
    const { revoked } = await world.ledger.revokeLeases({ leaseIds, reason: 'so', nowMs, audit });
    expect(revoked.sort()).toEqual(leaseIds.sort());
    const { items } = await world.auditLog.read({ task: task.id, type: 'leases.revoked', limit: 10 });
    expect(items.map(({ id }) => id)).toEqual([audit.id]);
  });

  it('an intent opens only while the key of its request names it', async () => {
    const [first, second, third] = [await credential(), await credential(), await credential()];
    const nowMs = world.clock.now();
    const name = (leaseId: string, inPlaceOf?: string, bodyDigest = 'b') =>
      world.replayGuard.nameLease('k', { bodyDigest, leaseId, ...(inPlaceOf !== undefined && { inPlaceOf }) }, nowMs);
    const isClosed = async (lease: LeaseRecord) =>
      expect(await intend(lease, QUOTAS, 'k')).toEqual({ outcome: 'not_live', by: lease.id });

    await isClosed(first);
    expect(await name(first.id, second.id)).toEqual({ outcome: 'taken' });
    expect(await name(first.id)).toEqual({ outcome: 'named' });
    expect(await name(first.id)).toEqual({ outcome: 'named' });
    expect(await name(second.id, undefined, 'other')).toEqual({ outcome: 'other_body' });
    expect(await name(second.id, first.id)).toEqual({ outcome: 'taken' });
    await isClosed(second);
    expect(await name(second.id)).toEqual({ outcome: 'given_up', leaseId: first.id });
    expect(await name(first.id)).toEqual({ outcome: 'taken' });
    await isClosed(first);
    await isClosed(second);
    expect(await name(third.id)).toEqual({ outcome: 'given_up', leaseId: first.id });
    expect(await name(second.id, first.id)).toEqual({ outcome: 'named' });
    expect(await name(third.id, first.id)).toEqual({ outcome: 'taken' });
    await isClosed(first);
    await isClosed(third);
    expect(await intend(second, QUOTAS, 'k')).toEqual({ outcome: 'committed' });
    expect((await world.views.lease(first.id)) ?? (await world.views.lease(third.id))).toBeUndefined();
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
    expect(await world.views.lease(lease.id)).toEqual({
      ...lease,
      state: 'pending',
      intentDeadlineMs: world.clock.now() + 3_000,
    });
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

  const begin = (lease: LeaseRecord, forMs = 5_000) =>
    world.ledger.beginAttempt({
      leaseId: lease.id,
      backend: lease.backend as string,
      untilMs: world.clock.now() + forMs,
      nowMs: world.clock.now(),
      audit: world.audit('credential.revoking'),
    });
  const close = (lease: LeaseRecord, attempt: number, result: Parameters<Ledger['closeAttempt']>[0]['result']) =>
    world.ledger.closeAttempt({
      lease,
      attempt,
      result,
      nowMs: world.clock.now(),
      audit: world.audit('credential.revoked'),
    });
  const failed = () => ({
    state: 'revoking' as const,
    problem: 'backend is down',
    nextAttemptMs: world.clock.now() + 1_000,
  });
  const CONFIRMED = { state: 'revoked', evidence: 'confirmed' } as const;

  it('a credential being revoked is closed by the attempt that was begun, and by no other', async () => {
    const lease = await issued();
    expect(await begin(lease)).toEqual({ outcome: 'not_due' });
    expect(await close(lease, 0, CONFIRMED)).toEqual({ outcome: 'fenced' });
    expect((await revoke([lease.id])).revoked).toEqual([lease.id]);
    const revokingAtMs = world.clock.now();
    expect(await begin(lease)).toEqual({
      outcome: 'begun',
      lease: { ...lease, state: 'revoking', revokingAtMs, revokedReason: 'why | not', attempts: 1 },
    });
    expect(await begin(lease)).toEqual({ outcome: 'not_due' });
    expect(await close(lease, 1, failed())).toEqual({ outcome: 'closed' });
    expect(await begin(lease)).toMatchObject({
      outcome: 'begun',
      lease: { attempts: 2, lastProblem: 'backend is down' },
    });
    expect(await close(lease, 1, CONFIRMED)).toEqual({ outcome: 'fenced' });
    expect(await close(lease, 2, CONFIRMED)).toEqual({ outcome: 'closed' });
    expect(await close(lease, 2, CONFIRMED)).toEqual({ outcome: 'fenced' });
    expect(await begin(lease)).toEqual({ outcome: 'closed' });
    const closed = await world.views.lease(lease.id);
    expect(closed).toMatchObject({ state: 'revoked', revokedAtMs: world.clock.now(), evidence: 'confirmed' });
    expect(closed).not.toHaveProperty('nextAttemptMs');
    expect((await world.views.leases({ task: task.id, limit: 10 })).items).toEqual([]);
    expect((await world.views.leases({ limit: 10 })).items).toEqual([]);
    expect((await world.views.leases({ backend: 'pg', limit: 10 })).items).toEqual([]);
  });

  it('a credential that ought to be dead since its task ended says since when, whoever has read it before', async () => {
    const sinceMs = world.clock.now();
    const [read, unread, token] = [await issued(), await issued(), await world.tokenFor(task)];
    expect(await commit(token)).toEqual({ outcome: 'committed' });
    world.clock.pass(300);
    // What is known may be old: whether it is live is the store's to say, and where it is never changes.
    const known = [{ ...read, state: 'revoked' as const }, token];
    const ids = [read.id, unread.id, token.id];
    expect((await revoke(ids, { sinceMs, known })).revoked).toEqual(ids);
    expect(await world.views.lease(token.id)).toMatchObject({ state: 'revoked', revokedAtMs: world.clock.now() });
    for (const { id } of [read, unread]) {
      expect(await world.views.lease(id)).toMatchObject({ state: 'revoking', revokingAtMs: sinceMs });
    }
    expect((await revoke(ids, { sinceMs, known })).revoked).toEqual([]);
  });

  it('an attempt whose worker died is begun by another when its time is over, and the first one is fenced off', async () => {
    const lease = await issued();
    await revoke([lease.id]);
    expect(await begin(lease, 5_000)).toMatchObject({ outcome: 'begun', lease: { attempts: 1 } });
    world.clock.pass(4_999);
    expect(await begin(lease)).toEqual({ outcome: 'not_due' });
    world.clock.pass(1);
    expect(await begin(lease)).toMatchObject({ outcome: 'begun', lease: { attempts: 2 } });
    expect(await close(lease, 1, CONFIRMED)).toEqual({ outcome: 'fenced' });
  });

  it('a credential past its end, and an intent past its deadline, is taken by the attempt that comes for it', async () => {
    const [old, never] = [await issued({ expiresAtMs: world.clock.now() + 2_000 }), await credential()];
    await intend(never);
    expect(await world.views.lease(never.id)).toEqual({
      ...never,
      state: 'pending',
      intentDeadlineMs: world.clock.now() + 3_000,
    });
    expect(await begin(never)).toEqual({ outcome: 'not_due' });
    world.clock.pass(3_000);
    expect(await begin(old)).toMatchObject({
      outcome: 'begun',
      lease: { state: 'revoking', revokedReason: 'it expired', revokingAtMs: old.expiresAtMs },
    });
    const taken = await begin(never);
    expect(taken).toMatchObject({ outcome: 'begun', lease: { intentDeadlineMs: world.clock.now() } });
    expect(await commit(never)).toEqual({ outcome: 'not_live', by: never.id });
  });

  it('six attempts that failed make it stuck, and what is left of a dead one does; both are listed and counted', async () => {
    const [lease, dead] = [await issued(), await issued()];
    await revoke([lease.id, dead.id]);
    const stuck = async () => (await world.views.leases({ state: 'stuck', limit: 10 })).items.map(({ id }) => id);
    for (let attempt = 1; attempt <= 6; attempt++) {
      expect(await stuck()).toEqual([]);
      await begin(lease);
      await close(lease, attempt, failed());
    }
    expect(await stuck()).toEqual([lease.id]);
    await begin(dead);
    const residue = { what: 'a large object elsewhere', nextAttemptMs: world.clock.now() + 60_000 };
    expect(await close(dead, 1, { ...CONFIRMED, residue })).toEqual({ outcome: 'closed' });
    expect(await stuck()).toEqual([lease.id, dead.id].sort());
    const counts = (await world.views.credentialCounts()).map(
      ({ state, count, stuck }) => `${state} ${count} ${stuck}`,
    );
    expect(counts.sort()).toEqual(['revoked 1 1', 'revoking 1 1']);
    expect(await world.views.lease(dead.id)).toMatchObject({ state: 'revoked', residue: residue.what });
    expect(await begin(dead)).toMatchObject({ outcome: 'begun', lease: { attempts: 2 } });
    await close(dead, 2, CONFIRMED);
    expect(await close(lease, 6, { state: 'abandoned', reason: 'the server was scrapped' })).toEqual({
      outcome: 'closed',
    });
    expect(await stuck()).toEqual([]);
    expect(await world.views.lease(dead.id)).not.toHaveProperty('residue');
    expect(await world.views.lease(lease.id)).toMatchObject({ state: 'abandoned' });
  });

  it('what becomes known while it is made is added to its handle, and said to be too late once it is being revoked', async () => {
    const lease = await credential({ handle: { role: 'mayfly_x' } });
    await intend(lease);
    const note = (handle: Record<string, string>) =>
      world.ledger.noteCredential({ leaseId: lease.id, backend: 'pg', handle, nowMs: world.clock.now() });
    expect(await note({ oid: '17' })).toEqual({ outcome: 'noted' });
    expect(await world.views.lease(lease.id)).toMatchObject({ handle: { role: 'mayfly_x', oid: '17' } });
    await revoke([lease.id]);
    expect(await note({ accessor: 'a1' })).toEqual({ outcome: 'not_live' });
    expect(await begin(lease)).toMatchObject({ lease: { handle: { role: 'mayfly_x', oid: '17', accessor: 'a1' } } });
    await close(lease, 1, CONFIRMED);
    expect(await note({ late: 'b' })).toEqual({ outcome: 'not_live' });
    expect(await world.views.lease(lease.id)).toMatchObject({
      handle: { role: 'mayfly_x', oid: '17', accessor: 'a1' },
    });
  });

  it('what it is tried with rests encrypted until it is closed, and is gone then', async () => {
    const lease = await credential();
    await intend(lease);
    await world.ledger.commitLease({
      lease,
      probe: new Secret({ username: 'mayfly_x', password: 'canary-3141', port: 5432 }),
      basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
      quotas: QUOTAS,
      nowMs: world.clock.now(),
      audit: world.audit('credential.issued'),
    });
    const probe = async () => (await world.views.kept(lease.id)).probe?.expose();
    expect(await probe()).toEqual({ username: 'mayfly_x', password: 'canary-3141', port: 5432 });
    expect(JSON.stringify(await world.views.lease(lease.id))).not.toContain('canary');
    await revoke([lease.id]);
    await begin(lease);
    await close(lease, 1, failed());
    expect(await probe()).toBeDefined();
    await begin(lease);
    await close(lease, 2, CONFIRMED);
    expect(await probe()).toBeUndefined();
  });

  it('a full Redis stops no revocation: it is begun, noted, closed and erased all the same', async () => {
    const [lease, pending] = [await issued(), await credential()];
    await intend(pending);
    const nodes = [store.url].flat().map((url) => new Redis(url));
    const limit = (bytes: string) => Promise.all(nodes.map((node) => node.call('CONFIG', 'SET', 'maxmemory', bytes)));
    await limit('1mb');
    try {
      await expect(intend(await credential())).rejects.toMatchObject({ code: 'unavailable' });
      expect((await revoke([lease.id])).revoked).toEqual([lease.id]);
      expect(await begin(lease)).toMatchObject({ outcome: 'begun' });
      expect(await close(lease, 1, failed())).toEqual({ outcome: 'closed' });
      expect(await begin(lease)).toMatchObject({ outcome: 'begun' });
      expect(await close(lease, 2, CONFIRMED)).toEqual({ outcome: 'closed' });
      const note = { leaseId: pending.id, backend: 'pg', handle: { accessor: 'a' }, nowMs: world.clock.now() };
      expect(await world.ledger.noteCredential(note)).toEqual({ outcome: 'noted' });
      expect(await world.ledger.hasten({ backend: 'pg', nowMs: world.clock.now() })).toEqual({ count: 0 });
    } finally {
      await limit('0');
      for (const node of nodes) node.disconnect();
    }
  });

  it('a token with a credential below it makes its task due for a drain when it is revoked', async () => {
    const token = await world.tokenFor(task);
    await commit(token);
    await issued({ path: [task.id, token.id] });
    world.clock.pass(1);
    const before = await world.schedule.sweep();
    await revoke([token.id]);
    expect(await world.schedule.sweep()).toBe(before + 1);
  });

  it('a backend that is back makes due what is being revoked there, and nothing else', async () => {
    const [lease, alive, elsewhere] = [await issued(), await issued(), await issued({ backend: 'vault' })];
    await revoke([lease.id, elsewhere.id]);
    for (const one of [lease, elsewhere]) {
      await begin(one);
      await close(one, 1, { ...failed(), nextAttemptMs: world.clock.now() + 60_000 });
    }
    const due = () => {
      world.clock.pass(1);
      return world.schedule.sweep();
    };
    const before = await due();
    expect(await world.ledger.hasten({ backend: 'pg', nowMs: world.clock.now() })).toEqual({ count: 1 });
    expect(await due()).toBe(before + 1);
    expect(await world.views.lease(alive.id)).toMatchObject({ state: 'active' });
  });

  it('credentials are counted by backend and state until they are closed', async () => {
    expect(await world.views.credentialCounts()).toEqual([]);
    const [first, second] = [await issued(), await issued()];
    await issued({ backend: 'vault' });
    await intend(await credential());
    await revoke([first.id, second.id]);
    for (let attempt = 1; attempt <= 6; attempt++) {
      await begin(first);
      await close(first, attempt, failed());
    }
    const counts = () =>
      world.views
        .credentialCounts()
        .then((all) => all.map((of) => `${of.backend} ${of.state} ${of.count} ${of.stuck}`).sort());
    expect(await counts()).toEqual(['pg pending 1 0', 'pg revoking 2 1', 'vault active 1 0']);
    await begin(second);
    await close(second, 1, CONFIRMED);
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

  it('a list of live leases has what is being revoked and not what was; operator tokens have a list of their own', async () => {
    const [given, dead] = [await world.tokenFor(task), await world.tokenFor(task)];
    for (const lease of [given, dead]) await commit(lease);
    await revoke([dead.id]);
    const dying = await issued();
    await revoke([dying.id]);
    const { taskId: _, ...operators } = await world.tokenFor(task, { path: [], generations: [] });
    await commit(operators);
    const listed = async (filter: { live?: boolean; givenFor?: 'task' | 'operator' }) =>
      (await world.views.leases({ ...filter, limit: 10 })).items.map(({ id }) => id).sort();
    expect(await listed({ live: true })).toEqual([given.id, dying.id, operators.id].sort());
    expect(await listed({ live: false })).toEqual([dead.id]);
    expect(await listed({ givenFor: 'operator' })).toEqual([operators.id]);
    expect(await listed({ live: true, givenFor: 'task' })).toEqual([given.id, dying.id].sort());
    expect(await listed({})).toHaveLength(4);
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

  it.each(['AAAA', '0', 'z.', 'c.AAAA', 't.AAAA', 't.1_x_', '12~', ''])(
    'a list never begins anew for a cursor that it did not give: %j',
    async (cursor) => {
      await issued();
      const refusal = expect.objectContaining({
        code: 'invalid_request',
        detail: expect.objectContaining({ field: 'cursor' }),
      });
      await expect(world.views.leases({ cursor, limit: 5 })).rejects.toEqual(refusal);
      await expect(world.views.leases({ task: task.id, cursor, limit: 5 })).rejects.toEqual(refusal);
      await expect(world.views.leases({ backend: 'pg', cursor, limit: 5 })).rejects.toEqual(refusal);
      await expect(world.views.tasks({ cursor, limit: 5 })).rejects.toEqual(refusal);
      await expect(world.views.revocations({ cursor, limit: 5 })).rejects.toEqual(refusal);
      await expect(world.auditLog.read({ cursor, limit: 5 })).rejects.toEqual(refusal);
    },
  );
});
