import { randomBytes } from 'node:crypto';
import type { Observe } from '../core/observe.js';
import type { Clock } from '../core/time.js';
import { AuditFiles } from './audit-files.js';
import { RedisAuditLog } from './audit-log.js';
import { type Cell, LIMITS, type Limits } from './cell.js';
import { Encryption } from './encryption.js';
import { Epochs } from './epochs.js';
import { RedisFeed } from './feed.js';
import { HeadFile } from './head-file.js';
import { RedisHealth } from './health.js';
import { Housekeeping } from './housekeeping.js';
import { Keys } from './keys.js';
import { redisLedger } from './ledger.js';
import { Memory } from './memory.js';
import { connect, Line, type RedisUrl, ready } from './redis.js';
import { repeatAcknowledged } from './repeat.js';
import { redisReplayGuard } from './replay-guard.js';
import { RedisSchedule } from './schedule.js';
import type { Stores } from './stores.js';
import { TaskRecords } from './task-record.js';
import { TokenRecords } from './token-record.js';
import { redisViews } from './views.js';

export interface StoreOptions {
  /** `redis://…` or `rediss://…` of a single Redis; a list of them for a Redis Cluster. */
  url: RedisUrl;
  /** The cell's short name: `a`. */
  cell: string;
  /** 32 bytes that never rest in Redis. */
  rootKey: Uint8Array;
  clock: Clock;
  observe: Observe;
  /** Where this broker keeps its head file, what it acknowledged in the last minute, and audit files. One broker per folder. */
  dataDir: string;
  /** Default `mayfly`: keys begin `{mayfly:<cell>}:`, queues `{mayfly-jobs:<cell>}:`. */
  keyPrefix?: string;
  /** `worker` and `all` (the default) move audit records and trim the feed; jobs are taken once `schedule.start` is called. */
  role?: 'all' | 'api' | 'worker';
  audit?: { retentionMs?: number };
  limits?: Partial<Limits>;
}

const AUDIT_RETENTION_MS = 400 * 86_400_000;
const CELL_KEY_BYTES = 32;

/**
 * Opens the stores of one cell. Resolves when Redis has answered, the epoch is settled and this broker's copy of the feed is whole; throws
 * `unavailable` when Redis does not answer within 10 s. Whether grants are open is `health.grantsClosed()`: a store of less than the
 * promised profile opens, and only revokes.
 */
export async function openStores(options: StoreOptions): Promise<Stores & { close(): Promise<void> }> {
  const { clock, observe } = options;
  const prefix = options.keyPrefix ?? 'mayfly';
  const keys = new Keys(prefix, options.cell);
  const encryption = new Encryption(options.rootKey, options.cell);
  const requests = connect(options.url, 'request', observe);
  const blocking = connect(options.url, 'waiting', observe);
  const closeClients = () => {
    requests.disconnect();
    blocking.disconnect();
  };
  try {
    await Promise.all([ready(requests), ready(blocking)]);
    const limits = { ...LIMITS, ...options.limits };
    const line = new Line(requests, keys, clock, limits.clockSkewMsMax);
    await line.syncClock();
    const cellKey = await ownCellKey(line, encryption);
    const cell: Cell = {
      line,
      keys,
      clock,
      observe,
      encryption,
      limits,
      tasks: new TaskRecords(),
      tokens: new TokenRecords(options.cell, cellKey),
      memory: new Memory(options.dataDir, options.cell),
      locks: { version: '', records: [] },
    };
    const feed = new RedisFeed(cell, blocking);
    const repeat = () => repeatAcknowledged(cell);
    const enter = async () => {
      cell.locks = { version: '', records: [] };
      await feed.reload();
      await repeat();
    };
    const epochs = new Epochs(cell, new HeadFile(options.dataDir, options.cell), enter, repeat);
    const files = new AuditFiles(options.dataDir, options.cell, options.audit?.retentionMs ?? AUDIT_RETENTION_MS);
    const auditLog = new RedisAuditLog(cell, files, epochs.broker);
    const housekeeping = new Housekeeping(cell, auditLog);
    const schedule = new RedisSchedule(cell, options.url, requests, `{${prefix}-jobs:${options.cell}}`);
    let closing: Promise<void> | undefined;
    const close = () => {
      closing ??= (async () => {
        await schedule.stop();
        await housekeeping.stop();
        await auditLog.stop().catch(() => {});
        await health.stop();
        await feed.stop();
        await epochs.stop();
        files.close();
        closeClients();
      })();
      return closing;
    };
    const health = new RedisHealth(cell, epochs, feed, auditLog, close);
    await epochs.start();
    await feed.start();
    await health.start();
    if (options.role !== 'api') housekeeping.start();
    return {
      ledger: redisLedger(cell, epochs, () => health.grantsClosed()),
      views: redisViews(cell, cellKey),
      feed,
      schedule,
      replayGuard: redisReplayGuard(cell),
      auditLog,
      health,
      close,
    };
  } catch (error) {
    closeClients();
    throw error;
  }
}

/** Made by the first broker, read by all others; what is stored is encrypted under the root key. */
async function ownCellKey(line: Line, encryption: Encryption): Promise<Uint8Array> {
  const place = 'cellkey';
  const key = line.keys.named('cellkey');
  const made = encryption.encrypt('cell-key', place, randomBytes(CELL_KEY_BYTES));
  await line.ask((client) => client.set(key, made, 'NX'));
  const stored = await line.ask((client) => client.get(key));
  return encryption.decrypt('cell-key', place, stored ?? '');
}
