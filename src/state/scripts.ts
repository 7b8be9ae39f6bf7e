import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What a script may do when Redis is full: reads write nothing; ends, locks and revocations need no room first (F6). */
type Flags = '' | 'no-writes' | 'allow-oom';

/**
 * Every script: which pieces stand before it, and how it behaves when Redis is full. A grant has no flag: it is refused whole, before its
 * first write, when there is no room.
 */
const SCRIPTS = {
  'read-task': { before: ['guard'], flags: 'no-writes' },
  head: { before: ['guard'], flags: 'no-writes' },
  'start-task': { before: ['guard', 'grant'], flags: '' },
  'commit-lease': { before: ['guard', 'grant'], flags: '' },
  'end-task': { before: ['guard', 'tasks'], flags: 'allow-oom' },
  'activate-bundle': { before: ['guard'], flags: 'allow-oom' },
  'save-key-ring': { before: ['guard'], flags: 'allow-oom' },
  note: { before: ['guard'], flags: '' },
  beat: { before: ['guard'], flags: 'allow-oom' },
  'raise-epoch': { before: [], flags: 'allow-oom' },
} as const satisfies Record<string, { before: readonly string[]; flags: Flags }>;

export type ScriptName = keyof typeof SCRIPTS;

export interface Script {
  name: ScriptName;
  source: string;
  sha: string;
}

export function loadScripts(): Record<ScriptName, Script> {
  const piece = (name: string) => readFileSync(join(import.meta.dirname, 'lua', `${name}.lua`), 'utf8');
  const load = (name: ScriptName): Script => {
    const { before, flags } = SCRIPTS[name];
    const shebang = flags ? `#!lua flags=${flags}` : '#!lua';
    const source = [shebang, piece('prelude'), ...before.map(piece), piece(name)].join('\n');
    return { name, source, sha: createHash('sha1').update(source).digest('hex') };
  };
  const names = Object.keys(SCRIPTS) as ScriptName[];
  return Object.fromEntries(names.map((name) => [name, load(name)])) as Record<ScriptName, Script>;
}
