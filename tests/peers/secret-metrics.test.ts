import { until } from '../e2e/brokers.js';
import { POSTGRES, SECRET } from '../e2e/credentials/scene.js';
import { atBao, BACKEND, BAO_SECRET, BaoScene } from './bao-scene.js';
import { describeVault } from './vault-world.js';

const WITHIN_MS = 60_000;
const CREDENTIALS = 3;
/** docs/architecture.md, Bounds: a credential is confirmed dead so soon after its end. */
const CONFIRMED_SECONDS_MAX = 5;

/** What operators read of secrets, from workers that have really done the work. */
describeVault('the metrics of secrets at a real OpenBao and a real PostgreSQL', () => {
  let own: BaoScene;

  beforeAll(async () => {
    own = await BaoScene.open();
    // To open it, one was issued at each backend and left to die.
    for (const backend of [BACKEND, POSTGRES]) {
      await until(
        'what came before is counted',
        WITHIN_MS,
        async () => (await issued(backend)) === (await died(backend)),
      );
    }
  }, 120_000);

  afterAll(async () => {
    await own?.scene.close();
  }, 60_000);

  /** Summed over the workers; labels as they stand in the text. */
  async function total(name: string, ...labels: string[]): Promise<number> {
    const texts = await Promise.all(
      own.scene.standing.map(({ process }) => fetch(`${process.opsUrl}/metrics`).then((reply) => reply.text())),
    );
    return texts
      .flatMap((text) => text.split('\n'))
      .filter((line) => line.startsWith(`${name}{`) && labels.every((label) => line.includes(label)))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
  }

  const issued = (backend: string) => total('mayfly_credentials_issued_total', at(backend));
  const died = (backend: string) => total('mayfly_revocation_lag_seconds_count', at(backend));
  const at = (backend: string) => `backend="${backend}"`;
  const isRevoked = (lease: string) => async () => (await own.lease(lease))?.state === 'revoked';

  async function endedAt(secret: string): Promise<number> {
    const task = await own.scene.openTask();
    const { lease } = await own.scene.issued(task, own.scene.actor, secret);
    const endedAtMs = performance.now();
    await own.scene.endTask(task);
    await until('it is dead', WITHIN_MS, isRevoked(lease));
    return (performance.now() - endedAtMs) / 1_000;
  }

  it.each([
    [BACKEND, BAO_SECRET],
    [POSTGRES, SECRET],
  ])(
    '%s: each credential is one observation of the lag from the end of its task to its confirmed death',
    async (backend, secret) => {
      const lag = async () => await total('mayfly_revocation_lag_seconds_sum', at(backend));
      const closed = async () =>
        await total('mayfly_credentials_closed_total', at(backend), 'evidence="verified-dead"');
      const before = {
        issued: await issued(backend),
        died: await died(backend),
        lag: await lag(),
        closed: await closed(),
      };
      let seenSeconds = 0;
      for (let made = 0; made < CREDENTIALS; made++) seenSeconds += await endedAt(secret);
      // The lease is closed first, and counted after it.
      await until('all are counted', WITHIN_MS, async () => (await died(backend)) === before.died + CREDENTIALS);
      expect(await closed()).toBe(before.closed + CREDENTIALS);
      const lagSeconds = (await lag()) - before.lag;
      expect(lagSeconds).toBeGreaterThan(0);
      expect(lagSeconds).toBeLessThanOrEqual(seenSeconds);
      expect(lagSeconds / CREDENTIALS).toBeLessThan(CONFIRMED_SECONDS_MAX);
      expect(await issued(backend)).toBe(before.issued + CREDENTIALS);
    },
    WITHIN_MS,
  );

  it(
    'an orphan is counted at the backend where it was, and at no other',
    async () => {
      const orphans = async (backend: string) => await total('mayfly_orphans_found_total', at(backend));
      const before = { bao: await orphans(BACKEND), postgres: await orphans(POSTGRES) };
      const task = await own.scene.openTask();
      const made = await own.scene.issued(task, own.scene.actor, BAO_SECRET);
      const { about } = await atBao(() => own).plant(own.scene, made);
      const found = until('it is counted', WITHIN_MS, async () => (await orphans(BACKEND)) === before.bao + 1);
      await own.scene.reconcilingSoon(found, BACKEND);
      await until('it is gone', WITHIN_MS, async () => !(await own.look()).leases.has(about));
      expect(await orphans(POSTGRES)).toBe(before.postgres);
      await own.scene.endTask(task);
    },
    WITHIN_MS,
  );

  it('one that cannot be revoked is counted as stuck after six attempts, at its backend, until it is dead; its lag is all of that time', async () => {
    const stuck = async (backend: string) => await total('mayfly_credentials_stuck', at(backend));
    const lag = async () => await total('mayfly_revocation_lag_seconds_sum', at(BACKEND));
    const failed = async () => await total('mayfly_revocation_attempts_failed_total', at(BACKEND), 'problem="failed"');
    const task = await own.scene.openTask();
    const { lease, role } = await own.scene.issued(task, own.scene.actor, BAO_SECRET);
    const before = { lag: await lag(), failed: await failed() };
    await own.scene.postgres.ask(`CREATE TABLE public.kept (); ALTER TABLE public.kept OWNER TO "${role}"`, 'orders');
    const endedAtMs = performance.now();
    await own.scene.endTask(task);
    await until('it is stuck', WITHIN_MS, async () => (await stuck(BACKEND)) >= 1);
    expect(await stuck(POSTGRES)).toBe(0);
    expect((await failed()) - before.failed).toBeGreaterThanOrEqual(6);
    await own.scene.postgres.ask('DROP TABLE public.kept', 'orders');
    const freedAtMs = performance.now();
    await until('it is dead', WITHIN_MS, isRevoked(lease));
    await until('nothing is stuck', WITHIN_MS, async () => (await stuck(BACKEND)) === 0);
    await until('its lag is counted', WITHIN_MS, async () => (await lag()) > before.lag);
    expect((await lag()) - before.lag).toBeGreaterThan((freedAtMs - endedAtMs) / 1_000);
  }, 120_000);
});
