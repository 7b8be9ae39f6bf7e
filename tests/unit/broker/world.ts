import type { Caller } from '../../../src/broker/caller.js';
import { work } from '../../../src/broker/work.js';
import { BrokerError } from '../../../src/core/errors.js';
import { newId } from '../../../src/core/ids.js';
import type { LeaseRecord } from '../../../src/core/lease.js';
import type { SpiffeId, TrustDomain } from '../../../src/core/spiffe-id.js';
import type { TaskRecord } from '../../../src/core/task.js';
import { FakeBackend } from '../../fakes/backend.js';
import { type FakeParts, type FakePartsOptions, fakeParts } from '../../fakes/parts.js';
import { ORCHESTRATOR, ORDERS, REFUNDS } from '../../fakes/policy.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

export const OPERATOR: Caller = {
  principal: {
    kind: 'person',
    identity: {
      kind: 'person',
      proof: 'operator-token',
      issuer: 'https://people.example',
      subject: 'alice',
      roles: ['operator'],
      issuedAtMs: 0,
      expiresAtMs: Number.MAX_SAFE_INTEGER,
      keyId: 'people#1',
    },
  },
  name: 'https://people.example#alice',
  bound: true,
  binding: 'dpop',
  requestId: 'req_1',
};

/** The refunds agent by its own JWT-SVID, as the active bundle declares it. */
export function agentOf(world: VerbWorld, more: Partial<Caller> = {}): Caller {
  const policy = world.policies.current();
  const declaration = policy?.bundle.workloads.find(({ spiffeId }) => spiffeId === REFUNDS);
  if (!declaration) throw new Error('nobody declared it');
  return {
    principal: {
      kind: 'agent',
      declaration,
      identity: {
        kind: 'workload',
        proof: 'jwt-svid',
        spiffeId: REFUNDS as SpiffeId,
        trustDomain: 'dev.mayfly' as TrustDomain,
        expiresAtMs: world.clock.now() + 3_600_000,
        keyId: 'dev.mayfly#1',
        attributes: {},
      },
    },
    name: REFUNDS,
    bound: false,
    binding: 'none',
    requestId: 'req_2',
    ...more,
  };
}

/** Verbs on one broker in memory; jobs are caught, and run when a test says so. */
export interface VerbWorld extends FakeParts {
  openTask(more?: Partial<TaskRecord>): Promise<TaskRecord>;
  /** A token lease as a mint commits it now; `more` is what is otherwise about it. */
  give(task: TaskRecord, more?: Partial<LeaseRecord>): Promise<LeaseRecord>;
  lease(id: string): LeaseRecord;
}

export async function openVerbWorld(options: FakePartsOptions = {}): Promise<VerbWorld> {
  const parts = fakeParts({
    settings: { quotas: { leasesPerTask: 1e6, leasesPerAgent: 1e6, perTree: 1e6 } },
    ...options,
  });
  const { clock, ledger, line, settings } = parts;
  await parts.schedule.start((job) => work(parts, job));
  await parts.secretChecks.tick();
  const audit = (type: 'task.opened' | 'token.minted') => ({
    id: newId('dec', settings.cell, clock.now()),
    atMs: clock.now(),
    type,
    actor: {},
  });
  const basisOf = async (taskId?: string) => {
    const reading = await ledger.read({ ...(taskId !== undefined && { taskId }), nowMs: clock.now() });
    if (!reading) throw new Error('nothing to read');
    const { position, bundle, tasks } = reading;
    return { position, bundle, generations: tasks.map((task) => task.generation) };
  };
  return Object.assign(parts, {
    openTask: async (more: Partial<TaskRecord> = {}) => {
      const id = newId('tsk', settings.cell, clock.now());
      const basis = await basisOf(more.path?.at(-1));
      const opened = await ledger.startTask({
        charter: {
          id,
          type: 'refund',
          params: {},
          purpose: 'refund an order',
          risk: 'medium',
          opener: ORCHESTRATOR,
          openerKind: 'orchestrator',
          agents: [REFUNDS],
          scope: { tools: ['orders.read'], resources: [ORDERS], secrets: ['orders-db'] },
          selfOpened: false,
          createdAtMs: clock.now(),
          deadlineMs: clock.now() + 3_600_000,
          onSilence: 'suspend',
          onContextChange: 're-evaluate',
          bundle: basis.bundle,
          ...more,
          path: [...(more.path ?? []), id],
        },
        context: {},
        basis,
        quotas: settings.quotas,
        nowMs: clock.now(),
        audit: audit('task.opened'),
      });
      if (!('task' in opened)) throw new Error(JSON.stringify(opened));
      return opened.task;
    },
    give: async (task: TaskRecord, more: Partial<LeaseRecord> = {}) => {
      const basis = await basisOf(task.id);
      const lease: LeaseRecord = {
        id: newId('lse', settings.cell, clock.now()),
        kind: 'token',
        taskId: task.id,
        path: task.path,
        agent: REFUNDS,
        actors: [],
        opener: task.opener,
        owner: 'payments@example.com',
        team: 'payments',
        environment: 'sandbox',
        resource: ORDERS,
        tools: ['orders.read'],
        position: basis.position,
        generations: basis.generations,
        bundle: basis.bundle,
        keyId: 'es256-fake-1',
        identityKeyId: 'dev.mayfly#1',
        proof: 'jwt-svid',
        binding: 'none',
        state: 'active',
        createdAtMs: clock.now(),
        expiresAtMs: clock.now() + 300_000,
        ...more,
      };
      const outcome = await ledger.commitLease({
        lease,
        basis,
        quotas: settings.quotas,
        nowMs: clock.now(),
        audit: audit('token.minted'),
      });
      if (outcome.outcome !== 'committed') throw new Error(JSON.stringify(outcome));
      return lease;
    },
    lease: (id: string) => {
      const lease = line.state.leases.get(id);
      if (!lease) throw new Error(`no lease ${id}`);
      return lease;
    },
  });
}

/** What a test of credentials begins with: the secret `orders-db` of a backend in memory, and a task that may have it. */
export interface SecretWorld {
  clock: VirtualClock;
  backend: FakeBackend;
  world: VerbWorld;
  task: TaskRecord;
}

export async function openSecretWorld(): Promise<SecretWorld> {
  const clock = new VirtualClock();
  const backend = new FakeBackend(clock);
  const world = await openVerbWorld({ clock, backends: [backend] });
  return { clock, backend, world, task: await world.openTask() };
}

/** The code that it is refused with. */
export async function refused(asking: Promise<unknown>): Promise<string> {
  try {
    await asking;
  } catch (error) {
    if (error instanceof BrokerError) return error.code;
    throw error;
  }
  return 'not refused';
}
