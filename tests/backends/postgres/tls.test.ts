import { chownSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type DevTrustDomain, openDevTrustDomain } from '../../../src/main/dev/trust-domain.js';
import { startServer, type TestServer } from './server.js';
import { openWorld, until } from './world.js';

let server: TestServer;
let authority: DevTrustDomain;
let folder: string;
const opened: ReturnType<typeof openWorld>[] = [];

beforeAll(async () => {
  server = await startServer({ managers: 1 });
  folder = mkdtempSync(join(tmpdir(), 'mayfly-tls-'));
  authority = await openDevTrustDomain(folder);
  const { certPem, keyPem } = await authority.tlsServer(['127.0.0.1', 'db.example']);
  await serve({ 'server.crt': certPem, 'server.key': keyPem, 'clients.crt': authority.caPem });
}, 90_000);
afterAll(async () => {
  for (const one of opened) await one.backend.close();
  await server?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const data = () => join(server.dir, 'postgres/data');

/** Puts files into the server's folder, as its own, and lets it read them. From then on it speaks TLS only. */
async function serve(files: Record<string, string>, rules = 'hostssl all all all scram-sha-256') {
  const { uid, gid } = statSync(data());
  for (const [name, content] of Object.entries({
    ...files,
    'pg_hba.conf': `${rules}\nhostnossl all postgres all scram-sha-256\n`,
  })) {
    writeFileSync(join(data(), name), content, { mode: 0o600 });
    if (process.getuid?.() === 0) chownSync(join(data(), name), uid, gid);
  }
  await server.ask("alter system set ssl_ca_file = 'clients.crt'");
  await server.ask('alter system set ssl = on');
  await server.ask('select pg_reload_conf()');
  await until(
    () => server.ask('show ssl'),
    ([row]) => row?.['ssl'] === 'on',
  );
}

function open(tls: Record<string, unknown> | undefined, more: Record<string, unknown> = {}) {
  const one = openWorld(server, { ...(tls && { tls }), ...more });
  opened.push(one);
  return one;
}

const ca = () => ({ ca_file: authority.caPath });

describe('TLS to the server', () => {
  it('is verified, name included, and everything works over it', async () => {
    // Ours and the canaries'; logins of agents are their own affair.
    const world = open(ca());
    expect(
      await until(
        () => world.check(),
        (problems) => problems.length === 0,
      ),
    ).toEqual([]);
    const sessions = await server.ask(
      "select distinct s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid) where a.usename = 'mayfly_1'",
    );
    expect(sessions).toEqual([{ ssl: true }]);
  });

  it('is read under the name that the certificate is for', async () => {
    expect(await open({ ...ca(), server_name: 'db.example' }).check()).toEqual([]);
  });

  it.each([
    [
      'a certificate for another name',
      () => ({ ...ca(), server_name: 'other.example' }),
      /ERR_TLS_CERT_ALTNAME_INVALID/,
    ],
    ['an authority that nobody named', () => ({}), /the TLS connection failed, [A-Z_]*(CERT|SIGNATURE|ISSUER)/],
    ['a missing file of authorities', () => ({ ca_file: '/nowhere/ca.pem' }), /\/nowhere\/ca.pem cannot be read/],
  ])('%s is refused', async (_, tls, said) => {
    const world = open(tls());
    expect((await world.check()).join()).toMatch(said);
    await expect(world.issue()).rejects.toMatchObject({ kind: 'misconfigured', isSure: true });
  });

  it('an authority of another is refused', async () => {
    const other = await openDevTrustDomain(mkdtempSync(join(folder, 'other-')));
    expect((await open({ ca_file: other.caPath }).check()).join()).toMatch(/the TLS connection failed/);
  });

  it('without it, a server that wants it is not reached', async () => {
    expect((await open(undefined).check()).join()).toMatch(/28000/);
  });

  it('a certificate of ours is shown to a server that asks for one, and without it there is no login', async () => {
    await serve({}, 'hostssl all mayfly_1 all scram-sha-256 clientcert=verify-ca\nhostssl all all all scram-sha-256');
    const { certificatePem, keyPem } = await authority.x509Svid({ path: '/mayfly/broker', ttlSeconds: 600 });
    const [cert, key] = [join(folder, 'client.crt'), join(folder, 'client.key')];
    writeFileSync(cert, certificatePem);
    writeFileSync(key, keyPem, { mode: 0o600 });
    await until(
      () => open(ca()).check(),
      (problems) => /28000/.test(problems.join()),
    );
    expect(await open({ ...ca(), cert_file: cert, key_file: key }).check()).toEqual([]);
    await serve({});
  });
});

describe('a server that is not what it says', () => {
  const servers: Server[] = [];
  afterAll(() => {
    for (const one of servers) one.close();
  });

  async function listen(answer: (startup: Buffer) => Buffer): Promise<{ port: number; heard: () => string }> {
    let heard = '';
    const fake = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        heard += chunk.toString('latin1');
        socket.write(answer(chunk));
      });
    });
    servers.push(fake);
    await new Promise<void>((resolve) => fake.listen(0, '127.0.0.1', resolve));
    return { port: (fake.address() as { port: number }).port, heard: () => heard };
  }

  const password = () => readFileSync(server.managers[0]?.password_file as string, 'utf8').trim();

  it('and asks for the password itself is not told it', async () => {
    // AuthenticationCleartextPassword
    const { port, heard } = await listen(() => Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3]));
    expect((await open(undefined, { port }).check()).join()).toMatch(/wants passwords sent instead of proven/);
    expect(heard()).toContain('mayfly_1');
    expect(heard()).not.toContain(password());
  });

  it('and asks for an MD5 of the password is not told that either', async () => {
    const { port, heard } = await listen(() => Buffer.from([0x52, 0, 0, 0, 12, 0, 0, 0, 5, 1, 2, 3, 4]));
    expect((await open(undefined, { port }).check()).join()).toMatch(/wants passwords sent instead of proven/);
    expect(heard()).not.toMatch(/md5[0-9a-f]{32}/);
  });

  it('and refuses TLS gets nothing at all, not even a name', async () => {
    const { port, heard } = await listen(() => Buffer.from('N'));
    expect((await open(ca(), { port }).check()).join()).toMatch(/does not speak TLS/);
    expect(heard()).not.toContain('mayfly_1');
  });

  it('and says nothing is given up', async () => {
    const { port } = await listen(() => Buffer.alloc(0));
    expect((await open(undefined, { port }).check()).join()).toMatch(/did not answer in time/);
  });
});
