import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { resolve } from 'node:path';
import { AtBroker } from '../unit/main/cli/at-broker.js';

/* A command whose output goes to a real full disk, or into a real pipe without a reader. */

const BIN = resolve('bin/mayfly.js');
const SECRET = {
  request_id: 'r',
  lease_id: 'lse_a_1',
  lease_duration: 60,
  renewable: true,
  data: { password: 'p' },
  task: 'tsk_a_1',
};
const TOKEN = {
  access_token: 'a.b.c',
  scope: 'task:tsk_a_1',
  token_type: 'Bearer',
  expires_in: 60,
  lease_id: 'lse_a_1',
};
const GET_SECRET = 'secret get orders-db --task tsk_a_1 -o json';
const GET_TOKEN = 'token --task tsk_a_1 --resource https://orders.example';

let at: AtBroker;
beforeAll(() => void spawnSync(process.execPath, [BIN, '--version']), 60_000);
beforeEach(async () => {
  at = await AtBroker.open();
});
afterEach(() => at.close());

async function mayfly(words: string, output: 'read' | 'left' | 'full'): Promise<{ code: number; err: string }> {
  const full = output === 'full' ? openSync('/dev/full', 'w') : undefined;
  const child = spawn(process.execPath, [BIN, ...words.split(' ')], {
    stdio: ['ignore', full ?? 'pipe', 'pipe'],
    env: process.env,
  });
  if (full !== undefined) closeSync(full);
  if (output === 'left') child.stdout?.destroy();
  child.stdout?.resume();
  let err = '';
  child.stderr?.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, err };
}

const itOnLinux = process.platform === 'linux' ? it : it.skip; // Only Linux has a disk that is always full.

describe('what was issued and cannot be printed', () => {
  beforeEach(() => {
    at.answer = ({ url }) => ({ body: url.pathname.startsWith('/v1/secrets') ? SECRET : TOKEN });
  });
  const revoked = () => at.asked.filter(({ url }) => url.pathname === '/v1/leases/lse_a_1/revoke').length;

  itOnLinux.each([
    ['credential', GET_SECRET],
    ['token', GET_TOKEN],
  ])('for a full disk is given back: a %s', async (what, words) => {
    expect(await mayfly(words, 'full')).toEqual({
      code: 2,
      err: `The ${what} was given back: it could not be printed.\nError: Standard output cannot be written (ENOSPC): not all of it is there.\n`,
    });
    expect(revoked()).toBe(1);
  });

  it.each([
    ['credential', GET_SECRET],
    ['token', GET_TOKEN],
  ])('because its reader left is given back: a %s', async (what, words) => {
    expect(await mayfly(words, 'left')).toEqual({
      code: 141,
      err: `The ${what} was given back: it could not be printed.\n`,
    });
    expect(revoked()).toBe(1);
  });

  it('is kept when it was printed', async () => {
    expect(await mayfly(GET_SECRET, 'read')).toEqual({ code: 0, err: '' });
    expect(revoked()).toBe(0);
  });
});

itOnLinux('a full disk is one line for a command that has nothing to give back', async () => {
  expect(await mayfly('lease ls', 'full')).toEqual({
    code: 2,
    err: 'Error: Standard output cannot be written (ENOSPC): not all of it is there.\n',
  });
});
