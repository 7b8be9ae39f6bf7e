import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/** A small tree with one file in every room, and a violation planted in it. Rule, file, import. */
const PLANTED: [rule: string, file: string, imports: string][] = [
  ['core-is-alone', 'src/core/planted.ts', '../state/redis.js'],
  ['core-no-io', 'src/core/planted.ts', 'node:fs'],
  ['core-is-alone', 'src/core/planted.ts', 'zod'],
  ['broker-sees-contracts', 'src/broker/planted.ts', '../plugins/identity/kind.js'],
  ['broker-sees-contracts', 'src/broker/planted.ts', '../state/redis.js'],
  ['plugins-see-core', 'src/plugins/identity/planted.ts', '../../broker/verb.js'],
  ['plugin-families-apart', 'src/plugins/identity/planted.ts', '../policy/contract.js'],
  ['state-sees-core', 'src/state/planted.ts', '../broker/verb.js'],
  ['edge-calls-verbs', 'src/edge/http/planted.ts', '../../state/redis.js'],
  ['client-stands-alone', 'src/client/planted.ts', '../broker/verb.js'],
  ['client-stands-alone', 'src/client/planted.ts', 'express'],
  ['nobody-imports-main', 'src/edge/http/planted.ts', '../../main/compose.js'],
  ['dev-only-from-dev', 'src/main/planted.ts', './dev/story.js'],
  ['redis-in-state', 'src/main/planted.ts', 'ioredis'],
  ['express-in-http', 'src/main/planted.ts', 'express'],
  ['main-vendors', 'src/state/planted.ts', 'pino'],
  ['zod-not-in-broker', 'src/broker/planted.ts', 'zod'],
];

const TREE: Record<string, string> = {
  'src/core/word.ts': 'export const word = 1;',
  'src/broker/verb.ts': "export { word as verb } from '../core/word.js';",
  'src/plugins/identity/contract.ts': 'export interface Contract {}',
  'src/plugins/identity/kind.ts': 'export const kind = 1;',
  'src/plugins/policy/contract.ts': 'export const policy = 1;',
  'src/state/stores.ts': 'export interface Stores {}',
  'src/state/redis.ts': "import Redis from 'ioredis';\nexport const redis = Redis;",
  'src/edge/http/door.ts': "export { verb as door } from '../../broker/verb.js';",
  'src/client/agent.ts': "export { word as agent } from '../core/word.js';",
  'src/main/compose.ts': "export { redis } from '../state/redis.js';",
  'src/main/dev/story.ts': 'export const story = 1;',
};

describe('the walls between the rooms', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-walls-'));

  beforeAll(() => {
    for (const [name, content] of Object.entries(TREE)) write(name, content);
    for (const name of ['.dependency-cruiser.cjs', 'tsconfig.json', 'package.json']) cpSync(name, join(dir, name));
    symlinkSync(resolve('node_modules'), join(dir, 'node_modules'));
  });

  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  function write(name: string, content: string): void {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), `${content}\n`);
  }

  function cruise(): { status: number | null; said: string } {
    const cli = resolve('node_modules/dependency-cruiser/bin/dependency-cruise.mjs');
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [cli, '--config', '.dependency-cruiser.cjs', 'src'],
      { cwd: dir, encoding: 'utf8' },
    );
    return { status, said: stdout + stderr };
  }

  it('a tree that keeps them passes, and its modules are really read', () => {
    const { status, said } = cruise();
    expect(said).toMatch(/no dependency violations found \((1[1-9]|[2-9]\d) modules/);
    expect(status).toBe(0);
  });

  describe('with a violation of each planted', () => {
    let said: string;

    beforeAll(() => {
      const nameOf = (file: string, at: number) => file.replace('planted', `planted-${at}`);
      PLANTED.forEach(([, file, imports], at) => {
        write(nameOf(file, at), `import * as planted from '${imports}';\nexport const it = planted;`);
      });
      said = cruise().said;
      PLANTED.forEach(([, file], at) => {
        rmSync(join(dir, nameOf(file, at)));
      });
    });

    it.each(PLANTED.map(([rule, file, imports], at) => [rule, file.replace('planted', `planted-${at}`), imports]))(
      '%s: %s importing %s is caught',
      (rule, file) => {
        expect(said).toContain(`error ${rule}: ${file} `);
      },
    );
  });

  it('no-circular: two files that import each other are caught', () => {
    write('src/core/planted.ts', "export { word } from './word.js';");
    write('src/core/word.ts', "export { word as planted } from './planted.js';\nexport const word = 1;");
    try {
      expect(cruise().said).toContain('error no-circular');
    } finally {
      rmSync(join(dir, 'src/core/planted.ts'));
      write('src/core/word.ts', TREE['src/core/word.ts'] as string);
    }
  });
});
