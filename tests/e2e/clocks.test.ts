import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { createVerifier } from '../../src/client/verifier.js';
import { type RedisServer, startRedis } from '../state/redis-servers.js';
import { type BrokerProcess, Brokers, ORDERS, until } from './brokers.js';

const HOUR_MS = 3_600_000;
/** Long enough for whatever a worker does once a second. */
const SEVERAL_ROUNDS_MS = 4_000;

/** Loaded before the broker: the file named by MAYFLY_TEST_CLOCK holds the milliseconds to add to its wall clock, read again on SIGUSR2. */
const CLOCK_SHIM = `import { readFileSync } from 'node:fs';

const RealDate = Date;
const realNow = RealDate.now;
let offsetMs = 0;

function read() {
  offsetMs = Number(readFileSync(process.env.MAYFLY_TEST_CLOCK, 'utf8'));
}

read();
process.on('SIGUSR2', read);
RealDate.now = () => realNow() + offsetMs;
globalThis.Date = class extends RealDate {
  constructor(...words) {
    super(...(words.length === 0 ? [RealDate.now()] : words));
  }
};
`;

/** Two brokers, one with a clock that a test turns: it is the only worker, so that nobody tidies up but it. */
describe('a broker whose clock jumps by an hour', () => {
  let redis: RedisServer;
  let brokers: Brokers;
  let right: BrokerProcess;
  let wrong: BrokerProcess;
  let clockFile: string;

  beforeAll(async () => {
    redis = await startRedis();
    brokers = await Brokers.open(redis.url);
    clockFile = join(brokers.dir, 'clock');
    writeFileSync(clockFile, '0');
    const shim = join(brokers.dir, 'clock-shim.mjs');
    writeFileSync(shim, CLOCK_SHIM);
    wrong = await brokers.start('wrong', {
      nodeArgs: ['--import', shim],
      env: { MAYFLY_TEST_CLOCK: clockFile },
    });
    right = await brokers.start('right', { first: true, role: 'api' });
  }, 90_000);

  afterAll(async () => {
    await brokers?.close();
    await redis?.stop();
  });

  const turn = (offsetMs: number) => {
    writeFileSync(clockFile, String(offsetMs));
    wrong.child.kill('SIGUSR2');
  };

  /** What somebody who only now begins to follow the feed makes of the tokens. */
  async function seenAnew(tokens: string[]): Promise<string[]> {
    const verifier = createVerifier({
      issuer: brokers.issuer,
      audience: ORDERS,
      identity: { bearer: async () => brokers.svid('/tool/orders') },
    });
    try {
      await verifier.ready(10_000);
      return await Promise.all(
        tokens.map(async (token) => {
          try {
            await verifier.verify(token);
            return 'taken';
          } catch (error) {
            return (error as { reason?: string }).reason ?? String(error);
          }
        }),
      );
    } finally {
      await verifier.close();
    }
  }

  it.each([
    ['ahead', HOUR_MS],
    ['back', -HOUR_MS],
  ])(
    '%s: grants nothing, ends nothing early and forgets no revocation and no lock; the other goes on; set right, it grants again',
    async (_name, offsetMs) => {
      const [ended, stopped, open] = [
        await brokers.openTask(right),
        await brokers.openTask(right),
        await brokers.openTask(right),
      ];
      const tokens = await Promise.all(
        [ended, stopped, open].map(async (task) => String((await brokers.mint(right, task)).body['access_token'])),
      );
      expect((await brokers.end(right, ended)).status).toBe(200);
      const lock = await brokers.operate(right, 'POST', '/v1/locks', {
        selector: { task: stopped },
        reason: 'odd refunds',
        expires_in: 1_800,
      });
      expect(lock.status).toBe(201);
      const asItWas = ['revoked', 'revoked', 'taken'];
      expect(await seenAnew(tokens)).toEqual(asItWas);

      turn(offsetMs);
      await until('it is not ready', 10_000, async () => (await fetch(`${wrong.url}/readyz`)).status === 503);
      expect((await brokers.mint(wrong, open)).status).not.toBe(200);
      const endMs = performance.now() + SEVERAL_ROUNDS_MS;
      while (performance.now() < endMs) {
        expect(await seenAnew(tokens)).toEqual(asItWas);
        expect((await brokers.mint(right, open)).status).toBe(200);
        expect((await brokers.mint(right, stopped)).body['error']).toBe('access_denied');
        await delay(200);
      }
      // What hangs below an end is its work still, whatever its clock says.
      expect((await brokers.end(right, open)).status).toBe(200);
      expect(
        (await brokers.request(right, 'GET', `/v1/tasks/${stopped}`, brokers.svid('/orchestrator/workflow'))).body,
      ).toMatchObject({ state: 'active' });

      turn(0);
      await until('it is ready again', 10_000, async () => (await fetch(`${wrong.url}/readyz`)).ok);
      expect((await brokers.mint(wrong, await brokers.openTask(wrong))).status).toBe(200);
      expect((await brokers.mint(wrong, stopped)).body['error']).toBe('access_denied');
      expect(await seenAnew(tokens)).toEqual(['revoked', 'revoked', 'revoked']);
    },
    120_000,
  );
});
