import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { type BrokerProcess, Brokers, ORDERS, type Reply, until } from './brokers.js';

const KINDS = ['end', 'context', 'stop'] as const;
const HANDS = 6;

/** A task with a live token, what was asked of it, and what was answered: nothing when whoever should answer was gone. */
interface Asked {
  kind: (typeof KINDS)[number];
  task: string;
  token: string;
  reply?: Reply;
}

/** Ends, context changes and stops, half of them on their way when a process is killed: acknowledged ones hold, the others are whole or were never made. */
describe('kill -9 in the middle of ends, context changes and stops', () => {
  let redis: RedisServer;
  let brokers: Brokers;
  let one: BrokerProcess;

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Brokers.open(redis.url);
    one = await brokers.start('one', { first: true });
  }, 90_000);

  afterAll(async () => {
    await brokers?.close();
    await redis?.stop();
  });

  const orchestrator = () => brokers.svid('/orchestrator/workflow');

  async function prepare(count: number): Promise<Asked[]> {
    const made: Asked[] = [];
    for (let at = 0; at < count; at++) {
      const task = await brokers.openTask(one, { scope: { tools: ['orders.refund'], resources: [ORDERS] } });
      const token = String((await brokers.mint(one, task)).body['access_token']);
      made.push({ kind: KINDS[at % KINDS.length] as Asked['kind'], task, token });
    }
    return made;
  }

  function ask(broker: BrokerProcess, { kind, task }: Asked): Promise<Reply> {
    if (kind === 'end') return brokers.end(broker, task);
    if (kind === 'stop') {
      return brokers.operate(broker, 'POST', '/v1/locks', { selector: { task }, reason: 'odd refunds' });
    }
    const context = { context: { risk: 'high' } };
    return brokers.request(broker, 'PATCH', `/v1/tasks/${task}/context`, orchestrator(), context);
  }

  /** Several at a time; `kill` strikes when a third is answered. */
  async function askAll(broker: BrokerProcess, asked: Asked[], kill: () => Promise<void>): Promise<void> {
    const left = asked.values();
    let answered = 0;
    let killed: Promise<void> | undefined;
    const hand = async () => {
      for (const one of left) {
        try {
          one.reply = await ask(broker, one);
        } catch {
          // Nobody was there to answer.
        }
        answered += 1;
        if (answered >= asked.length / 3) killed ??= kill();
      }
    };
    await Promise.all(Array.from({ length: HANDS }, hand));
    await killed;
  }

  async function holds(broker: BrokerProcess, { kind, task, token, reply }: Asked): Promise<void> {
    const now = await brokers.request(broker, 'GET', `/v1/tasks/${task}`, orchestrator());
    const { state, generation, context } = now.body as {
      state: string;
      generation: number;
      context: { risk?: string };
    };
    const isAcknowledged = reply !== undefined && reply.status < 300;
    if (reply && !isAcknowledged) expect([kind, reply.status]).toEqual([kind, 503]);
    const isDone = { end: state === 'completed', context: context.risk === 'high', stop: false }[kind];
    if (kind === 'stop') {
      const again = await brokers.mint(broker, task);
      const isLocked = again.status !== 200;
      if (isLocked) expect(again.body['error']).toBe('access_denied');
      if (isAcknowledged) expect(isLocked).toBe(true);
      expect(await brokers.isActive(broker, token)).toBe(!isLocked);
      return;
    }
    if (isAcknowledged) expect([kind, isDone]).toEqual([kind, true]);
    if (kind === 'context') {
      // Stored and raised in one step, or neither.
      expect([context.risk, generation]).toEqual(isDone ? ['high', 2] : [undefined, 1]);
      if (isDone) await until('the token was judged', 15_000, async () => !(await brokers.isActive(broker, token)));
      else expect(await brokers.isActive(broker, token)).toBe(true);
      return;
    }
    expect(state).toBe(isDone ? 'completed' : 'active');
    expect(await brokers.isActive(broker, token)).toBe(!isDone);
  }

  function bothHappened(asked: Asked[]): void {
    const acknowledged = asked.filter(({ reply }) => reply !== undefined && reply.status < 300).length;
    expect(acknowledged).toBeGreaterThan(0);
    expect(acknowledged).toBeLessThan(asked.length);
  }

  it('of a broker: another one finds each of them whole or not there, and finishes what they left to do', async () => {
    const other = await brokers.start('other');
    const asked = await prepare(36);
    await askAll(other, asked, () => other.kill());
    bothHappened(asked);
    for (const each of asked) await holds(one, each);
  }, 180_000);

  it('of Redis: refusals are 503, and when it is back each of them is whole or not there', async () => {
    const asked = await prepare(36);
    await askAll(one, asked, () => redis.kill());
    bothHappened(asked);
    await redis.restart();
    await until('grants are open again', 30_000, async () => (await fetch(`${one.url}/readyz`)).ok);
    for (const each of asked) await holds(one, each);
  }, 180_000);
});
