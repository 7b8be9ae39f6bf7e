import { readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { Secret } from '../../../src/core/secret.js';
import { startServer, type TestServer } from './server.js';
import { type Given, openWorld, until } from './world.js';

let server: TestServer;
let world: ReturnType<typeof openWorld>;
beforeAll(async () => {
  server = await startServer();
  world = openWorld(server);
}, 90_000);
afterAll(async () => {
  await world?.backend.close();
  await server?.stop();
});

/** A way to the server that can keep the login of one user waiting, and tells when another's is over. */
async function doorThatHolds() {
  const held = new Map<string, Promise<void>>();
  const ended = new Map<string, () => void>();
  const userOf = (startup: Buffer) => /\0user\0([^\0]+)\0/.exec(startup.toString('latin1'))?.[1] ?? '';
  const door = createServer((client) => {
    client.once('data', async (startup: Buffer) => {
      const user = userOf(startup);
      client.pause();
      await held.get(user);
      const upstream = connect(server.port, server.host);
      for (const one of [client, upstream])
        one.on('error', () => undefined).on('close', () => [client, upstream].map((each) => each.destroy()));
      client.on('close', () => ended.get(user)?.());
      upstream.write(startup);
      client.pipe(upstream).pipe(client);
    });
  });
  await new Promise<void>((resolve) => door.listen(0, '127.0.0.1', resolve));
  return {
    port: (door.address() as AddressInfo).port,
    hold(user: string): () => void {
      let release = () => {};
      held.set(user, new Promise<void>((resolve) => (release = resolve)));
      return release;
    },
    answered: (user: string) => new Promise<void>((resolve) => ended.set(user, resolve)),
    close: () => new Promise((resolve) => door.close(resolve)),
  };
}

const probe = (given: Given, data = given.data) =>
  world.backend.probe(given, new Secret(data), AbortSignal.timeout(10_000));
const alter = (given: Given, how: string) => server.ask(`alter role ${given.data['username']} ${how}`);

describe('a probe of a credential', () => {
  it('that lives says that it is accepted', async () => {
    expect(await probe(await world.issue())).toEqual({ credential: 'accepted', control: 'accepted' });
  });

  it('that was revoked says that it is refused, while a manager’s login works', async () => {
    const given = await world.issue();
    await world.revoke(given);
    expect(await probe(given)).toEqual({ credential: 'refused', control: 'accepted' });
  });

  it('whose role may not log in any more says that it is refused', async () => {
    const given = await world.issue();
    await alter(given, 'nologin');
    expect(await probe(given)).toEqual({ credential: 'refused', control: 'accepted' });
  });

  it('whose holder changed its password proves nothing: the role is there', async () => {
    const given = await world.issue();
    await alter(given, "password 'mine'");
    expect(await probe(given)).toEqual({ credential: 'unclear', control: 'accepted' });
  });

  it('that has merely expired proves nothing: its end can be moved', async () => {
    const given = await world.issue();
    await alter(given, "valid until '2020-01-01'");
    expect(await probe(given)).toEqual({ credential: 'unclear', control: 'accepted' });
  });

  it('that may not connect to its database just now proves nothing: its password was accepted', async () => {
    const given = await world.issue();
    await server.ask(`revoke ${'orders_read'} from ${given.data['username']} granted by ${given.handle['manager']}`);
    expect(await probe(given)).toEqual({ credential: 'unclear', control: 'accepted' });
  });

  it('under another name that is gone proves nothing: the role with its oid is there', async () => {
    const given = await world.issue();
    await alter(given, 'rename to somebody_else');
    expect(await probe(given)).toEqual({ credential: 'unclear', control: 'accepted' });
    await alter(
      { ...given, data: { ...given.data, username: 'somebody_else' } },
      `rename to ${given.data['username']}`,
    );
  });

  it('that the server’s rules of access turn away proves nothing: that is not the role’s doing', async () => {
    const given = await world.issue();
    const rules = join(server.dir, 'postgres/data/pg_hba.conf');
    const before = readFileSync(rules, 'utf8');
    writeFileSync(rules, `host all ${given.data['username']} all reject\n${before}`);
    await server.ask('select pg_reload_conf()');
    const seen = await until(
      () => probe(given),
      ({ credential }) => credential !== 'accepted',
    );
    expect(seen).toEqual({ credential: 'unclear', control: 'accepted' });
    writeFileSync(rules, before);
    await server.ask('select pg_reload_conf()');
    await until(
      () => probe(given),
      ({ credential }) => credential === 'accepted',
    );
  });

  it('is no proof when the manager’s login does not work either', async () => {
    const given = await world.issue();
    await world.revoke(given);
    const file = server.managers.find(({ user }) => user === given.handle['manager'])?.password_file as string;
    const before = readFileSync(file, 'utf8');
    writeFileSync(file, 'wrong');
    expect(await probe(given)).toEqual({ credential: 'unclear', control: 'refused' });
    writeFileSync(file, before);
  });

  it('is no proof when there is no server', async () => {
    const given = await world.issue();
    const nowhere = openWorld(server, { port: 1 });
    const seen = await nowhere.backend.probe(given, new Secret(given.data), AbortSignal.timeout(5_000));
    expect(seen).toEqual({ credential: 'unclear', control: 'refused' });
    await nowhere.backend.close();
  });

  it('is proof only when the control works in the same second: a login that hangs takes the proof from those that were tried with it', async () => {
    let lateMs = 0;
    const clock = { now: () => Date.now() + lateMs };
    const door = await doorThatHolds();
    const slow = openWorld(server, { port: door.port, managers: server.managers.slice(0, 1) }, { clock });
    const trying = (one: Given) => slow.backend.probe(one, new Secret(one.data), AbortSignal.timeout(10_000));
    const [quick, hanging] = [await slow.issue(), await slow.issue()];
    await slow.revoke(quick);
    await slow.revoke(hanging);
    const release = door.hold(String(hanging.data['username']));
    const tries = [trying(quick), trying(hanging)];
    await door.answered(String(quick.data['username']));
    lateMs = 1_200;
    release();
    expect(await Promise.all(tries)).toEqual([
      { credential: 'unclear', control: 'accepted' },
      { credential: 'refused', control: 'accepted' },
    ]);
    expect(await trying(quick)).toEqual({ credential: 'refused', control: 'accepted' });
    await slow.backend.close();
    await door.close();
  });

  it('with a wrong password of a role that is gone is refused: no password could be right', async () => {
    const given = await world.issue();
    await world.revoke(given);
    expect(await probe(given, { ...given.data, password: 'wrong' })).toEqual({
      credential: 'refused',
      control: 'accepted',
    });
  });
});
