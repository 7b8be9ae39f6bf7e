import { isOperatorToken } from '../core/lease.js';
import type { Cell } from './cell.js';
import { cellWrites } from './cell-writes.js';
import { credentialWrites } from './credential-writes.js';
import type { Epochs } from './epochs.js';
import { leaseWrites } from './lease-writes.js';
import { readReading } from './look.js';
import { unavailable } from './redis.js';
import { revocationWrites } from './revocation-writes.js';
import type { Ledger } from './stores.js';
import { taskWrites } from './task-writes.js';

/**
 * The ledger over Redis: one method that changes something is one script of lua/. Grants are refused here while `grantsClosed` says why; the
 * scripts refuse them too while the cell has an epoch that is not confirmed.
 */
export function redisLedger(cell: Cell, epochs: Epochs, grantsClosed: () => string | undefined): Ledger {
  const leases = leaseWrites(cell);
  const credentials = credentialWrites(cell);
  const tasks = taskWrites(cell);
  const whenOpen =
    <Write, Reply>(grant: (write: Write) => Promise<Reply>) =>
    async (write: Write): Promise<Reply> => {
      const closed = grantsClosed();
      if (closed !== undefined) throw unavailable(`grants are closed: ${closed}`);
      return grant(write);
    };
  // An operator's token gives nothing away: it is what one stops with, and asks why grants are closed.
  const commitWhenOpen = whenOpen(leases.commitLease);
  return {
    read: (query) => readReading(cell, query),
    ...tasks,
    startTask: whenOpen(tasks.startTask),
    resumeTask: whenOpen(tasks.resumeTask),
    ...leases,
    commitLease: (write) => (isOperatorToken(write.lease) ? leases.commitLease : commitWhenOpen)(write),
    ...credentials,
    openIntent: whenOpen(credentials.openIntent),
    renewLease: whenOpen(credentials.renewLease),
    ...revocationWrites(cell),
    ...cellWrites(cell, epochs),
  };
}
