import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MESSENGER_MS } from './due.js';

/**
 * What a script may do when Redis is full: reads write nothing; ends, locks and revocations, and what operators need to ask for them, need no room
 * first, so that a full Redis stops nobody from stopping.
 */
type Flags = '' | 'no-writes' | 'allow-oom';

interface Recipe {
  /** Pieces that stand between the prelude and the script. */
  before: readonly ('guard' | 'grant' | 'ends' | 'tasks')[];
  flags: Flags;
  /** The script is this one, under flags of its own. */
  as?: string;
}

/**
 * Every script. A grant has no flag: when there is no room it is refused whole, before its first write. Only `raise-epoch` runs on a master
 * that the cell does not know.
 */
const SCRIPTS = {
  'read-task': { before: ['guard'], flags: 'no-writes' },
  paths: { before: ['guard'], flags: 'no-writes' },
  head: { before: ['guard'], flags: 'no-writes' },
  'start-task': { before: ['guard', 'grant'], flags: '' },
  'commit-lease': { before: ['guard', 'grant'], flags: '' },
  'commit-operator-token': { before: ['guard', 'grant'], flags: 'allow-oom', as: 'commit-lease' },
  'use-once': { before: ['guard'], flags: 'allow-oom' },
  'name-lease': { before: ['guard'], flags: '' },
  'commit-credential': { before: ['guard', 'grant'], flags: '' },
  'renew-lease': { before: ['guard', 'grant'], flags: '' },
  'note-credential': { before: ['guard'], flags: 'allow-oom' },
  'resume-task': { before: ['guard', 'ends', 'tasks'], flags: '' },
  note: { before: ['guard'], flags: '' },
  'end-task': { before: ['guard', 'ends', 'tasks'], flags: 'allow-oom' },
  'expire-tasks': { before: ['guard', 'ends'], flags: 'allow-oom' },
  'keep-end': { before: ['guard'], flags: 'allow-oom' },
  'suspend-task': { before: ['guard', 'ends', 'tasks'], flags: 'allow-oom' },
  'change-context': { before: ['guard', 'ends', 'tasks'], flags: 'allow-oom' },
  heartbeat: { before: ['guard', 'ends', 'tasks'], flags: 'allow-oom' },
  'settle-task': { before: ['guard', 'ends', 'tasks'], flags: 'allow-oom' },
  'repeat-generation': { before: ['guard', 'ends', 'tasks'], flags: 'allow-oom' },
  revoke: { before: ['guard'], flags: 'allow-oom' },
  'change-lock': { before: ['guard'], flags: 'allow-oom' },
  'advance-revocation': { before: ['guard'], flags: 'allow-oom' },
  'move-leases': { before: ['guard'], flags: 'allow-oom' },
  'begin-attempt': { before: ['guard'], flags: 'allow-oom' },
  'close-attempt': { before: ['guard'], flags: 'allow-oom' },
  'ask-to-abandon': { before: ['guard'], flags: 'allow-oom' },
  'note-reconciled': { before: ['guard'], flags: 'allow-oom' },
  hasten: { before: ['guard'], flags: 'allow-oom' },
  'activate-bundle': { before: ['guard'], flags: 'allow-oom' },
  'save-key-ring': { before: ['guard'], flags: 'allow-oom' },
  'claim-due': { before: ['guard'], flags: 'allow-oom' },
  'settle-due': { before: ['guard'], flags: 'allow-oom' },
  'trim-feed': { before: ['guard'], flags: 'allow-oom' },
  'cut-off': { before: ['guard'], flags: 'allow-oom' },
  'forget-bundle': { before: ['guard'], flags: 'allow-oom' },
  'trim-audit': { before: ['guard'], flags: 'allow-oom' },
  beat: { before: ['guard'], flags: 'allow-oom' },
  'raise-epoch': { before: [], flags: 'allow-oom' },
} as const satisfies Record<string, Recipe>;

export type ScriptName = keyof typeof SCRIPTS;

export interface Script {
  name: ScriptName;
  /** Of lua/, without its ending. */
  file: string;
  source: string;
  sha: string;
}

export function loadScripts(): Record<ScriptName, Script> {
  const piece = (name: string) => readFileSync(join(import.meta.dirname, 'lua', `${name}.lua`), 'utf8');
  const load = (name: ScriptName): Script => {
    const { before, flags, as = name }: Recipe = SCRIPTS[name];
    const shebang = flags ? `#!lua flags=${flags}` : '#!lua';
    const source = [
      shebang,
      `local MESSENGER_MS = ${MESSENGER_MS}`,
      piece('prelude'),
      ...before.map(piece),
      piece(as),
    ].join('\n');
    return { name, file: as, source, sha: createHash('sha1').update(source).digest('hex') };
  };
  const names = Object.keys(SCRIPTS) as ScriptName[];
  return Object.fromEntries(names.map((name) => [name, load(name)])) as Record<ScriptName, Script>;
}
