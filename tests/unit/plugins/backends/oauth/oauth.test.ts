import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BackendProblem } from '../../../../../src/plugins/backends/contract.js';
import { oauthBackend } from '../../../../../src/plugins/backends/oauth.js';
import { backendOf, CANARY, check, leaseOf, NOW_MS, Upstream, type World } from './upstream.js';

const OPENED: World[] = [];
const open = (config?: Record<string, unknown>): World => {
  const world = { upstream, ...backendOf(upstream, config) };
  OPENED.push(world);
  return world;
};

let upstream: Upstream;
beforeEach(async () => {
  upstream = await new Upstream().start();
});
afterEach(async () => {
  for (const { backend } of OPENED.splice(0)) await backend.close();
  await upstream.stop();
});

const problemOf = async (run: () => Promise<unknown>): Promise<BackendProblem> => {
  const error = await run().catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(BackendProblem);
  return error as BackendProblem;
};

describe('what an upstream is asked', () => {
  const AGENT = 'spiffe://prod.example/agent/refunds';

  it('token-exchange: in the name of the agent, by a short assertion for this upstream and this lease', async () => {
    const world = open();
    const { issue, lease } = leaseOf(world, { scope: 'read', resource: 'https://orders.example', audience: 'orders' });
    await issue({ onBehalfOf: 'ada' });
    expect(upstream.formsOf('token')).toEqual([
      {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: `assertion-1-${CANARY}`,
        subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
        requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
        scope: 'read',
        resource: 'https://orders.example',
        audience: 'orders',
        client_id: 'mayfly',
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: `assertion-2-${CANARY}`,
      },
    ]);
    expect(world.assertions).toEqual([
      {
        subject: AGENT,
        audience: upstream.issuer,
        ttlMs: 10_000,
        id: lease.leaseId,
        claims: { task: 'tsk_a_00000000000000000000000000', on_behalf_of: 'ada' },
      },
      { issuer: 'mayfly', subject: 'mayfly', audience: upstream.issuer, ttlMs: 10_000 },
    ]);
  });

  it('jwt-bearer: the same assertion as the grant itself', async () => {
    const { issue } = leaseOf(open({ authentication: { method: 'none' } }), { grant: 'jwt-bearer' });
    await issue();
    expect(upstream.formsOf('token')).toEqual([
      {
        grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
        assertion: `assertion-1-${CANARY}`,
        client_id: 'mayfly',
      },
    ]);
  });

  it('client-credentials: nobody is named but ourselves', async () => {
    const world = open();
    await leaseOf(world, { grant: 'client-credentials' }).issue();
    expect(world.assertions.map(({ subject }) => subject)).toEqual(['mayfly']);
  });

  describe('with a shared secret', () => {
    let dir: string;
    const secretFile = () => join(dir, 'secret');
    beforeEach(() => {
      dir = mkdtempSync(join(tmpdir(), 'mayfly-oauth-'));
      writeFileSync(secretFile(), 's:ä%\n');
    });
    afterEach(() => rmSync(dir, { recursive: true }));

    const asked = async (method: string) => {
      const world = open({ authentication: { method, secret_file: secretFile() } });
      await leaseOf(world, { grant: 'client-credentials' }).issue();
      return upstream.asked.at(-1);
    };

    it('client_secret_basic: both parts encoded as RFC 6749 has it', async () => {
      const [, credentials = ''] = (await asked('client_secret_basic'))?.authorization?.split(' ') ?? [];
      expect(Buffer.from(credentials, 'base64').toString()).toBe('mayfly:s%3A%C3%A4%25');
    });

    it('client_secret_post: in the form', async () => {
      expect((await asked('client_secret_post'))?.form.get('client_secret')).toBe('s:ä%');
    });

    it('a secret that was changed is used at the next call', async () => {
      const world = open({ authentication: { method: 'client_secret_post', secret_file: secretFile() } });
      await leaseOf(world, { grant: 'client-credentials' }).issue();
      writeFileSync(secretFile(), 'another');
      await leaseOf(world, { grant: 'client-credentials' }).issue();
      expect(upstream.formsOf('token').map((form) => form['client_secret'])).toEqual(['s:ä%', 'another']);
    });

    it.each(['', 'x'.repeat(5_000)])('a file that holds no secret is named, and nothing sent', async (content) => {
      writeFileSync(secretFile(), content);
      const world = open({ authentication: { method: 'client_secret_post', secret_file: secretFile() } });
      const { kind, message } = await problemOf(() => leaseOf(world, { grant: 'client-credentials' }).issue());
      expect([kind, message]).toEqual(['misconfigured', expect.stringContaining('secret_file')]);
      expect(upstream.formsOf('token')).toEqual([]);
    });
  });
});

describe('a token that may not be handed out is kept, so that it is taken back', () => {
  const JWT = `eyJ${'a'.repeat(20)}.eyJ${'b'.repeat(20)}.${'c'.repeat(20)}`;

  it.each<[string, Record<string, unknown>, RegExp]>([
    ['without an end', { expires_in: undefined }, /no end/],
    ['that outlives what is allowed', { expires_in: 3_601 }, /lives 3601 s; token_ttl_seconds_max is 3600/],
    ['that outlives everybody', { expires_in: 1e300 }, /no end|lives/],
    ['that is over already', { expires_in: 0 }, /over already/],
    ['with an end in the past', { expires_in: -1 }, /makes no sense/],
    ['with an end that is no number', { expires_in: 'soon' }, /makes no sense/],
    ['that is bound to a key', { token_type: 'DPoP' }, /bound to a key/],
    ['of a kind that nobody knows', { token_type: 'mac' }, /makes no sense/],
    ['with a refresh token', { refresh_token: `${CANARY}-r` }, /refresh token/],
    ['that is a JWT', { access_token: JWT }, /is a JWT/],
    ['with a scope that is no text', { scope: ['read'] }, /makes no sense/],
  ])('%s', async (_, more, said) => {
    const world = open();
    upstream.answers.token = () => upstream.token(more);
    const { lease, issue, revoke } = leaseOf(world);
    const problem = await problemOf(issue);
    expect([problem.kind === 'misconfigured' || problem.kind === 'failed', problem.isSure]).toEqual([true, false]);
    expect(problem.message).toMatch(said);
    expect(problem.message).not.toContain(CANARY);
    const kept = Object.values(lease.kept?.expose() ?? {});
    expect(kept.length).toBeGreaterThan(0);
    await revoke();
    expect(upstream.formsOf('revocation').map(({ token }) => token)).toEqual(expect.arrayContaining(kept));
  });

  it('a JWT is handed out where it is declared, and then only expires', async () => {
    const world = open();
    upstream.answers.token = () => upstream.token({ access_token: JWT });
    const { issue, confirm, revoke, lease } = leaseOf(world, { tokens: 'jwt' });
    const { warnings, data } = await issue();
    expect(data.expose()['access_token']).toBe(JWT);
    expect(warnings).toEqual([expect.stringContaining('2030-06-15T12:06:00.000Z')]);
    await revoke();
    expect(await confirm()).toEqual({ state: 'unknowable', untilMs: NOW_MS + 300_000 + 60_000 });
    expect(world.backend.revocability({ tokens: 'jwt' })).toEqual({ kind: 'expiry-only', ttlMsMax: 3_660_000 });
    expect(lease.handle['confirmed_by']).toBe('expiry');
  });

  it('a token handed out lives no longer than ordered and than itself', async () => {
    const world = open();
    expect((await leaseOf(world).issue()).expiresAtMs).toBe(NOW_MS + 300_000);
    expect((await leaseOf(world).issue({ expiresAtMs: NOW_MS + 60_000 })).expiresAtMs).toBe(NOW_MS + 60_000);
  });
});

describe('what may exist is written down before it is asked for', () => {
  it('nothing was asked: nothing is there', async () => {
    const world = open();
    const { confirm, issue } = leaseOf(world);
    expect(await confirm()).toEqual({ state: 'gone' });
    await problemOf(() => issue({ deadlineMs: NOW_MS }));
    expect(await confirm()).toEqual({ state: 'gone' });
    expect(upstream.asked).toEqual([]);
  });

  it('a lease that is over before anything was asked asks nothing', async () => {
    const { issue } = leaseOf(open());
    const over = new Error('not pending');
    await expect(issue({ note: () => Promise.reject(over) })).rejects.toBe(over);
    expect(upstream.asked).toEqual([]);
  });

  it('an answer that was lost may work as long as any token can, and no longer', async () => {
    const world = open();
    upstream.answers.token = (_form, response) => {
      upstream.token();
      response.destroy();
      return 'handled';
    };
    const { issue, confirm, revoke } = leaseOf(world);
    await problemOf(issue);
    await revoke();
    // The deadline, the life of our assertion, the longest life of a token, and the leeway of the APIs.
    expect(await confirm()).toEqual({ state: 'unknowable', untilMs: NOW_MS + 5_000 + 10_000 + 3_600_000 + 60_000 });
    expect(upstream.formsOf('revocation')).toEqual([]);
  });

  it('a plain no made nothing', async () => {
    const { issue, confirm, revoke } = leaseOf(open());
    upstream.answers.token = { status: 400, body: { error: 'invalid_grant' } };
    await problemOf(issue);
    await revoke();
    expect(await confirm()).toEqual({ state: 'gone' });
  });

  it.each([500, 503, 429])('an upstream that answers %i may have made one', async (status) => {
    const { issue, confirm } = leaseOf(open());
    upstream.answers.token = { status, body: {} };
    await problemOf(issue);
    expect((await confirm()).state).toBe('unknowable');
  });

  it('a token whose lease is over by then is taken back at once', async () => {
    const world = open();
    const { issue, note } = leaseOf(world);
    let notes = 0;
    const over = new Error('not pending');
    await expect(
      issue({ note: async (more, keep) => (++notes === 2 ? Promise.reject(over) : note(more, keep)) }),
    ).rejects.toBe(over);
    expect(upstream.alive()).toEqual([]);
  });

  it('and when that fails, the error is still the one about the lease', async () => {
    const world = open();
    upstream.answers.revocation = { status: 503 };
    let notes = 0;
    const over = new Error('not pending');
    await expect(
      leaseOf(world).issue({ note: async () => (++notes === 2 ? Promise.reject(over) : undefined) }),
    ).rejects.toBe(over);
  });

  it('nothing of the handle is secret', async () => {
    const { issue, lease } = leaseOf(open());
    await issue();
    expect(JSON.stringify(lease.handle)).not.toContain(CANARY);
    expect(lease.handle).toEqual({ confirmed_by: 'introspection', works_until: '2030-06-15T12:06:00.000Z' });
  });
});

describe('taking back', () => {
  it('the upstream is told, and asked: its 200 is not the confirmation', async () => {
    const { issue, revoke, confirm } = leaseOf(open());
    await issue();
    upstream.answers.revocation = {};
    await revoke();
    expect(await confirm()).toEqual({ state: 'there', detail: 'introspection says that it is active' });
    delete upstream.answers.revocation;
    await revoke();
    expect(await confirm()).toEqual({ state: 'gone' });
  });

  it('an upstream that cannot revoke leaves it to its end, without an error', async () => {
    const { issue, revoke, confirm } = leaseOf(open({ introspects: false }));
    await issue();
    upstream.answers.revocation = { status: 400, body: { error: 'unsupported_token_type' } };
    await revoke();
    expect((await confirm()).state).toBe('unknowable');
  });

  it('a refresh token goes before the access token', async () => {
    const { issue, revoke } = leaseOf(open());
    upstream.answers.token = () => upstream.token({ refresh_token: `${CANARY}-r` });
    await problemOf(issue);
    await revoke();
    expect(upstream.formsOf('revocation').map((form) => form['token_type_hint'])).toEqual([
      'refresh_token',
      'access_token',
    ]);
  });

  it('past the end of the token nobody is told, and an upstream that is gone keeps nothing open', async () => {
    const world = open();
    const { issue, revoke, confirm } = leaseOf(world);
    await issue();
    await upstream.stop();
    await problemOf(revoke);
    await problemOf(confirm);
    world.clock.set(NOW_MS + 360_000);
    await revoke();
    expect(await confirm()).toEqual({ state: 'unknowable', untilMs: NOW_MS + 360_000 });
    await upstream.start();
  });

  it('one that introspected once and does no longer leaves it to the clock', async () => {
    const before = leaseOf(open());
    await before.issue();
    const { backend } = open({ introspects: false });
    expect(await backend.confirm(before.lease, AbortSignal.timeout(5_000))).toEqual({
      state: 'unknowable',
      untilMs: NOW_MS + 360_000,
    });
  });

  it('the check takes its own token back, also when it finds something wrong', async () => {
    upstream.answers.token = () => upstream.token({ expires_in: 7_200 });
    expect(await check(open().backend)).toEqual([expect.stringContaining('lives 7200 s')]);
    expect(upstream.alive()).toEqual([]);
  });
});

describe('configuration', () => {
  const good = { kind: 'oauth', issuer: 'https://login.example', client_id: 'mayfly' };

  it.each<[string, Record<string, unknown>]>([
    ['a plain http issuer', { issuer: 'http://login.example' }],
    ['an issuer that looks like a loopback address', { issuer: 'http://127.0.0.1.example' }],
    ['an issuer with a query', { issuer: 'https://login.example/?x=1' }],
    ['an issuer with a fragment', { issuer: 'https://login.example/#x' }],
    ['an issuer with a password', { issuer: 'https://u:p@login.example' }],
    ['a plain http endpoint', { endpoints: { token: 'http://login.example/token' } }],
    ['an endpoint of another scheme', { endpoints: { token: 'file:///etc/passwd' } }],
    ['an endpoint with a user', { endpoints: { revocation: 'https://u@login.example' } }],
    ['a client id with a line end', { client_id: 'mayfly\r\nx' }],
    ['a secret in the configuration', { authentication: { method: 'client_secret_basic', secret: 'x' } }],
    ['a method that nobody knows', { authentication: { method: 'tls_client_auth' } }],
    ['an assertion that lives for long', { assertion_ttl_seconds: 3_600 }],
    ['a setting that there is not', { introspect: true }],
  ])('%s is refused', (_, more) => {
    expect(oauthBackend.config.safeParse(good).success).toBe(true);
    expect(oauthBackend.config.safeParse({ ...good, ...more }).success).toBe(false);
  });
});
