import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AuditRecord, AuditType } from '../../src/core/audit.js';
import { newId } from '../../src/core/ids.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import type { OperationalEvent } from '../../src/core/observe.js';
import type { TaskCharter, TaskRecord } from '../../src/core/task.js';
import { openStores, type StoreOptions } from '../../src/state/open-stores.js';
import type { Basis, Quotas, Reading, Stores } from '../../src/state/stores.js';

export const QUOTAS: Quotas = { leasesPerTask: 100, leasesPerAgent: 100, perTree: 1_000 };
export const ROOT_KEY = new Uint8Array(32).fill(7);
export const AGENT = 'spiffe://dev.mayfly/agent/refunds';
export const OPENER = 'spiffe://dev.mayfly/orchestrator/desk';
export const BUNDLE = 'sha256:one';

/** Turned by hand; the scripts' own deadlines go by Redis' clock and do not see it. */
export class HandClock {
  nowMs = Date.now();
  now = () => this.nowMs;
  pass(ms: number): void {
    this.nowMs += ms;
  }
}

/** One broker on a real store, with what tests say most. */
export interface World extends Stores {
  clock: HandClock;
  dataDir: string;
  events: OperationalEvent[];
  audit(type: AuditType, more?: Partial<AuditRecord>): AuditRecord;
  read(taskId?: string, leaseIds?: string[]): Promise<Reading>;
  basis(taskId?: string): Promise<Basis>;
  openTask(more?: Partial<TaskCharter>, context?: Record<string, unknown>): Promise<TaskRecord>;
  /** A token lease for the task, as a mint would commit it now. */
  tokenFor(task: TaskRecord, more?: Partial<LeaseRecord>): Promise<LeaseRecord>;
  mint(task: TaskRecord, more?: Partial<LeaseRecord>, quotas?: Quotas): ReturnType<Stores['ledger']['commitLease']>;
  close(): Promise<void>;
}

let cells = 0;

/** A cell's name that no other test of this run uses, so that all share one server. */
export function newCell(): string {
  cells += 1;
  return `c${cells}`;
}

export async function openWorld(
  options: Pick<StoreOptions, 'url'> & Partial<StoreOptions> & { keep?: boolean },
): Promise<World> {
  const clock = (options.clock as HandClock | undefined) ?? new HandClock();
  const cell = options.cell ?? newCell();
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'mayfly-state-'));
  const events: OperationalEvent[] = [];
  const stores = await openStores({
    cell,
    rootKey: ROOT_KEY,
    clock,
    observe: (event) => events.push(event),
    dataDir,
    role: 'api',
    ...options,
    limits: {
      clockSkewMsMax: Number.POSITIVE_INFINITY,
      auditBacklogMsMax: Number.POSITIVE_INFINITY,
      ...options.limits,
    },
  });
  const { ledger } = stores;
  const audit = (type: AuditType, more: Partial<AuditRecord> = {}): AuditRecord => ({
    id: newId('dec', cell, clock.now()),
    atMs: clock.now(),
    type,
    actor: { workload: OPENER },
    ...more,
  });
  const read = async (taskId?: string, leaseIds: string[] = []): Promise<Reading> => {
    const reading = await ledger.read({ ...(taskId !== undefined && { taskId }), leaseIds, nowMs: clock.now() });
    if (!reading) throw new Error(`nothing to read at ${taskId}`);
    return reading;
  };
  const basis = async (taskId?: string): Promise<Basis> => {
    const { position, bundle, tasks } = await read(taskId);
    return { position, bundle, generations: tasks.map((task) => task.generation) };
  };
  const tokenFor: World['tokenFor'] = async (task, more = {}) => {
    const { position, bundle, generations } = await basis(task.id);
    const nowMs = clock.now();
    return {
      id: newId('lse', cell, nowMs),
      kind: 'token',
      taskId: task.id,
      path: task.path,
      agent: AGENT,
      actors: [],
      opener: task.opener,
      owner: 'desk@example',
      team: 'payments',
      environment: 'sandbox',
      resource: 'https://orders.example',
      tools: ['orders.read'],
      position,
      generations,
      bundle,
      keyId: 'key-1',
      identityKeyId: 'dev.mayfly#svid-1',
      binding: 'none',
      state: 'active',
      createdAtMs: nowMs,
      expiresAtMs: nowMs + 300_000,
      ...more,
    };
  };
  const world: World = {
    ...stores,
    clock,
    dataDir,
    events,
    audit,
    read,
    basis,
    tokenFor,
    openTask: async (more = {}, context = { environment: 'sandbox' }) => {
      const id = newId('tsk', cell, clock.now());
      const nowMs = clock.now();
      const charter: TaskCharter = {
        id,
        path: [id],
        type: 'refund',
        params: { order_id: '42' },
        purpose: 'refund an order',
        risk: 'low',
        opener: OPENER,
        openerKind: 'orchestrator',
        agents: [AGENT],
        scope: { tools: ['orders.read'], resources: ['https://orders.example'], secrets: [] },
        selfOpened: false,
        createdAtMs: nowMs,
        deadlineMs: nowMs + 3_600_000,
        onSilence: 'suspend',
        onContextChange: 're-evaluate',
        bundle: BUNDLE,
        ...more,
      };
      if (more.path) charter.path = [...more.path, charter.id];
      const reply = await ledger.startTask({
        charter,
        context,
        basis: await basis(charter.path.at(-2)),
        quotas: QUOTAS,
        nowMs,
        audit: audit('task.opened', { task: charter.id }),
      });
      if (!('task' in reply)) throw new Error(`not opened: ${JSON.stringify(reply)}`);
      return reply.task;
    },
    mint: async (task, more = {}, quotas = QUOTAS) => {
      const lease = await tokenFor(task, more);
      return ledger.commitLease({
        lease,
        basis: { position: lease.position, bundle: lease.bundle, generations: lease.generations },
        quotas,
        nowMs: clock.now(),
        audit: audit('token.minted', { task: task.id, lease: lease.id }),
      });
    },
    close: async () => {
      await stores.close();
      if (!options.keep) rmSync(dataDir, { recursive: true, force: true });
    },
  };
  await ledger.activateBundle({
    digest: BUNDLE,
    files: { 'policies/a.cedar': 'permit(principal, action, resource);' },
    again: false,
    nowMs: clock.now(),
    audit: audit('bundle.activated'),
  });
  return world;
}
