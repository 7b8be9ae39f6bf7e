import { readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { DATABASE, GROUP, startServer, type TestServer } from './server.js';
import { openWorld, SETTINGS } from './world.js';

let server: TestServer;
let world: ReturnType<typeof openWorld>;
const opened: ReturnType<typeof openWorld>[] = [];
beforeAll(async () => {
  server = await startServer({ managers: 1 });
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

const canaries = () => server.ask("select rolname from pg_roles where rolname like 'mayfly\\_abcd1234\\_canary%'");

it('a server and a group that are right pass, by a role that was really made, used and revoked', async () => {
  expect(await world.check()).toEqual([]);
  expect(await canaries()).toEqual([]);
});

/** Each: what is wrong, how it comes about, how it goes away, and what is said of it. */
const WRONGS: [what: string, breaks: string, mends: string, said: RegExp, database?: string][] = [
  [
    'a group that owns something',
    `create table public.owned (id int); alter table public.owned owner to ${GROUP}`,
    'drop table public.owned',
    /group orders_read owns something/,
    DATABASE,
  ],
  [
    'a group that owns something in another database',
    `create table public.owned (id int); alter table public.owned owner to ${GROUP}`,
    'drop table public.owned',
    /group orders_read owns something/,
    'elsewhere',
  ],
  [
    'a group that may create in a schema',
    `grant create on schema public to ${GROUP}`,
    `revoke create on schema public from ${GROUP}`,
    /may create in the schema public/,
    DATABASE,
  ],
  [
    'everybody may create in a schema',
    'grant create on schema public to public',
    'revoke create on schema public from public',
    /may create in the schema public.*from PUBLIC too/,
    DATABASE,
  ],
  [
    'a group that may create schemas in a database',
    `grant create on database elsewhere to ${GROUP}`,
    `revoke create on database elsewhere from ${GROUP}`,
    /may create in the database elsewhere/,
  ],
  [
    'a group that may create in a tablespace',
    `grant create on tablespace pg_global to ${GROUP}`,
    `revoke create on tablespace pg_global from ${GROUP}`,
    /may create in the tablespace pg_global/,
  ],
  ['a group that may log in', `alter role ${GROUP} login`, `alter role ${GROUP} nologin`, /is more than a group/],
  [
    'a group that may make roles',
    `alter role ${GROUP} createrole`,
    `alter role ${GROUP} nocreaterole`,
    /is more than a group/,
  ],
  [
    'a group that may make databases',
    `alter role ${GROUP} createdb`,
    `alter role ${GROUP} nocreatedb`,
    /is more than a group/,
  ],
  [
    'a group that passes by row security',
    `alter role ${GROUP} bypassrls`,
    `alter role ${GROUP} nobypassrls`,
    /is more than a group/,
  ],
  [
    'a group whose own group is a superuser',
    `create role above superuser; grant above to ${GROUP}`,
    'drop role above',
    /group above is more than a group/,
  ],
  [
    'a group that may run programs on the server',
    `grant pg_execute_server_program to ${GROUP}`,
    `revoke pg_execute_server_program from ${GROUP}`,
    /pg_execute_server_program is PostgreSQL’s own/,
  ],
  [
    'a group that may end sessions',
    `grant pg_signal_backend to ${GROUP}`,
    `revoke pg_signal_backend from ${GROUP}`,
    /pg_signal_backend is PostgreSQL’s own/,
  ],
  [
    'a group that may admit others',
    `create role club; grant club to ${GROUP} with admin option`,
    'drop role club',
    /orders_read may admit others/,
  ],
  [
    'a group that may pass a privilege on',
    `grant select on public.orders to ${GROUP} with grant option`,
    `revoke grant option for select on public.orders from ${GROUP}`,
    /may pass on a privilege/,
    DATABASE,
  ],
  [
    'everybody may make large objects in the database of the secret',
    'grant execute on function lo_create to public',
    'revoke execute on function lo_create from public',
    /orders_read may make large objects in orders/,
    DATABASE,
  ],
  [
    'a group that may make large objects of bytes',
    `grant execute on function lo_from_bytea to ${GROUP}`,
    `revoke execute on function lo_from_bytea from ${GROUP}`,
    /orders_read may make large objects in orders/,
    DATABASE,
  ],
  [
    'a group that the manager may not grant',
    `revoke admin option for ${GROUP} from mayfly_1`,
    `grant ${GROUP} to mayfly_1 with admin true`,
    /may not grant orders_read/,
  ],
  [
    'a group that may not connect',
    `revoke connect on database ${DATABASE} from ${GROUP}`,
    `grant connect on database ${DATABASE} to ${GROUP}`,
    /None of the groups may connect to orders/,
  ],
  [
    'a database that anybody may connect to',
    'grant connect on database elsewhere to public',
    'revoke connect on database elsewhere from public',
    /Anybody may connect to elsewhere: REVOKE CONNECT/,
  ],
  [
    'a manager that is a superuser',
    'alter role mayfly_1 superuser',
    'alter role mayfly_1 nosuperuser',
    /mayfly_1 may do too much/,
  ],
  [
    'a manager that passes by row security',
    'alter role mayfly_1 bypassrls',
    'alter role mayfly_1 nobypassrls',
    /may do too much/,
  ],
  [
    'a manager that may not make roles',
    'alter role mayfly_1 nocreaterole',
    'alter role mayfly_1 createrole',
    /may not make roles/,
  ],
  [
    'a manager that may not end sessions',
    'revoke pg_signal_backend from mayfly_1',
    'grant pg_signal_backend to mayfly_1 with inherit true, set false',
    /may not end sessions/,
  ],
  [
    'a manager that may not use reserved connections',
    'revoke pg_use_reserved_connections from mayfly_1',
    'grant pg_use_reserved_connections to mayfly_1 with inherit true, set false',
    /mayfly_1 may not use reserved connections: GRANT pg_use_reserved_connections/,
  ],
  [
    'a manager that would have to become who may use reserved connections',
    'grant pg_use_reserved_connections to mayfly_1 with inherit false',
    'grant pg_use_reserved_connections to mayfly_1 with inherit true',
    /may not use reserved connections: .* WITH INHERIT TRUE/,
  ],
  [
    'a manager that becomes somebody else',
    'create role disguise; grant disguise to mayfly_1; alter role mayfly_1 set role disguise',
    'alter role mayfly_1 reset role; drop role disguise',
    /becomes mayfly_1, acting as disguise/,
  ],
  [
    'a manager that may not connect to the database',
    `revoke connect on database ${DATABASE} from mayfly_1`,
    `grant connect on database ${DATABASE} to mayfly_1`,
    /could not look into the database orders.*42501/,
  ],
];

it.each(WRONGS.map(([what, breaks, mends, said, database = 'postgres']) => ({ what, breaks, mends, said, database })))(
  '$what is refused, and passes once that is mended',
  async ({ breaks, mends, said, database }) => {
    await server.ask(breaks, database);
    // A session of its own: what belongs to a login is looked at when somebody logs in.
    const problems = await open().check();
    await server.ask(mends, database);
    expect(problems.join('\n')).toMatch(said);
    expect(await canaries()).toEqual([]);
    expect(await open().check()).toEqual([]);
  },
);

it('a group that is not there is named', async () => {
  expect((await world.check({ database: DATABASE, groups: ['orders_reed'] })).join()).toMatch(/no role 'orders_reed'/);
});

it('a database that is not there is named', async () => {
  expect((await world.check({ ...SETTINGS, database: 'ordres' })).join()).toMatch(/the database ordres: .*3D000/);
});

it('a database that anybody may connect to passes when that is wanted', async () => {
  await server.ask('grant connect on database elsewhere to public');
  expect(await open({ public_databases: ['elsewhere'] }).check()).toEqual([]);
  await server.ask('revoke connect on database elsewhere from public');
});

it('a statement of the operator that does not work is found before an agent needs it', async () => {
  const problems = await open({ statements: { creation: ['GRANT no_such TO {{role}}'] } }).check();
  expect(problems.join()).toMatch(/make and revoke a role|make a role.*42704/);
});

it('a canary that a crash left behind is cleared away once it has expired, and not before', async () => {
  const [old, young] = ['mayfly_abcd1234_canary_0000000001', 'mayfly_abcd1234_canary_0000000002'];
  const manager = await server.logIn({ user: 'mayfly_1', password: password('mayfly_1'), database: 'postgres' });
  await manager.query(
    `create role ${old} login valid until '2020-01-01'; create role ${young} login valid until 'tomorrow'`,
  );
  expect(await world.check()).toEqual([]);
  expect(await canaries()).toEqual([{ rolname: young }]);
  await manager.query(`drop role ${young}`);
  await manager.end();
});

it('a wrong password and a missing password file are told, without the password', async () => {
  const file = join(server.dir, 'wrong');
  writeFileSync(file, 'not-the-password');
  const wrong = await open({ managers: [{ user: 'mayfly_1', password_file: file }] }).check();
  expect(wrong.join()).toMatch(/password is not accepted, SQLSTATE 28P01/);
  expect(wrong.join()).not.toContain('not-the-password');
  const missing = await open({ managers: [{ user: 'mayfly_1', password_file: `${file}-er` }] }).check();
  expect(missing.join()).toMatch(/password file of the manager mayfly_1 cannot be read/);
});

it('a server that is not there is told', async () => {
  expect((await open({ port: 1 }).check()).join()).toMatch(/cannot be reached, ECONNREFUSED/);
});

describe('a pooler before the server', () => {
  let pooler: Server;
  afterAll(() => pooler?.close());

  it('is noticed by the key that it makes up, and nothing goes through it', async () => {
    // As a pooler does: it hands out cancellation keys of its own.
    pooler = createServer((client) => {
      const upstream = connect(server.port, server.host);
      client.pipe(upstream);
      upstream.on('data', (chunk) => client.write(withOtherKey(chunk)));
      for (const one of [client, upstream])
        one.on('error', () => undefined).on('close', () => [client, upstream].map((each) => each.destroy()));
    });
    await new Promise<void>((resolve) => pooler.listen(0, '127.0.0.1', resolve));
    const { port } = pooler.address() as { port: number };
    const through = open({ port });
    expect((await through.check()).join()).toMatch(/pooler before PostgreSQL/);
    await expect(through.issue()).rejects.toMatchObject({ kind: 'misconfigured', isSure: true });
  });

  /** BackendKeyData: 'K', its length, the process id, the key. */
  function withOtherKey(chunk: Buffer): Buffer {
    const at = chunk.indexOf(Buffer.from([0x4b, 0, 0, 0, 12]));
    if (at < 0) return chunk;
    const changed = Buffer.from(chunk);
    changed.writeInt32BE(424_242, at + 5);
    return changed;
  }
});

function password(user: string): string {
  const manager = server.managers.find((one) => one.user === user);
  return readFileSync(manager?.password_file as string, 'utf8').trim();
}
