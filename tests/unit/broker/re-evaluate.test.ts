import { previewVerdicts, reEvaluateBundle, reEvaluateTask } from '../../../src/broker/re-evaluate.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import type { TaskRecord } from '../../../src/core/task.js';
import { fakeBundle } from '../../fakes/policy.js';
import { openVerbWorld, type VerbWorld } from './world.js';

const MANY = 600;

describe('judging live leases again', () => {
  const [first, second] = [fakeBundle('first'), fakeBundle('second')];
  let world: VerbWorld;
  let leases: LeaseRecord[];

  beforeEach(async () => {
    world = await openVerbWorld({ bundles: [{ bundle: first }, { bundle: second }] });
    leases = [];
    for (let at = 0; at < MANY; at++) {
      const task = at % 2 === 0 || leases.length === 0 ? await world.openTask() : undefined;
      const path = leases.at(-1)?.path as string[];
      leases.push(await world.give(task ?? ((await world.views.task(path[0] as string)) as never)));
    }
    world.clock.advance(1);
  });

  const states = () => leases.map(({ id }) => world.lease(id).state);
  /** The context of a lease's task becomes another. */
  const change = async ({ taskId }: LeaseRecord): Promise<TaskRecord> => {
    const task = (await world.views.task(taskId as string)) as TaskRecord;
    const changed = await world.ledger.changeContext({
      taskId: task.id,
      generation: task.generation,
      context: {},
      revoke: false,
      judgeWithinMs: world.settings.judgeWithinMs,
      nowMs: world.clock.now(),
      audit: { id: 'dec_a_2', atMs: world.clock.now(), type: 'task.context_changed', actor: {} },
    });
    if (changed.outcome !== 'changed') throw new Error(changed.outcome);
    return changed.task;
  };
  const activate = (digest: string) =>
    world.ledger.activateBundle({
      digest,
      files: { name: 'second' },
      again: true,
      nowMs: world.clock.now(),
      audit: { id: 'dec_a_1', atMs: world.clock.now(), type: 'bundle.activated', actor: {} },
    });

  it('keeps what the new bundle allows, and is no longer due', async () => {
    await activate(second.digest);
    await reEvaluateBundle(world, second.digest);
    expect(new Set(states())).toEqual(new Set(['active']));
    expect(world.schedule.due()).toEqual([]);
  });

  it('revokes what it denies, each told to the verifiers, whatever stands around it', async () => {
    const tasks = new Set(leases.filter((_, at) => at % 3 === 0).map((lease) => lease.taskId));
    world.policies.rules.set(second.digest, ({ context }) =>
      tasks.has((context['task'] as { id: string }).id) ? 'deny' : 'allow',
    );
    await activate(second.digest);
    const before = world.line.state.entries.length;
    await reEvaluateBundle(world, second.digest);
    const denied = leases.filter((lease) => tasks.has(lease.taskId));
    for (const lease of leases) {
      expect(world.lease(lease.id).state).toBe(tasks.has(lease.taskId) ? 'revoked' : 'active');
    }
    const told = world.line.state.entries.slice(before).map(({ match }) => match.lease);
    expect(new Set(told)).toEqual(new Set(denied.map(({ id }) => id)));
  });

  it('what is not judged within a minute of the activation is revoked unjudged; what was decided under the new bundle is not', async () => {
    await activate(second.digest);
    await world.policies.refresh();
    const fresh = await world.give(await world.openTask());
    let asked = 0;
    world.policies.rules.set(second.digest, () => {
      if (++asked === 300) world.clock.advance(world.settings.judgeBundleWithinMs + 1);
      return 'allow';
    });
    const before = world.line.state.entries.length;
    await reEvaluateBundle(world, second.digest);
    const revoked = leases.filter(({ id }) => world.lease(id).state === 'revoked');
    expect(revoked.length).toBeGreaterThan(200);
    expect(revoked.length).toBeLessThan(MANY - 250);
    for (const { id } of revoked) expect(world.lease(id).revokedReason).toBe('not judged in time');
    expect(world.line.state.entries.slice(before)).toHaveLength(revoked.length);
    expect(world.lease(fresh.id).state).toBe('active');
    expect(world.schedule.due()).toEqual([]);
  });

  it('the minute is counted from the activation, however late somebody begins', async () => {
    await activate(second.digest);
    world.clock.advance(world.settings.judgeBundleWithinMs + 1);
    await reEvaluateBundle(world, second.digest);
    expect(new Set(states())).toEqual(new Set(['revoked']));
  });

  it('an error while judging is a no', async () => {
    world.policies.rules.set(second.digest, () => {
      throw new Error('boom');
    });
    await activate(second.digest);
    await reEvaluateBundle(world, second.digest);
    expect(new Set(states())).toEqual(new Set(['revoked']));
  });

  it.each([
    ['one millisecond before they are over: by policy', 0, 'active'],
    ['when they are over: revoked unjudged', 1, 'revoked'],
  ])(
    'the five seconds of a context change count from the change, however late somebody begins; %s',
    async (_, late, state) => {
      const lease = leases[0] as LeaseRecord;
      await change(lease);
      world.clock.advance(world.settings.judgeWithinMs + late);
      await reEvaluateTask(world, lease.taskId as string);
      expect(world.lease(lease.id).state).toBe(state);
      if (state === 'revoked') expect(world.lease(lease.id).revokedReason).toBe('not judged in time');
      expect(world.schedule.due()).not.toContainEqual(expect.objectContaining({ id: lease.taskId }));
    },
  );

  it('a second change before the first was judged gives nobody more time', async () => {
    const lease = leases[0] as LeaseRecord;
    await change(lease);
    world.clock.advance(world.settings.judgeWithinMs - 1);
    await change(lease);
    world.clock.advance(2);
    await reEvaluateTask(world, lease.taskId as string);
    expect(world.lease(lease.id).state).toBe('revoked');
  });

  it('a change after the first was judged has its own five seconds', async () => {
    const lease = leases[0] as LeaseRecord;
    await change(lease);
    await reEvaluateTask(world, lease.taskId as string);
    world.clock.advance(world.settings.judgeWithinMs + 1);
    await change(lease);
    await reEvaluateTask(world, lease.taskId as string);
    expect(world.lease(lease.id).state).toBe('active');
  });

  it('what was decided after the change needs no judging, however late it is', async () => {
    const lease = leases[0] as LeaseRecord;
    const task = await change(lease);
    const fresh = await world.give(task);
    const below = await world.give(await world.openTask({ path: task.path }));
    world.clock.advance(world.settings.judgeWithinMs + 1);
    await reEvaluateTask(world, task.id);
    expect([lease, fresh, below].map(({ id }) => world.lease(id).state)).toEqual(['revoked', 'active', 'active']);
  });

  it('a task whose context changed again meanwhile stays due, and nothing is taken away by the first verdict', async () => {
    const lease = leases[0] as LeaseRecord;
    const { taskId } = lease;
    world.policies.rule = () => 'deny';
    await change(lease);
    const real = world.ledger.revokeLeases.bind(world.ledger);
    let changing: Promise<TaskRecord> | undefined;
    world.ledger.revokeLeases = async (write) => {
      changing ??= change(lease);
      await changing;
      return real(write);
    };
    await reEvaluateTask(world, taskId as string);
    expect(world.lease(leases[0]?.id as string).state).toBe('active');
    expect(world.schedule.due()).toContainEqual({ name: 're-evaluate-task', id: taskId });
    world.ledger.revokeLeases = real;
    await reEvaluateTask(world, taskId as string);
    expect(world.lease(leases[0]?.id as string).state).toBe('revoked');
    expect(world.schedule.due()).not.toContainEqual({ name: 're-evaluate-task', id: taskId });
  });

  it('a preview counts and names what would die, and changes nothing', async () => {
    world.policies.rules.set(second.digest, () => 'deny');
    const verdicts = await previewVerdicts(world, {}, await world.policies.prepare(second));
    expect([verdicts.kept, verdicts.dying, verdicts.revoked.length, verdicts.atLeast]).toEqual([0, MANY, MANY, false]);
    expect(new Set(states())).toEqual(new Set(['active']));
  });
});
