import { watchTasks } from '../../../src/broker/watch-task.js';
import type { TaskRecord } from '../../../src/core/task.js';
import { openVerbWorld, type VerbWorld } from './world.js';

const MINUTE_MS = 60_000;

let world: VerbWorld;
beforeEach(async () => {
  world = await openVerbWorld();
});

const open = (count: number, more: Partial<TaskRecord> = {}) =>
  Promise.all(
    Array.from({ length: count }, () => world.openTask({ deadlineMs: world.clock.now() + MINUTE_MS, ...more })),
  );
const statesOf = async (tasks: readonly TaskRecord[]) =>
  (await Promise.all(tasks.map(({ id }) => world.views.task(id)))).map((task) => task?.state);

describe('tasks whose time has come', () => {
  it('end at their deadline, each with its record, and each is drained', async () => {
    const tasks = await open(3);
    world.clock.advance(MINUTE_MS);
    await watchTasks(
      world,
      tasks.map(({ id }) => id),
    );
    expect(await statesOf(tasks)).toEqual(['expired', 'expired', 'expired']);
    expect(world.schedule.jobs).toEqual(tasks.map(({ id }) => ({ name: 'drain-task', id })));
    for (const { id } of tasks) {
      const { items } = await world.auditLog.read({ task: id, limit: 10 });
      expect(items[0]).toMatchObject({ type: 'task.ended', task: id, reasons: ['its deadline passed'] });
    }
  });

  it('do not end a moment before it, and are told apart from those that do', async () => {
    const [early] = await open(1);
    const [later] = await open(1, { deadlineMs: world.clock.now() + MINUTE_MS + 1 });
    world.clock.advance(MINUTE_MS);
    await watchTasks(world, [later?.id as string, early?.id as string]);
    expect(await statesOf([later as TaskRecord, early as TaskRecord])).toEqual(['active', 'expired']);
  });

  it('are left as they ended when they have ended, and nobody minds one that is not there', async () => {
    const [task] = await open(1);
    const end = { reason: 'done', by: 'desk', nowMs: world.clock.now() };
    const audit = { id: 'dec_a_1', atMs: world.clock.now(), type: 'task.ended' as const, actor: {} };
    await world.ledger.endTask({ taskId: task?.id as string, state: 'completed', ...end, audit });
    world.clock.advance(MINUTE_MS);
    await watchTasks(world, [task?.id as string, 'tsk_a_nowhere']);
    expect(await statesOf([task as TaskRecord])).toEqual(['completed']);
  });

  it('are suspended when their agents were silent for a heartbeat, and end after three, in the same page as others', async () => {
    const [silent] = await open(1, { deadlineMs: world.clock.now() + 60 * MINUTE_MS, heartbeatMs: MINUTE_MS });
    const [late] = await open(1);
    const both = [silent as TaskRecord, late as TaskRecord];
    const ids = both.map(({ id }) => id);
    world.clock.advance(MINUTE_MS);
    await watchTasks(world, ids);
    expect(await statesOf(both)).toEqual(['suspended', 'expired']);
    world.clock.advance(2 * MINUTE_MS);
    await watchTasks(world, ids);
    expect(await statesOf(both)).toEqual(['silent', 'expired']);
  });

  it('send no messenger each when they are many: the sweeper finds their drains in the due index', async () => {
    const tasks = await open(101);
    world.clock.advance(MINUTE_MS);
    await watchTasks(
      world,
      tasks.map(({ id }) => id),
    );
    expect(world.schedule.jobs).toEqual([]);
    const drains = world.schedule.due().filter(({ name }) => name === 'drain-task');
    expect(drains.map(({ id }) => id).sort()).toEqual(tasks.map(({ id }) => id).sort());
  });
});
