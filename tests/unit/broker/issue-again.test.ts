import type { Caller } from '../../../src/broker/caller.js';
import type { SecretIssued } from '../../../src/broker/issue.js';
import { issueAgain } from '../../../src/broker/issue-again.js';
import type { Parts } from '../../../src/broker/parts.js';
import type { BrokerError } from '../../../src/core/errors.js';
import type { TaskRecord } from '../../../src/core/task.js';
import type { Backend } from '../../../src/plugins/backends/contract.js';
import type { FakeBackend } from '../../fakes/backend.js';
import type { VirtualClock } from '../../fakes/virtual-clock.js';
import { agentOf, openSecretWorld, refused, type VerbWorld } from './world.js';

/** Every call whose answer a request waits for while something may have changed. */
const CALLS = new Set([
  'nameLease',
  'revokeLeases',
  'lease',
  'read',
  'openIntent',
  'noteCredential',
  'commitLease',
  'issue',
]);

let clock: VirtualClock;
let backend: FakeBackend;
let world: VerbWorld;
let task: TaskRecord;
let caller: Caller;

const open = async () => {
  ({ clock, backend, world, task } = await openSecretWorld());
  caller = agentOf(world);
};
beforeEach(open);

const again = (key: string, { bodyDigest = 'b', parts = world as Parts, of = task.id } = {}) =>
  issueAgain(parts, caller, { secret: 'orders-db', task: of }, { key, bodyDigest });

/** Everything due is done, and whoever was to make something can no longer be at work. */
const settle = async () => {
  await world.schedule.runJobs();
  for (let turn = 0; turn < 4; turn++) {
    clock.advance(5_000);
    await world.schedule.sweep();
  }
};

/** Leases that are not being revoked: of one key's there is never more than one. */
const standing = () =>
  [...world.line.state.leases.values()]
    .filter(({ state }) => state === 'pending' || state === 'active')
    .map(({ id }) => id);

describe('a request that is repeated', () => {
  it('revokes the first credential and issues another that says so; nothing secret is kept to be replayed', async () => {
    const first = await again('k');
    const second = await again('k');
    expect(second).toMatchObject({ replaces: first.leaseId });
    expect(second.leaseId).not.toBe(first.leaseId);
    await world.schedule.runJobs();
    expect(world.lease(first.leaseId).state).toBe('revoked');
    expect(backend.live()).toEqual([second.leaseId]);
    const { claims, requests } = world.line.state;
    expect([claims.size, requests.size]).toEqual([0, 1]);
    expect(JSON.stringify([...requests.values()])).not.toContain('pw-');
    expect((await again('k')).replaces).toBe(second.leaseId);
  });

  it.each([0, 1])(
    'many times at once, %i times before, leaves one credential alive: the others are told to come again',
    async (before) => {
      if (before > 0) await again('k');
      const answers = await Promise.allSettled([again('k'), again('k'), again('k'), again('k')]);
      const told = answers.filter(({ status }) => status === 'rejected') as PromiseRejectedResult[];
      expect(told.map(({ reason }) => (reason as BrokerError).code)).toEqual(['conflict', 'conflict', 'conflict']);
      expect(standing()).toHaveLength(1);
      await world.schedule.runJobs();
      expect(backend.live()).toEqual(standing());
    },
  );

  it('is known by its lease from before the intent on: whatever dies after that leaves nothing that a repeat does not revoke', async () => {
    const openIntent = world.ledger.openIntent.bind(world.ledger);
    const named: (string | undefined)[] = [];
    world.ledger.openIntent = (write) => {
      named.push([...world.line.state.requests.values()].at(-1)?.leaseId);
      return openIntent(write);
    };
    const { leaseId } = await again('k');
    expect(named).toEqual([leaseId]);
  });

  it('whose key the store forgot before the intent is not made', async () => {
    const first = new Steps();
    const asked = first.ask();
    await first.until('openIntent');
    world.line.state.requests.clear();
    await first.end();
    expect(await refused(asked)).toBe('conflict');
    expect(world.line.state.leases.size).toBe(0);
    expect(await again('k')).not.toHaveProperty('replaces');
  });

  it('for the same task by another of its names is the same request', async () => {
    const opened = await world.openTask({ ref: 'order-42' });
    const first = await again('k', { of: opened.id });
    expect(await again('k', { of: 'ref:order-42' })).toMatchObject({ replaces: first.leaseId });
    await expect(again('k', { of: 'ref:order-43' })).rejects.toMatchObject({ code: 'not_found' });
  });

  it('for another task is another request: the first credential lives on', async () => {
    const first = await again('k');
    const second = await world.openTask();
    const answer = await again('k', { of: second.id });
    expect(answer).not.toHaveProperty('replaces');
    await world.schedule.runJobs();
    expect(backend.live().sort()).toEqual([first.leaseId, answer.leaseId].sort());
  });

  it('with another body is refused and changes nothing; one that failed is done again', async () => {
    const { leaseId } = await again('k');
    expect(await refused(again('k', { bodyDigest: 'other' }))).toBe('key_reused');
    expect(standing()).toEqual([leaseId]);
    backend.faults.issue = [{ kind: 'busy' }];
    expect(await refused(again('l'))).toBe('unavailable');
    expect(await again('l')).not.toHaveProperty('replaces');
  });
});

/** One request that goes from call to call as a test says: held before each, whichever broker it is at. */
class Steps {
  readonly calls: string[] = [];
  readonly parts: Parts;
  answer: SecretIssued | undefined;
  refusal: BrokerError | undefined;
  isOver = false;
  #release: (() => void) | undefined;
  #arrived = () => {};

  constructor() {
    const pg = this.#held(backend) as Backend;
    this.parts = {
      ...world,
      ledger: this.#held(world.ledger),
      views: this.#held(world.views),
      replayGuard: this.#held(world.replayGuard),
      backends: { ...world.backends, get: () => pg },
      untaken: new Map(),
    };
  }

  async ask(): Promise<SecretIssued> {
    try {
      this.answer = await again('k', { parts: this.parts });
      return this.answer;
    } catch (error) {
      this.refusal = error as BrokerError;
      throw error;
    } finally {
      this.isOver = true;
      this.#arrived();
    }
  }

  /** Asks, and is held before its first call. */
  async begin(): Promise<void> {
    await this.#arrival(() => void this.ask().catch(() => {}));
  }

  /** One call is done, and the next one is about to be. */
  async step(): Promise<void> {
    if (!this.isOver) await this.#arrival(() => this.#release?.());
  }

  async end(): Promise<void> {
    while (!this.isOver) await this.step();
  }

  async until(call: string): Promise<void> {
    while (this.calls.at(-1) !== call) await this.#arrival(() => this.#release?.());
  }

  async #arrival(act: () => void): Promise<void> {
    const arrived = new Promise<void>((resolve) => {
      this.#arrived = resolve;
    });
    act();
    await arrived;
  }

  #held<Part extends object>(part: Part): Part {
    return new Proxy(part, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        if (!CALLS.has(String(name))) return value.bind(target);
        return async (...words: unknown[]) => {
          this.calls.push(String(name));
          await new Promise<void>((resolve) => {
            this.#release = resolve;
            this.#arrived();
          });
          return value.apply(target, words);
        };
      },
    });
  }
}

describe('requests with one key, in every order of their steps', () => {
  const STEPS_MAX = 12;
  /** Given up before the intent or at the commit; or in between, which its backend takes for an intent that ran out. */
  const TOLD = ['conflict', 'unavailable'];

  /** However far each has come: one stands at most. */
  const step = async (one: Steps) => {
    await one.step();
    expect(standing().length).toBeLessThanOrEqual(1);
  };
  const steps = async (one: Steps, count: number) => {
    for (let at = 0; at < count && !one.isOver; at++) await step(one);
  };
  const asked = async () => {
    const one = new Steps();
    await one.begin();
    return one;
  };
  const orders = Array.from({ length: STEPS_MAX + 1 }, (_, first) => first);

  it.each(orders)('the first is at its step %i: of two, one is answered at least, and one lives', async (first) => {
    for (const second of orders) {
      for (const isFirstQuicker of [true, false]) {
        await open();
        const [a, b] = [await asked(), await asked()];
        await steps(a, first);
        await steps(b, second);
        for (const one of isFirstQuicker ? [a, b] : [b, a]) await steps(one, STEPS_MAX);
        expect([a.isOver, b.isOver]).toEqual([true, true]);
        await settle();
        const answers = [a, b].flatMap(({ answer }) => answer ?? []);
        const replaced = answers.flatMap(({ replaces }) => replaces ?? []);
        const left = answers.map(({ leaseId }) => leaseId).filter((id) => !replaced.includes(id));
        expect(left).toHaveLength(1);
        expect(backend.live()).toEqual(left);
        for (const { refusal } of [a, b]) if (refusal) expect(TOLD).toContain(refusal.code);
      }
    }
  });

  it.each(orders)(
    'the first dies at its step %i, or wakes up late: the latest repeat lives, and it alone',
    async (first) => {
      for (const second of orders) {
        await open();
        const [a, b] = [await asked(), await asked()];
        // One that has not come to the key yet is no earlier request than the last.
        await steps(a, Math.max(1, first));
        await steps(b, Math.max(1, second));
        const c = await asked();
        await steps(c, STEPS_MAX);
        await settle();
        const { leaseId } = c.answer as SecretIssued;
        expect(backend.live()).toEqual([leaseId]);
        for (const one of [b, a]) await steps(one, STEPS_MAX);
        await settle();
        expect(backend.live()).toEqual([leaseId]);
      }
    },
  );

  it.each([1, 2, 3, 4, 5, 6, 7, 8])(
    'five at once, shuffled (seed %i): one lives, and its asker was answered',
    async (seed) => {
      let state = seed;
      const random = (below: number) => {
        state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
        return Math.floor((state / 2_147_483_648) * below);
      };
      for (let round = 0; round < 20; round++) {
        await open();
        const all: Steps[] = [];
        for (let count = 0; count < 5; count++) all.push(await asked());
        for (let left = all; left.length > 0; left = all.filter(({ isOver }) => !isOver)) {
          await step(left[random(left.length)] as Steps);
        }
        await settle();
        const [alive, ...more] = backend.live();
        expect(more).toEqual([]);
        expect(all.map(({ answer }) => answer?.leaseId)).toContain(alive);
        for (const { refusal } of all) if (refusal) expect(TOLD).toContain(refusal.code);
      }
    },
  );
});
