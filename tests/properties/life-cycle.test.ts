import fc from 'fast-check';
import type { Selector } from '../../src/core/selector.js';
import type { TerminalState } from '../../src/core/task.js';
import { ProductWorld } from './product-world.js';
import { HOLDERS, OPENER, World, type WorldBugs } from './world.js';

/**
 * The gate looks at the same runs each time, so that it is about the change and not about luck. `MAYFLY_PROPERTY_RUNS` for more,
 * `MAYFLY_PROPERTY_SEED=random` for others, a seed and `MAYFLY_PROPERTY_PATH` to see one again. What is found becomes a scenario.
 */
const RUNS = Number(process.env['MAYFLY_PROPERTY_RUNS'] ?? 200);
const SEED = process.env['MAYFLY_PROPERTY_SEED'] ?? '20261123';
const STEPS_MAX = 60;

type Act = { name: string; run(world: World): Promise<void> | void };

/** One thing that happens to the world; those that find nothing to happen to do nothing. */
class Command implements fc.AsyncCommand<object, World> {
  readonly act: Act;

  constructor(act: Act) {
    this.act = act;
  }

  check(): boolean {
    return true;
  }

  async run(_model: object, world: World): Promise<void> {
    world.remember();
    await this.act.run(world);
    world.oracle.afterStep();
    if (world.oracle.violations.length > 0) throw new Error(world.oracle.violations.join('\n'));
  }

  toString(): string {
    return this.act.name;
  }
}

const pick = <T>(items: readonly T[], at: number): T | undefined => items[at % Math.max(1, items.length)];
const at = fc.nat(30);
const broker = fc.nat(1);

const STATES: TerminalState[] = ['completed', 'failed', 'cancelled'];
const FATES = ['run', 'run', 'run', 'fail', 'lose-reply', 'die-before', 'die-after'] as const;

const selectorOf = (world: World, kind: number, which: number): Selector => {
  const holder = HOLDERS[which % 2] as (typeof HOLDERS)[number];
  const task = pick(world.tasks, which);
  const token = pick(world.tokens, which);
  const selectors: Selector[] = [
    { agent: holder.agent },
    { prefix: 'spiffe://dev.mayfly/agent' },
    { trust_domain: 'dev.mayfly' },
    { owner: holder.owner },
    { team: holder.team },
    { opener: OPENER },
    { tool: 'orders.refund' },
    { bundle: world.bundles[which % 2] as string },
    ...(task ? [{ task }] : []),
    ...(token ? [{ lease: token.lease.id }] : []),
    { secret: 'orders-db' },
  ];
  return selectors[kind % selectors.length] as Selector;
};

const verb = (
  weight: number,
  name: string,
  make: (world: World, b: number, x: number, y: number, z: number) => Promise<unknown> | undefined,
) => ({
  weight,
  arbitrary: fc.tuple(broker, at, at, at).map(
    ([b, x, y, z]) =>
      new Command({
        name: `${name}(${b},${x},${y},${z})`,
        run: async (world) => {
          await make(world, b, x, y, z);
        },
      }),
  ),
});

const onTask = (world: World, x: number, run: (task: string) => Promise<unknown>): Promise<unknown> | undefined => {
  const task = pick(world.tasks, x);
  return task === undefined ? undefined : run(task);
};

/** Half of the verbs run through at once, the others are left standing at their first awaited call. */
const start = (
  world: World,
  name: string,
  b: number,
  z: number,
  run: Parameters<World['spawn']>[2],
  then?: (answer: never) => void,
) => (z % 2 === 0 ? world.run(name, b, run, then as never) : world.spawn(name, b, run, then as never));

const commands = [
  verb(3, 'StartTask', (world, b, x, _y, z) =>
    world.run(
      'start',
      b,
      (hands) => world.startTask(hands, z % 2 === 0 ? undefined : pick(world.tasks, x)),
      (task) => task && world.tasks.push(task.id),
    ),
  ),
  verb(8, 'Mint', (world, b, x, y, z) =>
    onTask(world, x, (task) => start(world, 'mint', b, z, world.mint(y, task), (given) => world.tokens.push(given))),
  ),
  verb(6, 'Delegate', (world, b, x, y, z) => {
    const parent = pick(world.tokens, x);
    if (!parent) return undefined;
    const tools = y % 3 === 0 ? ['orders.read'] : ['orders.read', 'orders.refund'];
    const mint = world.mint(y, parent.lease.taskId as string, parent, tools);
    return start(world, 'delegate', b, z, mint, (given) => world.tokens.push(given));
  }),
  verb(8, 'Issue', (world, b, x, y, z) =>
    onTask(world, x, (task) => {
      const below = world.tokens.filter((token) => token.lease.taskId === task);
      const parent = y % 3 === 0 ? pick(below, y) : undefined;
      return start(world, 'issue', b, z, world.issue(y, task, parent), (given) => world.credentials.push(given));
    }),
  ),
  verb(3, 'Renew', (world, b, x, _y, z) => {
    const credential = pick(world.credentials, x);
    return credential && start(world, 'renew', b, z, world.renew(credential));
  }),
  verb(3, 'End', (world, b, x, y, z) =>
    onTask(world, x, (task) => start(world, 'end', b, z, world.end(task, STATES[y % 3] as TerminalState))),
  ),
  verb(4, 'Suspend', (world, b, x, _y, z) =>
    onTask(world, x, (task) => start(world, 'suspend', b, z, world.suspend(task))),
  ),
  verb(6, 'Resume', (world, b, x, _y, z) =>
    onTask(world, x, (task) => start(world, 'resume', b, z, world.resume(task))),
  ),
  verb(6, 'ChangeContext', (world, b, x, y, z) =>
    onTask(world, x, (task) => start(world, 'context', b, z, world.changeContext(task, y % 3, y > 24))),
  ),
  verb(4, 'Revoke', (world, b, x, y, z) =>
    start(world, 'revoke', b, z, world.revoke(selectorOf(world, x, y), y % 4 === 0)),
  ),
  verb(3, 'Lift', (world, b, x) => {
    const lock = world.locks.splice(x % Math.max(1, world.locks.length), 1)[0];
    return lock === undefined ? undefined : world.run('lift', b, world.liftLock(lock));
  }),
  verb(3, 'ActivateBundle', (world, b, x, _y, z) =>
    start(world, 'activate', b, z, world.activateBundle(world.bundles[x % 2] as string)),
  ),
  verb(8, 'Job', (world, b, x, y, z) => {
    const queue = world.brokers[y % 2]?.schedule.jobs ?? [];
    const job = z % 3 === 0 ? pick(queue, x) : queue.splice(x % Math.max(1, queue.length), 1)[0];
    return job && start(world, job.name, b, z, world.job(job));
  }),
  verb(8, 'Sweep', (world, b, x, _y, z) => {
    const job = pick(world.brokers[b]?.schedule.due() ?? [], x);
    return job && start(world, `sweep ${job.name}`, b, z, world.job(job));
  }),
  verb(30, 'Step', (world, _b, x, y) => {
    const process = pick(world.processes.running, x);
    return process && world.processes.step(process, FATES[y % FATES.length] as (typeof FATES)[number]);
  }),
  verb(12, 'Finish', (world, _b, x) => {
    const process = pick(world.processes.running, x);
    return process && world.processes.finish(process);
  }),
  verb(10, 'Use', async (world, b, x, y) => {
    if (y % 2 === 0) world.verifiers[b]?.pull(world.oracle.index);
    const token = pick(world.tokens, x);
    if (token) world.use(b, token);
  }),
  verb(6, 'Pull', async (world, b, _x, y) => {
    world.verifiers[b]?.pull(world.oracle.index, (y % 4) + 1);
  }),
  verb(2, 'CutVerifier', async (world, b, x) => {
    const verifier = world.verifiers[b];
    if (verifier) verifier.cut = x % 2 === 0;
  }),
  verb(2, 'RestartVerifier', async (world, b) => {
    world.verifiers[b]?.restart();
  }),
  verb(3, 'BrokerHears', async (world, b) => {
    world.brokers[b]?.feed.catchUp();
  }),
  verb(5, 'Tick', async (world, _b, x, y) => {
    world.clock.advance([1, 500, 3_000, 9_000, 30_000, 130_000][(x + y) % 6] as number);
  }),
  verb(1, 'Trim', async (world) => {
    world.line.trim();
  }),
  verb(2, 'BackendDown', async (world, _b, x) => {
    world.backend.down = x % 2 === 0;
  }),
  verb(2, 'LoseTail', async (world, _b, x) => {
    world.loseTail(x % 5);
  }),
  verb(4, 'Confirm', async (world) => {
    world.confirm();
  }),
];

const policies = fc.array(fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }), { minLength: 2, maxLength: 2 });

function lifeCycle(Kind: typeof World, bugs: WorldBugs = {}) {
  return fc.asyncProperty(
    policies,
    fc.commands([fc.oneof(...commands)], { maxCommands: STEPS_MAX, size: 'max' }),
    async (policy, steps) => {
      const world = new Kind({ bugs, policy });
      await world.run(
        'start',
        0,
        (hands) => world.startTask(hands),
        (task) => task && world.tasks.push(task.id),
      );
      await fc.asyncModelRun(() => ({ model: {}, real: world }), steps);
      await world.heal();
      if (world.oracle.violations.length > 0) throw new Error(world.oracle.violations.join('\n'));
    },
  );
}

const WORLDS: [string, typeof World][] = [
  ['the protocol, with credentials', World],
  ["the product's verbs", ProductWorld],
];

describe('the life cycle, whatever happens in whatever order', () => {
  it.each(WORLDS)(
    'keeps I1 to I5, I8 to I11, I20, I21 and I23: %s',
    async (_name, Kind) => {
      const seed = SEED === 'random' ? Date.now() & 0x7fffffff : Number(SEED);
      const path = process.env['MAYFLY_PROPERTY_PATH'];
      await fc.assert(lifeCycle(Kind), { numRuns: RUNS, seed, ...(path && { path }) });
    },
    600_000,
  );
});

/** Bugs that need no particular interleaving; planted-bugs.test.ts has a scenario for each of the others. */
const FOUND_BY_CHANCE: (keyof WorldBugs)[] = [
  'positionBlind',
  'expiryBlind',
  'dropEpoch',
  'dropMemory',
  'renewalTakesNewPosition',
  'pathBlind',
  'dropWaitForFence',
];

describe('a search without a plan', () => {
  it.each(FOUND_BY_CHANCE)('comes across %s', async (bug) => {
    const property = lifeCycle(World, { [bug]: true });
    const found = await fc.check(property, { numRuns: 2_000, seed: 1, endOnFailure: true });
    expect(found.failed).toBe(true);
  });
});
