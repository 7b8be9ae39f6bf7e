import { setTimeout as delay } from 'node:timers/promises';
import { startServer, type TestServer } from '../../backends/postgres/server.js';
import { until } from '../brokers.js';
import { Scene } from './scene.js';

/** How long PostgreSQL is really away; `MAYFLY_OUTAGE_SECONDS=60` for the whole minute. The hour is tests/unit/broker/outage.test.ts, on a virtual clock. */
const AWAY_MS = 1_000 * Number(process.env['MAYFLY_OUTAGE_SECONDS'] ?? 20);
/** docs/architecture.md, Bounds: dead after a broken backend is back, and usually. */
const RETURN_MS = 60_000;
const CONFIRMED_P99_MS = 5_000;
const CREDENTIALS = 25;
const MAIL = 'mail-db';

/** A real PostgreSQL that is really stopped, and a second one that is not. */
describe('a PostgreSQL that is stopped when credentials have to be revoked there', () => {
  let mail: TestServer;
  let scene: Scene;
  const given: { task: string; lease: string; data: Record<string, string> }[] = [];
  const tookMs: number[] = [];

  const issue = async (secret?: string): Promise<(typeof given)[number]> => {
    const task = await scene.openTask();
    const { reply, lease } = await scene.issued(task, scene.actor, secret);
    return { task, lease, data: reply.body['data'] as Record<string, string> };
  };
  const stateOf = async (lease: string) => (await (await scene.views()).lease(lease))?.state;

  beforeAll(async () => {
    mail = await startServer();
    scene = await Scene.open(async () => ({
      backends: {
        mail: { kind: 'postgres', host: '127.0.0.1', port: mail.port, managers: mail.managers, scram_iterations: 64 },
      },
      secrets: {
        [MAIL]: {
          backend: 'mail',
          sensitivity: 'internal',
          ttl_max: '1h',
          settings: { database: 'orders', groups: ['orders_read'] },
        },
      },
    }));
    await until('the other secret can be had', 30_000, () => scene.canIssue(MAIL));
    for (let made = 0; made < CREDENTIALS; made++) given.push(await issue());
    const token = await scene.brokers.mint(scene.actor.process, (given[0] as (typeof given)[number]).task);
    const away = scene.without('postgres', async () => {
      for (const { task } of given) await scene.endTask(task);
      if (token.status === 200) {
        expect(await scene.brokers.isActive(scene.actor.process, String(token.body['access_token']))).toBe(false);
      }
      const untilMs = performance.now() + AWAY_MS;
      while (performance.now() < untilMs) {
        const other = await issue(MAIL);
        const endedAtMs = performance.now();
        await scene.endTask(other.task);
        await scene.until(
          'the other one is dead',
          async (views) => (await views.lease(other.lease))?.state === 'revoked',
        );
        tookMs.push(performance.now() - endedAtMs);
        await delay(100);
      }
      for (const { lease } of given) expect(await stateOf(lease)).toBe('revoking');
    });
    await away;
  }, 300_000);

  afterAll(async () => {
    await scene?.close();
    await mail?.stop();
  }, 60_000);

  it('what ended there before its return is dead within a minute of it, confirmed, and nothing is lost', async () => {
    const backAtMs = performance.now();
    await scene.until(
      'all are dead',
      async () => {
        const states = await Promise.all(given.map(({ lease }) => stateOf(lease)));
        return states.every((state) => state === 'revoked');
      },
      RETURN_MS,
    );
    expect(performance.now() - backAtMs).toBeLessThan(RETURN_MS);
    expect(await scene.witness.look()).toEqual([]);
    const { username, password } = (given[0] as (typeof given)[number]).data;
    await expect(
      scene.postgres.logIn({ user: username as string, password: password as string }),
    ).rejects.toMatchObject({ code: '28P01' });
  }, 90_000);

  it('a second backend is not affected: what ended there meanwhile was confirmed dead as fast as ever', () => {
    const sorted = [...tookMs].sort((a, b) => a - b);
    const at = (share: number) =>
      Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
    process.stderr.write(
      `second backend while the first was away ${AWAY_MS / 1_000} s: ${sorted.length} ends, confirmed after p50 ${at(0.5)} ms, p99 ${at(0.99)} ms\n`,
    );
    expect(sorted.length).toBeGreaterThan(3);
    expect(at(0.99)).toBeLessThan(CONFIRMED_P99_MS);
  });
});
