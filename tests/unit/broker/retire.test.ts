import { issue } from '../../../src/broker/issue.js';
import { retire } from '../../../src/broker/retire.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import type { TaskRecord } from '../../../src/core/task.js';
import { guardBackend } from '../../../src/plugins/backends/guard.js';
import { FakeBackend } from '../../fakes/backend.js';
import { fakeBundle, REFUNDS } from '../../fakes/policy.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';
import { agentOf, openVerbWorld, type VerbWorld } from './world.js';

const SECRET = { workloads: [{ spiffeId: REFUNDS }], taskTypes: [{}], resources: [{}] };

describe('retire', () => {
  let clock: VirtualClock;
  let backend: FakeBackend;
  let world: VerbWorld;
  let task: TaskRecord;

  const open = async (sensitivity: 'internal' | 'restricted' = 'internal', guarded = false) => {
    clock = new VirtualClock();
    backend = new FakeBackend(clock);
    const bundle = fakeBundle('sample', { ...SECRET, secrets: [{ sensitivity }] });
    const events: { event: string }[] = [];
    world = await openVerbWorld({
      clock,
      backends: [guarded ? guardBackend(backend, { clock, observe: (event) => events.push(event) }) : backend],
      bundles: [{ bundle }],
    });
    task = await world.openTask();
  };
  beforeEach(() => open());

  const issued = async () => (await issue(world, agentOf(world), { secret: 'orders-db', task: task.id })).leaseId;
  const end = () =>
    world.ledger.endTask({
      taskId: task.id,
      state: 'completed',
      reason: 'done',
      by: REFUNDS,
      nowMs: clock.now(),
      audit: { id: 'dec_a_1', atMs: 0, type: 'task.ended', actor: {} },
    });
  const drained = async () => {
    await end();
    world.schedule.add({ name: 'drain-task', id: task.id });
    await world.schedule.runJobs();
  };
  /** Until nothing is due for a minute. */
  const pass = async (ms: number, stepMs = 1_000) => {
    for (let at = 0; at < ms; at += stepMs) {
      clock.advance(stepMs);
      await world.schedule.sweep();
    }
  };
  const records = (type: string) => world.line.state.audit.filter((record) => record.type === type);

  it('the end of its task revokes it, its backend confirms it, and the lag is told', async () => {
    const id = await issued();
    await drained();
    expect(backend.live()).toEqual([]);
    expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'confirmed', attempts: 1 });
    expect(records('credential.revoked')).toHaveLength(1);
    expect(world.events.filter(({ event }) => event === 'credential.closed')).toEqual([
      { event: 'credential.closed', backend: 'pg', lease: id, evidence: 'confirmed', lagMs: 0, attempts: 1 },
    ]);
  });

  it('a lost queue loses nothing: the sweeper comes, also for what merely expired', async () => {
    const id = await issued();
    clock.set(world.lease(id).expiresAtMs);
    world.schedule.jobs = [];
    await world.schedule.sweep();
    expect(world.lease(id)).toMatchObject({ state: 'revoked', revokedReason: 'it expired' });
  });

  it('what is alive is left alone, however often somebody comes for it', async () => {
    const id = await issued();
    await retire(world, id, 'pg');
    expect(world.lease(id).state).toBe('active');
    expect(backend.calls.filter(({ call }) => call === 'revoke')).toEqual([]);
  });

  it.each(['revoke', 'confirm'] as const)(
    'is not closed while %s fails, and is tried again at growing distance for ever',
    async (call) => {
      const id = await issued();
      backend.faults[call] = Array.from({ length: 9 }, () => ({ kind: 'failed' as const }));
      await drained();
      expect(world.lease(id)).toMatchObject({
        state: 'revoking',
        attempts: 1,
        lastProblem: expect.stringContaining(call),
      });
      const distances: number[] = [];
      while (world.lease(id).state === 'revoking') {
        const { nextAttemptMs = 0 } = world.lease(id);
        distances.push(nextAttemptMs - clock.now());
        clock.set(nextAttemptMs);
        await world.schedule.sweep();
      }
      expect(distances).toHaveLength(9);
      expect(distances.every((ms, at) => ms >= Math.min(500 * 2 ** at, 30_000) && ms <= 60_000)).toBe(true);
      expect(world.lease(id)).toMatchObject({ state: 'revoked', attempts: 10 });
      expect(world.events.filter(({ event }) => event === 'credential.stuck')).toHaveLength(1);
    },
  );

  it('a backend that says done is not believed: what it still has is not closed', async () => {
    const id = await issued();
    backend.immortal = true;
    await drained();
    expect(world.lease(id)).toMatchObject({ state: 'revoking', lastProblem: expect.stringContaining('still there') });
    backend.immortal = false;
    await pass(10_000);
    expect(world.lease(id).state).toBe('revoked');
  });

  it('an intent that nobody committed is closed only after its issuer can make nothing more, and a second look', async () => {
    backend.faults.issue = [{ kind: 'timeout', happens: true }];
    await expect(issued()).rejects.toMatchObject({ code: 'unavailable' });
    const [lease] = [...world.line.state.leases.values()] as [LeaseRecord];
    await world.schedule.runJobs();
    expect(backend.live()).toEqual([]);
    expect(world.lease(lease.id).state).toBe('revoking');
    const settledMs = (lease.intentDeadlineMs as number) + backend.bounds.issueTimeoutMs + 10_000;
    clock.set(settledMs - 1);
    backend.plant(lease.id);
    await world.schedule.sweep();
    expect(world.lease(lease.id).state).toBe('revoking');
    clock.set(settledMs);
    await world.schedule.sweep();
    expect(world.lease(lease.id)).toMatchObject({ state: 'revoked', evidence: 'confirmed' });
    expect(world.lease(lease.id)).not.toHaveProperty('stuck');
    expect(backend.live()).toEqual([]);
  });

  it('a sensitive one is tried with its own credential, and what it was tried with is gone then', async () => {
    await open('restricted');
    const id = await issued();
    expect(world.line.state.kept.has(id)).toBe(true);
    await drained();
    expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'verified-dead' });
    expect(world.line.state.kept.has(id)).toBe(false);
  });

  it('one that still lets somebody in is not dead, whatever the catalogue says', async () => {
    await open('restricted');
    const id = await issued();
    backend.probe = async () => ({ credential: 'accepted', control: 'accepted' });
    await drained();
    expect(world.lease(id)).toMatchObject({ state: 'revoking', lastProblem: expect.stringContaining('gets in') });
  });

  it.each([
    ['refused together with the control', { credential: 'refused', control: 'refused' }],
    ['unclear', { credential: 'unclear', control: 'accepted' }],
  ] as const)('a probe that is %s proves nothing: tried again, then confirmed and not probed', async (_, said) => {
    await open('restricted');
    const id = await issued();
    backend.probe = async () => said;
    await drained();
    expect(world.lease(id).state).toBe('revoking');
    await pass(20_000);
    expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'not-probed' });
  });

  it('when what to try it with is gone, the record says: confirmed, not probed', async () => {
    await open('restricted');
    const id = await issued();
    world.line.state.kept.clear();
    await drained();
    expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'not-probed' });
  });

  it('what can only expire is closed as expired, when it has', async () => {
    const id = await issued();
    const untilMs = clock.now() + 60_000;
    backend.unknowable = { untilMs };
    await drained();
    expect(world.lease(id)).toMatchObject({ state: 'revoking', nextAttemptMs: untilMs });
    clock.set(untilMs);
    await world.schedule.sweep();
    expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'expired' });
  });

  it('what only a rotation kills stays unbounded, is no failed attempt, and is told once', async () => {
    const id = await issued();
    backend.unknowable = {};
    await drained();
    const told = records('credential.revoking').length;
    await pass(900_000, 60_000);
    expect(world.lease(id)).toMatchObject({ state: 'revoking', evidence: 'unbounded' });
    expect(world.lease(id)).not.toHaveProperty('stuck');
    expect(records('credential.revoking')).toHaveLength(told);
    backend.unknowable = undefined;
    await pass(120_000, 60_000);
    expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'confirmed' });
  });

  it('what stays left of a dead one is tried at growing distance, at last each hour', async () => {
    const id = await issued();
    backend.residue = 'thousands of large objects';
    await drained();
    const distancesMs: number[] = [];
    for (let attempt = 0; attempt < 9; attempt++) {
      const dueMs = world.lease(id).nextAttemptMs as number;
      distancesMs.push(dueMs - clock.now());
      clock.set(dueMs);
      await world.schedule.sweep();
    }
    const minutes = distancesMs.map((ms) => Math.round(ms / 60_000));
    expect(minutes).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60]);
  });

  it('what is left of a dead one is shown and cleared away, and it stays dead meanwhile', async () => {
    const id = await issued();
    backend.residue = 'a large object in another database';
    await drained();
    expect(world.lease(id)).toMatchObject({
      state: 'revoked',
      evidence: 'confirmed',
      residue: backend.residue,
      stuck: true,
    });
    backend.residue = undefined;
    await pass(120_000, 60_000);
    expect(world.lease(id)).not.toHaveProperty('residue');
    expect(world.events.filter(({ event }) => event === 'credential.closed')).toHaveLength(1);
  });

  it('a lease whose backend this broker does not have is kept, shown and never closed', async () => {
    const id = await issued();
    world.backends = { ...world.backends, get: () => undefined };
    await drained();
    await pass(600_000, 10_000);
    expect(world.lease(id)).toMatchObject({
      state: 'revoking',
      stuck: true,
      lastProblem: expect.stringContaining('no backend pg'),
    });
  });

  it('two workers at once: one has the attempt, the other does nothing', async () => {
    const id = await issued();
    await world.ledger.revokeLeases({
      leaseIds: [id],
      reason: 'x',
      nowMs: clock.now(),
      audit: { id: 'dec_a_1', atMs: 0, type: 'credential.revoking', actor: {} },
    });
    await Promise.all([retire(world, id, 'pg'), retire(world, id, 'pg')]);
    expect(backend.calls.filter(({ call }) => call === 'revoke')).toHaveLength(1);
    expect(world.lease(id).state).toBe('revoked');
  });

  it('a worker that was stopped in the middle is fenced off by the one that came after it', async () => {
    const id = await issued();
    const revokeThere = backend.revoke.bind(backend);
    let stopped: (() => void) | undefined;
    backend.revoke = async (credential, signal) => {
      backend.revoke = revokeThere;
      await new Promise<void>((resolve) => {
        stopped = resolve;
      });
      return revokeThere(credential, signal);
    };
    await end();
    await world.ledger.revokeLeases({
      leaseIds: [id],
      reason: 'x',
      nowMs: clock.now(),
      audit: { id: 'dec_a_1', atMs: 0, type: 'credential.revoking', actor: {} },
    });
    const first = retire(world, id, 'pg');
    await new Promise(setImmediate);
    clock.advance(20_000);
    await retire(world, id, 'pg');
    expect(world.lease(id)).toMatchObject({ state: 'revoked', attempts: 2 });
    stopped?.();
    await first;
    expect(records('credential.revoked')).toHaveLength(1);
  });

  it('no lease move without its record, and nothing is lost, whichever call of the store fails', async () => {
    for (const method of ['beginAttempt', 'closeAttempt'] as const) {
      for (const when of ['before', 'after']) {
        await open();
        const id = await issued();
        const real = world.ledger[method].bind(world.ledger) as (write: never) => Promise<never>;
        (world.ledger as unknown as Record<string, unknown>)[method] = async (write: never) => {
          (world.ledger as unknown as Record<string, unknown>)[method] = real;
          if (when === 'after') await real(write);
          throw new Error('out');
        };
        await drained();
        await pass(60_000);
        expect([method, when, world.lease(id).state]).toEqual([method, when, 'revoked']);
        expect(records('credential.revoked')).toHaveLength(1);
        expect(backend.live()).toEqual([]);
      }
    }
  });

  it('a backend that is down: its breaker opens, nobody waits in line, and all are dead soon after it is back', async () => {
    await open('internal', true);
    const ids: string[] = [];
    for (let at = 0; at < 40; at++) ids.push(await issued());
    backend.down = 'unreachable';
    backend.calls.length = 0;
    await drained();
    await pass(3_600_000, 10_000);
    expect(ids.every((id) => world.lease(id).state === 'revoking')).toBe(true);
    // One trial at a time, a second apart: an hour of it is not forty times an hour.
    expect(backend.calls.length).toBeLessThan(1_000);
    backend.down = undefined;
    await pass(60_000, 1_000);
    expect(ids.map((id) => world.lease(id).state)).toEqual(ids.map(() => 'revoked'));
  });
});
