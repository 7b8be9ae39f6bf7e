import { lock } from '../../../src/broker/lock.js';
import { revoke } from '../../../src/broker/revoke.js';
import type { Selector } from '../../../src/core/selector.js';
import { ORDERS, REFUNDS } from '../../fakes/policy.js';
import { OPERATOR, openVerbWorld, type VerbWorld } from './world.js';

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

  it('what is declared, and a person, who is declared nowhere, need no word', async () => {
    const { warnings } = await act(lock, { agent: REFUNDS, tool: 'orders.read', resource: ORDERS }, true);
    expect(warnings).toEqual([]);
    expect((await act(lock, { opener: 'https://people.example#someone' }, true)).warnings).toEqual([]);
  });
});
