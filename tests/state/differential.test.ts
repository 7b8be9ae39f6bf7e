import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { TASK_DETAIL_TYPE, type TaskClaims } from '../../src/core/claims.js';
import { BrokerError } from '../../src/core/errors.js';
import { type IdKind, newId } from '../../src/core/ids.js';
import type { LeaseRecord } from '../../src/core/lease.js';
import { comparePositions, isPosition } from '../../src/core/position.js';
import { scopeOf } from '../../src/core/scope.js';
import { Secret } from '../../src/core/secret.js';
import { factsAbove, matchesOf, ownFacts, type Selector, selectorHash } from '../../src/core/selector.js';
import type { TerminalState } from '../../src/core/task.js';
import { openStores } from '../../src/state/open-stores.js';
import type { Basis, Ledger, Page, Reading, Stores } from '../../src/state/stores.js';
import type { LedgerBugs } from '../fakes/line.js';
import { fakeStores } from '../fakes/stores.js';
import { VirtualClock } from '../fakes/virtual-clock.js';
import { type RedisServer, startRedis } from './redis-servers.js';

/** `MAYFLY_PROPERTY_RUNS` for more, `MAYFLY_PROPERTY_SEED` and `MAYFLY_PROPERTY_PATH` to see one again. */
const RUNS = Number(process.env['MAYFLY_PROPERTY_RUNS'] ?? 40);
const SEED = process.env['MAYFLY_PROPERTY_SEED'] ?? '20261123';
const PATH = process.env['MAYFLY_PROPERTY_PATH'];
const KID = 'es256-1';
const OPENERS = ['spiffe://dev.mayfly/orchestrator/support', 'spiffe://dev.mayfly/orchestrator/night'];
const AGENTS = ['spiffe://dev.mayfly/agent/refunds', 'spiffe://dev.mayfly/agent/emails'];
const DIGESTS = ['a', 'b'].map((letter) => `sha256:${letter.repeat(64)}`);
const ENDS: TerminalState[] = ['completed', 'failed', 'cancelled', 'revoked'];

/** One of the two stores that are asked the same. */
interface Side {
  stores: Stores;
  /** Readings that commits go by, also late ones. */
  readings: (Reading | undefined)[];
  /** Positions in the order they first came up. */
  places: string[];
  tokens: Map<string, TaskClaims>;
}

type Step = { name: keyof typeof STEPS; x: number; y: number; z: number };

/** A fake and a real store, asked the same questions in the same order, under the same clock and ids. */
class Pair {
  readonly clock: VirtualClock;
  readonly sides: [Side, Side];
  readonly tasks: string[] = [];
  readonly leases: LeaseRecord[] = [];
  readonly revocations: string[] = [];
  readonly locks: string[] = [];
  readonly hash = selectorHash(new Uint8Array(32).fill(7));
  readonly log: string[] = [];

  constructor(clock: VirtualClock, fake: Stores, real: Stores) {
    this.clock = clock;
    const side = (stores: Stores): Side => ({ stores, readings: [], places: [], tokens: new Map() });
    this.sides = [side(fake), side(real)];
  }

  id(kind: IdKind): string {
    return newId(kind, 'a', this.clock.now());
  }

  audit(type: Parameters<Ledger['note']>[0]['type']) {
    return { id: this.id('dec'), atMs: this.clock.now(), type, actor: { workload: OPENERS[0] as string } };
  }

  /** Asks both, compares the answers, and gives the fake's. */
  async ask<T>(what: string, question: (side: Side) => Promise<T>): Promise<T | undefined> {
    const answers: { value: T | undefined; text: string }[] = [];
    for (const side of this.sides) {
      try {
        const value = await question(side);
        answers.push({ value, text: this.#plain(side, value) });
      } catch (error) {
        if (!(error instanceof BrokerError)) throw error;
        answers.push({ value: undefined, text: `throws ${error.code} (${error.detail.reason ?? error.message})` });
      }
    }
    const [fake, real] = answers as [(typeof answers)[number], (typeof answers)[number]];
    this.log.push(`${what}: ${fake.text.slice(0, 300)}`);
    if (fake.text !== real.text) {
      throw new Error(`${what}\n  fake: ${fake.text}\n  real: ${real.text}\n${this.log.slice(-12).join('\n')}`);
    }
    return fake.value;
  }

  /** Both orders of places are the same order. */
  comparePlaces(): void {
    const [fake, real] = this.sides.map((side) =>
      side.places.map((place, at) => ({ place, at })).sort((a, b) => comparePositions(a.place, b.place) || a.at - b.at),
    );
    expect(real?.map(({ at }) => at)).toEqual(fake?.map(({ at }) => at));
  }

  /** The same words for the same thing: places by number, members by name, what has no order by id. */
  #plain(side: Side, value: unknown): string {
    const plain = (one: unknown): unknown => {
      if (isPosition(one)) {
        if (!side.places.includes(one)) side.places.push(one);
        return `place ${side.places.indexOf(one)}`;
      }
      if (Array.isArray(one)) return one.map(plain);
      if (one instanceof Map || typeof one !== 'object' || one === null) return one;
      return Object.fromEntries(
        Object.entries(one)
          .filter(([, member]) => member !== undefined)
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([name, member]) => [name, plain(member)]),
      );
    };
    return JSON.stringify(plain(value)) ?? 'nothing';
  }
}

const pick = <T>(items: readonly T[], at: number): T | undefined => items[at % Math.max(1, items.length)];
const QUOTAS = { leasesPerTask: 6, leasesPerAgent: 9, perTree: 14 };
const byId = (a: { id: string }, b: { id: string }) => (a.id < b.id ? -1 : 1);

function basisOf(reading: Reading): Basis {
  return {
    position: reading.position,
    bundle: reading.bundle,
    generations: reading.tasks.map((task) => task.generation),
  };
}

async function allPages<T>(ask: (cursor?: string) => Promise<Page<T>>): Promise<T[]> {
  const items: T[] = [];
  let cursor: string | undefined;
  do {
    const page: Page<T> = await ask(cursor);
    items.push(...page.items);
    cursor = page.cursor;
  } while (cursor !== undefined);
  return items;
}

async function read(pair: Pair, taskId: string, leaseIds: string[], slot: number): Promise<Reading | undefined> {
  return pair.ask(`read ${taskId} ${leaseIds}`, async (side) => {
    const reading = await side.stores.ledger.read({ taskId, leaseIds, nowMs: pair.clock.now() });
    if (reading) reading.locks.sort(byId);
    side.readings[slot] = reading;
    return reading;
  });
}

/** A lease as some verb would draft it on that side's reading; the same one but for its place. */
function draft(pair: Pair, side: Side, slot: number, of: { id: string; kind: LeaseRecord['kind']; agent: string }) {
  const reading = side.readings[slot] as Reading;
  const nowMs = pair.clock.now();
  const task = reading.tasks.at(-1);
  const lease: LeaseRecord = {
    id: of.id,
    kind: of.kind,
    ...(task && { taskId: task.id }),
    path: [...(task?.path ?? []), ...reading.leases.map((one) => one.id)],
    agent: of.agent,
    actors: reading.leases.map((one) => one.agent),
    ...(task && { opener: task.opener }),
    owner: `${of.agent.split('/').at(-1)}@example.com`,
    team: 'payments',
    environment: 'sandbox',
    ...(of.kind === 'token'
      ? { resource: 'https://orders.example', keyId: KID }
      : { secret: 'orders-db', backend: 'postgres' }),
    tools: ['orders.read'],
    position: reading.position,
    generations: reading.tasks.map((one) => one.generation),
    bundle: reading.bundle,
    identityKeyId: 'dev.mayfly#svid-1',
    proof: 'jwt-svid',
    binding: 'none',
    state: of.kind === 'token' ? 'active' : 'pending',
    createdAtMs: nowMs,
    expiresAtMs: Math.floor((nowMs + 100_000) / 1_000) * 1_000,
  };
  const facts = [...ownFacts(lease), ...reading.leases.flatMap(factsAbove)];
  const claims: TaskClaims = {
    iss: 'https://mayfly.example',
    sub: of.agent,
    aud: 'https://orders.example',
    client_id: of.agent,
    iat: Math.floor(nowMs / 1_000),
    exp: lease.expiresAtMs / 1_000,
    jti: lease.id,
    scope: scopeOf(lease.tools),
    authorization_details: [{ type: TASK_DETAIL_TYPE, identifier: task?.id ?? '' }],
    mayfly: {
      cell: 'a',
      path: lease.path,
      pos: lease.position,
      sel: facts.map(([kind, fact]) => pair.hash(kind, fact)),
      bundle: lease.bundle,
    },
  };
  return { lease, claims, basis: basisOf(reading) };
}

function selectorFor(pair: Pair, x: number, y: number): Selector {
  const task = pick(pair.tasks, y);
  const lease = pick(pair.leases, y);
  const selectors: Selector[] = [
    { agent: AGENTS[y % 2] as string },
    { owner: 'refunds@example.com' },
    { team: 'payments', environment: 'sandbox' },
    { opener: OPENERS[y % 2] as string },
    { tool: 'orders.read' },
    { secret: 'orders-db' },
    ...(task ? [{ task }] : []),
    ...(lease ? [{ lease: lease.id }] : []),
  ];
  return selectors[x % selectors.length] as Selector;
}

/** What can be asked of both. A step that finds nothing to ask about asks nothing. */
const STEPS = {
  startTask: async (pair: Pair, x: number, y: number, z: number) => {
    const parent = z % 2 === 0 ? undefined : pick(pair.tasks, x);
    const reading =
      parent === undefined
        ? await pair.ask('read nothing', async (side) => {
            const found = await side.stores.ledger.read({ nowMs: pair.clock.now() });
            found?.locks.sort(byId);
            side.readings[9] = found;
            return found;
          })
        : await read(pair, parent, [], 9);
    if (!reading || reading.tasks.length >= 5) return;
    const id = pair.id('tsk');
    const nowMs = pair.clock.now();
    const opener = OPENERS[y % 2] as string;
    const audit = pair.audit('task.opened');
    const result = await pair.ask(`startTask ${id} below ${parent}`, (side) =>
      side.stores.ledger.startTask({
        charter: {
          id,
          path: [...reading.tasks.map((task) => task.id), id],
          ...(y % 3 === 0 && { ref: `run-${x % 4}` }),
          type: 'refund',
          params: { order_id: '42' },
          purpose: 'refund order 42',
          risk: 'medium',
          opener,
          openerKind: 'orchestrator',
          agents: AGENTS,
          scope: { tools: ['orders.read'], resources: ['https://orders.example'], secrets: ['orders-db'] },
          selfOpened: false,
          createdAtMs: nowMs,
          deadlineMs: Math.min(nowMs + 300_000, ...reading.tasks.map((task) => task.deadlineMs)),
          ...(x % 3 === 0 && { heartbeatMs: 20_000 }),
          onSilence: x % 2 === 0 ? 'suspend' : 'end',
          onContextChange: 're-evaluate',
          bundle: reading.bundle,
        },
        context: { risk: 'low' },
        basis: basisOf(side.readings[9] as Reading),
        quotas: QUOTAS,
        nowMs,
        audit,
      }),
    );
    if (result?.outcome === 'opened') pair.tasks.push(id);
  },

  read: async (pair: Pair, x: number, y: number, z: number) => {
    // What is passed on is a token.
    const passedOn = pair.leases.filter((one) => one.kind === 'token');
    const lease = z % 3 === 0 ? pick(passedOn, y) : undefined;
    const task = lease?.taskId ?? pick(pair.tasks, x);
    const above = lease ? [...lease.path.filter((id) => id.startsWith('lse_')), lease.id] : [];
    if (task !== undefined && above.length < 4) await read(pair, task, above, z % 3);
  },

  mint: async (pair: Pair, x: number, _y: number, z: number) => {
    const slot = z % 3;
    if (!pair.sides[0].readings[slot]?.tasks.length) return;
    const of = { id: pair.id('lse'), kind: 'token' as const, agent: AGENTS[x % 2] as string };
    const audit = pair.audit('token.minted');
    const commit = () =>
      pair.ask(`commitLease ${of.id}`, (side) => {
        const { lease, claims, basis } = draft(pair, side, slot, of);
        side.tokens.set(of.id, claims);
        return side.stores.ledger.commitLease({ lease, basis, quotas: QUOTAS, nowMs: pair.clock.now(), audit });
      });
    const result = await commit();
    if (result?.outcome !== 'committed') return;
    pair.leases.push(draft(pair, pair.sides[0], slot, of).lease);
    if (x % 5 === 0) await commit();
  },

  intent: async (pair: Pair, x: number, _y: number, z: number) => {
    const slot = z % 3;
    if (!pair.sides[0].readings[slot]?.tasks.length) return;
    const of = { id: pair.id('lse'), kind: 'credential' as const, agent: AGENTS[x % 2] as string };
    const audit = pair.audit('credential.intended');
    const nowMs = pair.clock.now();
    const result = await pair.ask(`openIntent ${of.id}`, (side) => {
      const { lease, basis } = draft(pair, side, slot, of);
      const intentDeadlineMs = nowMs + 8_000;
      return side.stores.ledger.openIntent({ lease, intentDeadlineMs, basis, quotas: QUOTAS, nowMs, audit });
    });
    if (result?.outcome === 'committed') pair.leases.push(draft(pair, pair.sides[0], slot, of).lease);
  },

  commitCredential: async (pair: Pair, x: number, _y: number, z: number) => {
    const lease = pick(
      pair.leases.filter((one) => one.kind === 'credential'),
      x,
    );
    if (!lease) return;
    const slot = z % 3;
    const audit = pair.audit('credential.issued');
    const fits = pair.sides[0].readings[slot]?.tasks.at(-1)?.id === lease.taskId;
    if (!fits || pair.sides[0].readings[slot]?.leases.length !== lease.path.length - lease.generations.length) return;
    await pair.ask(`commitLease ${lease.id}`, (side) => {
      const { lease: drafted, basis } = draft(pair, side, slot, lease);
      return side.stores.ledger.commitLease({
        lease: {
          ...drafted,
          createdAtMs: lease.createdAtMs,
          ...(x % 2 === 0 && { handle: { oid: `${x}` }, renewable: true }),
        },
        ...(z % 2 === 0 && { probe: new Secret({ username: 'mayfly', password: `p${x}`, port: 5432 }) }),
        basis,
        quotas: QUOTAS,
        nowMs: pair.clock.now(),
        audit,
      });
    });
  },

  noteCredential: async (pair: Pair, x: number, y: number) => {
    const lease = pick(
      pair.leases.filter((one) => one.kind === 'credential'),
      x,
    );
    if (!lease) return;
    await pair.ask(`noteCredential ${lease.id}`, ({ stores }) =>
      stores.ledger.noteCredential({
        leaseId: lease.id,
        backend: lease.backend as string,
        handle: y % 3 === 0 ? {} : { [`part-${y % 2}`]: `${y}` },
        ...(y % 4 === 0 && { keep: new Secret({ token: `t${y}` }) }),
        nowMs: pair.clock.now(),
      }),
    );
  },

  renew: async (pair: Pair, x: number, _y: number, z: number) => {
    const lease = pick(
      pair.leases.filter((one) => one.kind === 'credential'),
      x,
    );
    const slot = z % 3;
    if (!lease || pair.sides[0].readings[slot]?.tasks.at(-1)?.id !== lease.taskId) return;
    const audit = pair.audit('credential.renewed');
    const expiresAtMs = pair.clock.now() + 90_000;
    await pair.ask(`renewLease ${lease.id}`, (side) =>
      side.stores.ledger.renewLease({
        leaseId: lease.id,
        expiresAtMs,
        basis: basisOf(side.readings[slot] as Reading),
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  endTask: async (pair: Pair, x: number, y: number, z: number) => {
    const taskId = pick([...pair.tasks, pair.id('tsk')], x) as string;
    const onlyIf = [undefined, undefined, 'deadline', 'silence'][z % 4] as 'deadline' | 'silence' | undefined;
    const audit = pair.audit('task.ended');
    await pair.ask(`endTask ${taskId} ${onlyIf}`, ({ stores }) =>
      stores.ledger.endTask({
        taskId,
        state: ENDS[y % 4] as TerminalState,
        reason: 'so: be it',
        by: OPENERS[0] as string,
        ...(onlyIf && { onlyIf }),
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  expireTasks: async (pair: Pair, x: number, y: number) => {
    const ids = [...new Set([pick(pair.tasks, x), pick(pair.tasks, y), pair.id('tsk')])].filter(
      (id) => id !== undefined,
    );
    const ends = ids.map((taskId) => ({ taskId, audit: pair.audit('task.ended') }));
    await pair.ask(`expireTasks ${ids}`, ({ stores }) =>
      stores.ledger.expireTasks({ ends, reason: 'late', by: 'mayfly', nowMs: pair.clock.now() }),
    );
  },

  keepEnd: async (pair: Pair, x: number, y: number) => {
    const audit = pair.audit('task.ended');
    await pair.ask('keepEnd', ({ stores }) =>
      stores.ledger.keepEnd({
        opener: OPENERS[y % 2] as string,
        ref: `run-${x % 4}`,
        state: ENDS[y % 4] as TerminalState,
        reason: 'early | end',
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  suspendTask: async (pair: Pair, x: number, _y: number, z: number) => {
    const taskId = pick(pair.tasks, x);
    if (taskId === undefined) return;
    const audit = pair.audit('task.suspended');
    await pair.ask(`suspendTask ${taskId}`, ({ stores }) =>
      stores.ledger.suspendTask({
        taskId,
        reason: 'wait',
        by: OPENERS[0] as string,
        ...(z % 3 === 0 && { onlyIf: 'silence' as const }),
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  resumeTask: async (pair: Pair, x: number) => {
    const taskId = pick(pair.tasks, x);
    if (taskId === undefined) return;
    const audit = pair.audit('task.resumed');
    await pair.ask(`resumeTask ${taskId}`, ({ stores }) =>
      stores.ledger.resumeTask({ taskId, by: OPENERS[0] as string, nowMs: pair.clock.now(), audit }),
    );
  },

  changeContext: async (pair: Pair, x: number, y: number, z: number) => {
    const taskId = pick(pair.tasks, x);
    if (taskId === undefined) return;
    const audit = pair.audit('task.context_changed');
    const task = await pair.sides[0].stores.views.task(taskId);
    await pair.ask(`changeContext ${taskId}`, ({ stores }) =>
      stores.ledger.changeContext({
        taskId,
        generation: (task?.generation ?? 1) - (z % 5 === 0 ? 1 : 0),
        context: { risk: ['low', 'medium', 'high'][y % 3], labels: [], n: 9_007_199_254_740_991 },
        revoke: y % 4 === 0,
        judgeWithinMs: 5_000,
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  heartbeat: async (pair: Pair, x: number) => {
    const taskId = pick(pair.tasks, x);
    if (taskId === undefined) return;
    await pair.ask(`heartbeat ${taskId}`, ({ stores }) =>
      stores.ledger.heartbeat({ taskId, agent: AGENTS[0] as string, nowMs: pair.clock.now() }),
    );
  },

  revoke: async (pair: Pair, x: number, y: number, z: number) => {
    const id = z % 6 === 0 ? (pick(pair.revocations, y) ?? pair.id('rev')) : pair.id('rev');
    const lockId = pair.id('lck');
    const nowMs = pair.clock.now();
    const selector = selectorFor(pair, x, y);
    const withLock = z % 2 === 0;
    const about = { selector, reason: 'stop', by: 'https://people.example#alice', createdAtMs: nowMs };
    const audit = pair.audit('revocation.applied');
    const result = await pair.ask(`revoke ${id} ${JSON.stringify(selector)}`, ({ stores }) =>
      stores.ledger.revoke({
        revocation: { id, ...about, ...(withLock && { lockId }) },
        matches: matchesOf(selector, pair.hash),
        untilMs: nowMs + 160_000,
        ...(withLock && { lock: { id: lockId, ...about, ...(z % 4 === 0 && { expiresAtMs: nowMs + 30_000 }) } }),
        nowMs,
        audit,
      }),
    );
    if (result?.outcome !== 'applied') return;
    pair.revocations.push(id);
    if (withLock) pair.locks.push(lockId);
  },

  liftLock: async (pair: Pair, x: number, y: number, z: number) => {
    const lockId = pick(pair.locks, x);
    if (lockId === undefined) return;
    const audit = pair.audit('lock.lifted');
    await pair.ask(`liftLock ${lockId}`, ({ stores }) =>
      stores.ledger.liftLock({
        lockId,
        by: ['alice', 'bob'][y % 2] as string,
        secondPersonNeeded: z % 3 !== 0,
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  advanceRevocation: async (pair: Pair, x: number, y: number, z: number) => {
    const id = pick([...pair.revocations, pair.id('rev')], x) as string;
    const there = await pair.sides[0].stores.views.revocation(id);
    await pair.ask(`advanceRevocation ${id}`, ({ stores }) =>
      stores.ledger.advanceRevocation({
        id,
        fromCursor: z % 4 === 0 ? 'elsewhere' : (there?.cursor ?? ''),
        cursor: `page-${y}`,
        hit: {
          leases: 1,
          credentials: z % 2,
          tasks: [`task-${y % 5}`, `task-${x % 5}`],
          agents: [`agent-${z % 3}`],
          remains: y % 2 === 0 ? { [`https://r${x % 3}.example`]: pair.clock.now() + z } : {},
        },
        done: y % 3 === 0,
        nowMs: pair.clock.now(),
      }),
    );
  },

  revokeLeases: async (pair: Pair, x: number, y: number, z: number) => {
    const ids = [pick(pair.leases, x), pick(pair.leases, y)].flatMap((lease) => (lease ? [lease.id] : []));
    const leaseIds = [...new Set(ids)];
    const first = pick(pair.leases, x);
    const task = first?.taskId === undefined ? undefined : await pair.sides[0].stores.views.task(first.taskId);
    const bundle = (await pair.sides[0].stores.views.activeBundle())?.digest ?? '';
    const stale = z % 5 === 0 ? 1 : 0;
    const verdict = task && { taskId: task.id, generation: task.generation - stale, bundle };
    const audit = pair.audit('leases.revoked');
    await pair.ask(`revokeLeases ${leaseIds}`, async ({ stores }) => {
      const result = await stores.ledger.revokeLeases({
        leaseIds,
        reason: 'drain',
        ...(z % 2 === 0 && verdict && { verdict }),
        ...(z % 3 === 0 && { announce: true }),
        ...(z % 7 > 3 && { sinceMs: pair.clock.now() - 1_000 }),
        ...(z % 11 > 5 && first && { known: [first] }),
        nowMs: pair.clock.now(),
        audit,
      });
      return { ...result, revoked: [...result.revoked].sort() };
    });
  },

  beginAttempt: async (pair: Pair, x: number, y: number) => {
    const leaseId = pick([...pair.leases.map((one) => one.id), pair.id('lse')], x) as string;
    const audit = pair.audit('credential.revoking');
    const nowMs = pair.clock.now();
    await pair.ask(`beginAttempt ${leaseId}`, ({ stores }) =>
      stores.ledger.beginAttempt({ leaseId, backend: 'postgres', untilMs: nowMs + (y % 3) * 4_000, nowMs, audit }),
    );
  },

  askToAbandon: async (pair: Pair, x: number, y: number) => {
    const leaseId = pick([...pair.leases.map((one) => one.id), pair.id('lse')], x) as string;
    const audit = pair.audit('credential.abandon_requested');
    await pair.ask(`askToAbandon ${leaseId}`, ({ stores }) =>
      stores.ledger.askToAbandon({ leaseId, by: ['alice', 'bob'][y % 2] as string, nowMs: pair.clock.now(), audit }),
    );
  },

  noteReconciled: async (pair: Pair, x: number, y: number) => {
    const seen = { backend: ['postgres', 'vault'][x % 2] as string, found: y % 9, orphans: y % 3, lost: x % 2 };
    await pair.ask('noteReconciled', ({ stores }) =>
      stores.ledger.noteReconciled({ ...seen, nowMs: pair.clock.now() }),
    );
  },

  hasten: async (pair: Pair) => {
    await pair.ask('hasten', ({ stores }) => stores.ledger.hasten({ backend: 'postgres', nowMs: pair.clock.now() }));
  },

  closeAttempt: async (pair: Pair, x: number, y: number, z: number) => {
    const lease = pick(
      pair.leases.filter((one) => one.kind === 'credential'),
      x,
    );
    if (!lease) return;
    const there = await pair.sides[0].stores.views.lease(lease.id);
    const nowMs = pair.clock.now();
    const nextAttemptMs = nowMs + 1_000;
    const results = [
      { state: 'revoked' as const, evidence: 'confirmed' as const },
      { state: 'revoking' as const, problem: 'the backend is down', nextAttemptMs },
      { state: 'abandoned' as const, reason: 'gone for good' },
      {
        state: 'revoked' as const,
        evidence: 'verified-dead' as const,
        residue: { what: 'a table in another database', nextAttemptMs },
      },
      { state: 'revoking' as const, problem: 'it is still there', nextAttemptMs },
      { state: 'revoking' as const, problem: 'and again', nextAttemptMs },
      { state: 'revoking' as const, evidence: 'unbounded' as const, nextAttemptMs },
    ];
    const audit = pair.audit('credential.revoked');
    await pair.ask(`closeAttempt ${lease.id}`, ({ stores }) =>
      stores.ledger.closeAttempt({
        lease,
        attempt: (there?.attempts ?? 0) + (z % 4 === 0 ? 1 : 0),
        result: results[y % results.length] as (typeof results)[number],
        nowMs,
        audit,
      }),
    );
  },

  settleTask: async (pair: Pair, x: number, y: number, z: number) => {
    const taskId = pick(pair.tasks, x);
    const task = taskId === undefined ? undefined : await pair.sides[0].stores.views.task(taskId);
    if (!task) return;
    const audit = pair.audit('task.drained');
    const work = y % 2 === 0 ? 'drain-task' : 're-evaluate-task';
    await pair.ask(`settleTask ${taskId}`, async ({ stores }) => {
      // Each side has its own moment: messengers are waited for by one of them only.
      const dueAtMs =
        z % 3 === 0 ? undefined : ((await stores.views.dueAt({ name: work, id: task.id })) ?? 0) - (z % 3) + 1;
      return stores.ledger.settleTask({
        taskId: task.id,
        work,
        state: task.state,
        generation: task.generation - (z % 4 === 0 ? 1 : 0),
        ...(dueAtMs !== undefined && { dueAtMs }),
        nowMs: pair.clock.now(),
        audit,
      });
    });
  },

  activateBundle: async (pair: Pair, x: number, y: number) => {
    const digest = DIGESTS[x % 2] as string;
    const audit = pair.audit('bundle.activated');
    await pair.ask(`activateBundle ${digest}`, ({ stores }) =>
      stores.ledger.activateBundle({
        digest,
        files: { 'agents/a.yaml': `bundle: ${x % 2}` },
        again: y % 2 === 0,
        nowMs: pair.clock.now(),
        audit,
      }),
    );
    await pair.ask('settleBundle', ({ stores }) => stores.ledger.settleBundle({ digest, nowMs: pair.clock.now() }));
  },

  saveKeyRing: async (pair: Pair, x: number, _y: number, z: number) => {
    const there = await pair.sides[0].stores.views.keyRing();
    const audit = pair.audit('key.moved');
    await pair.ask('saveKeyRing', ({ stores }) =>
      stores.ledger.saveKeyRing({
        ring: { keys: [{ kid: `k${x}` }] },
        fromVersion: (there?.version ?? 0) - (z % 4 === 0 ? 1 : 0),
        ...(z % 7 === 0 && { taintedKid: `k${x}` }),
        nowMs: pair.clock.now(),
        audit,
      }),
    );
  },

  recover: async (pair: Pair, x: number) => {
    if (x % 6 !== 0) return;
    const audit = pair.audit('epoch.raised');
    // The number of an epoch comes from each store's own clock.
    await pair.ask('recover', async ({ stores }) => {
      const { epoch } = await stores.ledger.recover({ by: 'alice', reason: 'drill', nowMs: pair.clock.now(), audit });
      return Number.isSafeInteger(epoch);
    });
  },

  tick: async (pair: Pair, x: number) => {
    pair.clock.advance([1, 500, 4_000, 9_000, 25_000, 70_000][x % 6] as number);
  },

  viewTasks: async (pair: Pair, x: number, _y: number, z: number) => {
    const filter = [{ opener: OPENERS[x % 2] as string }, { agent: AGENTS[x % 2] as string }, {}][z % 3] as object;
    await pair.ask(`views.tasks ${JSON.stringify(filter)}`, async ({ stores }) => {
      const tasks = await allPages((cursor) => stores.views.tasks({ ...filter, limit: 3, ...(cursor && { cursor }) }));
      const times = tasks.map((task) => task.createdAtMs);
      if (times.some((time, at) => time > (times[at - 1] ?? time))) throw new Error('tasks are not newest first');
      return tasks.sort(byId);
    });
  },

  viewLeases: async (pair: Pair, x: number, _y: number, z: number) => {
    const task = pick(pair.tasks, x);
    const filter = [
      {},
      { agent: AGENTS[x % 2] as string },
      ...(task === undefined ? [] : [{ task }]),
      { state: ['active', 'revoked', 'revoking'][x % 3] as string },
      { state: 'stuck' },
      { live: x % 2 === 0 },
      { givenFor: (['task', 'operator'] as const)[x % 2] },
      { backend: ['postgres', 'vault'][x % 2] as string },
    ];
    const asked = filter[z % filter.length] as object;
    await pair.ask(`views.leases ${JSON.stringify(asked)}`, async ({ stores }) => {
      const leases = await allPages((cursor) => stores.views.leases({ ...asked, limit: 3, ...(cursor && { cursor }) }));
      if (new Set(leases.map((lease) => lease.id)).size !== leases.length) throw new Error('a lease came twice');
      return leases.sort(byId);
    });
  },

  viewOne: async (pair: Pair, x: number, y: number, z: number) => {
    const task = pick(pair.tasks, x);
    const lease = pick(pair.leases, y);
    const nowMs = pair.clock.now();
    const asks: [string, ((side: Side) => Promise<unknown>) | undefined][] = [
      ['task', task === undefined ? undefined : ({ stores }) => stores.views.task(task)],
      ['ref', ({ stores }) => stores.views.taskIdByRef(OPENERS[x % 2] as string, `run-${y % 4}`)],
      [
        'children',
        task === undefined
          ? undefined
          : async ({ stores }) =>
              (await allPages((cursor) => stores.views.children(task, { limit: 2, ...(cursor && { cursor }) }))).sort(),
      ],
      ['locks', async ({ stores }) => (await stores.views.locks(nowMs)).sort(byId)],
      ['bundle', ({ stores }) => stores.views.activeBundle()],
      ['ring', ({ stores }) => stores.views.keyRing()],
      ['above', lease && (({ stores }) => stores.views.leaseWithAbove(lease.id))],
      [
        'counts',
        async ({ stores }) => (await stores.views.credentialCounts()).sort((a, b) => (a.state < b.state ? 1 : -1)),
      ],
      ['reconciled', ({ stores }) => stores.views.reconciled(['postgres', 'vault'][x % 2] as string)],
      [
        'kept',
        lease &&
          (async ({ stores }) => {
            const { probe, kept } = await stores.views.kept(lease.id);
            return [probe?.expose(), kept?.expose()];
          }),
      ],
      ['lease', lease && (({ stores }) => stores.views.lease(lease.id))],
      ['revocation', ({ stores }) => stores.views.revocation(pick(pair.revocations, y) ?? pair.id('rev'))],
    ];
    const [what, ask] = asks[z % asks.length] as (typeof asks)[number];
    if (ask) await pair.ask(`views ${what}`, ask);
  },

  replay: async (pair: Pair, x: number, y: number, z: number) => {
    const nowMs = pair.clock.now();
    // Redis forgets these by its own clock, which does not jump: so they are only asked about within one moment.
    const once = `dpop:${x % 3}:${nowMs}`;
    const claim = `key-${y % 3}:${nowMs}`;
    await pair.ask('once', ({ stores }) => stores.replayGuard.once(once, nowMs + 60_000, nowMs));
    await pair.ask('claim', ({ stores }) => stores.replayGuard.claim(claim, `body-${x % 2}`, nowMs));
    if (x % 2 === 0) await pair.ask('answer', ({ stores }) => stores.replayGuard.answer(claim, '{}', nowMs));
    else if (y % 2 === 0) await pair.ask('release', ({ stores }) => stores.replayGuard.release(claim));
    const request = `request-${y % 2}:${nowMs}`;
    const [leaseId, other] = [`lse_${x % 3}`, `lse_${y % 3}`];
    const name = { bodyDigest: `body-${z % 4 === 0}`, leaseId, ...(z % 2 === 0 && { inPlaceOf: other }) };
    await pair.ask('nameLease', ({ stores }) => stores.replayGuard.nameLease(request, name, nowMs));
  },

  /** What the feed kills, as each side's own table has it. */
  judge: async (pair: Pair) => {
    for (const id of pair.sides[0].tokens.keys()) {
      await pair.ask(`find ${id}`, async (side) => {
        await side.stores.feed.reached(await side.stores.feed.head(), 2_000);
        return side.stores.feed.table().find(side.tokens.get(id) as TaskClaims, KID) !== undefined;
      });
    }
  },
};

const WEIGHTS: Partial<Record<keyof typeof STEPS, number>> = {
  read: 14,
  mint: 12,
  startTask: 6,
  intent: 6,
  tick: 5,
  commitCredential: 5,
  beginAttempt: 6,
  closeAttempt: 6,
};

const steps = fc.array(
  fc.oneof(
    ...(Object.keys(STEPS) as (keyof typeof STEPS)[]).map((name) => ({
      weight: WEIGHTS[name] ?? 3,
      arbitrary: fc.record({ name: fc.constant(name), x: fc.nat(29), y: fc.nat(29), z: fc.nat(29) }),
    })),
  ),
  { maxLength: 70, size: 'max' },
) as fc.Arbitrary<Step[]>;

describe('the fake and the real store', () => {
  let redis: RedisServer;
  let dir: string;
  let runs = 0;

  beforeAll(async () => {
    redis = await startRedis({ appendfsync: 'always' });
    dir = mkdtempSync(join(tmpdir(), 'mayfly-differential-'));
  }, 60_000);

  afterAll(async () => {
    await redis.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  /** One sequence, asked of a fresh fake and a fresh cell. */
  const sequences = (bugs: LedgerBugs = {}) =>
    fc.asyncProperty(steps, async (sequence) => {
      runs += 1;
      const clock = new VirtualClock(Date.now());
      const real = await openStores({
        url: redis.url,
        cell: 'a',
        keyPrefix: `differential-${runs}`,
        rootKey: new Uint8Array(32).fill(1),
        clock,
        observe: () => {},
        dataDir: join(dir, String(runs)),
        limits: { clockSkewMsMax: Number.MAX_SAFE_INTEGER },
      });
      const pair = new Pair(clock, fakeStores({ clock, bugs }), real);
      try {
        await STEPS.activateBundle(pair, 0, 0);
        await STEPS.startTask(pair, 1, 1, 0);
        for (const { name, x, y, z } of sequence) await STEPS[name](pair, x, y, z);
        await STEPS.judge(pair);
        pair.comparePlaces();
      } finally {
        await real.close();
      }
    });

  it('give the same answers to the same questions', async () => {
    const seed = SEED === 'random' ? Date.now() & 0x7fffffff : Number(SEED);
    await fc.assert(sequences(), { numRuns: RUNS, seed, ...(PATH && { path: PATH }) });
  }, 600_000);

  it.each(['dropFence', 'dropGeneration', 'dropPath', 'dropVerdictCompare'] as const)(
    'differ when the fake has the bug %s',
    async (bug) => {
      const found = await fc.check(sequences({ [bug]: true }), { numRuns: 200, seed: 1, endOnFailure: true });
      expect(found.failed).toBe(true);
    },
    120_000,
  );
});
