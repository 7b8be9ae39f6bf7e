import { setTimeout as delay } from 'node:timers/promises';
import { credentialName } from '../../../src/core/credential.js';
import { newId } from '../../../src/core/ids.js';
import { BackendProblem } from '../../../src/plugins/backends/contract.js';
import { DATABASE, GROUP, OTHER_GROUP, startServer, type TestServer } from './server.js';
import { INSTALLATION, openWorld, SETTINGS, stateOf, until } from './world.js';

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
  const one = openWorld(server, config);
  opened.push(one);
  return one;
}

async function roles(): Promise<string[]> {
  const rows = await server.ask("select rolname from pg_roles where rolname like 'mayfly_abcd1234%'");
  return rows.map((row) => row['rolname'] as string);
}

async function problemOf(work: Promise<unknown>): Promise<BackendProblem> {
  try {
    await work;
  } catch (error) {
    if (error instanceof BackendProblem) return error;
    throw error;
  }
  throw new Error('there was no problem');
}

describe('an issued role', () => {
  it('is named after its lease, logs in, and reads what its group may read', async () => {
    const given = await world.issue();
    expect(given.data).toEqual({
      host: server.host,
      port: server.port,
      database: DATABASE,
      username: credentialName(INSTALLATION, given.leaseId),
      password: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
    });
    const session = await world.logIn(given);
    expect((await session.query('select count(*)::int from public.orders')).rows).toEqual([{ count: 500 }]);
    expect(await stateOf(session.query('delete from public.orders'))).toBe('42501');
    await session.end();
  });

  it('has its group’s privileges and cannot become the group', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    expect(await stateOf(session.query(`set role ${GROUP}`))).toBe('42501');
    expect(await stateOf(session.query(`grant ${GROUP} to ${server.managers[0]?.user}`))).toBe('42501');
    await session.end();
    const [membership] = await server.ask(
      `select inherit_option, set_option, admin_option from pg_auth_members
       where member = '${given.data['username']}'::regrole and roleid = '${GROUP}'::regrole`,
    );
    expect(membership).toEqual({ inherit_option: true, set_option: false, admin_option: false });
  });

  it('can do nothing with other roles: no CREATE ROLE, no SET ROLE to its manager', async () => {
    const given = await world.issue();
    const session = await world.logIn(given);
    expect(await stateOf(session.query('create role mine'))).toBe('42501');
    expect(await stateOf(session.query(`set role ${given.handle['manager']}`))).toBe('42501');
    await session.end();
  });

  it('ends and disturbs nobody’s sessions but its own: neither another role’s of its group, nor its manager’s', async () => {
    const [one, other] = await Promise.all([world.issue(), world.issue()]);
    const [mine, theirs, again] = await Promise.all([world.logIn(one), world.logIn(other), world.logIn(one)]);
    const pidOf = async (session: typeof mine) => (await session.query('select pg_backend_pid() as pid')).rows[0].pid;
    const [manager] = await server.ask(
      "select pid from pg_stat_activity where usename like 'mayfly\\__' order by backend_start limit 1",
    );
    for (const pid of [await pidOf(theirs), manager?.['pid']]) {
      for (const end of ['pg_terminate_backend', 'pg_cancel_backend']) {
        expect([end, await stateOf(mine.query(`select ${end}(${pid})`))]).toEqual([end, '42501']);
      }
    }
    expect((await theirs.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
    expect((await mine.query(`select pg_terminate_backend(${await pidOf(again)}) as ended`)).rows).toEqual([
      { ended: true },
    ]);
    for (const session of [mine, theirs]) await session.end();
  });

  it('may not connect to another database', async () => {
    const { data } = await world.issue();
    const login = { user: String(data['username']), password: String(data['password']), database: 'elsewhere' };
    expect(await stateOf(server.logIn(login))).toBe('42501');
  });

  it('may log in until its lease’s end and not later, by the server’s own clock', async () => {
    const given = await world.issue(SETTINGS, 700);
    const [row] = await server.ask(
      `select extract(epoch from rolvaliduntil) * 1000 as ends from pg_roles where rolname = '${given.data['username']}'`,
    );
    expect(Number(row?.['ends'])).toBeLessThanOrEqual(given.expiresAtMs);
    expect(Number(row?.['ends'])).toBeGreaterThan(given.expiresAtMs - 500);
    await until(
      () => stateOf(world.logIn(given).then((session) => session.end())),
      (state) => state === '28P01',
    );
  });

  it('has a SCRAM verifier of 4,096 rounds unless configured otherwise; the server never saw the password', async () => {
    const standard = open({ scram_iterations: undefined });
    const given = await standard.issue();
    const [row] = await server.ask(`select rolpassword from pg_authid where rolname = '${given.data['username']}'`);
    expect(row?.['rolpassword']).toMatch(
      /^SCRAM-SHA-256\$4096:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$/,
    );
    await (await standard.logIn(given)).end();
  });

  it('holds as many sessions as its secret allows', async () => {
    const given = await world.issue({ ...SETTINGS, connection_limit: 1 });
    const session = await world.logIn(given);
    expect(await stateOf(world.logIn(given))).toBe('53300');
    await session.end();
  });

  it('never gets the password of another', async () => {
    const given = await Promise.all(Array.from({ length: 50 }, () => world.issue()));
    expect(new Set(given.map(({ data }) => data['password'])).size).toBe(50);
  });
});

describe('the deadline', () => {
  it('that is past makes nothing, for certain', async () => {
    const order = world.order();
    const problem = await problemOf(world.backend.issue({ ...order, deadlineMs: Date.now() - 1 }));
    expect(problem).toMatchObject({ kind: 'too_late', isSure: true });
    expect(await roles()).not.toContain(order.handle['role']);
  });

  it('that passes inside the transaction is noticed by the server before it commits', async () => {
    const slow = open({ statements: { creation: ['SELECT pg_sleep(0.6)'] } });
    const order = slow.order();
    const problem = await problemOf(slow.backend.issue({ ...order, deadlineMs: Date.now() + 400 }));
    expect(problem).toMatchObject({ kind: 'too_late', isSure: true });
    expect(await roles()).not.toContain(order.handle['role']);
  });

  it('that passes while the server is stopped holds when it goes on', async () => {
    const order = world.order();
    await world.issue();
    const sessions = await server.ask(
      "select pid from pg_stat_activity where usename like 'mayfly\\_%' and application_name = 'mayfly'",
    );
    for (const { pid } of sessions) process.kill(pid as number, 'SIGSTOP');
    const issuing = problemOf(
      world.backend.issue({ ...order, deadlineMs: Date.now() + 150, signal: AbortSignal.timeout(500) }),
    );
    expect(await issuing).toMatchObject({ kind: 'timeout', isSure: false });
    for (const { pid } of sessions) process.kill(pid as number, 'SIGCONT');
    const pids = sessions.map(({ pid }) => pid).join(',');
    await until(
      () => server.ask(`select pid from pg_stat_activity where pid in (${pids}) and state <> 'idle'`),
      (busy) => busy.length === 0,
    );
    expect(await roles()).not.toContain(order.handle['role']);
  });

  it('is kept by an issue that was given up before its turn: nothing is made later', async () => {
    const order = world.order();
    const problem = await problemOf(world.backend.issue({ ...order, signal: AbortSignal.abort() }));
    expect(problem.kind).toBe('timeout');
    await delay(0);
    await world.issue();
    expect(await roles()).not.toContain(order.handle['role']);
  });
});

describe('many at a time', () => {
  it('are made in few transactions', async () => {
    const one = open();
    await one.issue();
    const given = await Promise.all(Array.from({ length: 64 }, () => one.issue()));
    const names = given.map(({ data }) => `'${data['username']}'`).join(',');
    const [row] = await server.ask(
      `select count(distinct xmin::text)::int as many from pg_authid where rolname in (${names})`,
    );
    expect(row?.['many']).toBeLessThanOrEqual(16);
  });

  it('go to the same manager when they come together, and to each in turn over time', () => {
    const managerOf = (atMs: number) => {
      return world.backend.plan({ leaseId: newId('lse', 'a', atMs), settings: SETTINGS })['manager'];
    };
    const base = Date.now() - (Date.now() % 500);
    expect(new Set([0, 100, 249].map((afterMs) => managerOf(base + afterMs))).size).toBe(1);
    const counts = new Map<string | undefined, number>();
    for (let afterMs = 0; afterMs < 20_000; afterMs += 50) {
      const manager = managerOf(base + afterMs);
      counts.set(manager, (counts.get(manager) ?? 0) + 1);
    }
    expect([...counts.values()]).toEqual([200, 200]);
  });

  it('do not stumble over others who grant on all tables meanwhile, nor over each other’s groups in any order', async () => {
    let isOver = false;
    const disturb = (async () => {
      while (!isOver) await server.ask(`grant select on all tables in schema public to ${GROUP}`, DATABASE);
    })();
    const forth = { database: DATABASE, groups: [GROUP, OTHER_GROUP] };
    const back = { database: DATABASE, groups: [OTHER_GROUP, GROUP] };
    const given = await Promise.all(Array.from({ length: 60 }, (_, at) => world.issue(at % 2 ? forth : back)));
    await Promise.all(given.map((one, at) => (at % 3 === 0 ? world.issue(forth) : world.revoke(one))));
    isOver = true;
    await disturb;
    expect(new Set(given.map(({ data }) => data['username'])).size).toBe(60);
  }, 60_000);

  it('one that cannot be made leaves its batch and spoils nothing for the others', async () => {
    const hostile = world.order({ database: DATABASE, groups: ['no such"; DROP TABLE orders; --'] });
    const [problem, ...given] = await Promise.all([
      problemOf(world.backend.issue(hostile)),
      ...Array.from({ length: 12 }, () => world.issue()),
    ]);
    expect(problem).toMatchObject({ kind: 'misconfigured', isSure: true });
    expect(given).toHaveLength(12);
    expect(await roles()).not.toContain(hostile.handle['role']);
  });

  it('of the same lease are made once; the other is not sure that nothing is there', async () => {
    const order = world.order();
    const results = await Promise.allSettled([world.backend.issue(order), world.backend.issue(order)]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const rejected = results.find((result) => result.status === 'rejected');
    expect(rejected?.reason).toMatchObject({ kind: 'failed', isSure: false });
  });

  it('whose role another session has made and not yet committed: neither is that one sure', async () => {
    const order = world.order();
    const first = await server.logIn({ user: 'mayfly_1', password: server.passwordOf('mayfly_1') });
    await first.query(`begin; create role "${order.handle['role']}"`);
    const second = problemOf(world.backend.issue(order));
    await until(
      () =>
        server.ask("select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%CREATE ROLE%'"),
      (waiting) => waiting.length > 0,
    );
    await first.query('commit');
    expect(await second).toMatchObject({ kind: 'failed', isSure: false });
    await first.query(`drop role "${order.handle['role']}"`);
    await first.end();
  });

  it('stop when a manager has as many as it can carry', async () => {
    const small = open({ lane_leases_max: 10 });
    const given = await small.issue();
    const problem = await until(
      async () => (await Promise.allSettled([small.issue()]))[0],
      (result) => result.status === 'rejected',
    );
    expect(problem).toMatchObject({ reason: { kind: 'busy', isSure: true } });
    // Revoking goes on.
    await small.revoke(given);
    expect(await small.confirm(given)).toEqual({ state: 'gone' });
  });
});

describe('statements of the operator', () => {
  it('run in the same transaction, with the values quoted for them', async () => {
    const own = open({
      statements: {
        creation: [
          "ALTER ROLE {{role}} SET statement_timeout TO '1234ms'",
          "COMMENT ON ROLE {{role}} IS 'lease'",
          'SELECT {{role_text}}, {{expires_at}}::timestamptz',
        ],
        renewal: ["ALTER ROLE {{role}} SET statement_timeout TO '2345ms'"],
        revocation: ['ALTER ROLE {{role}} RESET statement_timeout'],
      },
    });
    const given = await own.issue();
    const session = await own.logIn(given);
    expect((await session.query('show statement_timeout')).rows).toEqual([{ statement_timeout: '1234ms' }]);
    await session.end();
    await own.backend.renew(given, given.expiresAtMs + 1_000, AbortSignal.timeout(5_000));
    const again = await own.logIn(given);
    expect((await again.query('show statement_timeout')).rows).toEqual([{ statement_timeout: '2345ms' }]);
    await again.end();
    await own.revoke(given);
    expect(await own.confirm(given)).toEqual({ state: 'gone' });
  });

  it('that fail leave no role', async () => {
    const own = open({ statements: { creation: ['SELECT * FROM no_such_table'] } });
    const order = own.order();
    expect(await problemOf(own.backend.issue(order))).toMatchObject({ kind: 'failed', isSure: true });
    expect(await roles()).not.toContain(order.handle['role']);
  });
});

describe('hostile names', () => {
  it.each(['robert"; DROP ROLE postgres; --', "o'neill", '{{role}}', 'näme', '-- x', 'a\\b', '$$'])(
    'the group %j is a group',
    async (group) => {
      const quoted = `"${group.replaceAll('"', '""')}"`;
      await server.ask(
        `create role ${quoted}; ${server.managers.map(({ user }) => `grant ${quoted} to ${user} with admin true, inherit false, set false`).join(';')}; grant connect on database ${DATABASE} to ${quoted}`,
      );
      const given = await world.issue({ database: DATABASE, groups: [group] });
      await (await world.logIn(given)).end();
      await world.revoke(given);
      expect(await world.confirm(given)).toEqual({ state: 'gone' });
    },
  );
});

describe('a renewal', () => {
  it('moves the end, and only that', async () => {
    const given = await world.issue(SETTINGS, 60_000);
    const ends = given.expiresAtMs + 120_000;
    expect(await world.backend.renew(given, ends, AbortSignal.timeout(5_000))).toEqual({ expiresAtMs: ends });
    const [row] = await server.ask(
      `select extract(epoch from rolvaliduntil) * 1000 as ends, rolcanlogin from pg_roles where rolname = '${given.data['username']}'`,
    );
    expect(Number(row?.['ends'])).toBeLessThanOrEqual(ends);
    expect(Number(row?.['ends'])).toBeGreaterThan(ends - 1_000);
    await (await world.logIn(given)).end();
  });

  it('of a role that was revoked, or barred, is refused for certain', async () => {
    const gone = await world.issue();
    await world.revoke(gone);
    const barred = await world.issue();
    await server.ask(`alter role ${barred.data['username']} nologin`);
    for (const one of [gone, barred]) {
      const problem = await problemOf(world.backend.renew(one, Date.now() + 60_000, AbortSignal.timeout(5_000)));
      expect(problem).toMatchObject({ kind: 'failed', isSure: true });
    }
  });
});

describe('what exists under our names', () => {
  it('is found with what it takes to revoke it, and nothing of another installation', async () => {
    const given = await world.issue();
    await server.ask(
      'create role mayfly_other123_a_01h455vb4pex5vsknk084sn02q; create role mayfly_abcd1234_x; create role mayflyxabcd1234_a_01h455vb4pex5vsknk084sn02q',
    );
    const found = await world.find();
    expect(found.find(({ leaseId }) => leaseId === given.leaseId)).toEqual({
      leaseId: given.leaseId,
      handle: { role: given.data['username'], manager: given.handle['manager'], oid: given.handle['oid'] },
    });
    expect(found.every(({ handle }) => /^mayfly_abcd1234_a_/.test(handle['role'] ?? ''))).toBe(true);
    await Promise.all(found.map(({ leaseId = '', handle }) => world.revoke({ leaseId, handle, expiresAtMs: 0 })));
    expect(await world.find()).toEqual([]);
  }, 60_000);
});
