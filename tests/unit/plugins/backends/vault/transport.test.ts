import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import { z } from 'zod';
import { Secret } from '../../../../../src/core/secret.js';
import { BackendProblem } from '../../../../../src/plugins/backends/contract.js';
import { VaultClient } from '../../../../../src/plugins/backends/vault/client.js';
import { isVaultPath, vaultFolder, vaultPath } from '../../../../../src/plugins/backends/vault/path.js';

/** The very module that node-vault has loaded. */
const axios = createRequire(createRequire(import.meta.url).resolve('node-vault'))('axios') as {
  create: (...given: unknown[]) => unknown;
  defaults: { adapter: unknown };
};

const TOKEN = 'hvs.the-token-of-the-test';

/** A scripted stand-in for a Vault: it answers what a real one cannot be brought to answer. */
interface StandIn extends AsyncDisposable {
  address: string;
  seen: { method: string; url: string; headers: IncomingMessage['headers']; body: string }[];
}

async function standIn(answer: RequestListener): Promise<StandIn> {
  const seen: StandIn['seen'] = [];
  const server: Server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      seen.push({ method: String(request.method), url: String(request.url), headers: request.headers, body });
      answer(request, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${(server.address() as { port: number }).port}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const says = (status: number, body?: unknown, headers: Record<string, string> = {}): RequestListener => {
  return (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers });
    response.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
  };
};

const open: VaultClient[] = [];

function clientOf(
  address: string,
  more: { namespace?: string; timeoutMs?: number; connectionsMax?: number } = {},
): VaultClient {
  const client = new VaultClient({ address, tls: {}, timeoutMs: 2_000, connectionsMax: 4, ...more });
  open.push(client);
  return client;
}

const ask = (client: VaultClient, more: Partial<Parameters<VaultClient['call']>[0]> = {}) =>
  client.call({
    method: 'POST',
    path: vaultPath('sys/leases/revoke'),
    body: { lease_id: 'a/b/c' },
    token: new Secret(TOKEN),
    reply: z.unknown(),
    signal: AbortSignal.timeout(5_000),
    doing: 'revoke its lease',
    ...more,
  });

const problemOf = async (asked: Promise<unknown>): Promise<BackendProblem> => {
  const problem = await asked.then(
    () => new Error('nothing was thrown'),
    (error) => error,
  );
  expect(problem).toBeInstanceOf(BackendProblem);
  return problem as BackendProblem;
};

/** Whatever somebody would print of it. */
const printed = (error: unknown) =>
  [inspect(error, { depth: 10, showHidden: true }), JSON.stringify(error), String(error)].join('\n');

afterEach(async () => {
  await Promise.all(open.splice(0).map((client) => client.close()));
  for (const name of Object.keys(process.env))
    if (/^VAULT_|^https?_proxy$|^HTTPS?_PROXY$|^DEBUG$/.test(name)) delete process.env[name];
});

describe('what carries requests to a Vault', () => {
  it.each([301, 302, 303, 307, 308])('never follows a %i, so the token reaches no other place', async (status) => {
    await using elsewhere = await standIn(says(200, {}));
    await using redirecting = await standIn(
      says(status, '', { location: `${elsewhere.address}/v1/sys/leases/revoke` }),
    );
    const problem = await problemOf(ask(clientOf(redirecting.address)));
    expect(problem).toMatchObject({
      kind: 'misconfigured',
      isSure: true,
      message: expect.stringContaining('redirects are not followed'),
    });
    expect(elsewhere.seen).toEqual([]);
  });

  it('never calls axios', async () => {
    const called: string[] = [];
    const note = (config: { url?: string }) => {
      called.push(String(config.url));
      throw new Error('axios was called');
    };
    const created = axios.create;
    const adapter = axios.defaults.adapter;
    axios.defaults.adapter = note;
    axios.create = (...given) => {
      called.push('create');
      return created.apply(axios, given);
    };
    try {
      await using vault = await standIn(says(200, { data: {} }));
      const client = clientOf(vault.address);
      await ask(client);
      await ask(client, { method: 'GET', path: vaultPath('secret/data/x') });
      await ask(client, { method: 'LIST', path: vaultFolder('sys/leases/lookup/database/creds/x') });
      expect(vault.seen.map(({ method, url }) => `${method} ${url}`)).toEqual([
        'POST /v1/sys/leases/revoke',
        'GET /v1/secret/data/x',
        'GET /v1/sys/leases/lookup/database/creds/x/?list=1',
      ]);
      expect(called).toEqual([]);
    } finally {
      axios.defaults.adapter = adapter;
      axios.create = created;
    }
  });

  it('obeys nothing of the environment: no proxy, token, namespace, prefix or address', async () => {
    await using proxy = await standIn(says(200, {}));
    await using vault = await standIn(says(200, {}));
    Object.assign(process.env, {
      http_proxy: proxy.address,
      HTTP_PROXY: proxy.address,
      VAULT_ADDR: proxy.address,
      VAULT_TOKEN: 'hvs.of-the-environment',
      VAULT_NAMESPACE: 'of-the-environment',
      VAULT_PREFIX: '/of-the-environment',
      VAULT_SKIP_VERIFY: 'true',
    });
    const client = clientOf(vault.address);
    await client.call({
      method: 'POST',
      path: vaultPath('auth/jwt/login'),
      reply: z.unknown(),
      signal: AbortSignal.timeout(5_000),
      doing: 'log in',
    });
    expect(proxy.seen).toEqual([]);
    expect(vault.seen).toMatchObject([{ url: '/v1/auth/jwt/login' }]);
    expect(vault.seen[0]?.headers).not.toHaveProperty('x-vault-token');
    expect(vault.seen[0]?.headers).not.toHaveProperty('x-vault-namespace');
  });

  it('prints nothing, whatever DEBUG says', async () => {
    await using vault = await standIn(says(200, { data: { password: 'of-the-test' } }));
    process.env['DEBUG'] = '*';
    const written: string[] = [];
    const streams = [process.stdout, process.stderr];
    const writes = streams.map((stream) => stream.write);
    for (const stream of streams) stream.write = ((text: string) => written.push(String(text)) > 0) as never;
    try {
      await ask(clientOf(vault.address));
    } finally {
      streams.forEach((stream, at) => {
        stream.write = writes[at] as never;
      });
    }
    expect(written.join('')).toBe('');
  });

  it('sends token and namespace of its own, and says that it is a program', async () => {
    await using vault = await standIn(says(204));
    await ask(clientOf(vault.address, { namespace: 'org/team-a' }));
    expect(vault.seen[0]?.headers).toMatchObject({
      'x-vault-token': TOKEN,
      'x-vault-namespace': 'org/team-a',
      'x-vault-request': 'true',
    });
    expect(JSON.parse(String(vault.seen[0]?.body))).toEqual({ lease_id: 'a/b/c' });
  });

  it.each([200, 202, 204])('takes a %i for an answer', async (status) => {
    await using vault = await standIn(says(status));
    await expect(ask(clientOf(vault.address))).resolves.toBeUndefined();
  });

  it.each([
    [400, ['failed to revoke entry: failed to connect to `user=boss database=orders`: db.internal'], 'failed', false],
    [400, ['something else'], 'failed', false],
    [403, ['permission denied'], 'forbidden', true],
    [404, ['no handler for route "x"'], 'misconfigured', true],
    [405, ['unsupported operation'], 'misconfigured', true],
    [412, [], 'busy', true],
    [429, ['request path "x": rate limit quota exceeded'], 'busy', true],
    [472, [], 'sealed', true],
    [473, [], 'sealed', true],
    [500, ['internal error of boss at db.internal'], 'failed', false],
    [500, ['local node not active but active cluster node not found'], 'sealed', true],
    [502, [], 'unreachable', false],
    [503, ['Vault is sealed'], 'sealed', true],
    [504, [], 'unreachable', false],
  ] as const)('a %i %j is %s, and none of its own words but ours is repeated', async (status, errors, kind, isSure) => {
    await using vault = await standIn(says(status, { errors }));
    const problem = await problemOf(ask(clientOf(vault.address)));
    expect(problem).toMatchObject({
      kind,
      isSure,
      message: expect.stringMatching(new RegExp(`^revoke its lease: status ${status}`)),
    });
    expect(printed(problem)).not.toMatch(/boss|db\.internal|orders|quota/);
  });

  it.each([
    ['a page', '<html>'],
    ['an array', '[]'],
    ['nothing', ''],
    ['another form', '{"data":{"keys":"x"}}'],
    ['a broken text', '{"data":'],
  ])('refuses an answer that is %s', async (_, body) => {
    await using vault = await standIn(says(200, body));
    const reply = z.object({ data: z.object({ keys: z.array(z.string()) }) });
    await expect(ask(clientOf(vault.address), { reply })).rejects.toMatchObject({ kind: 'failed', isSure: false });
  });

  it('reads no more than it can hold', async () => {
    await using vault = await standIn((_, response) => {
      response.writeHead(200);
      const more = () => {
        while (response.write(Buffer.alloc(1024 * 1024, ' ')));
      };
      response.on('drain', more);
      more();
    });
    await expect(
      ask(clientOf(vault.address, { timeoutMs: 20_000 }), { signal: AbortSignal.timeout(20_000) }),
    ).rejects.toMatchObject({
      message: expect.stringContaining('too large'),
    });
  });

  it.each([
    ['its own limit', { timeoutMs: 200 }, 10_000],
    ['its caller’s', { timeoutMs: 10_000 }, 200],
  ])('gives up on a server that never answers at %s, and says that it does not know', async (_, options, callerMs) => {
    await using vault = await standIn(() => {});
    const startMs = Date.now();
    const problem = await problemOf(ask(clientOf(vault.address, options), { signal: AbortSignal.timeout(callerMs) }));
    expect(problem).toMatchObject({ kind: 'timeout', isSure: false });
    expect(Date.now() - startMs).toBeLessThan(2_000);
  });

  it('gives up in the middle of an answer, too', async () => {
    await using vault = await standIn((_, response) => {
      response.writeHead(200);
      response.write('{');
    });
    await expect(ask(clientOf(vault.address, { timeoutMs: 200 }))).rejects.toMatchObject({ kind: 'timeout' });
  });

  it('asks nothing when there is no time left', async () => {
    await using vault = await standIn(says(204));
    await expect(ask(clientOf(vault.address), { signal: AbortSignal.abort() })).rejects.toMatchObject({
      kind: 'timeout',
      isSure: true,
    });
    expect(vault.seen).toEqual([]);
  });

  it('is sure of it where nobody listens, and not where the connection breaks', async () => {
    const address = await (async () => {
      await using gone = await standIn(says(204));
      return gone.address;
    })();
    expect(await problemOf(ask(clientOf(address)))).toMatchObject({ kind: 'unreachable', isSure: true });
    await using vault = await standIn((request) => request.socket.destroy());
    expect(await problemOf(ask(clientOf(vault.address)))).toMatchObject({ kind: 'unreachable', isSure: false });
  });

  it('has no token, body or address in any of its errors', async () => {
    const failures: RequestListener[] = [
      says(400, { errors: [TOKEN] }),
      says(307, '', { location: 'http://elsewhere.example' }),
      says(200, 'no json'),
      (request) => request.socket.destroy(),
      () => {},
    ];
    for (const failure of failures) {
      await using vault = await standIn(failure);
      const body = { password: 'of-the-test' };
      const reply = z.object({ data: z.string() });
      const problem = await problemOf(ask(clientOf(vault.address, { timeoutMs: 200 }), { body, reply }));
      for (const word of [TOKEN, 'of-the-test', vault.address]) expect(printed(problem)).not.toContain(word);
    }
  });

  it('has no more calls under way than connections', async () => {
    let now = 0;
    let most = 0;
    await using vault = await standIn((_, response) => {
      most = Math.max(most, ++now);
      setTimeout(() => {
        now--;
        response.writeHead(204).end();
      }, 20);
    });
    const client = clientOf(vault.address, { connectionsMax: 3 });
    await Promise.all(Array.from({ length: 30 }, () => ask(client)));
    expect(most).toBe(3);
  });
});

describe('a path', () => {
  it.each([
    '../sys/seal',
    'a/../b',
    'a//b',
    '/a',
    'a/',
    '',
    '.',
    'a/.',
    'a/..',
    'a%2fb',
    'a%2e%2e',
    'a?b',
    'a#b',
    'a b',
    'a\\b',
    'a\nb',
    'a\0',
    'ä',
    'a;b',
    '{{name}}',
    'a&#x2F;b',
    "a'b",
    `${'a'.repeat(200)}`,
  ])('%j is refused before anything is sent', (path) => {
    expect(isVaultPath(path)).toBe(false);
    expect(() => vaultPath('auth/token/create', path)).toThrow(BackendProblem);
    expect(() => vaultFolder(path)).toThrow('no plain name');
  });

  it.each(['database/creds/orders', 'team-a/kv_2/x.y', 'a@b', 'a+b~c'])('%j is taken', (path) => {
    expect(isVaultPath(path)).toBe(true);
    expect(vaultPath(path)).toBe(path.split('/').map(encodeURIComponent).join('/'));
  });
});
