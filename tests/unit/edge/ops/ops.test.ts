import { type OpsDoor, openOpsDoor } from '../../../../src/edge/ops/ops.js';
import { type FakeParts, fakeParts } from '../../../fakes/parts.js';

const metrics = async () => ({ contentType: 'text/plain; version=0.0.4', text: 'mayfly_build_info 1\n' });

describe("the operators' door", () => {
  let door: OpsDoor;
  let parts: FakeParts;
  beforeEach(async () => {
    parts = fakeParts();
    // Its sample secrets are nobody's: without them nothing is degraded.
    parts.secretChecks.status = () => [];
    door = await openOpsDoor({ host: '127.0.0.1', port: 0, metrics });
  });
  afterEach(() => door.close());

  const ask = async (path: string, method = 'GET') => {
    const reply = await fetch(`http://127.0.0.1:${door.port}${path}`, { method });
    const text = await reply.text();
    return { status: reply.status, headers: reply.headers, text };
  };
  const statuses = async () => {
    const probes = await Promise.all(['/livez', '/startupz', '/readyz'].map((path) => ask(path)));
    return probes.map(({ status }) => status);
  };

  it('a process that has not started yet lives, and is neither started nor ready', async () => {
    expect(await statuses()).toEqual([200, 503, 503]);
  });

  it('a started broker whose parts are well is ready', async () => {
    door.started(parts);
    expect(await statuses()).toEqual([200, 200, 200]);
    expect(JSON.parse((await ask('/readyz')).text)).toMatchObject({ ready: true, degraded: false });
  });

  it('without its store a broker is not ready, and lives', async () => {
    door.started(parts);
    parts.line.out = true;
    expect(await statuses()).toEqual([200, 200, 503]);
  });

  it('closed grants are degraded and no reason to turn those away who come to revoke', async () => {
    door.started(parts);
    parts.line.closed = 'redis memory: 81 % used';
    expect(await statuses()).toEqual([200, 200, 200]);
    const { text } = await ask('/readyz');
    expect(JSON.parse(text)).toMatchObject({ ready: true, degraded: true });
    expect(text).not.toContain('81 %');
  });

  it.each([
    ['a key that signs', (of: FakeParts) => Object.assign(of.keys, { all: () => [] })],
    ['a bundle', (of: FakeParts) => Object.assign(of.policies, { current: () => undefined })],
  ])('without %s it is not ready', async (_, remove) => {
    remove(parts);
    door.started(parts);
    expect(await statuses()).toEqual([200, 200, 503]);
  });

  it('a broker that leaves is not ready, however well it is', async () => {
    door.started(parts);
    door.leaving();
    expect(await statuses()).toEqual([200, 200, 503]);
    expect(JSON.parse((await ask('/readyz')).text)).toEqual({ ready: false, because: 'leaving' });
  });

  it('metrics are there before the broker is', async () => {
    const { status, headers, text } = await ask('/metrics');
    expect([status, headers.get('content-type'), text]).toEqual([
      200,
      'text/plain; version=0.0.4',
      'mayfly_build_info 1\n',
    ]);
  });

  it('metrics that cannot be had are a 503, and the probes go on', async () => {
    const broken = await openOpsDoor({
      host: '127.0.0.1',
      port: 0,
      metrics: () => Promise.reject(new Error('secret')),
    });
    try {
      const reply = await fetch(`http://127.0.0.1:${broken.port}/metrics`);
      expect([reply.status, await reply.text()]).toEqual([503, '{"error":"unavailable"}\n']);
      expect((await fetch(`http://127.0.0.1:${broken.port}/livez`)).status).toBe(200);
    } finally {
      await broken.close();
    }
  });

  it.each([
    ['GET', '/', 404],
    ['GET', '/metrics/', 404],
    ['GET', '/constructor', 404],
    ['GET', '/v1/tasks', 404],
    ['GET', '/../livez', 200],
    ['HEAD', '/livez', 200],
    ['GET', '/livez?verbose', 200],
    ['POST', '/livez', 405],
    ['DELETE', '/metrics', 405],
  ])('%s %s: %d', async (method, path, status) => {
    expect((await ask(path, method)).status).toBe(status);
  });

  it('a port that is taken is refused', async () => {
    await expect(openOpsDoor({ host: '127.0.0.1', port: door.port, metrics })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });
});
