import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const PEERS = {
  openbao: ['bao'],
  valkey: ['valkey-server'],
  spire: ['spire-server', 'spire-agent'],
  helm: ['helm'],
  'kubernetes-validate': ['kubernetes-validate'],
};
const SCRIPT = readFileSync('scripts/peers.sh', 'utf8');

describe('the suites that a machine can run', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-peers-'));
  afterAll(() => rmSync(dir, { recursive: true }));

  const put = (name: keyof typeof PEERS) => {
    const version = new RegExp(`^${name.replaceAll('-', '_')}_version=(.+)$`, 'm').exec(SCRIPT)?.[1];
    const folder = join(dir, `${name}-${version}`);
    mkdirSync(folder);
    for (const binary of PEERS[name]) writeFileSync(join(folder, binary), '#!/bin/sh\n', { mode: 0o755 });
  };
  /** In a process of its own, as `npm test` asks. */
  const chosen = () => {
    const ask = `import { chooseSuites } from './scripts/choose-suites.mjs'; console.log(JSON.stringify(chooseSuites()));`;
    const env = { ...process.env, MAYFLY_PEERS_DIR: dir };
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', ask], { encoding: 'utf8', env });
    return JSON.parse(stdout) as { suites: string[]; leftOut?: string };
  };

  it('are those without peers where none was fetched, those without the chart where only its tools lack, and all where all are', () => {
    expect(chosen()).toEqual({
      suites: ['real'],
      leftOut: expect.stringMatching(/^tests\/peers, for want of openbao/),
    });
    for (const name of ['openbao', 'valkey', 'spire'] as const) put(name);
    expect(chosen()).toEqual({
      suites: ['real', 'peers'],
      leftOut: expect.stringMatching(/^the tests of the chart, for want of helm, kubernetes-validate/),
    });
    for (const name of ['helm', 'kubernetes-validate'] as const) put(name);
    expect(chosen()).toEqual({ suites: ['real', 'peers'] });
  });
});
