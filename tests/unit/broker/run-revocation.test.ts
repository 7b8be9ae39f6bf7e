import { type KeyObject, verify } from 'node:crypto';
import { drainTask } from '../../../src/broker/drain.js';
import { getRevocation } from '../../../src/broker/receipt.js';
import { revoke } from '../../../src/broker/revoke.js';
import { runRevocation } from '../../../src/broker/run-revocation.js';
import { newId } from '../../../src/core/ids.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import type { TaskRecord } from '../../../src/core/task.js';
import { EMAILS, fakeBundle, MAIL, MAIL_TOOL, ORDERS, ORDERS_TOOL, REFUNDS } from '../../fakes/policy.js';
import { OPERATOR, openVerbWorld, type VerbWorld } from './world.js';

const MANY = 1_200;

async function stopPayments(world: VerbWorld): Promise<string> {
  const { revocation } = await revoke(world, OPERATOR, {
    selector: { team: 'payments' },
    reason: 'odd refunds',
    dryRun: false,
  });
  return revocation?.id as string;
}

describe('the enumeration behind a revocation', () => {
  let world: VerbWorld;
  const ids: string[] = [];

  beforeEach(async () => {
    world = await openVerbWorld();
    ids.length = 0;
    const tasks = [await world.openTask(), await world.openTask(), await world.openTask()];
    for (let at = 0; at < MANY; at++) {
      const lease = await world.give(tasks[at % 3] as (typeof tasks)[0], { agent: `${REFUNDS}-${at % 7}` });
      ids.push(lease.id);
    }
    world.clock.advance(1);
  });

  const found = { leases: MANY, credentials: 0, tasks: 3, agents: 7 };

  it('moves every lease that it hit, page by page, and counts each lease, task and agent once', async () => {
    const id = await stopPayments(world);
    await world.schedule.runJobs();
    expect(world.schedule.failures).toEqual([]);
    expect(await world.views.revocation(id)).toMatchObject({ done: true, found });
    for (const lease of ids) expect(world.lease(lease)).toMatchObject({ state: 'revoked' });
  });

  it.each([
    ['revokeLeases', 1, 'before'],
    ['revokeLeases', 2, 'after'],
    ['advanceRevocation', 1, 'after'],
    ['advanceRevocation', 2, 'before'],
  ] as const)('goes on where a worker died at its %s number %i, %s the store did it', async (call, nth, when) => {
    const id = await stopPayments(world);
    const real = world.ledger[call].bind(world.ledger) as (write: never) => Promise<never>;
    let calls = 0;
    world.ledger[call] = async (write: never) => {
      if (++calls !== nth) return real(write);
      if (when === 'after') await real(write);
      throw new Error('killed');
    };
    await expect(runRevocation(world, id)).rejects.toThrow('killed');
    world.ledger[call] = real;
    expect(await world.views.revocation(id)).not.toHaveProperty('done');
    expect(world.schedule.due()).toContainEqual({ name: 'run-revocation', id });
    await world.schedule.sweep();
    expect(await world.views.revocation(id)).toMatchObject({ done: true, found });
    expect(world.schedule.due()).toEqual([]);
  });

  it('two workers on it at once count nothing twice', async () => {
    const id = await stopPayments(world);
    await Promise.all([runRevocation(world, id), runRevocation(world, id), runRevocation(world, id)]);
    expect(await world.views.revocation(id)).toMatchObject({ done: true, found });
  });

  it('leaves alone what was given after it, and what is not of its class', async () => {
    const task = await world.openTask();
    const other = await world.give(task, { team: 'support' });
    const id = await stopPayments(world);
    const later = await world.give(task);
    await world.schedule.runJobs();
    expect([world.lease(other.id).state, world.lease(later.id).state]).toEqual(['active', 'active']);
    expect(await world.views.revocation(id)).toMatchObject({ found });
  });
});

describe('a credential got with a delegated token', () => {
  let world: VerbWorld;
  let task: TaskRecord;

  beforeEach(async () => {
    world = await openVerbWorld();
    task = await world.openTask();
  });

  /** It says nothing of itself that a stop of the payments team matches. */
  async function credentialBelow(above: LeaseRecord[], more: Partial<LeaseRecord> = {}): Promise<string> {
    const { clock, ledger, settings } = world;
    const reading = await ledger.read({ taskId: task.id, leaseIds: above.map(({ id }) => id), nowMs: clock.now() });
    const { position, bundle } = reading as NonNullable<typeof reading>;
    const lease: LeaseRecord = {
      ...(above.at(-1) as LeaseRecord),
      id: newId('lse', settings.cell, clock.now()),
      kind: 'credential',
      path: [task.id, ...above.map(({ id }) => id)],
      agent: EMAILS,
      team: 'support',
      owner: 'support@example.com',
      secret: 'orders-db',
      backend: 'pg',
      tools: [],
      position,
      state: 'pending',
      ...more,
    };
    const write = {
      lease,
      basis: { position, bundle, generations: [task.generation] },
      quotas: settings.quotas,
      nowMs: clock.now(),
      audit: {
        id: newId('dec', settings.cell, clock.now()),
        atMs: clock.now(),
        type: 'credential.issued' as const,
        actor: {},
      },
    };
    await ledger.openIntent({ ...write, intentDeadlineMs: clock.now() + 5_000 });
    const outcome = await ledger.commitLease({ ...write, lease: { ...lease, state: 'active' } });
    if (outcome.outcome !== 'committed') throw new Error(JSON.stringify(outcome));
    return lease.id;
  }

  it('dies with the lease above it that was hit, and is counted; below another it lives', async () => {
    const [hit, other] = [await world.give(task), await world.give(task, { team: 'support' })];
    const below = await credentialBelow([hit]);
    const further = await world.give(task, { team: 'support', path: [task.id, hit.id] });
    const deeper = await credentialBelow([hit, further]);
    const spared = await credentialBelow([other]);
    world.clock.advance(1);
    const id = await stopPayments(world);
    await runRevocation(world, id);
    expect([below, deeper, spared].map((one) => world.lease(one).state)).toEqual(['revoking', 'revoking', 'active']);
    expect(await world.views.revocation(id)).toMatchObject({
      done: true,
      found: { leases: 1, credentials: 2, tasks: 1, agents: 2 },
    });
    const due = world.schedule.due().filter(({ name }) => name === 'retire-credential');
    expect(due.map((one) => one.id)).toEqual(expect.arrayContaining([below, deeper]));
  });

  it('dies with it also when the token above was moved before, or has expired', async () => {
    const hit = await world.give(task, { expiresAtMs: world.clock.now() + 1_000 });
    const below = await credentialBelow([hit], { expiresAtMs: world.clock.now() + 300_000 });
    world.clock.advance(1_001);
    const id = await stopPayments(world);
    await runRevocation(world, id);
    expect(world.lease(below).state).toBe('revoking');
  });

  it('dies with it also when the token dies while the leases of the task are being moved for another', async () => {
    const hit = await world.give(task);
    const below = await credentialBelow([hit]);
    const settle = world.ledger.settleTask.bind(world.ledger);
    world.ledger.settleTask = async (write) => {
      world.ledger.settleTask = settle;
      const audit = { id: newId('dec', 'a', 0), atMs: 0, type: 'token.revoked' as const, actor: {} };
      await world.ledger.revokeLeases({ leaseIds: [hit.id], reason: 'x', nowMs: world.clock.now(), audit });
      return settle(write);
    };
    await drainTask(world, task.id);
    for (const job of world.schedule.due()) if (job.name === 'drain-task') await drainTask(world, job.id);
    expect(world.lease(below).state).toBe('revoking');
  });

  it('lives when it was got after the revocation', async () => {
    const hit = await world.give(task);
    world.clock.advance(1);
    const id = await stopPayments(world);
    const below = await credentialBelow([hit]);
    await runRevocation(world, id);
    expect(world.lease(below).state).toBe('active');
  });
});

describe('a receipt', () => {
  const bundle = fakeBundle('cloud', {
    workloads: [{ spiffeId: REFUNDS }],
    taskTypes: [{}],
    resources: [
      { enforcement: 'feed' },
      { resource: MAIL, owners: [MAIL_TOOL], tools: ['mail.send'], enforcement: 'feed' },
      { resource: 'https://cloud.example', owners: [], tools: ['cloud.list'], enforcement: 'expiry-only' },
    ],
  });
  const receiptIn = (jwt: string) => JSON.parse(Buffer.from(jwt.split('.')[1] as string, 'base64url').toString());

  it('names who acknowledged, who is behind and who never came, and what only expires, and until when', async () => {
    const world = await openVerbWorld({ bundles: [{ bundle }] });
    const task = await world.openTask();
    await world.give(task);
    const cloud = await world.give(task, { resource: 'https://cloud.example', tools: ['cloud.list'] });
    const before = await world.feed.head();
    await world.feed.acknowledge('spiffe://dev.mayfly/tool/late', ['x'], before, world.clock.now());
    world.clock.advance(1);
    const id = await stopPayments(world);

    const running = await getRevocation(world, OPERATOR, id);
    expect(receiptIn(running.receipt).revocation).toMatchObject({ enumeration: 'running', acknowledged: [] });

    await world.schedule.runJobs();
    await world.feed.acknowledge(ORDERS_TOOL, [ORDERS], await world.feed.head(), world.clock.now());
    const { readers, receipt, revocation } = await getRevocation(world, OPERATOR, id);
    expect(readers).toEqual([
      { name: 'spiffe://dev.mayfly/tool/late', resources: ['x'], acknowledged: false },
      { name: MAIL_TOOL, resources: [MAIL], acknowledged: false },
      { name: ORDERS_TOOL, resources: [ORDERS], acknowledged: true },
    ]);
    expect(receiptIn(receipt)).toEqual({
      iss: world.settings.issuer,
      iat: Math.floor(world.clock.now() / 1_000),
      jti: id,
      revocation: {
        selector: { team: 'payments' },
        reason: 'odd refunds',
        by: OPERATOR.name,
        at: new Date(revocation.createdAtMs).toISOString(),
        position: revocation.position,
        found: { leases: 2, credentials: 0, tasks: 1, agents: 1 },
        enumeration: 'finished',
        effective_until: new Date(revocation.untilMs as number).toISOString(),
        acknowledged: [ORDERS_TOOL],
        silent: ['spiffe://dev.mayfly/tool/late', MAIL_TOOL],
        remains: [{ resource: 'https://cloud.example', until: new Date(cloud.expiresAtMs).toISOString() }],
      },
    });
    world.clock.set(cloud.expiresAtMs);
    expect(receiptIn((await getRevocation(world, OPERATOR, id)).receipt).revocation.remains).toEqual([]);
  });

  it('is signed with the key that signs tokens, and is no token', async () => {
    const world = await openVerbWorld();
    await world.give(await world.openTask());
    const { receipt } = await getRevocation(world, OPERATOR, await stopPayments(world));
    const [header, payload, signature] = receipt.split('.') as [string, string, string];
    expect(JSON.parse(Buffer.from(header, 'base64url').toString())).toEqual({
      alg: 'ES256',
      kid: world.keys.active().kid,
      typ: 'mayfly-receipt+jwt',
    });
    const key = world.keys.byKid(world.keys.active().kid)?.verification.key as KeyObject;
    const good = (text: string) =>
      verify('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'));
    expect([good(`${header}.${payload}`), good(`${header}.${payload.slice(0, -1)}x`)]).toEqual([true, false]);
  });

  it('is for those who may look; to anybody else it is not there', async () => {
    const world = await openVerbWorld({ rule: ({ action }) => (action === 'view' ? 'deny' : 'allow') });
    const id = await stopPayments(world);
    await expect(getRevocation(world, OPERATOR, id)).rejects.toMatchObject({ code: 'not_found' });
  });
});
