import type { Given } from './ledger-verbs.js';
import type { Process } from './processes.js';
import { ProductWorld } from './product-world.js';
import { HOLDERS, World, type WorldBugs, type WorldOptions } from './world.js';

/** What happens, up to the point where the world heals and is looked at. */
type Scenario = (world: World) => Promise<void>;

interface Planted {
  bug: keyof WorldBugs;
  tells: string;
  breaks: RegExp;
  policy?: NonNullable<WorldOptions['policy']>;
  /** It is planted in the small verbs and cannot be in the product's. */
  inVerbs?: true;
  scenario: Scenario;
}

const owner = HOLDERS[0]?.owner as string;

async function open(world: World, parent?: string): Promise<string> {
  const task = await world.run('start', 0, (hands) => world.startTask(hands, parent));
  if (!task) throw new Error('the task was not opened');
  world.tasks.push(task.id);
  return task.id;
}

async function minted(world: World, task: string, holder = 0, parent?: Given): Promise<Given> {
  const given = await world.run('mint', 0, world.mint(holder, task, parent));
  if (!given) throw new Error('nothing was minted');
  world.tokens.push(given);
  return given;
}

/** Starts a verb and lets it run until it is about to make that call. */
async function begun(world: World, verb: Parameters<World['spawn']>[2], until: string, broker = 0): Promise<Process> {
  const process = await world.spawn('begun', broker, verb, (given) => {
    if ((given as Given | undefined)?.claims?.mayfly) world.tokens.push(given as Given);
  });
  while (process.waitsFor !== undefined && process.waitsFor !== until) await world.processes.step(process);
  if (process.over) throw new Error(`it ended before ${until}: ${String(process.error)}`);
  return process;
}

/** Every verifier hears the feed to its end and judges every token. */
function judgeAll(world: World): void {
  for (const [at, verifier] of world.verifiers.entries()) {
    verifier.pull(world.oracle.index);
    for (const token of world.tokens) world.use(at, token);
  }
}

async function doDue(world: World): Promise<void> {
  for (const job of world.brokers[0]?.schedule.due() ?? []) await world.run(job.name, 0, world.job(job));
}

const PLANTED: Planted[] = [
  {
    bug: 'dropFence',
    tells: 'a credential decided before a stop is not issued after its enumeration',
    breaks: /^I1:/,
    scenario: async (world) => {
      const task = await open(world);
      const issue = await begun(world, world.issue(0, task), 'ledger.openIntent');
      await world.run('revoke', 1, world.revoke({ owner }, false));
      await doDue(world);
      await world.processes.finish(issue);
    },
  },
  {
    bug: 'dropGeneration',
    tells: 'a token decided under the old context is not committed under the new one',
    breaks: /^I23:/,
    policy: [[true, false, false]],
    scenario: async (world) => {
      const task = await open(world);
      const mint = await begun(world, world.mint(0, task), 'ledger.commitLease');
      await world.run('context', 1, world.changeContext(task, 1));
      await doDue(world);
      await world.processes.finish(mint);
    },
  },
  {
    bug: 'dropAncestorGeneration',
    tells: "a token decided under a parent's old context is not committed under its new one",
    breaks: /^I23:/,
    policy: [[true, false, false]],
    scenario: async (world) => {
      const task = await open(world);
      const child = await open(world, task);
      const mint = await begun(world, world.mint(0, child), 'ledger.commitLease');
      await world.run('context', 1, world.changeContext(task, 1));
      await doDue(world);
      await world.processes.finish(mint);
    },
  },
  {
    bug: 'dropPath',
    tells: 'nothing is committed below a parent that ended while it was decided',
    breaks: /^I2:/,
    scenario: async (world) => {
      const child = await open(world, await open(world));
      const mint = await begun(world, world.mint(0, child), 'ledger.commitLease');
      await world.run('end', 1, world.end(world.tasks[0] as string, 'completed'));
      await world.processes.finish(mint);
    },
  },
  {
    bug: 'pathBlind',
    tells: "a parent's end reaches the tokens of its child tasks",
    breaks: /^I3:/,
    scenario: async (world) => {
      const child = await open(world, await open(world));
      await minted(world, child);
      await world.run('end', 1, world.end(world.tasks[0] as string, 'completed'));
      judgeAll(world);
    },
  },
  {
    bug: 'positionBlind',
    tells: 'what is minted after a resume is good',
    breaks: /^availability:/,
    scenario: async (world) => {
      const task = await open(world);
      await minted(world, task);
      await world.run('suspend', 0, world.suspend(task));
      await world.run('resume', 0, world.resume(task));
      await minted(world, task);
    },
  },
  {
    bug: 'latePosition',
    tells: 'a token decided before a stop is dead although it was committed after it',
    breaks: /^I3:/,
    inVerbs: true,
    scenario: async (world) => {
      const task = await open(world);
      const mint = await begun(world, world.mint(0, task), 'ledger.commitLease');
      await world.run('revoke', 1, world.revoke({ owner }, false));
      await world.processes.finish(mint);
    },
  },
  {
    bug: 'dropWaitForFence',
    tells: 'a broker behind the feed passes on no token that is revoked',
    breaks: /^I3:/,
    scenario: async (world) => {
      const task = await open(world);
      const parent = await minted(world, task);
      await world.run('revoke', 0, world.revoke({ owner }, false));
      await world.run('exchange', 1, world.mint(1, task, parent), (given) => world.tokens.push(given));
    },
  },
  {
    bug: 'dropVerdictCompare',
    tells: 'a verdict of the first change takes nothing away after the second',
    breaks: /^I23:.*holds no more/,
    policy: [[true, false, true]],
    scenario: async (world) => {
      const task = await open(world);
      await minted(world, task);
      await world.run('context', 0, world.changeContext(task, 1));
      const judging = await begun(world, world.job({ name: 're-evaluate-task', id: task }), 'ledger.revokeLeases');
      await world.run('context', 1, world.changeContext(task, 2));
      await world.processes.finish(judging);
    },
  },
  {
    bug: 'dropVerdictCompare',
    tells: 'a judging of the first change does not settle the second',
    breaks: /^I23:.*lives on/,
    policy: [[true, true, false]],
    scenario: async (world) => {
      const task = await open(world);
      await minted(world, task);
      await world.run('context', 0, world.changeContext(task, 1));
      const judging = await begun(world, world.job({ name: 're-evaluate-task', id: task }), 'ledger.settleTask');
      await world.run('context', 1, world.changeContext(task, 2));
      await world.processes.finish(judging);
    },
  },
  {
    bug: 'dropEpoch',
    tells: 'every token of a store that lost its tail is dead',
    breaks: /^I3:.*epoch/,
    scenario: async (world) => {
      const task = await open(world);
      await minted(world, task);
      world.remember();
      world.clock.advance(10);
      await world.run('revoke', 0, world.revoke({ team: 'support' }, false));
      world.loseTail(0);
      world.confirm();
    },
  },
  {
    bug: 'dropMemory',
    tells: 'an end that was acknowledged is in force although the store forgot it',
    breaks: /^I4:/,
    scenario: async (world) => {
      const task = await open(world);
      world.remember();
      await world.run('end', 0, world.end(task, 'completed'));
      world.loseTail(0);
      world.confirm();
      world.oracle.afterStep();
    },
  },
  {
    bug: 'changesUnconfirmed',
    tells:
      'a suspension that was acknowledged is in force although the store forgot it and the context changed meanwhile',
    breaks: /^I1:.*suspended/,
    scenario: async (world) => {
      const task = await open(world);
      await world.run('issue', 0, world.issue(0, task));
      world.remember();
      await world.run('suspend', 0, world.suspend(task));
      world.loseTail(0);
      await world.run('change', 1, world.changeContext(task, 0));
    },
  },
  {
    bug: 'dropExpiry',
    tells: 'nothing is given on the word of a token that expired while it was decided',
    breaks: /^I2:.*expired/,
    scenario: async (world) => {
      const task = await open(world);
      const parent = await minted(world, task);
      world.clock.advance(118_000);
      world.whileDeciding = () => world.clock.advance(3_000);
      await world.run('exchange', 1, world.mint(1, task, parent));
    },
  },
  {
    bug: 'expiryBlind',
    tells: 'a verifier refuses a token past its exp',
    breaks: /^I2:/,
    scenario: async (world) => {
      await minted(world, await open(world));
      world.clock.advance(121_000);
    },
  },
  {
    bug: 'renewalTakesNewPosition',
    tells: 'a renewal slips past no revocation that is not yet enumerated',
    breaks: /^I1:/,
    scenario: async (world) => {
      const task = await open(world);
      const credential = await world.run('issue', 0, world.issue(0, task));
      if (!credential) throw new Error('nothing was issued');
      await world.run('revoke', 0, world.revoke({ secret: 'orders-db' }, false));
      world.clock.advance(10_000);
      await world.run('renew', 0, world.renew(credential));
    },
  },
];

async function violationsOf(planted: Planted, Kind: typeof World, bugs: WorldBugs): Promise<string[]> {
  const world = new Kind({ bugs, ...(planted.policy && { policy: planted.policy }) });
  await planted.scenario(world);
  await world.heal();
  return world.oracle.violations;
}

describe.each([
  ['the protocol', World],
  ["the product's verbs", ProductWorld],
])('the oracle, watching %s', (_name, Kind) => {
  it.each(PLANTED.filter((planted) => Kind === World || planted.inVerbs !== true))(
    '$tells; it sees $bug',
    async (planted) => {
      expect(await violationsOf(planted, Kind, {})).toEqual([]);
      const seen = await violationsOf(planted, Kind, { [planted.bug]: true });
      expect(seen).toEqual(expect.arrayContaining([expect.stringMatching(planted.breaks)]));
    },
  );
});

describe("a parent's context", () => {
  it.each([
    ['the protocol', World],
    ["the product's verbs", ProductWorld],
  ])('reaches a child that had a word of its own: %s', async (_name, Kind) => {
    const world = new Kind({ policy: [[true, false, false]] });
    const parent = await open(world);
    const child = await open(world, parent);
    await world.run('context', 0, world.changeContext(child, 0));
    await minted(world, child);
    await world.run('context', 0, world.changeContext(parent, 2));
    await world.heal();
    expect(world.oracle.violations).toEqual([]);
    expect(await world.run('mint', 0, world.mint(0, child))).toBeUndefined();
  });
});
