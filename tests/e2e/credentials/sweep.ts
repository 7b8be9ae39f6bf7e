import type { LeaseRecord } from '../../../src/core/lease.js';
import type { Outcome, Point } from './points.js';
import type { Scene } from './scene.js';

/** docs/architecture.md, Bounds: life of an orphan credential after a crash, with its backend up. */
const ORPHAN_MS_MAX = 30_000;
const SETTLED_WITHIN_MS = 90_000;
const SWEEP_WITHIN_MS = 900_000;

/**
 * One after the other everything goes wrong once; what came of each is looked at when the last one is over, so that nobody waits for one by one. `alsoHolds`
 * throws where another server has something else than the leases say.
 */
export function sweep(
  all: readonly Point[],
  open: () => Promise<Scene>,
  alsoHolds: (outcome: Outcome, point: string) => Promise<void> = async () => {},
): void {
  // To look at a few of them by hand.
  const points = all.filter(({ name }) => new RegExp(process.env['MAYFLY_SWEEP_ONLY'] ?? '').test(name));
  let scene: Scene;
  const outcomes = new Map<string, Outcome | Error>();

  beforeAll(async () => {
    const timed = stopwatch();
    scene = await open();
    timed('everything has come up');
    for (const point of inTurn(points)) {
      try {
        await scene.ready(point.brokers);
        outcomes.set(point.name, await point.run(scene));
      } catch (error) {
        outcomes.set(point.name, error as Error);
        await scene.recover().catch(() => undefined);
      }
      timed(point.name);
    }
    await scene.ready(2);
  }, SWEEP_WITHIN_MS);

  afterAll(async () => {
    await scene?.close();
  }, 60_000);

  it.each(points.map(({ name }) => name))(
    '%s',
    async (name) => {
      const outcome = outcomes.get(name);
      if (outcome === undefined || outcome instanceof Error) throw outcome ?? new Error('it was never run');
      await check(scene, outcome);
      await alsoHolds(outcome, name);
    },
    SETTLED_WITHIN_MS + 30_000,
  );

  it(
    'when the last task is over nothing is left: no role, no session, no lease that is not closed',
    async () => {
      const all = [...outcomes.values()].filter((outcome): outcome is Outcome => !(outcome instanceof Error));
      for (const { task } of all) await scene.endTask(task);
      await scene.until(
        'nothing is left',
        async (views) => {
          const roles = await scene.witness.look();
          const open = (await Promise.all(all.flatMap(({ leases }) => leases).map((id) => views.lease(id)))).filter(
            (lease) => lease && lease.state !== 'revoked',
          );
          if (roles.length + open.length > 0) throw new Error(JSON.stringify({ roles, open }));
          return true;
        },
        SETTLED_WITHIN_MS,
      );
      for (const { leases } of all) for (const lease of leases) await expectNoSession(scene, lease);
    },
    SETTLED_WITHIN_MS + 30_000,
  );
}

/** Says how long it took since the last time, where somebody wants to know. */
function stopwatch(): (what: string) => void {
  let sinceMs = performance.now();
  return (what) => {
    if (process.env['MAYFLY_SWEEP_TALKS']) {
      process.stderr.write(`${Math.round(performance.now() - sinceMs)} ms  ${what}\n`);
    }
    sinceMs = performance.now();
  };
}

/**
 * Whatever kills no broker comes first: a Redis that comes back waits up to 10 s for each broker that was heard of shortly before, and for dead
 * ones in vain.
 */
function inTurn(points: readonly Point[]): Point[] {
  return [...points].sort((a, b) => a.brokers - b.brokers);
}

async function check(scene: Scene, { leases, expected, sinceMs, reply, session }: Outcome): Promise<void> {
  let found: (LeaseRecord | undefined)[] = [];
  await scene.until(
    'the leases have settled',
    async (views) => {
      found = await Promise.all(leases.map((id) => views.lease(id)));
      // One that is nobody's is active until it is taken back.
      const isToBeDead = expected === 'revoked' && reply?.status !== 200;
      const open = found.filter(
        (lease) =>
          lease?.state === 'pending' || lease?.state === 'revoking' || (lease?.state === 'active' && isToBeDead),
      );
      if (open.length > 0) throw new Error(JSON.stringify(open));
      // What no lease knows is nobody's, and the reconciler comes for it.
      const roles = await scene.witness.look();
      const orphans = leases.filter(
        (id, at) => !found[at] && roles.some((role) => role.includes(id.slice('lse_'.length))),
      );
      if (orphans.length > 0) throw new Error(`orphans: ${orphans}`);
      return true;
    },
    SETTLED_WITHIN_MS,
  );
  const states = found.map((lease) => lease?.state ?? 'none');
  const roles = await scene.witness.look();
  for (const lease of leases) {
    const isThere = roles.some((role) => role.includes(lease.slice('lse_'.length)));
    const record = found.find((one) => one?.id === lease);
    expect({ lease, isThere }).toEqual({ lease, isThere: record?.state === 'active' });
    if (!isThere) {
      expect(scene.witness.livedOnMs(lease, sinceMs)).toBeLessThan(ORPHAN_MS_MAX);
      await expectNoSession(scene, lease);
    }
  }
  if (expected === 'none') expect(states.filter((state) => state !== 'none')).toEqual([]);
  else expect(states).toContain(expected);
  // Who was given a credential holds one that its lease answers for, and nobody was given a dead one.
  if (reply?.status === 200) expect(states).toEqual(['active']);
  if (reply && reply.status !== 200) expect(states).not.toContain('active');
  if (session) await expect(session.query('SELECT 1')).rejects.toThrow();
}

async function expectNoSession(scene: Scene, lease: string): Promise<void> {
  const seen = scene.witness.seen(lease);
  if (seen) expect(await scene.witness.sessions(seen.oid)).toBe(0);
}
