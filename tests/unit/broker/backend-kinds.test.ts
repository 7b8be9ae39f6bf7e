import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { issue } from '../../../src/broker/issue.js';
import type { WorkloadDeclaration } from '../../../src/core/agent.js';
import type { SecretDeclaration } from '../../../src/core/bundle.js';
import type { TaskRecord } from '../../../src/core/task.js';
import type { Backend } from '../../../src/plugins/backends/contract.js';
import { staticBackend } from '../../../src/plugins/backends/static.js';
import { type Installation, installation } from '../../conformance/backends/deps.js';
import { fakeBundle, REFUNDS } from '../../fakes/policy.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';
import { backendOf, CANARY, Upstream } from '../plugins/backends/oauth/upstream.js';
import { agentOf, openVerbWorld, type VerbWorld } from './world.js';

const SECRET = 'standing';
const VALUE = 'canary-key-1b2c3d4e5f';

let clock: VirtualClock;
let world: VerbWorld;
let task: TaskRecord;

async function open(
  backend: Backend,
  declared: Record<string, unknown>,
  more: Partial<WorkloadDeclaration> = {},
  sensitivity: SecretDeclaration['sensitivity'] = 'internal',
) {
  const bundle = fakeBundle('sample', {
    workloads: [{ spiffeId: REFUNDS, ...more }],
    taskTypes: [{ secrets: [SECRET] }],
    resources: [{}],
    secrets: [{ name: SECRET, backend: backend.name, ttlMsMax: 900_000, sensitivity, settings: declared }],
  });
  const limits = { revocability: 'rotate-only' as const };
  world = await openVerbWorld({ clock, backends: [backend], bundles: [{ bundle, rule: () => ({ limits }) }] });
  task = await world.openTask({ scope: { tools: [], resources: [], secrets: [SECRET] } });
}

const ask = () => issue(world, agentOf(world), { secret: SECRET, task: task.id });

async function endTask(): Promise<void> {
  const audit = { id: 'dec_a_1', atMs: 0, type: 'task.ended' as const, actor: {} };
  const { id: taskId } = task;
  await world.ledger.endTask({ taskId, state: 'completed', reason: 'done', by: REFUNDS, nowMs: clock.now(), audit });
  world.schedule.add({ name: 'drain-task', id: taskId });
  await world.schedule.runJobs();
}

async function pass(ms: number): Promise<void> {
  for (let at = 0; at < ms; at += 10_000) {
    clock.advance(10_000);
    await world.schedule.sweep();
  }
}

const everythingWritten = () =>
  JSON.stringify([...world.line.state.leases.values(), ...world.line.state.audit, ...world.events]);

describe('a standing value', () => {
  const until = '2027-06-30';
  const exception = { secret: SECRET, reason: 'no API for users', owner: 'ops@example.com', until };
  let dir: string;
  let ours: Installation;

  beforeEach(async () => {
    clock = new VirtualClock();
    dir = mkdtempSync(join(tmpdir(), 'mayfly-kinds-'));
    ours = await installation();
    rotate(VALUE);
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  const rotate = (value: string) => writeFileSync(join(dir, 'pager'), ours.encrypt('pager', value));

  function openStatic(...standingExceptions: (typeof exception)[]): Promise<void> {
    const config = staticBackend.config.parse({ kind: 'static', dir });
    const backend = staticBackend.create(config, { ...ours.deps('keys'), clock }) as Backend;
    return open(backend, { value: 'pager', field: 'api_key' }, { standingExceptions });
  }

  it('is handed out under an exception, and the record says who answers for it', async () => {
    await openStatic(exception);
    const { data, warnings, renewable } = await ask();
    expect(data.expose()).toEqual({ api_key: VALUE });
    expect([warnings.length, renewable]).toEqual([1, false]);
    const [record] = world.line.state.audit.filter(({ type }) => type === 'credential.issued');
    expect(record?.detail).toMatchObject({ exception: { reason: exception.reason, owner: exception.owner } });
    expect(everythingWritten()).not.toContain(VALUE);
  });

  it.each([
    ['without an exception', []],
    ['under one for another secret', [{ ...exception, secret: 'another' }]],
    ['under one that is over', [{ ...exception, until: '2027-01-15' }]],
  ])('is not, %s, whatever policy says', async (_, exceptions) => {
    await openStatic(...exceptions);
    await expect(ask()).rejects.toMatchObject({ code: 'denied' });
    expect([...world.line.state.leases.values()]).toEqual([]);
  });

  it('no lease outlives the exception', async () => {
    await openStatic(exception);
    clock.set(Date.parse(until) - 60_000);
    task = await world.openTask({ scope: { tools: [], resources: [], secrets: [SECRET] } });
    expect((await ask()).expiresAtMs).toBe(Date.parse(until));
  });

  it('stays open as unbounded when its task has ended, and closes once the value was rotated', async () => {
    await openStatic(exception);
    const { leaseId } = await ask();
    await endTask();
    await pass(600_000);
    expect(world.lease(leaseId)).toMatchObject({ state: 'revoking', evidence: 'unbounded' });
    rotate(`${VALUE}-rotated`);
    await pass(120_000);
    expect(world.lease(leaseId)).toMatchObject({ state: 'revoked', evidence: 'confirmed' });
    const attempts = world.line.state.audit.filter(({ type }) => type === 'credential.revoking');
    expect(attempts.length).toBeLessThan(4);
  });
});

describe('a token of an upstream', () => {
  let upstream: Upstream;
  let backend: Backend;
  let close: () => Promise<void>;

  beforeEach(async () => {
    upstream = await new Upstream().start();
    const made = backendOf(upstream);
    ({ clock, backend } = made);
    close = () => made.backend.close();
    await open(backend, { token_ttl_seconds_max: 600 });
  });
  afterEach(async () => {
    await close();
    await upstream.stop();
  });

  it.each(['confidential', 'restricted'] as const)(
    'that is %s is confirmed, not probed, and the record says so',
    async (sensitivity) => {
      await open(backend, { token_ttl_seconds_max: 600 }, {}, sensitivity);
      const { leaseId } = await ask();
      await endTask();
      expect(world.lease(leaseId)).toMatchObject({ state: 'revoked', evidence: 'not-probed' });
      const [record] = world.line.state.audit.filter(({ type }) => type === 'credential.revoked');
      expect(record?.detail).toMatchObject({ evidence: 'not-probed' });
    },
  );

  it('is kept, so that the end of its task revokes it there, and the upstream is asked', async () => {
    const { leaseId, data } = await ask();
    const token = String(data.expose()['access_token']);
    expect(upstream.alive()).toContain(token);
    await endTask();
    expect(upstream.alive()).not.toContain(token);
    expect(world.lease(leaseId)).toMatchObject({ state: 'revoked', evidence: 'confirmed' });
    expect(everythingWritten()).not.toContain(CANARY);
  });

  it('one whose answer was lost is open until its longest end, and expired then', async () => {
    upstream.answers.token = (_form, response) => {
      upstream.token();
      response.destroy();
      return 'handled';
    };
    await expect(ask()).rejects.toMatchObject({ code: 'unavailable' });
    const [lease] = [...world.line.state.leases.values()];
    await pass(600_000);
    expect(world.lease(lease?.id as string).state).toBe('revoking');
    await pass(120_000);
    expect(world.lease(lease?.id as string)).toMatchObject({ state: 'revoked', evidence: 'expired' });
  });

  it('one that the upstream refused leaves nothing open', async () => {
    upstream.answers.token = { status: 400, body: { error: 'invalid_grant', error_description: CANARY } };
    await expect(ask()).rejects.toMatchObject({ code: 'unavailable' });
    const [lease] = [...world.line.state.leases.values()];
    await pass(60_000);
    expect(world.lease(lease?.id as string).state).toBe('revoked');
    expect(everythingWritten()).not.toContain(CANARY);
  });
});
