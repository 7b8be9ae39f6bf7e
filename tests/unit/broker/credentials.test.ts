import { abandon } from '../../../src/broker/abandon.js';
import type { Caller } from '../../../src/broker/caller.js';
import { giveBack } from '../../../src/broker/give-back.js';
import { issue } from '../../../src/broker/issue.js';
import { reEvaluateTask } from '../../../src/broker/re-evaluate.js';
import { RECONCILE_EVERY_MS, reconcile } from '../../../src/broker/reconcile.js';
import { renew } from '../../../src/broker/renew.js';
import type { TaskClaims } from '../../../src/core/claims.js';
import { BrokerError } from '../../../src/core/errors.js';
import { newId } from '../../../src/core/ids.js';
import type { TaskRecord } from '../../../src/core/task.js';
import type { FakeBackend } from '../../fakes/backend.js';
import { EMAILS } from '../../fakes/policy.js';
import type { VirtualClock } from '../../fakes/virtual-clock.js';
import { agentOf, OPERATOR, openSecretWorld, refused, type VerbWorld } from './world.js';

const BOB: Caller = { ...OPERATOR, name: 'https://people.example#bob' };

let clock: VirtualClock;
let backend: FakeBackend;
let world: VerbWorld;
let task: TaskRecord;

beforeEach(async () => {
  ({ clock, backend, world, task } = await openSecretWorld());
});

const audit = (type: 'task.ended' | 'lock.set') => ({ id: 'dec_a_1', atMs: 0, type, actor: {} });
const issued = async (ttlMs = 100_000) =>
  (await issue(world, agentOf(world), { secret: 'orders-db', task: task.id, ttlMs })).leaseId;
const other = (): Caller => ({ ...agentOf(world), name: EMAILS });

describe('renew', () => {
  it('gives longer life under the same lease and at the same position, to lease and backend alike', async () => {
    const id = await issued();
    const { position } = world.lease(id);
    await world.ledger.note({ ...audit('lock.set') });
    world.line.append({ none: true }, clock.now() + 1_000);
    clock.advance(50_000);
    const { expiresAtMs, renewable } = await renew(world, agentOf(world), { lease: id, incrementMs: 200_000 });
    expect([expiresAtMs, renewable]).toEqual([clock.now() + 200_000, true]);
    expect(world.lease(id)).toMatchObject({ state: 'active', expiresAtMs, position });
    expect(backend.expiryOf(id)).toBe(expiresAtMs);
  });

  it('never past what secret, policy and task allow, and never shorter than it was', async () => {
    const id = await issued(300_000);
    const end = world.lease(id).expiresAtMs;
    expect((await renew(world, agentOf(world), { lease: id, incrementMs: 10_000 })).expiresAtMs).toBe(end);
    expect((await renew(world, agentOf(world), { lease: id, incrementMs: 86_400_000 })).expiresAtMs).toBe(
      clock.now() + 600_000,
    );
  });

  it.each([
    ['somebody else who may see it', async () => {}, other, 'denied'],
    ['an operator', async () => {}, () => OPERATOR, 'denied'],
    [
      'policy that changed its mind',
      async () => {
        world.policies.rule = () => 'deny';
      },
      () => agentOf(world),
      'denied',
    ],
    [
      'a task that is over',
      async () => {
        await world.ledger.endTask({
          taskId: task.id,
          state: 'completed',
          reason: '',
          by: '',
          nowMs: clock.now(),
          audit: audit('task.ended'),
        });
      },
      () => agentOf(world),
      'task_over',
    ],
    [
      'a lock',
      async () => {
        await world.ledger.revoke({
          revocation: { id: 'rev_a_1', selector: { team: 'payments' }, reason: '', by: 'a', createdAtMs: 0 },
          matches: [],
          untilMs: 0,
          lock: { id: 'lck_a_1', selector: { secret: 'orders-db' }, reason: 'odd', by: 'a', createdAtMs: 0 },
          nowMs: clock.now(),
          audit: audit('lock.set'),
        });
        world.feed.catchUp();
      },
      () => agentOf(world),
      'denied',
    ],
    ['its own end', async () => clock.advance(100_000), () => agentOf(world), 'conflict'],
    [
      'a revocation',
      async (id: string) => {
        await giveBack(world, agentOf(world), id);
      },
      () => agentOf(world),
      'conflict',
    ],
  ] as [string, (id: string) => Promise<void>, () => Caller, string][])(
    'is refused by %s, and the backend is not asked',
    async (_, prepare, who, code) => {
      const id = await issued();
      const end = backend.expiryOf(id);
      await prepare(id);
      expect(await refused(renew(world, who(), { lease: id, incrementMs: 300_000 }))).toBe(code);
      expect(backend.calls.filter(({ call }) => call === 'renew')).toEqual([]);
      expect(backend.expiryOf(id)).toBe(end);
    },
  );

  it('nothing outlives its lease: when the backend may have done it, the lease says the later end', async () => {
    const id = await issued();
    backend.faults.renew = [{ kind: 'timeout', happens: true }];
    expect(await refused(renew(world, agentOf(world), { lease: id, incrementMs: 300_000 }))).toBe('unavailable');
    expect(world.lease(id).expiresAtMs).toBeGreaterThanOrEqual(backend.expiryOf(id) as number);
  });
});

describe('renewals side by side', () => {
  it('one has its turn, the other is told to come again, and what was promised is kept', async () => {
    const id = await issued();
    clock.advance(50_000);
    const asked = [200_000, 60_000, 250_000].map((incrementMs) =>
      renew(world, agentOf(world), { lease: id, incrementMs }),
    );
    const answers = await Promise.allSettled(asked);
    const promised = answers.flatMap((one) => (one.status === 'fulfilled' ? [one.value.expiresAtMs] : []));
    const refusals = answers.flatMap((one) => (one.status === 'rejected' ? [(one.reason as BrokerError).code] : []));
    expect(promised).toHaveLength(1);
    expect(refusals).toEqual(['unavailable', 'unavailable']);
    expect([world.lease(id).expiresAtMs, backend.expiryOf(id)]).toEqual([promised[0], promised[0]]);
    expect(await refused(renew(world, agentOf(world), { lease: id, incrementMs: 240_000 }))).toBe('not refused');
  });
});

describe('a renewal whose broker dies', () => {
  it('leaves its turn to the next one after as long as a renewal can take, and not before', async () => {
    const id = await issued(300_000);
    clock.advance(5_000);
    const { renewLease } = world.ledger;
    world.ledger.renewLease = () => new Promise(() => {});
    void renew(world, agentOf(world), { lease: id, incrementMs: 400_000 });
    await new Promise(setImmediate);
    world.ledger.renewLease = renewLease;
    const again = () => refused(renew(world, agentOf(world), { lease: id, incrementMs: 400_000 }));
    expect(await again()).toBe('unavailable');
    clock.advance(6_000);
    expect(await again()).toBe('unavailable');
    clock.advance(1_001);
    expect(await again()).toBe('not refused');
  });

  it('one that is decided too late is not committed: the turn may be another’s already', async () => {
    const id = await issued(300_000);
    clock.advance(5_000);
    const { read } = world.ledger;
    world.ledger.read = async (query) => {
      const reading = await read.call(world.ledger, query);
      clock.advance(4_000);
      return reading;
    };
    const before = world.lease(id).expiresAtMs;
    expect(await refused(renew(world, agentOf(world), { lease: id, incrementMs: 400_000 }))).toBe('unavailable');
    expect([world.lease(id).expiresAtMs, backend.expiryOf(id)]).toEqual([before, before]);
  });
});

describe('give back', () => {
  it('a holder ends its own lease, and the backend confirms it', async () => {
    const id = await issued();
    expect(await giveBack(world, agentOf(world), id)).toEqual({ id, state: 'revoking' });
    await world.schedule.runJobs();
    expect(world.lease(id).state).toBe('revoked');
    expect(await giveBack(world, agentOf(world), id)).toEqual({ id, state: 'revoked' });
  });

  it('another agent is told that there is no such lease, and nothing happens', async () => {
    const id = await issued();
    world.policies.rule = ({ resource }) => (resource.type === 'Installation' ? 'deny' : 'allow');
    expect(await refused(giveBack(world, other(), id))).toBe('not_found');
    expect(world.lease(id).state).toBe('active');
  });
});

describe('abandon', () => {
  const ask = (who: Caller, id: string) => abandon(world, who, { lease: id, reason: 'the server was scrapped' });
  const dying = async () => {
    const id = await issued();
    backend.down = 'unreachable';
    await giveBack(world, agentOf(world), id);
    await world.schedule.runJobs();
    return id;
  };

  it('needs two persons within a quarter of an hour; then nobody tries any more, and the record says why', async () => {
    const id = await dying();
    expect(await ask(OPERATOR, id)).toBe('requested');
    expect(await ask(OPERATOR, id)).toBe('requested');
    expect(world.lease(id).state).toBe('revoking');
    expect(await ask(BOB, id)).toBe('abandoned');
    expect(world.lease(id)).toMatchObject({ state: 'abandoned', lastProblem: 'given up: the server was scrapped' });
    expect(world.line.state.audit.filter(({ type }) => type === 'credential.abandoned')).toHaveLength(1);
    clock.advance(600_000);
    expect(await world.schedule.sweep()).toBe(0);
  });

  it('a second person who comes too late is a first one', async () => {
    const id = await dying();
    await ask(OPERATOR, id);
    clock.advance(15 * 60_000);
    expect(await ask(BOB, id)).toBe('requested');
  });

  it('what is alive is not abandoned, and nobody without the right abandons anything', async () => {
    const id = await issued();
    expect(await refused(ask(OPERATOR, id))).toBe('conflict');
    expect(await refused(ask({ ...OPERATOR, bound: false }, id))).toBe('denied');
    world.policies.rule = ({ action }) => (action === 'abandon' ? 'deny' : 'allow');
    expect(await refused(ask(OPERATOR, id))).toBe('denied');
    expect(world.lease(id).state).toBe('active');
  });
});

describe('a credential got with a token', () => {
  const withToken = async () => {
    const token = await world.give(task, { resource: 'https://mayfly.example' });
    const claims = {
      client_id: token.agent,
      jti: token.id,
      mayfly: { path: token.path, pos: token.position },
    } as unknown as TaskClaims;
    const { leaseId } = await issue(world, agentOf(world, { token: claims }), { secret: 'orders-db' });
    return { token, id: leaseId };
  };

  it('hangs on that token, and dies when the token is revoked', async () => {
    const { token, id } = await withToken();
    expect(world.lease(id).path).toEqual([task.id, token.id]);
    await giveBack(world, agentOf(world), token.id);
    await world.schedule.sweep();
    await world.schedule.runJobs();
    expect(world.lease(id).state).toBe('revoked');
    expect(backend.live()).toEqual([]);
  });

  it('does not die when the token merely expires, and can be renewed still', async () => {
    const { token, id } = await withToken();
    clock.set(token.expiresAtMs + 1_000);
    await world.schedule.sweep();
    expect(world.lease(id).state).toBe('active');
    expect((await renew(world, agentOf(world), { lease: id, incrementMs: 500_000 })).expiresAtMs).toBe(
      clock.now() + 500_000,
    );
  });

  it('is refused for another task than the token’s', async () => {
    const other = await world.openTask();
    const token = await world.give(task);
    const claims = { client_id: token.agent, jti: token.id, mayfly: { path: token.path } } as unknown as TaskClaims;
    const asking = issue(world, agentOf(world, { token: claims }), { secret: 'orders-db', task: other.id });
    expect(await refused(asking)).toBe('not_found');
  });
});

describe('judged again', () => {
  it('a context change that policy does not allow the secret under ends the credential, and no other', async () => {
    const elsewhere = await world.openTask();
    const kept = (await issue(world, agentOf(world), { secret: 'orders-db', task: elsewhere.id })).leaseId;
    const id = await issued();
    world.policies.rule = ({ action, context }) =>
      action === 'read' && (context['task'] as { generation: number }).generation > 1 ? 'deny' : 'allow';
    await world.ledger.changeContext({
      taskId: task.id,
      generation: 1,
      context: { risk: 'high' },
      revoke: false,
      judgeWithinMs: 5_000,
      nowMs: clock.now(),
      audit: { id: 'dec_a_1', atMs: 0, type: 'task.context_changed', actor: {} },
    });
    await reEvaluateTask(world, task.id);
    await world.schedule.runJobs();
    expect([world.lease(id).state, world.lease(kept).state]).toEqual(['revoked', 'active']);
    expect(backend.live()).toEqual([kept]);
  });
});

describe('reconcile', () => {
  const signal = new AbortController().signal;
  const turn = async () => {
    clock.advance(RECONCILE_EVERY_MS);
    await reconcile(world, backend, signal);
  };
  const unknown = () => newId('lse', 'a', clock.now());

  it('what exists and nobody knows is revoked and recorded; what is alive is left alone', async () => {
    const alive = await issued();
    backend.plant(unknown());
    await turn();
    expect(backend.live()).toEqual([alive]);
    expect(world.line.state.audit.filter(({ type }) => type === 'credential.orphan')).toHaveLength(1);
    expect(world.events).toContainEqual(expect.objectContaining({ event: 'reconcile.done', orphans: 1, lost: 0 }));
  });

  it('a credential whose lease was closed does not come back to life', async () => {
    const id = await issued();
    await giveBack(world, agentOf(world), id);
    await world.schedule.runJobs();
    backend.plant(id);
    await turn();
    expect(backend.live()).toEqual([]);
  });

  it.each([
    ['younger than an issue may take is left to its intent', 6_000, true],
    ['older than that is an orphan for the first worker that sees it', 8_000, false],
    ['whose age is not known is left for now', undefined, true],
  ])('what has no name and is %s', async (_, ageMs, stays) => {
    const id = unknown();
    backend.plant(id);
    backend.find = async function* () {
      yield { handle: backend.plan({ leaseId: id, settings: {} }), ageMs: async () => ageMs };
    };
    await turn();
    expect(backend.live()).toEqual(stays ? [id] : []);
  });

  it('what has no name counts as old as it was when the list was begun', async () => {
    const id = unknown();
    backend.plant(id);
    backend.find = async function* () {
      clock.advance(5_000);
      yield { handle: backend.plan({ leaseId: id, settings: {} }), ageMs: async () => 10_000 };
    };
    await turn();
    expect(backend.live()).toEqual([id]);
  });

  it('another cell that shares the backend keeps what it has', async () => {
    const theirs = newId('lse', 'b', clock.now());
    backend.plant(theirs);
    await turn();
    expect(backend.live()).toEqual([theirs]);
  });

  it('what is just being made is nobody’s orphan: the backend is listed before the store is read', async () => {
    let made: string | undefined;
    backend.onMade = async (leaseId) => {
      made = leaseId;
      await reconcile(world, backend, signal);
    };
    const id = await issued();
    expect([made, backend.live()]).toEqual([id, [id]]);
  });

  it('what we believe alive and is not there is reported, and its lease goes', async () => {
    const id = await issued();
    clock.advance(60_000);
    backend.lose(id);
    await turn();
    expect(world.lease(id)).toMatchObject({ state: 'revoking', revokedReason: expect.stringContaining('lost') });
    expect(world.line.state.audit.filter(({ type }) => type === 'credential.lost')).toHaveLength(1);
  });

  it('one that the list merely does not show is asked for, and stays', async () => {
    const id = await issued();
    clock.advance(60_000);
    backend.find = async function* () {};
    await turn();
    expect(world.lease(id).state).toBe('active');
  });

  it('one worker at a time: a second turn within the same time does nothing', async () => {
    await turn();
    const calls = backend.calls.length;
    await reconcile(world, backend, signal);
    expect(backend.calls).toHaveLength(calls);
  });

  it('nothing is done while this broker has not read the whole line', async () => {
    backend.plant(unknown());
    world.feed.reached = async () => {
      throw new BrokerError('unavailable', 'not yet');
    };
    await expect(turn()).rejects.toThrow();
    expect(backend.live()).toHaveLength(1);
  });

  it('an orphan that could not be revoked is found again', async () => {
    backend.plant(unknown());
    backend.faults.revoke = [{ kind: 'failed' }];
    await turn();
    expect(backend.live()).toHaveLength(1);
    await turn();
    expect(backend.live()).toEqual([]);
  });
});
