import type pg from 'pg';
import { DATABASE, GROUP, OTHER_GROUP, startServer, type TestServer } from './server.js';
import { type Given, openWorld, SETTINGS, stateOf, until } from './world.js';

let server: TestServer;
let world: ReturnType<typeof openWorld>;
const opened: ReturnType<typeof openWorld>[] = [];
beforeAll(async () => {
  server = await startServer();
  world = open();
}, 90_000);
afterAll(async () => {
  for (const one of opened) await one.backend.close();
  await server?.stop();
});

function open(config: Record<string, unknown> = {}) {
  const one = openWorld(server, { revoke_timeout_seconds: 10, ...config });
  opened.push(one);
  return one;
}

const oidOf = (given: Given) => given.handle['oid'] as string;

async function sessionsOf(given: Given): Promise<number> {
  const [row] = await server.ask(
    `select count(*)::int as many from pg_stat_get_activity(null) where usesysid = ${oidOf(given)}`,
  );
  return row?.['many'] as number;
}

/** Resolves with how the session ended. */
function endOf(session: pg.Client): Promise<unknown> {
  return new Promise((resolve) => session.once('error', resolve));
}

async function expectGone(given: Given): Promise<void> {
  await world.revoke(given);
  expect(await world.confirm(given)).toEqual({ state: 'gone' });
  expect(await sessionsOf(given)).toBe(0);
  expect(await server.ask(`select from pg_roles where oid = ${oidOf(given)}`)).toEqual([]);
  expect(await stateOf(world.logIn(given))).toBe('28P01');
}

describe('a revoked role', () => {
  it('is gone, and its next login is refused', async () => expectGone(await world.issue()));

  it('has no session left: an idle one is cut', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    const ended = endOf(session);
    await expectGone(given);
    expect(await ended).toMatchObject({ code: '57P01' });
  });

  it('has no session left: one that reads from a cursor in the middle of a transaction', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    await session.query('begin; declare c cursor for select * from public.orders; fetch 10 from c');
    const ended = endOf(session);
    await expectGone(given);
    await ended;
    expect(await stateOf(session.query('fetch 10 from c'))).not.toBe('none');
  });

  it('has no session left: one that waits for a lock, and one that is busy', async () => {
    const given = await world.issue();
    const holder = await server.ask('begin; lock table public.orders in access exclusive mode; select 1', DATABASE);
    expect(holder).toHaveLength(1);
    const [waiting, busy] = [await world.logIn(given), await world.logIn(given)];
    const states = [stateOf(waiting.query('select * from public.orders')), stateOf(busy.query('select pg_sleep(60)'))];
    await expectGone(given);
    expect(await Promise.all(states)).toEqual(['57P01', '57P01']);
    await server.ask('rollback', DATABASE);
  });

  it('has no session left when others log in with it all the while', async () => {
    for (let round = 0; round < 5; round++) {
      const given = await world.issue();
      let isOver = false;
      const sessions: pg.Client[] = [];
      const stormers = Array.from({ length: 12 }, async () => {
        while (!isOver)
          await world.logIn(given).then(
            (session) => sessions.push(session),
            () => undefined,
          );
      });
      await until(
        async () => sessions.length,
        (many) => many > 15,
      );
      await world.revoke(given);
      expect(await world.confirm(given)).toEqual({ state: 'gone' });
      expect(await sessionsOf(given)).toBe(0);
      isOver = true;
      await Promise.all(stormers);
      expect(await sessionsOf(given)).toBe(0);
    }
  }, 90_000);

  it('has no session left when somebody dropped the role before: it is found by its oid', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    const ended = endOf(session);
    await server.ask(`drop role ${given.data['username']}`);
    expect((await session.query('select current_database()')).rows).toHaveLength(1);
    expect(await world.confirm(given)).toEqual({ state: 'there', detail: 'it has 1 session' });
    await expectGone(given);
    await ended;
  });

  it('that was renamed is found by its oid', async () => {
    const given = await world.issue();
    await server.ask(`alter role ${given.data['username']} rename to somebody_else`);
    await expectGone(given);
  });

  it('is found by its name when its lease never learned its oid', async () => {
    const given = await world.issue();
    const { oid: _, ...handle } = given.handle;
    await world.revoke({ ...given, handle });
    expect(await world.confirm({ ...given, handle })).toEqual({ state: 'gone' });
    expect(await world.confirm(given)).toEqual({ state: 'gone' });
  });

  it('that never was is gone, and revoking it does nothing', async () => {
    const order = world.order();
    const credential = { leaseId: order.leaseId, handle: order.handle, expiresAtMs: 0 };
    await world.revoke(credential);
    expect(await world.confirm(credential)).toEqual({ state: 'gone' });
  });

  it('may be revoked twice at the same time, and again', async () => {
    const given = await world.issue();
    const other = open();
    await Promise.all([world.revoke(given), other.revoke(given), world.revoke(given)]);
    await expectGone(given);
  });

  it('is not taken for another role that has its oid', async () => {
    const [row] = await server.ask(
      "create role innocent login; select oid::text from pg_roles where rolname = 'innocent'",
    );
    const order = world.order();
    const credential = { ...order, handle: { ...order.handle, oid: row?.['oid'] as string } };
    await world.revoke(credential);
    expect(await server.ask("select rolcanlogin from pg_roles where rolname = 'innocent'")).toEqual([
      { rolcanlogin: true },
    ]);
  });
});

describe('before it is revoked', () => {
  it('it is there: it may log in', async () => {
    expect(await world.confirm(await world.issue())).toEqual({ state: 'there', detail: 'the role may log in' });
  });

  it('it is there while it is in a group, barred or not', async () => {
    const given = await world.issue();
    await server.ask(`alter role ${given.data['username']} nologin`);
    expect(await world.confirm(given)).toEqual({ state: 'there', detail: 'the role is in 1 groups' });
  });

  it('its end, when it passes, does not end it: the sessions and the role are still there', async () => {
    const given = await world.issue(SETTINGS, 300);
    const session = await world.logIn(given);
    await until(
      async () => Date.now(),
      (now) => now > given.expiresAtMs + 50,
    );
    expect((await session.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
    expect((await world.confirm(given)).state).toBe('there');
    const ended = endOf(session);
    await expectGone(given);
    await ended;
  });
});

describe('what the holder of a role does against it', () => {
  it('changing its password keeps nothing alive', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    await session.query("alter role current_user password 'mine'");
    const ended = endOf(session);
    await expectGone(given);
    await ended;
    const login = { user: String(given.data['username']), password: 'mine' };
    expect(await stateOf(server.logIn(login))).toBe('28P01');
  });

  it('changing it again and again, from many sessions, does not win', async () => {
    const given = await world.issue();
    const sessions = await Promise.all(Array.from({ length: 6 }, () => world.logIn(given)));
    let changes = 0;
    const loops = sessions.map(async (session) => {
      for (;;) {
        const state = await stateOf(session.query(`alter role current_user password 'mine${changes}'`));
        // Its own loops run into each other too; anything else is its end.
        if (state !== 'none' && state !== 'XX000') return state;
        changes++;
      }
    });
    await until(
      async () => changes,
      (count) => count > 50,
    );
    await expectGone(given);
    expect(await Promise.all(loops)).toHaveLength(6);
  });

  it('holding a lock on its own row in an open transaction does not win', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    await session.query("begin; alter role current_user password 'mine'");
    const ended = endOf(session);
    await expectGone(given);
    await ended;
  });

  it('owning something in its database is no hindrance: it is dropped', async () => {
    await server.ask(
      'create schema if not exists open_to_all; grant create, usage on schema open_to_all to public',
      DATABASE,
    );
    const given = await world.issue();
    const session = await world.logIn(given);
    await session.query(
      "create table open_to_all.mine (id int); create function open_to_all.f() returns int language sql security definer as 'select 1'",
    );
    const ended = endOf(session);
    await expectGone(given);
    await ended;
    expect(
      await server.ask(
        "select from pg_class where relname = 'mine' union all select from pg_proc where proname = 'f' and pronamespace = 'open_to_all'::regnamespace",
        DATABASE,
      ),
    ).toEqual([]);
  });

  it('owning a large object in another database is no hindrance', async () => {
    await server.ask(`grant connect on database elsewhere to ${GROUP}`);
    const given = await world.issue();
    const login = { user: String(given.data['username']), password: String(given.data['password']) };
    const session = await server.logIn({ ...login, database: 'elsewhere' });
    await session.query('select lo_create(0)');
    const ended = endOf(session);
    await expectGone(given);
    await ended;
    expect(await server.ask('select from pg_largeobject_metadata', 'elsewhere')).toEqual([]);
    await server.ask(`revoke connect on database elsewhere from ${GROUP}`);
  });

  it('is never given away: nothing it owned belongs to its manager afterwards', async () => {
    const managers = server.managers.map(({ user }) => `'${user}'::regrole`).join(', ');
    expect(
      await server.ask(
        `select from pg_shdepend where refobjid in (${managers}) and deptype = 'o' and classid <> 'pg_auth_members'::regclass`,
      ),
    ).toEqual([]);
  });

  it('owning what somebody else builds upon leaves a residue that can do nothing, and the rest of others is left alone', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    await session.query('create table open_to_all.base (id int); grant select on open_to_all.base to public');
    await server.ask('create view public.theirs as select * from open_to_all.base', DATABASE);
    const ended = endOf(session);
    await world.revoke(given);
    await ended;
    expect(await world.confirm(given)).toEqual({
      state: 'gone',
      residue: `the role itself, which cannot log in; what it owns or was granted in "${DATABASE}"`,
    });
    expect(world.events.some(({ event, role }) => event === 'backend.residue' && role === given.data['username'])).toBe(
      true,
    );
    expect(await stateOf(world.logIn(given))).toBe('28000');
    expect(await server.ask('select * from public.theirs', DATABASE)).toEqual([]);
    // Once it is out of the way, the next attempt clears the rest away.
    await server.ask('drop view public.theirs', DATABASE);
    await expectGone(given);
  });

  it('a statement of the operator that fails leaves a residue, not a live role', async () => {
    const own = open({ statements: { revocation: ['SELECT * FROM no_such_table'] } });
    const given = await own.issue();
    await own.revoke(given);
    expect(await own.confirm(given)).toEqual({ state: 'gone', residue: 'the role itself, which cannot log in' });
    await expectGone(given);
  });

  it('slows nobody down: the others of its batch are gone at once', async () => {
    const hostile = await world.issue();
    const others = await Promise.all(Array.from({ length: 30 }, () => world.issue()));
    const session = await world.logIn(hostile);
    await session.query('create table open_to_all.locked (id int)');
    // Somebody else's lock on its table keeps it from being dropped for as long as the server lets a lock be waited for.
    await server.ask('begin; lock table open_to_all.locked in access exclusive mode', DATABASE);
    const ended = endOf(session);
    const slow = world.revoke(hostile);
    const startedAtMs = Date.now();
    await Promise.all(others.map((one) => world.revoke(one)));
    const tookMs = Date.now() - startedAtMs;
    for (const one of others) expect(await world.confirm(one)).toEqual({ state: 'gone' });
    await slow;
    await ended;
    expect(await world.confirm(hostile)).toMatchObject({ state: 'gone', residue: expect.stringContaining('owns') });
    await server.ask('rollback', DATABASE);
    await expectGone(hostile);
    expect(tookMs).toBeLessThan(5_000);
  }, 60_000);
});

describe('a holder that names others in an open transaction, which holds a lock on each of them and takes no right', () => {
  let holder: pg.Client;
  let named: Given[];

  beforeEach(async () => {
    holder = await world.logIn(await world.issue());
    named = await Promise.all(Array.from({ length: 120 }, () => world.issue()));
    const names = named.map(({ handle }) => `"${handle['role']}"`).join(', ');
    await holder.query(`begin; alter default privileges grant select on tables to ${names}`);
  });

  it('keeps none of them alive: they are cut and confirmed, and only the role, which can do nothing, is left for later', async () => {
    const session = await world.logIn(named[0] as Given);
    const ended = endOf(session);
    await Promise.all(named.map((one) => world.revoke(one)));
    await ended;
    const residue = 'the role itself, which cannot log in';
    const confirmed = () => Promise.all(named.map((one) => world.confirm(one)));
    expect(await confirmed()).toEqual(named.map(() => ({ state: 'gone', residue })));
    for (const one of named.slice(0, 3)) expect(await stateOf(world.logIn(one))).toMatch(/^28/);
    await holder.end();
    await Promise.all(named.map((one) => world.revoke(one)));
    expect(await confirmed()).toEqual(named.map(() => ({ state: 'gone' })));
  }, 60_000);

  it('slows nobody else down: who is not named is cut, dropped and confirmed beside them', async () => {
    const slow = Promise.all(named.map((one) => world.revoke(one)));
    const others = await Promise.all(Array.from({ length: 10 }, () => world.issue()));
    const sessions = await Promise.all(others.map((one) => world.logIn(one)));
    const startedAtMs = performance.now();
    const ended = sessions.map(endOf);
    const revoked = Promise.all(others.map((one) => world.revoke(one)));
    await Promise.all(ended);
    const cutMs = performance.now() - startedAtMs;
    await revoked;
    await slow;
    for (const one of others) expect(await world.confirm(one)).toEqual({ state: 'gone' });
    expect(cutMs).toBeLessThan(1_000);
    await holder.end();
  }, 60_000);
});

describe('many revoked at a time', () => {
  it('300 of two managers, a third with open sessions, are gone and confirmed', async () => {
    const given = await Promise.all(Array.from({ length: 300 }, () => world.issue()));
    const sessions = await Promise.all(given.filter((_, at) => at % 6 === 0).map((one) => world.logIn(one)));
    await Promise.all(given.map((one) => world.revoke(one)));
    const states = await Promise.all(given.map((one) => world.confirm(one)));
    expect(states.every(({ state }) => state === 'gone')).toBe(true);
    const oids = given.map(oidOf).join(',');
    expect(await server.ask(`select from pg_roles where oid in (${oids})`)).toEqual([]);
    expect(await server.ask(`select from pg_stat_get_activity(null) where usesysid in (${oids})`)).toEqual([]);
    expect(sessions).toHaveLength(50);
  }, 60_000);

  it('while as many are issued, in two groups, run into nothing that is not tried again', async () => {
    const both = { database: DATABASE, groups: [OTHER_GROUP, GROUP] };
    const given = await Promise.all(Array.from({ length: 80 }, () => world.issue(both)));
    const [revoked, issued] = await Promise.all([
      Promise.all(given.map((one) => world.revoke(one).then(() => world.confirm(one)))),
      Promise.all(Array.from({ length: 80 }, () => world.issue(both))),
    ]);
    expect(new Set(revoked.map(({ state }) => state))).toEqual(new Set(['gone']));
    expect(issued).toHaveLength(80);
  }, 60_000);
});

describe('a manager that is no longer configured', () => {
  it('is named, and its role stays as it is: nobody says that it is gone', async () => {
    const given = await world.issue();
    const fewer = open({ managers: server.managers.filter(({ user }) => user !== given.handle['manager']) });
    const problem = { kind: 'misconfigured', message: expect.stringContaining(given.handle['manager'] as string) };
    await expect(fewer.revoke(given)).rejects.toMatchObject(problem);
    await expect(async () => fewer.confirm(given)).rejects.toMatchObject(problem);
    await expectGone(given);
  });
});
