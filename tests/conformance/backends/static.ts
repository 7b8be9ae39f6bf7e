import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { staticBackend } from '../../../src/plugins/backends/static.js';
import { installation } from './deps.js';
import type { Harness, World } from './harness.js';

/** The real thing is a folder, and an API that knows which key is the right one now. */
export const staticHarness: Harness = {
  promises: ['rotate-only'],
  abilities: [],
  canHang: false,
  async open(): Promise<World> {
    const dir = mkdtempSync(join(tmpdir(), 'mayfly-static-'));
    const folder = join(dir, 'values');
    const ours = await installation();
    const goodKeys = new Map<string, string>();
    const write = (name: string) => {
      const key = `key-${randomBytes(24).toString('base64url')}`;
      writeFileSync(join(folder, `.${name}`), `${ours.encrypt(name, key)}\n`);
      renameSync(join(folder, `.${name}`), join(folder, name));
      goodKeys.set(name, key);
    };
    mkdirSync(folder);
    for (const name of ['pager', 'maps']) write(name);
    const config = staticBackend.config.parse({ kind: 'static', dir: folder });
    const make = (which?: string) => staticBackend.create(config, ours.deps('keys', which));
    const secret = (name: string, field?: string) => ({
      name,
      settings: { value: name, ...(field !== undefined && { field }) },
      promised: 'rotate-only' as const,
      secretFields: [field ?? 'value'],
    });
    return {
      backend: await make(),
      another: () => make(),
      stranger: () => make('theirs'),
      secrets: [secret('pager'), secret('maps', 'api_key')],
      badSettings: {
        'nothing said': {},
        'a path': { value: '../pager' },
        'an absolute path': { value: '/etc/passwd' },
        'a hidden file': { value: '.pager' },
        'a template': { value: '{{pager}}' },
        'a NUL': { value: 'pager\0' },
        'a line end': { value: 'pager\n' },
        'too long a name': { value: 'p'.repeat(65) },
        'a field that is a prototype’s': { value: 'pager', field: '__proto__' },
        'no text': { value: 7 },
      },
      works: async (data, { settings, secretFields }) =>
        data[secretFields[0] as string] === goodKeys.get(settings['value'] as string),
      rotate: async ({ settings }) => write(settings['value'] as string),
      down: async () => renameSync(folder, `${folder}-away`),
      up: async () => renameSync(`${folder}-away`, folder),
      ours: [Buffer.from(ours.rootKey).toString('base64url'), Buffer.from(ours.rootKey).toString('hex')],
      async close() {
        rmSync(dir, { recursive: true, force: true });
      },
    };
  },
};
