import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { BackendProblem } from '../../../../../src/plugins/backends/contract.js';
import { everythingPrintable } from '../../../../conformance/backends/lease.js';
import { type Answer, backendOf, CANARY, check, type Endpoint, leaseOf, Upstream, type World } from './upstream.js';

let world: World;
beforeEach(async () => {
  const upstream = await new Upstream().start();
  world = { upstream, ...backendOf(upstream) };
});
afterEach(async () => {
  await world.backend.close();
  await world.upstream.stop();
});

/** The problem of a call, once nothing that could be printed of it has anything secret in it. */
async function problemOf(run: () => Promise<unknown>): Promise<BackendProblem> {
  const error = await run().then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(BackendProblem);
  expect(everythingPrintable(error)).not.toContain(CANARY);
  return error as BackendProblem;
}

const refusedIssue = () => problemOf(() => leaseOf(world).issue());

describe('an upstream that leads elsewhere', () => {
  let elsewhere: { url: string; asked: string[]; close(): void };
  beforeEach(async () => {
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.end('{}');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    elsewhere = { url, asked, close: () => server.close() };
  });
  afterEach(() => elsewhere.close());

  it.each([301, 302, 303, 307, 308])('a redirect (%i) of the token request is not followed', async (status) => {
    world.upstream.answers.token = { status, headers: { location: `${elsewhere.url}/steal` } };
    expect((await refusedIssue()).kind).toBe('misconfigured');
    expect(elsewhere.asked).toEqual([]);
  });

  it.each(['metadata', 'revocation', 'introspection'] as const)('neither is one of %s', async (endpoint) => {
    const { issue, revoke, confirm } = leaseOf(world);
    if (endpoint !== 'metadata') await issue();
    world.upstream.answers[endpoint] = { status: 307, headers: { location: `${elsewhere.url}/steal` } };
    const run = { metadata: issue, revocation: revoke, introspection: confirm }[endpoint];
    expect((await problemOf(run)).kind).toBe('misconfigured');
    expect(elsewhere.asked).toEqual([]);
  });

  it.each(['token_endpoint', 'revocation_endpoint', 'introspection_endpoint'])(
    'metadata that names %s at another origin is refused, and nobody there is asked',
    async (name) => {
      world.upstream.answers.metadata = { body: { ...world.upstream.metadata(), [name]: `${elsewhere.url}/steal` } };
      const { kind, isSure } = await refusedIssue();
      expect({ kind, isSure }).toEqual({ kind: 'misconfigured', isSure: true });
      expect(elsewhere.asked).toEqual([]);
    },
  );

  it('an endpoint at another origin that is written in the configuration is used', async () => {
    const { backend, clock } = backendOf(world.upstream, { endpoints: { token: `${elsewhere.url}/token` } });
    await leaseOf({ backend, clock })
      .issue()
      .catch(() => undefined);
    expect(elsewhere.asked).toEqual(['/token']);
    await backend.close();
  });

  it('a proxy of the environment sees nothing', async () => {
    const names = ['HTTP_PROXY', 'http_proxy', 'HTTPS_PROXY', 'https_proxy', 'ALL_PROXY', 'NODE_USE_ENV_PROXY'];
    const before = names.map((name) => process.env[name]);
    for (const name of names) process.env[name] = name === 'NODE_USE_ENV_PROXY' ? '1' : elsewhere.url;
    const { backend, clock } = backendOf(world.upstream);
    try {
      await leaseOf({ backend, clock }).issue();
    } finally {
      names.forEach((name, at) => {
        if (before[at] === undefined) delete process.env[name];
        else process.env[name] = before[at];
      });
      await backend.close();
    }
    expect(elsewhere.asked).toEqual([]);
  });
});

describe('metadata', () => {
  const changed = (more: Record<string, unknown>) => ({ ...world.upstream.metadata(), ...more });

  it.each<[string, () => Record<string, unknown>]>([
    ['of another issuer', () => changed({ issuer: 'https://other.example' })],
    ['of an issuer that differs by a slash', () => changed({ issuer: `${world.upstream.issuer}/` })],
    ['of an issuer that differs by case', () => changed({ issuer: world.upstream.issuer.replace('http', 'HTTP') })],
    ['of no issuer', () => changed({ issuer: undefined })],
    ['with an endpoint that is no text', () => changed({ token_endpoint: 7 })],
    [
      'with an endpoint that has a user',
      () => changed({ token_endpoint: world.upstream.issuer.replace('//', '//u:p@') }),
    ],
    ['without a token endpoint', () => changed({ token_endpoint: undefined })],
  ])('%s is refused, and no token asked for', async (_, body) => {
    world.upstream.answers.metadata = { body: body() };
    expect(['misconfigured', 'failed']).toContain((await refusedIssue()).kind);
    expect(world.upstream.formsOf('token')).toEqual([]);
  });

  it.each<[string, Answer]>([
    ['is not JSON', { body: 'hello' }],
    ['is a list', { body: [] }],
    ['is not called JSON', { body: '{}', headers: { 'content-type': 'text/html' } }],
    ['is not there', { status: 404 }],
    ['is larger than anybody needs', { body: { padding: 'x'.repeat(1_000_000) } }],
  ])('that %s is refused', async (_, answer) => {
    world.upstream.answers.metadata = answer;
    await refusedIssue();
    expect(world.upstream.formsOf('token')).toEqual([]);
  });

  it('is read once in ten minutes, and what was known goes on while it cannot be read', async () => {
    const { clock, upstream } = world;
    const reads = () => upstream.asked.filter(({ endpoint }) => endpoint === 'metadata').length;
    await leaseOf(world).issue();
    await leaseOf(world).issue();
    expect(reads()).toBe(1);
    clock.set(clock.now() + 600_000);
    upstream.answers.metadata = { status: 503 };
    await leaseOf(world).issue();
    await leaseOf(world).issue();
    expect(reads()).toBe(2);
  });
});

describe('what an upstream says goes into no error', () => {
  const echoing = (status: number, more: Record<string, unknown>): Answer => {
    return (form) => ({ status, body: { error_description: [...form.values()].join(' '), ...more } });
  };

  it.each<[string, Answer, string, boolean]>([
    ['the assertion in a description', echoing(400, { error: 'invalid_grant' }), 'failed', true],
    ['a client that is not known', echoing(401, { error: 'invalid_client' }), 'forbidden', true],
    ['a scope that is not had', echoing(400, { error: 'invalid_scope' }), 'misconfigured', true],
    ['a token as the code', echoing(400, { error: `no ${CANARY}` }), 'failed', true],
    ['a code that every object has', echoing(400, { error: 'constructor' }), 'failed', true],
    ['a challenge', { status: 401, headers: { 'www-authenticate': `Bearer error="${CANARY}"` } }, 'forbidden', true],
    ['too many requests', echoing(429, { error: 'slow_down' }), 'busy', false],
    ['for a while not', echoing(400, { error: 'temporarily_unavailable' }), 'busy', false],
    ['an error of its own', { status: 500, body: CANARY }, 'failed', false],
    ['a gateway without anybody behind it', { status: 502, body: CANARY }, 'unreachable', false],
    ['closed', { status: 503, body: { error: CANARY } }, 'unreachable', false],
    ['no JSON', { body: `{"access_token": ${CANARY}` }, 'failed', false],
    ['a page', { body: `<b>${CANARY}</b>`, headers: { 'content-type': 'text/html' } }, 'failed', false],
    ['created', { status: 201, body: { access_token: CANARY } }, 'failed', false],
    ['nothing', { status: 204 }, 'failed', false],
    ['a token that is no text', { body: { access_token: [CANARY], token_type: 'Bearer' } }, 'failed', false],
    ['an empty token', { body: { access_token: '', token_type: 'Bearer', expires_in: 1 } }, 'failed', false],
    ['too much', { body: { access_token: CANARY, padding: 'x'.repeat(600_000) } }, 'failed', false],
  ])('%s', async (_, answer, kind, isSure) => {
    world.upstream.answers.token = answer;
    const problem = await refusedIssue();
    expect({ kind: problem.kind, isSure: problem.isSure }).toEqual({ kind, isSure });
  });

  it.each<[Endpoint, Answer]>([
    ['revocation', { status: 503, body: CANARY }],
    ['revocation', { status: 400, body: { error: CANARY } }],
    ['introspection', { status: 500, body: CANARY }],
    ['introspection', { body: { active: 'false' } }],
    ['introspection', { body: { active: 0 } }],
    ['introspection', { body: {} }],
    ['introspection', { body: [] }],
    ['introspection', { body: 'false' }],
    ['introspection', { status: 204 }],
    ['introspection', { status: 401, body: { error: 'invalid_client' } }],
  ])('%s: %j is no confirmation of anything', async (endpoint, answer) => {
    const { issue, revoke, confirm } = leaseOf(world);
    await issue();
    world.upstream.answers[endpoint] = answer;
    await problemOf(endpoint === 'revocation' ? revoke : confirm);
  });

  it('an answer that comes in drops without an end ends with the caller’s time', async () => {
    world.upstream.answers.token = (_form, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      const drops = setInterval(() => response.write(' '), 20);
      response.on('close', () => clearInterval(drops));
      return 'handled';
    };
    const problem = await problemOf(() => leaseOf(world).issue({ signal: AbortSignal.timeout(300) }));
    expect(problem.kind).toBe('timeout');
    expect(problem.isSure).toBe(false);
  });

  it('the deadline of the intent ends it too', async () => {
    world.upstream.answers.token = () => 'handled';
    const deadlineMs = world.clock.now() + 200;
    expect((await problemOf(() => leaseOf(world).issue({ deadlineMs }))).kind).toBe('timeout');
  });

  it('an answer that was cut off is a token that nobody knows', async () => {
    world.upstream.answers.token = (_form, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '1000' });
      response.write(`{"access_token":"${CANARY}`, () => response.destroy());
      return 'handled';
    };
    const problem = await refusedIssue();
    expect({ kind: problem.kind, isSure: problem.isSure }).toEqual({ kind: 'unreachable', isSure: false });
  });
});

describe('the check names what is wrong', () => {
  const CALLS = 'introspection calls a token';

  it.each<[string, Partial<Record<Endpoint, Answer>>, RegExp]>([
    ['a client that is not known', { token: { status: 401, body: { error: 'invalid_client' } } }, /invalid_client/],
    ['a client that may not introspect', { introspection: { body: { active: false } } }, RegExp(`${CALLS} inactive`)],
    ['a revocation that does nothing', { revocation: { body: {} } }, RegExp(`${CALLS} active that was just revoked`)],
    [
      'a revocation for other tokens',
      { revocation: { status: 400, body: { error: 'unsupported_token_type' } } },
      /active/,
    ],
  ])('%s', async (_, answers, said) => {
    Object.assign(world.upstream.answers, answers);
    const problems = await check(world.backend);
    expect(problems).toEqual([expect.stringMatching(said)]);
    expect(problems.join()).not.toContain(CANARY);
  });

  it('endpoints that are missing for what is promised', async () => {
    const { issuer, token_endpoint } = world.upstream.metadata();
    world.upstream.answers.metadata = { body: { issuer, token_endpoint } };
    expect(await check(world.backend)).toEqual([
      expect.stringContaining('endpoints.revocation'),
      expect.stringContaining('endpoints.introspection'),
    ]);
  });

  it('and throws when the upstream is not there: nothing is known then', async () => {
    await world.upstream.stop();
    expect((await problemOf(() => check(world.backend))).kind).toBe('unreachable');
    await world.upstream.start();
  });
});
