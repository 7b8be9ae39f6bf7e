import { previewVerdicts, reEvaluateBundle, reEvaluateTask } from '../../../src/broker/re-evaluate.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
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

  it('a task whose context changed again meanwhile stays due, and nothing is taken away by the first verdict', async () => {
    const { taskId } = leases[0] as LeaseRecord;
    const task = await world.views.task(taskId as string);
    world.policies.rule = () => 'deny';
    const change = (generation: number) =>
      world.ledger.changeContext({
        taskId: taskId as string,
        generation,
        context: {},
        revoke: false,
        judgeWithinMs: 5_000,
        nowMs: world.clock.now(),
        audit: { id: 'dec_a_2', atMs: world.clock.now(), type: 'task.context_changed', actor: {} },
      });
    await change(task?.generation as number);
    const real = world.ledger.revokeLeases.bind(world.ledger);
    let changed = false;
    world.ledger.revokeLeases = async (write) => {
      if (!changed) {
        changed = true;
        await change((task?.generation as number) + 1);
      }
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
