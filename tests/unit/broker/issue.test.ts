import { issue } from '../../../src/broker/issue.js';
import { BrokerError } from '../../../src/core/errors.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import type { TaskRecord } from '../../../src/core/task.js';
import type { FakeBackend } from '../../fakes/backend.js';
import type { VirtualClock } from '../../fakes/virtual-clock.js';
import { agentOf, OPERATOR, openSecretWorld, openVerbWorld, refused, type VerbWorld } from './world.js';

describe('issue', () => {
  let clock: VirtualClock;
  let backend: FakeBackend;
  let world: VerbWorld;
  let task: TaskRecord;

  beforeEach(async () => {
    ({ clock, backend, world, task } = await openSecretWorld());
    backend.calls.length = 0;
  });

  const ask = (more: Partial<Parameters<typeof issue>[2]> = {}) =>
    issue(world, agentOf(world), { secret: 'orders-db', task: task.id, ...more });
  const leases = (): LeaseRecord[] => [...world.line.state.leases.values()];

  /** Everything is done that is due, for as long as it takes. */
  const settle = async () => {
    await world.schedule.runJobs();
    for (let turn = 0; turn < 12; turn++) {
      clock.advance(5_000);
      await world.schedule.sweep();
    }
  };

  /** The sentence that must stay true whatever fails. */
  const noCredentialWithoutALease = () => {
    const alive = new Set(
      leases()
        .filter(({ state }) => state === 'active')
        .map(({ id }) => id),
    );
    for (const id of backend.live()) expect([id, alive.has(id)]).toEqual([id, true]);
  };

  it('a lease is in the store, with the name of what will be made, before the backend is asked', async () => {
    let seen: LeaseRecord | undefined;
    const issueThere = backend.issue.bind(backend);
    backend.issue = async (order) => {
      seen = structuredClone(leases()[0]);
      return issueThere(order);
    };
    const { leaseId } = await ask();
    expect(seen).toMatchObject({ id: leaseId, state: 'pending', handle: { role: expect.stringMatching(/^mayfly_/) } });
    expect(seen?.intentDeadlineMs).toBe(clock.now() + backend.bounds.issueTimeoutMs);
  });

  it('hands out a credential whose lease is active, says how it dies, and keeps nothing secret of it', async () => {
    const issued = await ask();
    expect(backend.accepts(issued.data.expose())).toBe(true);
    expect(issued).toMatchObject({ taskId: task.id, renewable: true, revocability: { kind: 'instant' }, warnings: [] });
    expect(world.lease(issued.leaseId)).toMatchObject({
      state: 'active',
      secret: 'orders-db',
      backend: 'pg',
      path: [task.id],
      handle: { lane: '1', oid: '1' },
      owner: 'payments@example.com',
    });
    const written = JSON.stringify([...world.line.state.leases.values(), ...world.line.state.audit, ...world.events]);
    expect(written).not.toContain(String(issued.data.expose()['password']));
    expect(world.line.state.audit.map(({ type }) => type)).toEqual(
      expect.arrayContaining(['credential.intended', 'credential.issued']),
    );
  });

  it('lives as long as was asked for, never longer than the secret, policy or the task allow', async () => {
    const lifeMs = async (ttlMs?: number) =>
      (await ask(ttlMs === undefined ? {} : { ttlMs })).expiresAtMs - clock.now();
    expect(await lifeMs(30_000)).toBe(30_000);
    expect(await lifeMs(86_400_000)).toBe(600_000);
    world.policies.rule = () => ({ limits: { ttlMsMax: 20_000 } });
    expect(await lifeMs()).toBe(20_000);
    world.policies.rule = () => 'allow';
    clock.set(task.deadlineMs - 10_500);
    expect(await lifeMs()).toBeLessThanOrEqual(10_500);
  });

  it.each([
    [
      'a task that does not have the secret',
      async () => {
        task = await world.openTask({ scope: { tools: [], resources: [], secrets: [] } });
      },
      'not_found',
    ],
    [
      'a task of somebody else',
      async () => {
        task = await world.openTask({ agents: [] });
      },
      'not_found',
    ],
    [
      'policy',
      async () => {
        world.policies.rule = () => 'deny';
      },
      'denied',
    ],
    [
      'a human who has to approve',
      async () => {
        world.policies.rule = () => ({ effect: 'ask', limits: { approval: 'security:1' } });
      },
      'denied',
    ],
    [
      'a binding that the request does not have',
      async () => {
        world.policies.rule = () => ({ limits: { binding: 'any' } });
      },
      'denied',
    ],
    [
      'policy that wants what can be taken back better',
      async () => {
        backend.revokes = { kind: 'eventual', withinMs: 60_000 };
        world.policies.rule = () => ({ limits: { revocability: 'instant' } });
      },
      'denied',
    ],
    [
      'a value that only a rotation kills, when policy does not say so',
      async () => {
        backend.revokes = { kind: 'rotate-only' };
      },
      'denied',
    ],
    [
      'a task that is suspended',
      async () => {
        await world.ledger.suspendTask({
          taskId: task.id,
          reason: '',
          by: '',
          nowMs: clock.now(),
          audit: { id: 'dec_a_1', atMs: 0, type: 'task.suspended', actor: {} },
        });
      },
      'task_suspended',
    ],
    ['a task that is past its deadline', async () => clock.set(task.deadlineMs), 'task_over'],
    [
      'a secret that failed its check',
      async () => {
        world.secretChecks.problemOf = () => 'the manager may not create roles';
      },
      'unavailable',
    ],
    [
      'a backend that this broker does not have',
      async () => {
        world = await openVerbWorld({ clock, backends: [] });
        task = await world.openTask();
      },
      'unavailable',
    ],
  ] as const)('is refused by %s, and the backend is not asked', async (_, prepare, code) => {
    await prepare();
    expect(await refused(ask())).toBe(code);
    expect(backend.calls).toEqual([]);
    expect(leases()).toEqual([]);
  });

  it('is refused to a person, whatever policy says', async () => {
    expect(await refused(issue(world, OPERATOR, { secret: 'orders-db', task: task.id }))).toBe('not_found');
    expect(backend.calls).toEqual([]);
  });

  it('rotate-only is handed out where policy says it in as many words', async () => {
    backend.revokes = { kind: 'rotate-only' };
    world.policies.rule = () => ({ limits: { revocability: 'rotate-only' } });
    expect((await ask()).revocability).toEqual({ kind: 'rotate-only' });
  });

  it.each(['ledger.read', 'ledger.openIntent', 'backend.issue', 'ledger.noteCredential', 'ledger.commitLease'])(
    'no live credential without a lease: %s fails, before and after it was done, and whatever is made is revoked',
    async (call) => {
      const [part, method] = call.split('.') as ['ledger' | 'backend', string];
      const target = (part === 'ledger' ? world.ledger : backend) as unknown as Record<
        string,
        (...args: unknown[]) => Promise<unknown>
      >;
      const real = (target[method] as (...args: unknown[]) => Promise<unknown>).bind(target);
      for (const when of ['before', 'after']) {
        target[method] = async (...args) => {
          target[method] = real;
          if (when === 'after') await real(...args);
          throw new BrokerError('unavailable', 'Mayfly cannot decide right now.');
        };
        expect(await refused(ask())).toBe('unavailable');
        await settle();
        noCredentialWithoutALease();
        expect(backend.live()).toEqual([]);
        expect(leases().filter(({ state }) => state !== 'revoked')).toEqual([]);
      }
    },
  );

  it('a task that ends while the credential is made: it is refused, and the credential is dead', async () => {
    backend.onMade = async () => {
      await world.ledger.endTask({
        taskId: task.id,
        state: 'completed',
        reason: '',
        by: '',
        nowMs: clock.now(),
        audit: { id: 'dec_a_1', atMs: 0, type: 'task.ended', actor: {} },
      });
    };
    expect(await refused(ask())).toBe('task_over');
    await settle();
    expect(backend.live()).toEqual([]);
  });

  it('a stop while the credential is made: what was decided before it is not committed after it', async () => {
    backend.onMade = async () => {
      await world.ledger.revoke({
        revocation: {
          id: 'rev_a_1',
          selector: { team: 'payments' },
          reason: '',
          by: 'alice',
          createdAtMs: clock.now(),
        },
        matches: [],
        untilMs: clock.now() + 1_000,
        lock: { id: 'lck_a_1', selector: { team: 'payments' }, reason: 'odd', by: 'alice', createdAtMs: clock.now() },
        nowMs: clock.now(),
        audit: { id: 'dec_a_1', atMs: 0, type: 'lock.set', actor: {} },
      });
    };
    expect(await refused(ask())).toBe('denied');
    await settle();
    expect(backend.live()).toEqual([]);
  });

  it('a change that allows as much commits the same credential under the new decision, and issues none twice', async () => {
    backend.onMade = async () => {
      await world.ledger.changeContext({
        taskId: task.id,
        generation: 1,
        context: { risk: 'low' },
        revoke: false,
        judgeWithinMs: 5_000,
        nowMs: clock.now(),
        audit: { id: 'dec_a_1', atMs: 0, type: 'task.context_changed', actor: {} },
      });
    };
    const { leaseId } = await ask();
    expect(world.lease(leaseId)).toMatchObject({ state: 'active', generations: [2] });
    expect(backend.calls.filter(({ call }) => call === 'issue')).toHaveLength(1);
  });

  it('an issuer that was stopped past its deadline and comes back makes nothing that lives', async () => {
    backend.onMade = () => clock.advance(backend.bounds.issueTimeoutMs + 30_000);
    expect(await refused(ask())).toBe('unavailable');
    await settle();
    expect(backend.live()).toEqual([]);
  });
});
