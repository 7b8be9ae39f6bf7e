import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { until } from './brokers.js';
import { Scene } from './credentials/scene.js';

const LEASE_SECONDS = 10;
/** A credential that nobody renews ends with its lease; it is cut off within seconds of that. */
const DEAD_WITHIN_MS = (LEASE_SECONDS + 10) * 1_000;

describe('mayfly run', () => {
  const dir = mkdtempSync(join(tmpdir(), 'mayfly-run-'));
  const file = join(dir, 'db.json');
  let scene: Scene;
  let task: string;
  const commands = new Set<number>();

  beforeAll(async () => {
    scene = await Scene.open();
    task = await scene.openTask();
    writeFileSync(join(dir, 'svid'), scene.brokers.svid('/agent/refunds'), { mode: 0o600 });
  }, 120_000);

  afterAll(async () => {
    for (const pid of commands) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It went by itself.
      }
    }
    await scene?.close();
    rmSync(dir, { recursive: true, force: true });
  }, 60_000);

  function run(...command: string[]): { child: ChildProcess; said(): string } {
    const flags = ['--task', task, '--lease-ttl', `${LEASE_SECONDS}s`, '--secret', `orders-db=${file}`];
    const child = spawn(process.execPath, [resolve('bin/mayfly.js'), 'run', ...flags, '--', ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        MAYFLY_ADDR: scene.actor.process.url,
        MAYFLY_ISSUER: scene.brokers.issuer,
        MAYFLY_JWT_SVID_FILE: join(dir, 'svid'),
        XDG_STATE_HOME: join(dir, 'state'),
      },
    });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        said += chunk.toString();
      });
    }
    return { child, said: () => said };
  }

  it('killed with -9 leaves a credential that dies with its short lease, and a file for our eyes only that the next run removes', async () => {
    const stays = 'console.log("here " + process.pid); setInterval(() => {}, 1_000)';
    const { child, said } = run(process.execPath, '-e', stays);
    await until('the command runs', 30_000, () => /here \d+/.test(said()) || child.exitCode !== null);
    commands.add(Number(/here (\d+)/.exec(said())?.[1]));
    const data = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
    const session = await scene.postgres.logIn({
      user: String(data['username']),
      password: String(data['password']),
      database: String(data['database']),
    });
    session.on('error', () => {});
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
    expect(statSync(file).mode & 0o777).toBe(0o600);
    await until('its credential is dead', DEAD_WITHIN_MS, async () => (await scene.witness.look()).length === 0);
    await expect(session.query('SELECT 1')).rejects.toThrow();
    expect(existsSync(file)).toBe(true);

    const next = run(
      process.execPath,
      '-e',
      `console.log(require('fs').readFileSync(${JSON.stringify(file)}, 'utf8'))`,
    );
    const [code] = (await once(next.child, 'close')) as [number];
    expect([code, next.said()]).toEqual([0, expect.stringContaining(`Removed ${file}`)]);
    expect(next.said()).toContain('"username": "mayfly_');
    expect(next.said()).not.toContain(data['password']);
    expect(existsSync(file)).toBe(false);
    await until('what it had is dead too', DEAD_WITHIN_MS, async () => (await scene.witness.look()).length === 0);
  }, 120_000);
});
