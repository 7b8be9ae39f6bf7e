import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startPostgres } from './postgres/server.js';
import { until } from './postgres/world.js';

const SCRIPT = join(import.meta.dirname, '../../scripts/dev-postgres.mjs');

let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'mayfly-dev-pg-'));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

async function ask(server: { host: string; port: number; user: string; password: string }, sql: string) {
  const client = new pg.Client({ ...server, database: 'postgres', ssl: false });
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

function isRunning(pid: number): boolean {
  try {
    return /postgres/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    return false;
  }
}

describe('the PostgreSQL of development and tests', () => {
  it('keeps its data over a stop, is private, and is gone when it was stopped', async () => {
    const first = await startPostgres({ dataDir, durable: false });
    expect(first.version).toMatch(/^18\./);
    await ask(first, 'create table kept as select 7 as number');
    await first.stop();
    await first.stop();
    expect(isRunning(first.pid)).toBe(false);
    const second = await startPostgres({ dataDir, durable: false });
    expect(await ask(second, 'select number from kept')).toEqual([{ number: 7 }]);
    expect(second).toMatchObject({ adopted: false, host: '127.0.0.1', password: first.password });
    const files = readdirSync(join(dataDir, 'postgres')).filter((name) =>
      statSync(join(dataDir, 'postgres', name)).isFile(),
    );
    for (const name of files) expect(statSync(join(dataDir, 'postgres', name)).mode & 0o077).toBe(0);
    expect(readFileSync(`/proc/${second.pid}/cmdline`, 'utf8')).not.toContain(second.password);
    await second.stop();
  });

  it('wants its password, and listens on loopback only', async () => {
    const server = await startPostgres({ dataDir, durable: false });
    await expect(ask({ ...server, password: 'wrong' }, 'select 1')).rejects.toMatchObject({ code: '28P01' });
    expect(await ask(server, 'show listen_addresses')).toEqual([{ listen_addresses: '127.0.0.1' }]);
    await server.stop();
  });

  it('does not run as root', async () => {
    const server = await startPostgres({ dataDir, durable: false });
    expect(statSync(`/proc/${server.pid}`).uid).not.toBe(0);
    await server.stop();
  });

  it('belongs to one process at a time', async () => {
    const server = await startPostgres({ dataDir, durable: false });
    const said: string[] = [];
    const second = startPostgres({ dataDir, durable: false, say: (line) => said.push(line) });
    await expect(second).rejects.toThrow('another process is using the PostgreSQL');
    // Nobody left it behind.
    expect(said).toEqual([]);
    await server.stop();
  });

  it('is adopted with its data after a kill -9, and stopped then', async () => {
    const child = spawn(process.execPath, [SCRIPT, dataDir], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk) => (said += chunk));
    await until(
      async () => said,
      (text) => /PostgreSQL 18\.\d+ on 127\.0\.0\.1/.test(text),
      60_000,
    );
    child.kill('SIGKILL');
    const lines: string[] = [];
    // The server notices a moment later that its owner is gone.
    const adopted = await until(
      () => startPostgres({ dataDir, say: (line) => lines.push(line) }).catch(() => undefined),
      (server) => server !== undefined,
    );
    expect(adopted).toMatchObject({ adopted: true });
    expect(lines.at(-1)).toBe('taking over the PostgreSQL that an earlier run left behind');
    await adopted?.stop();
    expect(isRunning(adopted?.pid as number)).toBe(false);
  }, 90_000);

  it('comes back with its data after it was itself killed with -9, however long it takes to make them whole', async () => {
    const first = await startPostgres({ dataDir });
    await ask(first, 'create table kept as select generate_series(1, 100000) as number');
    process.kill(first.pid, 'SIGKILL');
    await until(
      async () => isRunning(first.pid),
      (running) => !running,
    );
    const second = await startPostgres({ dataDir });
    expect(await ask(second, 'select count(*)::int as rows from kept')).toEqual([{ rows: 100_000 }]);
    expect(second).toMatchObject({ adopted: false });
    await second.stop();
    await first.stop();
    expect(isRunning(second.pid)).toBe(false);
  }, 90_000);

  it('leaves nothing running when it was started and cannot be used', async () => {
    const first = await startPostgres({ dataDir, durable: false });
    await first.stop();
    writeFileSync(join(dataDir, 'postgres/superuser.password'), 'another');
    await expect(startPostgres({ dataDir, durable: false })).rejects.toThrow('password authentication failed');
    expect(existsSync(join(dataDir, 'postgres/data/postmaster.pid'))).toBe(false);
  });

  it('ends with the process that started it, on a signal too', async () => {
    const child = spawn(process.execPath, [SCRIPT, dataDir], { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (chunk) => (said += chunk));
    await until(
      async () => said,
      (text) => /PostgreSQL 18/.test(text),
      60_000,
    );
    const pid = Number(readFileSync(join(dataDir, 'postgres/data/postmaster.pid'), 'utf8').split('\n')[0]);
    child.kill('SIGTERM');
    await until(
      async () => isRunning(pid),
      (running) => !running,
      20_000,
    );
    expect(isRunning(pid)).toBe(false);
  }, 90_000);

  it('ends by each signal with another server of the same process, whose handler stands beside its own', async () => {
    // Its user has to reach its data, where that is not us.
    chmodSync(dataDir, 0o711);
    for (const signal of ['SIGHUP', 'SIGTERM'] as const) {
      const folders = ['one', 'two'].map((name) => join(dataDir, `${signal}-${name}`));
      const code = `const { startPostgres } = await import(${JSON.stringify(SCRIPT)});
        for (const dataDir of ${JSON.stringify(folders)}) console.log((await startPostgres({ dataDir, durable: false })).pid);
        setInterval(() => {}, 60_000);`;
      const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let said = '';
      child.stdout.on('data', (chunk) => (said += chunk));
      await until(
        async () => said.trim().split('\n'),
        (lines) => lines.length === 2,
        60_000,
      );
      const pids = said.trim().split('\n').map(Number);
      expect(pids.map(isRunning)).toEqual([true, true]);
      const gone = once(child, 'exit');
      child.kill(signal);
      expect(await gone).toEqual([null, signal]);
      await until(
        async () => pids.some(isRunning),
        (running) => !running,
        20_000,
      );
    }
  }, 120_000);
});
