import { strangeCursor } from '../../src/core/cursor.js';
import { BrokerError } from '../../src/core/errors.js';
import type { AuditFilter, AuditLog, Health, ReplayGuard, Stores } from '../../src/state/stores.js';
import { FakeFeed } from './feed.js';
import { FakeLedger } from './ledger.js';
import { Line, type LineOptions, type LineState } from './line.js';
import { FakeSchedule } from './schedule.js';
import { fakeViews } from './views.js';

const HOLD_MS = 60_000;
const DAY_MS = 86_400_000;

/** The whole of src/state/stores.ts in memory, with handles for tests. */
export interface FakeStores extends Stores {
  line: Line;
  ledger: FakeLedger;
  feed: FakeFeed;
  schedule: FakeSchedule;
}

/**
 * One broker's stores. Give two of them the same `line` and they are two brokers on one Redis; without it they get a line of their own.
 */
export function fakeStores(options: LineOptions & { line?: Line; name?: string }): FakeStores {
  const line = options.line ?? new Line(options);
  const broker = {
    name: options.name ?? `broker-${line.brokers.length + 1}`,
    memory: [],
    confirmedEpoch: line.state.epoch,
  };
  line.brokers.push(broker);
  return {
    line,
    ledger: new FakeLedger(line, broker.memory),
    views: fakeViews(line),
    feed: new FakeFeed(line),
    schedule: new FakeSchedule(line),
    replayGuard: fakeReplayGuard(line),
    auditLog: fakeAuditLog(line),
    health: fakeHealth(line),
  };
}

/**
 * The store comes back as it was at `then`: what was acknowledged since is forgotten. The epoch is raised before anything else runs;
 * grants stay closed until every broker has repeated what it remembers (`confirmAll`).
 */
export function loseTail(line: Line, then: LineState): void {
  line.state = structuredClone(then);
  line.raiseEpoch();
  line.closed = 'a new epoch is not confirmed by every broker';
}

export function confirmAll(stores: readonly FakeStores[]): void {
  for (const { ledger, feed } of stores) {
    ledger.confirmEpoch();
    if (!feed.cut) feed.catchUp();
  }
  for (const { line } of stores) line.closed = undefined;
}

function fakeReplayGuard(line: Line): ReplayGuard {
  const answering = () => {
    if (line.out) throw new BrokerError('unavailable', 'Mayfly cannot decide right now.', { reason: 'redis is out' });
  };
  return {
    once: async (key, untilMs, nowMs) => {
      answering();
      const { once } = line.state;
      if ((once.get(key) ?? 0) > nowMs) return false;
      once.set(key, untilMs);
      return true;
    },
    claim: async (key, bodyDigest, nowMs, holdMs = HOLD_MS) => {
      answering();
      const { claims } = line.state;
      const there = claims.get(key);
      if (!there || there.untilMs <= nowMs) {
        claims.set(key, { bodyDigest, untilMs: nowMs + holdMs });
        return { outcome: 'new' };
      }
      if (there.bodyDigest !== bodyDigest) return { outcome: 'other_body' };
      return there.answer === undefined ? { outcome: 'in_progress' } : { outcome: 'answered', answer: there.answer };
    },
    answer: async (key, answer, nowMs) => {
      answering();
      const there = line.state.claims.get(key);
      if (there) line.state.claims.set(key, { ...there, answer, untilMs: nowMs + DAY_MS });
    },
    release: async (key) => {
      answering();
      line.state.claims.delete(key);
    },
    nameLease: async (key, { bodyDigest, leaseId, inPlaceOf }, nowMs) => {
      answering();
      const { requests } = line.state;
      const kept = requests.get(key);
      const there = kept && kept.untilMs > nowMs ? kept : undefined;
      if (there && there.bodyDigest !== bodyDigest) return { outcome: 'other_body' };
      if (there?.leaseId === leaseId) return { outcome: there.isGivenUp ? 'taken' : 'named' };
      if (there && inPlaceOf === undefined) {
        there.isGivenUp = true;
        return { outcome: 'given_up', leaseId: there.leaseId };
      }
      if (there?.leaseId !== inPlaceOf || there?.isGivenUp === false) return { outcome: 'taken' };
      requests.set(key, { bodyDigest, leaseId, isGivenUp: false, untilMs: nowMs + DAY_MS });
      return { outcome: 'named' };
    },
  };
}

function fakeAuditLog(line: Line): AuditLog {
  return {
    read: async (filter: AuditFilter) => {
      if (filter.cursor !== undefined && !/^\d+$/.test(filter.cursor)) throw strangeCursor();
      const found = line.state.audit
        .map((record, at) => ({ record, at }))
        .filter(
          ({ record }) =>
            (filter.agent === undefined || record.actor.workload === filter.agent) &&
            (filter.task === undefined || record.task === filter.task) &&
            (filter.lease === undefined || record.lease === filter.lease) &&
            (filter.type === undefined || record.type === filter.type) &&
            (filter.fromMs === undefined || record.atMs >= filter.fromMs) &&
            (filter.toMs === undefined || record.atMs < filter.toMs),
        )
        .reverse()
        .filter(({ at }) => filter.cursor === undefined || at < Number(filter.cursor));
      const taken = found.slice(0, filter.limit);
      const last = taken.at(-1);
      return {
        items: structuredClone(taken.map(({ record }) => record)),
        ...(last && found.length > filter.limit && { cursor: String(last.at) }),
      };
    },
    find: async (id) => structuredClone(line.state.audit.find((record) => record.id === id)),
    move: async () => 0,
  };
}

function fakeHealth(line: Line): Health {
  return {
    check: async () => [
      line.out
        ? { name: 'fake', ok: false, detail: 'redis is out', vital: true }
        : { name: 'fake', ok: line.closed === undefined, detail: line.closed ?? 'in memory' },
    ],
    grantsClosed: () => (line.out ? 'redis is out' : line.closed),
    figures: () =>
      line.out
        ? undefined
        : {
            memoryUsedBytes: 1_000,
            memoryLimitBytes: 10_000,
            auditBacklogMs: 0,
            overdue: 0,
            overdueMs: 0,
            clockSkewMs: 0,
            epoch: 1,
          },
    close: async () => {},
  };
}
