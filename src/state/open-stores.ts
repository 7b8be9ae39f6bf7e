import { randomBytes } from 'node:crypto';
import type { Observe } from '../core/observe.js';
import type { Clock } from '../core/time.js';
import { type Cell, LIMITS, type Limits } from './cell.js';
import { Encryption } from './encryption.js';
import { Epochs } from './epochs.js';
import { RedisFeed } from './feed.js';
import { HeadFile } from './head-file.js';
import { Keys } from './keys.js';
import { ledger } from './ledger.js';
import { Memory } from './memory.js';
import { connect, Line, type RedisUrl, ready } from './redis.js';
import type { Stores } from './stores.js';
import { TaskRecords } from './task-record.js';
import { TokenRecords } from './token-record.js';
import { views } from './views.js';

export interface StoreOptions {
  /** `redis://…` or `rediss://…` of a single Redis; a list of them for a Redis Cluster. */
  url: RedisUrl;
  /** The cell's short name: `a`. */
  cell: string;
  /** 32 bytes that never rest in Redis. */
  rootKey: Uint8Array;
  clock: Clock;
  observe: Observe;
  /** Where this broker keeps its head file, what it acknowledged in the last minute, and audit files. */
  dataDir: string;
  /** Default `mayfly`: keys begin `{mayfly:<cell>}:`. */
  keyPrefix?: string;
  role?: 'all' | 'api' | 'worker';
  limits?: Partial<Limits>;
}

const CELL_KEY_BYTES = 32;

/**
 * Opens the stores of one cell. Resolves when Redis has answered, the epoch is settled and this broker's copy of the feed is whole; throws
 * `unavailable` when Redis does not answer within 10 s. Whether grants are open is `health.grantsClosed()`: a store of less than the
 * promised profile opens, and only revokes.
 */
export async function openStores(options: StoreOptions): Promise<Stores & { close(): Promise<void> }> {
  const { clock, observe } = options;
  const keys = new Keys(options.keyPrefix ?? 'mayfly', options.cell);
  const encryption = new Encryption(options.rootKey, options.cell);
  const requests = connect(options.url, 'request', observe);
  const blocking = connect(options.url, 'waiting', observe);
  const closeClients = () => {
    requests.disconnect();
    blocking.disconnect();
  };
  try {
    await Promise.all([ready(requests), ready(blocking)]);
    const line = new Line(requests, keys, clock);
    const cellKey = await ownCellKey(line, encryption);
    const cell: Cell = {
      line,
      keys,
      clock,
      observe,
      encryption,
      limits: { ...LIMITS, ...options.limits },
      tasks: new TaskRecords(),
      tokens: new TokenRecords(options.cell, cellKey),
      memory: new Memory(),
      locks: { version: '', records: [] },
    };
    const feed = new RedisFeed(cell, blocking);
    const epochs = new Epochs(cell, new HeadFile(options.dataDir, options.cell), async () => {
      cell.locks = { version: '', records: [] };
      await feed.reload();
    });
    await epochs.start();
    await feed.start();
    return {
      ledger: ledger(cell, epochs),
      views: views(cell, cellKey),
      feed,
      health: { grantsClosed: () => epochs.closed },
      close: async () => {
        await epochs.stop();
        await feed.stop();
        closeClients();
      },
    } as unknown as Stores & { close(): Promise<void> };
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
