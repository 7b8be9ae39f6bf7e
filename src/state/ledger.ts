import type { Cell } from './cell.js';
import { cellWrites } from './cell-writes.js';
import type { Epochs } from './epochs.js';
import { leaseWrites } from './lease-writes.js';
import { reader } from './read.js';
import type { Ledger } from './stores.js';
import { taskWrites } from './task-writes.js';

/** The ledger over Redis: one method that changes something is one script of lua/. */
export function ledger(cell: Cell, epochs: Epochs): Ledger {
  return {
    read: reader(cell),
    ...taskWrites(cell),
    ...leaseWrites(cell),
    ...cellWrites(cell, epochs),
  } as Ledger;
}
