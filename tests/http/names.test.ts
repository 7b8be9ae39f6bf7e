import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { REFUNDS } from '../fakes/policy.js';
import { openWorld, type World } from './world.js';

let world: World;
beforeEach(async () => {
  world = await openWorld();
});
afterEach(() => world.close());

/** What has not the form of a name matches nothing, and a list of nothing would read as clean. */
describe('a name that can be nobody’s', () => {
  it.each(['agent', 'opener'])(
    '400: is not stopped or revoked as %s, and what may be meant is told',
    async (member) => {
      for (const path of ['/v1/locks', '/v1/revocations']) {
        for (const dryRun of [true, false]) {
          const json = { selector: { [member]: 'refunds' }, reason: 'x', dry_run: dryRun };
          const { status, body } = await world.send('operator', 'POST', path, { json });
          expect([status, body]).toEqual([
            400,
            expect.objectContaining({ field: `selector.${member}`, hint: `Did you mean ${REFUNDS}?` }),
          ]);
        }
      }
    },
  );

  it.each([
    ['/v1/leases?agent=refunds', 'agent'],
    ['/v1/leases?task=foo', 'task'],
    ['/v1/tasks?agent=refunds', 'agent'],
    ['/v1/tasks?opener=spiffe://dev.mayfly/agent/refunds/', 'opener'],
    ['/v1/audit?agent=refunds', 'agent'],
    ['/v1/audit?task=foo', 'task'],
    ['/v1/audit?lease=foo', 'lease'],
  ])('400: finds nothing by %s, and says why', async (path, field) => {
    const { status, body } = await world.send('operator', 'GET', path);
    expect([status, body.field]).toEqual([400, field]);
  });

  it('400: the id of another thing is told as what it is', async () => {
    const { body } = await world.send('operator', 'GET', `/v1/audit?task=${world.lease}`);
    expect(body.detail).toBe('task: not the id of a task (tsk_…); that is the id of a lease.');
  });

  it('200: a ref finds the leases of its task, for an operator too; 404 when there is no such ref', async () => {
    const found = await world.send('operator', 'GET', '/v1/leases?task=ref:run-1&live=true');
    const byId = await world.send('operator', 'GET', `/v1/leases?task=${world.task}&live=true`);
    expect(found.body.items.length).toBeGreaterThan(0);
    expect(found.body.items).toEqual(byId.body.items);
    expect((await world.send('operator', 'GET', '/v1/leases?task=ref:run-0')).status).toBe(404);
  });

  it('200: a person may be named, who is declared nowhere', async () => {
    const path = `/v1/audit?agent=${encodeURIComponent('https://people.example#alice')}`;
    expect((await world.send('operator', 'GET', path)).status).toBe(200);
  });
});
