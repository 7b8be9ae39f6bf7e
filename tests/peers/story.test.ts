import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { until } from '../e2e/brokers.js';
import { type Bao, describeVault, ROOT, startBao } from './vault-world.js';

describeVault('npm start with a real OpenBao', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-story-'));
  let bao: Bao;

  beforeAll(async () => {
    // The user of PostgreSQL has to reach its data, which would stay behind elsewhere.
    chmodSync(dir, 0o711);
    bao = await startBao();
    writeFileSync(join(dir, 'token'), ROOT, { mode: 0o600 });
  }, 60_000);
  afterAll(() => {
    bao?.close();
    rmSync(dir, { recursive: true, force: true });
  });

  function start(env: Record<string, string>) {
    const words = [resolve('scripts/start.mjs'), '--port', '0', '--data', join(dir, 'data')];
    const child = spawn(process.execPath, words, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = { said: '' };
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        output.said += chunk.toString();
      });
    }
    return { child, output };
  }

  it('plays the same story: the user is made by OpenBao, cut off and refused by PostgreSQL, and verified to be dead', async () => {
    const { child, output } = start({ MAYFLY_VAULT_ADDR: bao.address, MAYFLY_VAULT_TOKEN_FILE: join(dir, 'token') });
    try {
      await until('the story has been played', 120_000, () => {
        if (child.exitCode !== null) throw new Error(output.said);
        return output.said.includes('Do it by hand');
      });
    } finally {
      if (child.exitCode === null) {
        const gone = once(child, 'exit');
        child.kill('SIGTERM');
        await gone;
      }
    }
    for (const step of [
      'got a database user of its own: token-mayfly-',
      'read order 42 in PostgreSQL',
      'cut the open connection \\(57P01\\)',
      'refuses the next login itself: .*28(P01|000)',
      'on record: verified-dead',
    ]) {
      expect(output.said).toMatch(new RegExp(`\\d+\\.\\d ms .*${step}`));
    }
  }, 150_000);

  it.each([
    ['a token file that is not there', { MAYFLY_VAULT_TOKEN_FILE: '/nowhere/token' }, 'ENOENT'],
    ['no token file', {}, 'needs MAYFLY_VAULT_TOKEN_FILE'],
  ])(
    'with %s is one clear line, and nothing goes on without it',
    async (_, more, problem) => {
      const { child, output } = start({ MAYFLY_VAULT_ADDR: bao.address, MAYFLY_VAULT_TOKEN_FILE: '', ...more });
      const [code] = (await once(child, 'exit')) as [number];
      expect(code).toBe(1);
      const lines = output.said.split('\n').filter((line) => line.startsWith('mayfly: '));
      expect(lines).toEqual([expect.stringContaining(problem)]);
    },
    60_000,
  );
});
