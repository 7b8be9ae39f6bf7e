import { readFileSync, writeFileSync } from 'node:fs';
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

  it('with a wrong password of a role that is gone is refused: no password could be right', async () => {
    const given = await world.issue();
    await world.revoke(given);
    expect(await probe(given, { ...given.data, password: 'wrong' })).toEqual({
      credential: 'refused',
      control: 'accepted',
    });
  });
});
