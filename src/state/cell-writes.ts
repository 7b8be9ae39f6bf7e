import { type Cell, SKEW_MS } from './cell.js';
import type { Epochs } from './epochs.js';
import type { Ledger } from './stores.js';

type CellWrites = Pick<Ledger, 'activateBundle' | 'saveKeyRing' | 'recover' | 'note'>;

/** What belongs to the whole cell: its bundle, its keys, its epoch. */
export function cellWrites(cell: Cell, epochs: Epochs): CellWrites {
  const { line, keys, encryption } = cell;
  return {
    activateBundle: async ({ digest, files, again, nowMs, audit }) => {
      const signed = encryption.sign('bundle', digest, JSON.stringify(files));
      const [outcome, position, active] = (await line.run(
        'activate-bundle',
        [keys.bundle(digest), keys.named('bundles'), keys.named('due')],
        [digest, signed, again ? '1' : '', nowMs + SKEW_MS],
        { nowMs, audit },
      )) as ['activated' | 'already' | 'seen', string, string];
      if (outcome === 'activated') cell.memory.remember({ kind: 'bundle', atMs: nowMs, digest, files, audit });
      return { outcome, active, ...(position && { position }) };
    },

    saveKeyRing: async ({ ring, fromVersion, taintedKid, nowMs, audit }) => {
      const encrypted = encryption.encrypt('key-ring', 'keyring', Buffer.from(JSON.stringify(ring)));
      const [outcome, version] = (await line.run(
        'save-key-ring',
        [keys.named('keyring')],
        [encrypted, fromVersion, taintedKid === undefined ? '' : JSON.stringify({ key: taintedKid })],
        { nowMs, audit },
      )) as ['saved' | 'moved_on', number];
      return { outcome, version };
    },

    recover: async ({ audit }) => ({ epoch: await epochs.recover(audit) }),

    note: async (record) => {
      await line.run('note', [], [], { nowMs: record.atMs, audit: record });
    },
  };
}
