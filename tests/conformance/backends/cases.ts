import { BackendProblem } from '../../../src/plugins/backends/contract.js';
import { dyingCases } from './dying.js';
import { failingCases } from './failing.js';
import type { Harness, World } from './harness.js';
import { issuingCases } from './issuing.js';
import { everythingPrintable, seen } from './lease.js';

const ABILITIES = ['renew', 'find', 'probe'] as const;

/** The one suite. A kind that passes it against the real thing can be used; a fault found in one kind becomes a case for all. */
export function keepsItsPromises(kind: string, harness: Harness): void {
  describe(`backend ${kind}`, () => {
    let world: World | undefined;
    const its = (): World => {
      if (!world) throw new Error('the real thing is not up');
      return world;
    };

    beforeAll(async () => {
      world = await harness.open();
    }, 120_000);

    afterAll(async () => {
      await world?.backend.close();
      await world?.close();
    }, 60_000);

    it('says who it is, and can do what its row says: no less, no more', () => {
      const { backend, secrets } = its();
      expect(backend.kind).toBe(kind);
      expect(backend.name).toMatch(/^[A-Za-z0-9_.-]{1,64}$/);
      expect(ABILITIES.filter((ability) => backend[ability])).toEqual(harness.abilities);
      expect(new Set(secrets.map(({ promised }) => promised))).toEqual(new Set(harness.promises));
    });

    issuingCases(harness, its);
    dyingCases(harness, its);
    failingCases(harness, its);

    it('no error of any case had one of our secrets in it, whichever way it is printed', () => {
      expect(seen.filter((error) => error instanceof BackendProblem).length).toBeGreaterThan(0);
      for (const error of seen) {
        const printed = everythingPrintable(error);
        expect(its().ours.filter((secret) => printed.includes(secret))).toEqual([]);
      }
    });
  });
}
