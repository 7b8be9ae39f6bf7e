import { type Cell, SKEW_MS } from './cell.js';
import type { Epochs } from './epochs.js';
import type { Ledger } from './stores.js';

type CellWrites = Pick<Ledger, 'activateBundle' | 'settleBundle' | 'saveKeyRing' | 'recover' | 'note'>;

/** What belongs to the whole cell: its bundle, its keys, its epoch. */
export function cellWrites(cell: Cell, epochs: Epochs): CellWrites {
  return {
    activateBundle: (write) => activateBundle(cell, write),
    settleBundle: async ({ digest, nowMs }) => {
      await cell.line.run('settle-due', [cell.keys.named('due')], [`re-evaluate-bundle:${digest}`], { nowMs });
    },
    saveKeyRing: (write) => saveKeyRing(cell, write),
    recover: async ({ audit }) => ({ epoch: await epochs.recover(audit) }),
    note: async (record) => {
      await cell.line.run('note', [], [], { nowMs: record.atMs, audit: record });
    },
  };
}

export async function activateBundle(
  cell: Cell,
  { digest, files, again, nowMs, audit }: Parameters<Ledger['activateBundle']>[0],
): ReturnType<Ledger['activateBundle']> {
  const { keys, encryption } = cell;
  const [outcome, position, active, activation] = (await cell.line.run(
    'activate-bundle',
    [keys.bundle(digest), keys.named('bundles'), keys.named('due')],
    [digest, encryption.sign('bundle', digest, JSON.stringify(files)), again ? '1' : '', nowMs + SKEW_MS],
    { nowMs, audit },
  )) as ['activated' | 'already' | 'seen', string, string, number];
  if (outcome === 'activated') {
    cell.memory.remember({ kind: 'bundle', atMs: nowMs, digest, files, activation, audit });
  }
  return { outcome, active, ...(position && { position }) };
}

async function saveKeyRing(
  cell: Cell,
  { ring, fromVersion, taintedKid, nowMs, audit }: Parameters<Ledger['saveKeyRing']>[0],
): ReturnType<Ledger['saveKeyRing']> {
  const { keys, encryption } = cell;
  const encrypted = encryption.encrypt('key-ring', 'keyring', Buffer.from(JSON.stringify(ring)));
  const tainted = taintedKid === undefined ? '' : JSON.stringify({ key: taintedKid });
  const [outcome, version] = (await cell.line.run(
    'save-key-ring',
    [keys.named('keyring')],
    [encrypted, fromVersion, tainted, fromVersion + 1],
    { nowMs, audit },
  )) as ['saved' | 'moved_on', number];
  if (outcome === 'saved') {
    cell.memory.remember({
      kind: 'key-ring',
      atMs: nowMs,
      ring: encrypted,
      version,
      ...(taintedKid !== undefined && { taintedKid }),
      audit,
    });
  }
  return { outcome, version };
}
