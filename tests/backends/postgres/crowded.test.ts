import pg from 'pg';
import { IN_FLIGHT_MAX, Sessions } from '../../../src/plugins/backends/postgres/sessions.js';
import { DATABASE, startServer, type TestServer } from './server.js';
import { openWorld, SETTINGS, until } from './world.js';

const PLACES = 12;
const PID = 'select pg_backend_pid() as pid';
let server: TestServer;
const toClose: { close(): unknown }[] = [];
beforeAll(async () => {
  server = await startServer({
    managers: 1,
    settings: { max_connections: PLACES, reserved_connections: 0, superuser_reserved_connections: 3 },
  });
}, 90_000);
afterEach(async () => {
  for (const one of toClose.splice(0)) await one.close();
});
afterAll(() => server?.stop());

it('a server that keeps no places for the managers is refused, unless that is accepted', async () => {
  const worlds = [{}, { without_reserved_connections: 'accept' }].map((config) => openWorld(server, config));
  try {
    const [refused, accepted] = await Promise.all(worlds.map((world) => world.check()));
    expect(refused?.join()).toMatch(/^The server keeps 0 connections free .*reserved_connections = 8/);
    expect(accepted).toEqual([]);
  } finally {
    for (const { backend } of worlds) await backend.close();
  }
});

/** Until the server has no place left for anybody but superusers. */
async function fill(logIn: () => Promise<pg.Client>): Promise<pg.Client[]> {
  const all: pg.Client[] = [];
  for (;;) {
    const one = await logIn().catch((error: { code?: string }) => error.code);
    if (one instanceof pg.Client) all.push(one);
    else if (one === '53300') return all;
    else throw new Error(`refused by ${one}`);
  }
}

async function sessionsOfManager(): Promise<number[]> {
  const rows = await server.ask("select pid from pg_stat_activity where usename = 'mayfly_1' order by 1");
  return rows.map(({ pid }) => pid as number);
}

const untilThereAre = (many: number) => until(sessionsOfManager, ({ length }) => length === many);

function open(settings: { idleMs: number; ageMsMax: number; keepsOne?: boolean }): Sessions {
  const { user } = server.managers[0] as { user: string };
  const sessions = new Sessions({
    max: IN_FLIGHT_MAX,
    timeoutMs: 5_000,
    keepsOne: true,
    open: () => server.logIn({ user, password: server.passwordOf(user), database: 'postgres' }),
    ...settings,
  });
  toClose.push(sessions);
  return sessions;
}

async function pidOf(sessions: Sessions): Promise<number> {
  return (await sessions.ask(PID))[0]?.[0]?.['pid'] as number;
}

describe('a holder that takes every connection of the server', () => {
  it('is cut and gone all the same, and so are others at the same time', async () => {
    const { backend, issue, logIn, revoke, confirm } = openWorld(server, { revoke_timeout_seconds: 10 });
    toClose.push(backend);
    const given = await issue(SETTINGS);
    const others = await Promise.all([issue(SETTINGS), issue(SETTINGS), issue(SETTINGS)]);
    const taken = await fill(() => logIn(given));
    expect(taken.length).toBeGreaterThan(0);
    await Promise.all([given, ...others].map(async (one) => revoke(one)));
    for (const one of [given, ...others]) expect(await confirm(one)).toEqual({ state: 'gone' });
    await until(
      () => server.ask(`select from pg_stat_activity where usename = '${given.data['username']}'`),
      (rows) => rows.length === 0,
    );
  }, 60_000);

  it('keeps out who was never there: nothing is issued that could not be revoked', async () => {
    const first = openWorld(server);
    const late = openWorld(server);
    toClose.push(first.backend, late.backend);
    const given = await first.issue(SETTINGS);
    await fill(() => first.logIn(given));
    await expect(late.issue(SETTINGS)).rejects.toMatchObject({ kind: 'busy', isSure: true });
    await first.revoke(given);
    expect(await first.confirm(given)).toEqual({ state: 'gone' });
  }, 60_000);
});

it('a holder that owns more large objects than one transaction has locks for is gone, and so are they', async () => {
  const { backend, issue, logIn, revoke, confirm } = openWorld(server, { revoke_timeout_seconds: 10 });
  toClose.push(backend);
  // As on a server where somebody forgot to take it away.
  await server.ask('grant execute on function lo_create to public', DATABASE);
  const given = await issue(SETTINGS);
  const session = await logIn(given);
  await session.query(
    'do $$ begin for n in 1..40 loop perform lo_create(0) from generate_series(1, 500); commit; end loop; end $$',
  );
  await revoke(given);
  expect(await confirm(given)).toEqual({ state: 'gone' });
  expect(await server.ask('select from pg_largeobject_metadata', DATABASE)).toEqual([]);
  await server.ask('revoke execute on function lo_create from public', DATABASE);
}, 60_000);

describe('the session that stays', () => {
  it('stays when all have been idle for long, and no other does', async () => {
    const sessions = open({ idleMs: 50, ageMsMax: 60_000 });
    const pids = await Promise.all([pidOf(sessions), pidOf(sessions), pidOf(sessions)]);
    const [last] = await untilThereAre(1);
    expect(pids).toContain(last);
    expect(await pidOf(sessions)).toBe(last);
  });

  it('does not stay where none is to', async () => {
    const sessions = open({ idleMs: 50, ageMsMax: 60_000, keepsOne: false });
    await pidOf(sessions);
    await untilThereAre(0);
  });

  it('is replaced when it is old, and goes on being old while there is no place for another', async () => {
    const sessions = open({ idleMs: 30, ageMsMax: 100 });
    const first = await pidOf(sessions);
    await until(sessionsOfManager, (pids) => pids.length === 1 && pids[0] !== first);
    const taken = await fill(() => server.logIn({ user: 'mayfly_1', password: server.passwordOf('mayfly_1') }));
    const startedAtMs = Date.now();
    await until(
      () => pidOf(sessions),
      () => Date.now() - startedAtMs > 500,
    );
    expect(await Promise.all([pidOf(sessions), pidOf(sessions), pidOf(sessions)])).toHaveLength(3);
    for (const one of taken) await one.end();
  }, 30_000);

  it('is opened again when it was lost, without being asked for', async () => {
    const sessions = open({ idleMs: 60_000, ageMsMax: 60_000 });
    const first = await pidOf(sessions);
    await server.ask(`select pg_terminate_backend(${first})`);
    await until(sessionsOfManager, (pids) => pids.length === 1 && pids[0] !== first);
  });
});
