import { lock } from '../../../src/broker/lock.js';
import { revoke } from '../../../src/broker/revoke.js';
import type { Selector } from '../../../src/core/selector.js';
import { fakeBundle, ORDERS, REFUNDS } from '../../fakes/policy.js';
import { OPERATOR, openVerbWorld, type VerbWorld } from './world.js';

const BUNDLE = fakeBundle('sample').digest;

describe('a selector that names what nobody declared', () => {
  let world: VerbWorld;
  beforeEach(async () => {
    world = await openVerbWorld();
  });

  const act = (verb: typeof lock | typeof revoke, selector: Selector, dryRun: boolean) =>
    verb(world, OPERATOR, { selector, reason: 'x', dryRun });

  it.each([
    ['agent', REFUNDS.replace('refunds', 'refnds'), REFUNDS],
    ['opener', REFUNDS.replace('refunds', 'refnds'), REFUNDS],
    ['tool', 'orders.raed', 'orders.read'],
    ['resource', `${ORDERS}/`, ORDERS],
    ['secret', 'orders-bd', 'orders-db'],
    ['trust_domain', 'dev.mafly', 'dev.mayfly'],
  ] as const)(
    '%s: is still stopped and revoked, and both the preview and the result name what may be meant',
    async (member, name, meant) => {
      const said = `No ${member} ${name} is declared; did you mean "${meant}"?`;
      for (const verb of [lock, revoke]) {
        for (const dryRun of [true, false]) {
          const made = await act(verb, { [member]: name }, dryRun);
          expect(made.warnings).toContain(said);
          expect(made.revocation === undefined).toBe(dryRun);
        }
      }
    },
  );

  it.each(['team', 'owner', 'environment', 'backend'] as const)('%s: is said when nothing is near', async (member) => {
    const { warnings } = await act(lock, { [member]: 'nothing-like-it' }, true);
    expect(warnings).toEqual([`No ${member} nothing-like-it is declared.`]);
  });

  it.each([
    [
      'prefix',
      'spiffe://dev.mayfly/agnt',
      'No agent below spiffe://dev.mayfly/agnt is declared; did you mean "spiffe://dev.mayfly/agent"?',
    ],
    [
      'prefix',
      'spiffe://dev.mayfly/agent/refund',
      `No agent below spiffe://dev.mayfly/agent/refund is declared; did you mean "${REFUNDS}"?`,
    ],
    ['key', 'dev.mayfly#svid-2', 'No key dev.mayfly#svid-2 is trusted; did you mean "dev.mayfly#svid-1"?'],
    ['bundle', `${BUNDLE}0`, `No bundle ${BUNDLE}0 is known; did you mean "${BUNDLE}"?`],
  ] as const)('%s %s: is stopped and revoked too, and told', async (member, name, said) => {
    for (const verb of [lock, revoke]) {
      const made = await act(verb, { [member]: name }, false);
      expect(made.warnings).toContain(said);
      expect(made.revocation).toBeDefined();
    }
  });

  it('a stop does not wait for a list of bundles that cannot be read', async () => {
    world.views.bundles = () => Promise.reject(new Error('away'));
    const made = await act(lock, { bundle: BUNDLE }, false);
    expect([made.warnings, made.revocation === undefined]).toEqual([[], false]);
  });

  it('a prefix holds what is declared below it, itself, and what a pattern stands for', async () => {
    const pattern = fakeBundle('pattern', { workloads: [{ spiffeId: 'spiffe://dev.mayfly/batch/*' }, {}] });
    world = await openVerbWorld({ bundles: [{ bundle: pattern }] });
    const told = async (path: string) =>
      (await act(lock, { prefix: `spiffe://dev.mayfly${path}` }, true)).warnings.length > 0;
    for (const path of ['', '/agent', '/agent/refunds', '/batch', '/batch/anything']) {
      expect([path, await told(path)]).toEqual([path, false]);
    }
    for (const path of ['/agen', '/agents', '/agent/refunds/x', '/batch/a/b']) {
      expect([path, await told(path)]).toEqual([path, true]);
    }
  });

  it('what is declared, and a person, who is declared nowhere, need no word', async () => {
    const { warnings } = await act(
      lock,
      {
        agent: REFUNDS,
        tool: 'orders.read',
        resource: ORDERS,
        prefix: 'spiffe://dev.mayfly/agent',
        trust_domain: 'dev.mayfly',
        key: 'dev.mayfly#svid-1',
        bundle: BUNDLE,
      },
      true,
    );
    expect(warnings).toEqual([]);
    expect((await act(lock, { opener: 'https://people.example#someone' }, true)).warnings).toEqual([]);
  });
});
