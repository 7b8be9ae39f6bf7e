import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { MESSENGER_MS } from '../../../src/state/due.js';
import { KEY_DOCS, Keys } from '../../../src/state/keys.js';
import { loadScripts } from '../../../src/state/scripts.js';

const LUA = 'src/state/lua';
const scripts = Object.values(loadScripts());
const files = readdirSync(LUA).map((file) => file.replace(/\.lua$/, ''));
const PIECES = ['prelude', 'guard', 'grant', 'ends', 'tasks'];

describe('the scripts', () => {
  it('are all of the folder, and the folder holds nothing else', () => {
    expect(files.sort()).toEqual([...new Set(scripts.map(({ file }) => file)), ...PIECES].sort());
  });

  it.each(files)('%s says what it is for, which keys and words it takes, and what it answers', (name) => {
    const text = readFileSync(join(LUA, `${name}.lua`), 'utf8');
    const header = text
      .split('\n')
      .filter((line) => line.startsWith('--'))
      .join('\n');
    expect(text.startsWith('-- ')).toBe(true);
    if (/KEYS\[([5-9]|\d\d)/.test(text) && !PIECES.includes(name)) expect(header).toMatch(/KEYS/);
    if (/ARGV\[([4-9]|\d\d)/.test(text) && !PIECES.includes(name)) expect(header).toMatch(/ARGV/);
    if (/^return \{/m.test(text))
      expect(header).toMatch(/Returns|returns|record without a change|settled|no longer due/);
  });

  it('are guarded: only raising the epoch runs on a master that the cell does not know', () => {
    const unguarded = scripts.filter(({ source }) => !source.includes("error_reply('CHANGED"));
    expect(unguarded.map(({ name }) => name)).toEqual(['raise-epoch']);
  });

  it('go by the deadline, every one of them', () => {
    for (const { name, source } of scripts) expect([name, source.includes("error_reply('LATE")]).toEqual([name, true]);
  });

  it('grant only when there is room, and revoke also when there is none', () => {
    const withoutRoom = scripts.filter(({ source }) => source.startsWith('#!lua flags=allow-oom\n'));
    const names = withoutRoom.map(({ name }) => name);
    for (const name of [
      'end-task',
      'suspend-task',
      'change-context',
      'revoke',
      'move-leases',
      'close-attempt',
      'keep-end',
      'commit-operator-token',
      'use-once',
    ]) {
      expect(names).toContain(name);
    }
    for (const name of [
      'start-task',
      'commit-lease',
      'name-lease',
      'commit-credential',
      'renew-lease',
      'resume-task',
      'note',
    ]) {
      expect(names).not.toContain(name);
    }
  });

  it('leave a messenger the time that the sweeper leaves it: it stands in one place', () => {
    for (const { name, source } of scripts) {
      expect([name, source.match(/MESSENGER_MS = .*/g)]).toEqual([name, [`MESSENGER_MS = ${MESSENGER_MS}`]]);
      expect([name, source.includes('return now + MESSENGER_MS\n')]).toEqual([name, true]);
    }
  });

  it('build no JSON from data: records arrive as text', () => {
    for (const { name, source } of scripts) expect([name, /cjson|cmsgpack/.test(source)]).toEqual([name, false]);
  });
});

describe('the keys', () => {
  const keys = new Keys('mayfly', 'a');
  const made = [
    ...[
      'cell',
      'feed',
      'feed:until',
      'feed:readers',
      'audit',
      'audit:mover',
      'due',
      'tasks',
      'tokens',
      'credentials',
    ].map((name) => keys.named(name as 'cell')),
    ...['stuck', 'locks', 'revocations', 'bundles', 'keyring', 'cellkey', 'beats', 'confirmed'].map((name) =>
      keys.named(name as 'cell'),
    ),
    keys.task('X'),
    keys.children('X'),
    keys.tokensOf('X'),
    keys.credentialsOf('X'),
    keys.tree('X'),
    keys.treeCredentials('X'),
    keys.openerTasks('X'),
    keys.agentTasks('X'),
    keys.agent('X'),
    keys.agentCredentials('X'),
    keys.ref('X', 'Y'),
    keys.kept('X'),
    keys.tokensAt(1),
    keys.profile('X'),
    keys.credential('X'),
    keys.backendCredentials('X'),
    keys.reconciled('X'),
    keys.revocation('X'),
    keys.revokedTasks('X'),
    keys.revokedAgents('X'),
    keys.bundle('X'),
    keys.once('X'),
    keys.idempotency('X'),
    keys.request('X'),
  ];

  it('are each documented, and nothing is documented that is not made', () => {
    const patterns = KEY_DOCS.map(({ name }) => new RegExp(`^\\{mayfly:a\\}:${name.replaceAll(/<[^>]+>/g, '[^:]+')}$`));
    for (const key of made) expect([key, patterns.filter((pattern) => pattern.test(key)).length]).toEqual([key, 1]);
    for (const pattern of patterns) expect([pattern, made.some((key) => pattern.test(key))]).toEqual([pattern, true]);
  });

  it('all carry the cell’s tag, so that one script may touch them all', () => {
    for (const key of made) expect(key.startsWith('{mayfly:a}:')).toBe(true);
  });

  it('never hold a name that somebody chose', () => {
    const name = 'spiffe://x/}{:evil';
    for (const key of [
      keys.openerTasks(name),
      keys.agent(name),
      keys.ref(name, name),
      keys.kept(name),
      keys.backendCredentials(name),
      keys.once(name),
    ]) {
      expect(key).not.toContain('evil');
      expect(key.length).toBeLessThan(60);
    }
  });

  it('do not run together: another opener with another reference is another key', () => {
    expect(keys.ref('a', 'b\0c')).not.toBe(keys.ref('a\0b', 'd'));
    expect(keys.ref('ab', 'c')).not.toBe(keys.ref('a', 'bc'));
  });
});
