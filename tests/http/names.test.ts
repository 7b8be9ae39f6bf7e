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

describe('an id of another thing, or of none', () => {
  it('404: is told as what it is, where a task or a lease is asked for', async () => {
    const task = await world.send('operator', 'GET', `/v1/tasks/${world.lease}`);
    const lease = await world.send('operator', 'POST', `/v1/leases/${world.task}/revoke`, { json: {} });
    expect([task.status, task.body.hint]).toEqual([404, 'That is the id of a lease: use mayfly lease.']);
    expect([lease.status, lease.body.hint]).toEqual([404, 'That is the id of a task: use mayfly task.']);
  });

  const why = (about: string) => world.send('operator', 'POST', '/v1/why', { json: { about } });

  it.each([
    ['foo', /^What can be explained is dec_…, lse_…, tsk_…, ref:…, lck_…, rev_… or a token/],
    ['lse_a_01h455vb4', /^That is not a whole id of a lease\. What can be explained/],
    ['req_a_01h455vb4pex5vsknk084sn02q', /^That is the id of a request\. .*decision_id/],
  ])('404: %s cannot be explained, and what can be is told', async (about, hint) => {
    const { status, body } = await why(about);
    expect([status, body.hint]).toEqual([404, expect.stringMatching(hint)]);
  });

  it('200: a revocation is explained: who, what, why, and what it hit; to nobody who may not look', async () => {
    const { status, body } = await why(world.revocation);
    expect([status, body.revocation.id]).toEqual([200, world.revocation]);
    expect(body.because[0]).toMatch(/^https:\/\/people\.example#alice revoked .+=.+ at 2027-.+: .+/);
    expect((await world.send('agent', 'POST', '/v1/why', { json: { about: world.revocation } })).status).toBe(404);
  });

  it('403: a lease is renewed by its holder only, which is told to those who may see it; 404 to others', async () => {
    const renew = (who: 'operator' | 'orchestrator' | 'other') =>
      world.send(who, 'POST', `/v1/leases/${world.credential}/renew`, { json: {} });
    for (const who of ['operator', 'orchestrator'] as const) {
      const { status, body } = await renew(who);
      expect([status, body.detail]).toEqual([403, 'Only its holder renews a lease.']);
    }
    expect((await renew('other')).status).toBe(404);
  });
});
