import { issue } from '../../../src/broker/issue.js';
import { takeBackAgain, takeBackTheRest } from '../../../src/broker/take-back.js';
import { BrokerError } from '../../../src/core/errors.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import type { TaskRecord } from '../../../src/core/task.js';
import type { FakeBackend } from '../../fakes/backend.js';
import type { VirtualClock } from '../../fakes/virtual-clock.js';
import { agentOf, openSecretWorld, type VerbWorld } from './world.js';

const TTL_MS = 600_000;
/** How soon after the store's return a lease that is nobody's is revoked, at the latest: the longest pause between two tries, and one look. */
const BACK_MS_MAX = 11_000;

describe('taking back what nobody was given, when the store cannot be told', () => {
  let clock: VirtualClock;
  let backend: FakeBackend;
  let world: VerbWorld;
  let task: TaskRecord;
  let isAway: boolean;
  let tries: number;

  beforeEach(async () => {
    ({ clock, backend, world, task } = await openSecretWorld());
    isAway = false;
    tries = 0;
    // Every commit counts and its reply is lost: from then on the store is away.
    const commit = world.ledger.commitLease.bind(world.ledger);
    world.ledger.commitLease = async (write) => {
      await commit(write);
      isAway = true;
      throw away();
    };
    const revoke = world.ledger.revokeLeases.bind(world.ledger);
    world.ledger.revokeLeases = async (write) => {
      tries += 1;
      if (isAway) throw away();
      return revoke(write);
    };
  });

  const away = () => new BrokerError('unavailable', 'Mayfly cannot decide right now.');
  const askInVain = async () => {
    isAway = false;
    await expect(issue(world, agentOf(world), { secret: 'orders-db', task: task.id, ttlMs: TTL_MS })).rejects.toThrow(
      'cannot decide',
    );
  };
  const states = () => [...world.line.state.leases.values()].map(({ state }: LeaseRecord) => state);
  /** A broker's own look, every second. */
  const passes = async (ms: number) => {
    for (const untilMs = clock.now() + ms; clock.now() < untilMs; ) {
      clock.advance(1_000);
      await takeBackAgain(world);
    }
  };

  it('an answer after which the lease is still live is none: it is said again', async () => {
    const revoke = world.ledger.revokeLeases;
    let unheard = 3;
    world.ledger.revokeLeases = async (write) => {
      unheard -= 1;
      return unheard >= 0 ? { revoked: [], stale: false } : revoke(write);
    };
    await askInVain();
    isAway = false;
    expect(states()).toEqual(['active']);
    await passes(BACK_MS_MAX);
    expect(states()).toEqual(['revoking']);
    expect(world.untaken.size).toBe(0);
  });

  it('one lease that stays live keeps none of the others waiting, and is said again itself', async () => {
    const revoke = world.ledger.revokeLeases;
    for (let asks = 0; asks < 3; asks++) await askInVain();
    const [deaf] = world.untaken.keys();
    let isDeaf = true;
    world.ledger.revokeLeases = async (write) =>
      isDeaf && write.leaseIds.includes(deaf ?? '') ? { revoked: [], stale: false } : revoke(write);
    isAway = false;
    clock.advance(BACK_MS_MAX);
    await takeBackAgain(world);
    expect(states()).toEqual(['active', 'revoking', 'revoking']);
    expect([...world.untaken.keys()]).toEqual([deaf]);
    isDeaf = false;
    await passes(BACK_MS_MAX);
    expect(states()).toEqual(['revoking', 'revoking', 'revoking']);
    expect(world.untaken.size).toBe(0);
  });

  it('a lease whose commit counted and that nobody heard of is revoked once the store is back, however long it was away', async () => {
    await askInVain();
    expect(states()).toEqual(['active']);
    await passes(300_000);
    expect(states()).toEqual(['active']);
    isAway = false;
    await passes(BACK_MS_MAX);
    expect(states()).toEqual(['revoking']);
    await world.schedule.runJobs();
    expect(states()).toEqual(['revoked']);
    expect(backend.live()).toEqual([]);
    expect(world.untaken.size).toBe(0);
  });

  it('tries at growing distance, and never seldomer than every ten seconds', async () => {
    await askInVain();
    expect(tries).toBe(1);
    await passes(15_000);
    // After 1, 2, 4 and 8 s.
    expect(tries).toBe(5);
    await passes(60_000);
    expect(tries).toBe(11);
  });

  it('asks a store that is away once a look, however many leases wait for it, and then says them all', async () => {
    for (let asks = 0; asks < 20; asks++) await askInVain();
    tries = 0;
    for (let looks = 1; looks <= 30; looks++) {
      await passes(1_000);
      expect(tries).toBeLessThanOrEqual(looks);
    }
    isAway = false;
    await passes(BACK_MS_MAX);
    expect(new Set(states())).toEqual(new Set(['revoking']));
    expect(world.untaken.size).toBe(0);
  });

  it('keeps 1,000 at most, and names whom it leaves to their end', async () => {
    for (let asks = 0; asks < 1_001; asks++) await askInVain();
    expect(world.untaken.size).toBe(1_000);
    expect(world.events.filter(({ event }) => event === 'credential.left_to_its_end')).toHaveLength(1);
  });

  it('stops when the lease is at its end, where the sweeper comes for it', async () => {
    await askInVain();
    await passes(TTL_MS + BACK_MS_MAX);
    expect(world.untaken.size).toBe(0);
    isAway = false;
    await world.schedule.sweep();
    expect(states()).toEqual(['revoked']);
  });

  it('a process that ends says it once more, for as long as it may', async () => {
    await askInVain();
    const ending = takeBackTheRest(world, 10_000);
    isAway = false;
    await ending;
    expect(states()).toEqual(['revoking']);
  });

  it('a process that has to go names what it leaves behind', async () => {
    await askInVain();
    await takeBackTheRest(world, 0);
    expect(states()).toEqual(['active']);
    const [lease] = world.line.state.leases.keys();
    expect(world.events).toContainEqual(
      expect.objectContaining({ event: 'credential.left_to_its_end', level: 'error', lease }),
    );
  });
});
