import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { identityConfig } from '../../../../src/plugins/identity/config.js';
import { createIdentity } from '../../../../src/plugins/identity/identity.js';
import { certificateAuthority, type IssuedCertificate, jwtAuthority, NOW_MS } from '../../../fakes/issuing.js';
import { VirtualClock } from '../../../fakes/virtual-clock.js';
import { handTimer, until } from './hand-timer.js';

type Stream = grpc.ServerWritableStream<object, { bundles: Record<string, Buffer> }>;

const PROTO = join(import.meta.dirname, '../../../../src/plugins/identity/workload.proto');
const ID = 'spiffe://prod.example';
const first = jwtAuthority();
const second = jwtAuthority({ kid: 'key-2', number: 1 });

/** An agent that says what a test tells it to, on a real socket. */
async function fakeAgent(socket: string) {
  const streams = { FetchJWTBundles: [] as Stream[], FetchX509Bundles: [] as Stream[] };
  const open = (method: keyof typeof streams) => (stream: Stream) => {
    streams[method].push(stream);
    const at = () => streams[method].splice(streams[method].indexOf(stream), 1);
    stream.on('cancelled', at);
    agent.opened += 1;
    if (stream.metadata.get('workload.spiffe.io')[0] !== 'true') {
      stream.emit('error', { code: grpc.status.INVALID_ARGUMENT, details: 'no header' });
    } else if (agent.refuses) {
      stream.emit('error', { code: grpc.status.PERMISSION_DENIED, details: 'no identity issued' });
    } else {
      stream.write({ bundles: agent.bundles[method] });
    }
  };
  const definition = grpc.loadPackageDefinition(loadSync(PROTO, { keepCase: true }));
  const server = new grpc.Server();
  const { service } = definition['SpiffeWorkloadAPI'] as grpc.ServiceClientConstructor;
  server.addService(service, {
    FetchJWTBundles: open('FetchJWTBundles'),
    FetchX509Bundles: open('FetchX509Bundles'),
    FetchX509SVID: open('FetchX509Bundles'),
    FetchJWTSVID: () => {},
  });
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    ),
  );
  const agent = {
    bundles: { FetchJWTBundles: {} as Record<string, Buffer>, FetchX509Bundles: {} as Record<string, Buffer> },
    refuses: false,
    opened: 0,
    push(method: keyof typeof streams) {
      for (const stream of streams[method]) stream.write({ bundles: agent.bundles[method] });
    },
    endAll() {
      for (const stream of [...streams.FetchJWTBundles, ...streams.FetchX509Bundles]) stream.end();
    },
    stop: () => server.forceShutdown(),
  };
  return agent;
}

const jwks = (...authorities: { jwk: object }[]) =>
  Buffer.from(JSON.stringify({ keys: authorities.map(({ jwk }) => jwk) }));
const ders = (...authorities: IssuedCertificate[]) =>
  Buffer.concat(authorities.map(({ certificate }) => certificate.raw));

describe('following the Workload API', () => {
  let folder: string;
  let agent: Awaited<ReturnType<typeof fakeAgent>>;
  let identity: Awaited<ReturnType<typeof createIdentity>>;
  let ca: IssuedCertificate;
  let moves: string[];
  let timer: ReturnType<typeof handTimer>;
  const keys = () => identity.bundles.status()[0]?.keys;

  const start = async () => {
    timer = handTimer();
    identity = await createIdentity(
      identityConfig.parse({
        trust_domains: [
          { name: 'prod.example', source: { kind: 'workload_api', socket: `unix://${folder}/agent.sock` } },
        ],
      }),
      { clock: new VirtualClock(NOW_MS), issuer: 'https://mayfly.example', setTimer: timer.setTimer },
    );
    moves = [];
    identity.bundles.onKeysGone((ids) => moves.push(...ids.map((id) => `- ${id}`)));
    identity.bundles.onKeysBack((ids) => moves.push(...ids.map((id) => `+ ${id}`)));
  };

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'mayfly-wl-'));
    agent = await fakeAgent(`${folder}/agent.sock`);
    ca = await certificateAuthority('prod.example');
    agent.bundles.FetchJWTBundles = { [ID]: jwks(first), 'spiffe://other.example': jwks(second) };
    agent.bundles.FetchX509Bundles = { [ID]: ders(ca) };
    await start();
  });

  afterEach(async () => {
    await identity.bundles.close();
    agent.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  it('both kinds of keys of its own domain are there when it has started', () => {
    expect(identity.bundles.keyIds()).toEqual(['prod.example#key-1', expect.stringMatching(/^prod\.example#.{43}$/)]);
    expect(identity.bundles.status()).toMatchObject([{ ok: true, source: expect.stringContaining('workload_api') }]);
  });

  it('a rotation that the agent announces is in force at once', async () => {
    agent.bundles.FetchJWTBundles = { [ID]: jwks(first, second) };
    agent.push('FetchJWTBundles');
    await until(() => keys() === 3);
    const next = await certificateAuthority('prod.example');
    agent.bundles.FetchX509Bundles = { [ID]: ders(ca, next) };
    agent.push('FetchX509Bundles');
    await until(() => keys() === 4);
    agent.bundles.FetchJWTBundles = { [ID]: jwks(second) };
    agent.push('FetchJWTBundles');
    await until(() => keys() === 3);
    expect(moves).toEqual(['+ prod.example#key-2', expect.stringMatching(/^\+ /), '- prod.example#key-1']);
  });

  it('a domain that the agent no longer lists has no keys', async () => {
    agent.bundles.FetchJWTBundles = {};
    agent.push('FetchJWTBundles');
    await until(() => keys() === 1);
    expect(moves).toEqual(['- prod.example#key-1']);
  });

  it('a malformed bundle changes nothing, and the stream is opened again later', async () => {
    agent.bundles.FetchJWTBundles = { [ID]: Buffer.from('<html>') };
    agent.push('FetchJWTBundles');
    await until(() => identity.bundles.status()[0]?.ok === false);
    expect(keys()).toBe(2);
    expect(timer.delays()).toEqual([1_000]);
    agent.bundles.FetchJWTBundles = { [ID]: jwks(second) };
    timer.fireNext();
    await until(() => identity.bundles.status()[0]?.ok === true);
    expect(identity.bundles.keyIds()).toContain('prod.example#key-2');
  });

  it('streams that end change nothing and are opened again, with longer and longer pauses while the agent refuses', async () => {
    agent.refuses = true;
    agent.endAll();
    await until(() => timer.delays().length === 2);
    expect(keys()).toBe(2);
    const pauses: number[] = [];
    for (let round = 0; round < 6; round += 1) {
      pauses.push(...timer.delays());
      timer.fireNext();
      timer.fireNext();
      await until(() => timer.delays().length === 2);
    }
    expect(pauses).toEqual([1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 30, 30].map((seconds) => seconds * 1000));
    expect(identity.bundles.status()).toMatchObject([
      { ok: false, problem: expect.stringContaining('PERMISSION_DENIED') },
    ]);
    agent.refuses = false;
    timer.fireNext();
    timer.fireNext();
    await until(() => identity.bundles.status()[0]?.ok === true);
    expect(moves).toEqual([]);
  });

  it('after close no stream is open and none will be', async () => {
    await identity.bundles.close();
    agent.endAll();
    expect(timer.delays()).toEqual([]);
  });
});

it('an agent that is not there leaves the domain unavailable and keeps nobody from starting', async () => {
  const timer = handTimer();
  const { proof, bundles } = await createIdentity(
    identityConfig.parse({
      trust_domains: [{ name: 'prod.example', source: { kind: 'workload_api', socket: '/nowhere/agent.sock' } }],
    }),
    { clock: new VirtualClock(NOW_MS), issuer: 'https://mayfly.example', setTimer: timer.setTimer },
  );
  const token = first.sign({
    sub: `${ID}/a`,
    aud: 'https://mayfly.example',
    iat: NOW_MS / 1000,
    exp: NOW_MS / 1000 + 60,
  });
  await expect(proof.jwt(token)).rejects.toMatchObject({ code: 'unavailable' });
  await bundles.close();
});
