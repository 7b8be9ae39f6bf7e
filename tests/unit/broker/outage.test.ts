import { issue } from '../../../src/broker/issue.js';
import { welcomeBack } from '../../../src/broker/welcome-back.js';
import { deadBecause, STUCK_ATTEMPTS } from '../../../src/core/lease.js';
import { guardBackend } from '../../../src/plugins/backends/guard.js';
import { FakeBackend } from '../../fakes/backend.js';
import { fakeBundle, REFUNDS } from '../../fakes/policy.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';
import { agentOf, openVerbWorld, type VerbWorld } from './world.js';

const CREDENTIALS = 50;
const HOUR_MS = 3_600_000;
/** docs/architecture.md, Bounds: dead within so much after a broken backend is back. */
const RETURN_MS = 60_000;
const SECRETS = [
  { name: 'orders-db', backend: 'pg' },
  { name: 'mail-db', backend: 'mail' },
];

/** A backend is down for an hour at revocation. The clock is virtual; the real minute is tests/e2e/credentials/outage.test.ts. */
describe('a backend that is down for an hour', () => {
  let clock: VirtualClock;
  let down: FakeBackend;
  let other: FakeBackend;
  let world: VerbWorld;
  let leases: string[];
  let tokens: string[];

  const endedTask = async (secret: string, count: number): Promise<{ credentials: string[]; token: string }> => {
    const task = await world.openTask({
      scope: {
        tools: ['orders.read'],
        resources: ['https://orders.example'],
        secrets: SECRETS.map(({ name }) => name),
      },
      deadlineMs: clock.now() + 12 * HOUR_MS,
    });
    const token = (await world.give(task)).id;
    const credentials: string[] = [];
    for (let made = 0; made < count; made++) {
      credentials.push((await issue(world, agentOf(world), { secret, task: task.id })).leaseId);
    }
    if (secret === 'orders-db') down.down = 'unreachable';
    await world.ledger.endTask({
      taskId: task.id,
      state: 'completed',
      reason: 'done',
      by: REFUNDS,
      nowMs: clock.now(),
      audit: { id: 'dec_a_1', atMs: 0, type: 'task.ended', actor: {} },
    });
    world.schedule.add({ name: 'drain-task', id: task.id });
    await world.schedule.runJobs();
    return { credentials, token };
  };
  const pass = async (ms: number, each: () => Promise<void> | void = () => {}) => {
    for (let at = 0; at < ms; at += 1_000) {
      clock.advance(1_000);
      await world.schedule.sweep();
      await each();
    }
  };
  const open = () => leases.filter((id) => world.lease(id).state !== 'revoked');

  beforeEach(async () => {
    clock = new VirtualClock();
    down = new FakeBackend(clock, 'pg');
    other = new FakeBackend(clock, 'mail');
    const bundle = fakeBundle('sample', {
      workloads: [{ spiffeId: REFUNDS }],
      taskTypes: [{ secrets: SECRETS.map(({ name }) => name) }],
      resources: [{}],
      secrets: SECRETS,
    });
    const guarded = [down, other].map((one) => guardBackend(one, { clock, observe: () => {} }));
    world = await openVerbWorld({ clock, backends: guarded, bundles: [{ bundle }] });
    for (const { name, guard } of guarded) guard?.onBack(() => void welcomeBack(world, name));
    const ended = await endedTask('orders-db', CREDENTIALS);
    leases = ended.credentials;
    tokens = [ended.token];
  });

  it('the tokens are dead at once, and nothing that was issued is lost', async () => {
    for (const id of [...tokens, ...leases]) {
      const above = await world.views.leaseWithAbove(id);
      expect(above && deadBecause(above.lease, { ...above, revoked: false }, clock.now())).toBeDefined();
    }
    await pass(HOUR_MS);
    expect(open()).toEqual(leases);
    expect(down.live().length).toBeLessThanOrEqual(CREDENTIALS);
    const listed: string[] = [];
    for (let cursor: string | undefined; ; ) {
      const page = await world.views.leases({ backend: 'pg', ...(cursor !== undefined && { cursor }), limit: 500 });
      listed.push(...page.items.map(({ id }) => id));
      cursor = page.cursor;
      if (cursor === undefined) break;
    }
    expect(new Set(listed)).toEqual(new Set(leases));
  });

  it('is asked about once a second, however many wait for it, and those that were tried are shown as stuck', async () => {
    const before = down.calls.length;
    await pass(HOUR_MS);
    expect(down.calls.length - before).toBeLessThan(HOUR_MS / 1_000 + 10);
    expect(leases.some((id) => (world.lease(id).attempts ?? 0) >= STUCK_ATTEMPTS)).toBe(true);
    expect(world.events.some(({ event }) => event === 'credential.stuck')).toBe(true);
  });

  it('within a minute of its return all are dead, confirmed by it', async () => {
    await pass(HOUR_MS);
    down.down = undefined;
    await pass(RETURN_MS);
    expect(open()).toEqual([]);
    expect(down.live()).toEqual([]);
    for (const id of leases) expect(world.lease(id)).toMatchObject({ state: 'revoked', evidence: 'confirmed' });
    const closed = world.line.state.audit.filter(({ type }) => type === 'credential.revoked').map(({ lease }) => lease);
    expect(new Set(closed)).toEqual(new Set(leases));
    expect(closed).toHaveLength(CREDENTIALS);
  });

  it('one that comes back and goes away again is asked again, until it stays', async () => {
    for (let turn = 0; turn < 20; turn++) {
      down.down = turn % 2 === 0 ? 'timeout' : 'sealed';
      await pass(30_000);
      down.down = undefined;
      down.faults.revoke = [{ kind: 'unreachable' }, { kind: 'timeout', happens: true }];
      await pass(1_000);
    }
    await pass(RETURN_MS);
    expect(open()).toEqual([]);
    expect(down.live()).toEqual([]);
  });

  it('another backend is not affected: what ends there meanwhile is dead without a second of waiting', async () => {
    await pass(60_000, async () => {
      const endedAtMs = clock.now();
      const { credentials } = await endedTask('mail-db', 1);
      await world.schedule.runJobs();
      expect(credentials.map((id) => world.lease(id).state)).toEqual(['revoked']);
      expect(clock.now()).toBe(endedAtMs);
    });
    expect(other.live()).toEqual([]);
  });
});
