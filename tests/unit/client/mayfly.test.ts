import { inspect } from 'node:util';
import {
  ApprovalRequired,
  Conflict,
  Denied,
  IdentityRejected,
  InvalidRequest,
  Mayfly,
  MayflyError,
  type MayflyOptions,
  NotFound,
  Revoked,
  Unavailable,
} from '../../../src/client/mayfly.js';
import { verifyDpop } from '../../../src/core/dpop.js';
import { FakeIssuer, type Seen } from '../../fakes/issuer.js';

const AGENT = 'spiffe://dev.mayfly/agent/refunds';
const SVID = `e30.${Buffer.from(JSON.stringify({ sub: AGENT })).toString('base64url')}.x`;
const TOKEN = {
  access_token: 'the-token',
  issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  token_type: 'Bearer',
  expires_in: 300,
  scope: 'orders.read',
  lease_id: 'lse_a_1',
};

let issuer: FakeIssuer;
let audiences: string[];

beforeEach(async () => {
  issuer = await new FakeIssuer().start();
  audiences = [];
});

afterEach(() => issuer.stop());

function client(more: Partial<MayflyOptions> = {}): Mayfly {
  return new Mayfly({
    url: `${issuer.url}/`,
    clock: { now: () => issuer.nowMs },
    identity: {
      bearer: async (audience) => {
        audiences.push(audience);
        return SVID;
      },
    },
    ...more,
  });
}

const thrownBy = (attempt: Promise<unknown>) =>
  attempt.then(
    () => undefined,
    (error: unknown) => error,
  );
const formOf = ({ body }: Seen) => Object.fromEntries(new URLSearchParams(body));
const asked = (path: string) => issuer.seen.filter((seen) => seen.path === path);

describe('a call', () => {
  it('brings our identity, whose audience is the issuer and nothing else', async () => {
    issuer.on('GET /v1/tasks/tsk_a_1', () => ({ body: { id: 'tsk_a_1' } }));
    await client().tasks.get('tsk_a_1');
    expect(audiences).toEqual([issuer.url]);
    expect(issuer.seen[0]?.headers).toMatchObject({ authorization: `Bearer ${SVID}` });
  });

  it('puts no id into a path that could leave its place', async () => {
    await thrownBy(client().tasks.complete('../../oauth2/token?x=1#'));
    expect(issuer.seen[0]?.path).toBe('/v1/tasks/..%2F..%2Foauth2%2Ftoken%3Fx%3D1%23/complete');
  });

  it('leaves out what was not asked for', async () => {
    issuer.on('GET /v1/tasks', () => ({ body: { items: [] } }));
    await client().tasks.list({ live: true });
    expect(issuer.seen[0]?.path).toBe('/v1/tasks?live=true');
  });

  it('to open a task carries a key, and is repeated once when no answer came, with the same key', async () => {
    let first = true;
    issuer.on('POST /v1/tasks', () => {
      if (!first) return { status: 201, body: { id: 'tsk_a_1' } };
      first = false;
      return 'hang';
    });
    await client({ timeoutMs: 700 }).tasks.start({ purpose: 'x' });
    const keys = issuer.seen.map(({ headers }) => headers['idempotency-key']);
    expect(keys).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/), keys[0]]);
  });

  it('that is not safe to repeat is not repeated', async () => {
    issuer.on('POST /v1/tasks/tsk_a_1/suspend', () => 'hang');
    const error = await thrownBy(client({ timeoutMs: 700 }).tasks.suspend('tsk_a_1'));
    expect(error).toBeInstanceOf(Unavailable);
    expect(error).toMatchObject({ status: 0, exitCode: 2 });
    expect(issuer.seen).toHaveLength(1);
  });

  it('is never redirected elsewhere', async () => {
    const elsewhere = await new FakeIssuer().start();
    issuer.on('GET /v1/tasks', () => ({ status: 302, headers: { location: elsewhere.url } }));
    expect(await thrownBy(client().tasks.list())).toBeInstanceOf(Unavailable);
    expect(elsewhere.seen).toEqual([]);
    await elsewhere.stop();
  });

  it('whose answer is no JSON is Unavailable, not a guess', async () => {
    issuer.on('GET /v1/tasks', () => ({ body: '<html>' }));
    const error = await thrownBy(client().tasks.list());
    expect(error).toBeInstanceOf(Unavailable);
    expect(error).toMatchObject({ message: expect.stringMatching(/is no Mayfly: 200, application\/json/) });
  });

  it('to a broker that is frozen says that it took too long', async () => {
    issuer.on('GET /v1/tasks', () => 'hang');
    expect(await thrownBy(client({ timeoutMs: 50 }).tasks.list())).toMatchObject({
      code: 'unavailable',
      message: `No answer from ${issuer.url}: it took too long.`,
    });
  });

  it('that its caller calls off says so', async () => {
    const calledOff = new AbortController();
    issuer.on('GET /v1/tasks/tsk_a_1/events', () => {
      calledOff.abort();
      return 'hang';
    });
    const events = async () => {
      for await (const _ of client().tasks.events('tsk_a_1', calledOff.signal)) break;
    };
    expect(await thrownBy(events())).toMatchObject({ message: expect.stringContaining('it was called off') });
  });

  describe('without an identity', () => {
    const nobody = (more: Partial<MayflyOptions> = {}) => new Mayfly({ url: issuer.url, ...more });

    it.each<[string, (mayfly: Mayfly) => Promise<unknown>]>([
      ['a task', (mayfly) => mayfly.task({ purpose: 'x' })],
      ['a token', (mayfly) => mayfly.token({ resource: 'https://orders.example' })],
      ['somebody else’s task', (mayfly) => mayfly.join('tsk_a_1')],
      ['a look at a token', (mayfly) => mayfly.introspect('a-token')],
    ])('for %s is not made, and says what to set', async (_, ask) => {
      expect(await thrownBy(ask(nobody()))).toMatchObject({
        name: 'InvalidRequest',
        field: 'identity',
        message: 'No identity: set MAYFLY_JWT_SVID_FILE, or MAYFLY_CERT_FILE and MAYFLY_KEY_FILE.',
      });
      expect(issuer.seen).toEqual([]);
    });

    it('is made where a fetch of the program’s own may show one, or a token is passed on', async () => {
      issuer.on('GET /v1/tasks', () => ({ body: { items: [] } }));
      issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
      await nobody({ fetch: (url, init) => fetch(url, init) }).tasks.list();
      await nobody().token({ resource: 'https://orders.example', subjectToken: 'another-token' });
      expect(issuer.seen).toHaveLength(2);
    });
  });

  it('to nobody says so', async () => {
    const mayfly = client({ url: 'http://127.0.0.1:1' });
    expect(await thrownBy(mayfly.tasks.list())).toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('127.0.0.1:1'),
    });
  });
});

describe('a refusal', () => {
  it.each([
    [400, 'invalid_request', InvalidRequest, 1],
    [401, 'identity_rejected', IdentityRejected, 3],
    [403, 'denied', Denied, 3],
    [404, 'not_found', NotFound, 2],
    [409, 'task_over', Revoked, 3],
    [409, 'task_suspended', Revoked, 3],
    [202, 'approval_pending', ApprovalRequired, 4],
    [412, 'generation_mismatch', Conflict, 2],
    [422, 'key_reused', Conflict, 2],
    [429, 'quota_exceeded', Unavailable, 2],
    [503, 'unavailable', Unavailable, 2],
    [500, 'internal', Unavailable, 2],
  ] as const)('%d %s is its own class and exit code', async (status, code, Class, exitCode) => {
    issuer.on('GET /v1/tasks', () => ({ status, body: { code, detail: 'why' } }));
    const error = await thrownBy(client().tasks.list());
    expect(error).toBeInstanceOf(Class);
    expect(error).toMatchObject({ name: Class.name, code, status, exitCode, message: 'why' });
  });

  it('says what can be done, and which decision it was', async () => {
    issuer.on('GET /v1/tasks', () => ({
      status: 403,
      headers: { 'retry-after': '7' },
      body: {
        code: 'denied',
        detail: 'Policy does not allow it.',
        hint: 'did you mean /agent/refunds?',
        decision_id: 'dec_a_1',
        policy_ids: ['p1'],
        field: 'agents',
        request_id: 'req_a_1',
      },
    }));
    expect(await thrownBy(client().tasks.list())).toMatchObject({
      hint: 'did you mean /agent/refunds?',
      decisionId: 'dec_a_1',
      policyIds: ['p1'],
      field: 'agents',
      requestId: 'req_a_1',
      retryAfterSeconds: 7,
    });
  });

  it.each([
    [401, IdentityRejected],
    [403, Denied],
    [404, NotFound],
    [418, InvalidRequest],
    [502, Unavailable],
    [501, Unavailable],
  ])('%d of somebody in between is read by its status, and told as of no Mayfly', async (status, Class) => {
    const headers = { 'content-type': 'text/html; charset=utf-8' };
    for (const body of ['<html>', undefined, '{"message":"no route"}', '[]']) {
      issuer.on('GET /v1/tasks', () => ({ status, headers, body }));
      const error = await thrownBy(client().tasks.list());
      expect(error).toBeInstanceOf(Class);
      expect(error).toMatchObject({
        message: `What answered at ${issuer.url} is no Mayfly: ${status}, text/html, and nothing that a Mayfly says.`,
        hint: expect.stringContaining('MAYFLY_ADDR'),
      });
    }
  });

  it('with a code that only an object knows is read by its status', async () => {
    issuer.on('GET /v1/tasks', () => ({ status: 404, body: { code: 'toString' } }));
    expect(await thrownBy(client().tasks.list())).toMatchObject({ code: 'not_found' });
  });
});

describe('a token', () => {
  const request = { task: 'tsk_a_1', resource: 'https://orders.example', tools: ['orders.read', 'orders.write'] };

  it('is an exchange of our SVID, for one task, one resource and some tools', async () => {
    issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
    await client().token(request);
    const [seen] = asked('/oauth2/token') as [Seen];
    expect(formOf(seen)).toEqual({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: SVID,
      subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
      resource: 'https://orders.example',
      scope: 'orders.read orders.write',
      authorization_details: '[{"type":"urn:mayfly:task","identifier":"tsk_a_1"}]',
    });
    expect(seen.headers.authorization).toBeUndefined();
    expect(seen.headers['dpop']).toBeUndefined();
  });

  it('on behalf of a person has the person as subject and us as actor', async () => {
    issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
    await client().token({ ...request, onBehalfOf: 'anns-token' });
    expect(formOf(asked('/oauth2/token')[0] as Seen)).toMatchObject({
      subject_token: 'anns-token',
      subject_token_type: 'urn:ietf:params:oauth:token-type:id_token',
      actor_token: SVID,
      actor_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    });
  });

  it('that is passed on to us has it as subject', async () => {
    issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
    await client().token({ resource: 'https://orders.example', subjectToken: 'parent' });
    const form = formOf(asked('/oauth2/token')[0] as Seen);
    expect(form).toMatchObject({
      subject_token: 'parent',
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    });
    expect(form['authorization_details']).toBeUndefined();
  });

  it('bound by DPoP is asked for with a proof, and used with another one for exactly that request', async () => {
    issuer.on('POST /oauth2/token', () => ({ body: { ...TOKEN, token_type: 'DPoP' } }));
    const token = await client().token({ ...request, binding: 'dpop' });
    const asking = verifyDpop({
      proof: asked('/oauth2/token')[0]?.headers['dpop'] as string,
      method: 'POST',
      url: `${issuer.url}/oauth2/token`,
      nowMs: issuer.nowMs,
    });
    const headers = token.headers('GET', 'https://orders.example/orders/42?page=2');
    expect(headers['authorization']).toBe('DPoP the-token');
    verifyDpop({
      proof: headers['dpop'] as string,
      method: 'GET',
      url: 'https://orders.example/orders/42',
      nowMs: issuer.nowMs,
      accessToken: 'the-token',
      jkt: asking.jkt,
    });
    expect(token.headers('GET', 'https://orders.example/')['dpop']).not.toBe(headers['dpop']);
  });

  it('is asked for again with the nonce that the broker wants, once', async () => {
    const nonces: (string | undefined)[] = [];
    issuer.on('POST /oauth2/token', ({ headers }) => {
      const [, payload = ''] = String(headers['dpop']).split('.');
      nonces.push(JSON.parse(Buffer.from(payload, 'base64url').toString()).nonce);
      return {
        status: 400,
        headers: { 'dpop-nonce': `n-${nonces.length}` },
        body: { error: 'use_dpop_nonce', code: 'dpop_nonce_required' },
      };
    });
    expect(await thrownBy(client().token({ ...request, binding: 'dpop' }))).toMatchObject({
      code: 'dpop_nonce_required',
    });
    expect(nonces).toEqual([undefined, 'n-1']);
  });

  it('prints as nothing, wherever it goes', async () => {
    issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
    const token = await client().token(request);
    for (const text of [String(token), JSON.stringify(token), inspect(token, { depth: 9, showHidden: true })]) {
      expect(text).not.toContain('the-token');
    }
    expect(token).toMatchObject({ leaseId: 'lse_a_1', tools: ['orders.read'], expiresAtMs: issuer.nowMs + 300_000 });
  });

  it('and its client print nothing of our identity either', async () => {
    const mayfly = client({ url: 'http://127.0.0.1:1' });
    const error = await thrownBy(mayfly.token(request));
    for (const value of [error, mayfly]) expect(inspect(value, { depth: 9, showHidden: true })).not.toContain(SVID);
  });
});

describe('a person', () => {
  it('acts with a DPoP-bound operator token, exchanged once', async () => {
    issuer.on('POST /oauth2/token', () => ({ body: { ...TOKEN, access_token: 'operator', token_type: 'DPoP' } }));
    issuer.on('GET /v1/locks', () => ({ body: { items: [] } }));
    const mayfly = client({ identity: { person: async () => 'alices-token' } });
    await mayfly.locks.list();
    await mayfly.locks.list();
    expect(formOf(asked('/oauth2/token')[0] as Seen)).toMatchObject({
      subject_token: 'alices-token',
      resource: issuer.url,
    });
    expect(asked('/oauth2/token')).toHaveLength(1);
    const [, { headers }] = asked('/v1/locks') as [Seen, Seen];
    expect(headers.authorization).toBe('DPoP operator');
    verifyDpop({
      proof: headers['dpop'] as string,
      method: 'GET',
      url: `${issuer.url}/v1/locks`,
      nowMs: issuer.nowMs,
      accessToken: 'operator',
    });
  });

  it('who is refused is not asked again and again', async () => {
    issuer.on('POST /oauth2/token', () => ({
      status: 400,
      body: { error: 'invalid_request', code: 'subject_rejected' },
    }));
    const mayfly = client({ identity: { person: async () => 'old' } });
    expect(await thrownBy(mayfly.locks.list())).toBeInstanceOf(IdentityRejected);
    expect(asked('/oauth2/token')).toHaveLength(1);
  });
});

describe('a running task', () => {
  const task = {
    id: 'tsk_a_1',
    state: 'active',
    deadline: new Date(1_795_382_752_000 + 3_600_000).toISOString(),
  };

  beforeEach(() => {
    issuer.on('POST /v1/tasks', () => ({ status: 201, body: task }));
    issuer.on('GET /v1/tasks/tsk_a_1/events', () => 'hang');
    issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
    issuer.on('POST /v1/tasks/tsk_a_1/complete', () => ({ body: { ...task, state: 'completed' } }));
    issuer.on('POST /v1/tasks/tsk_a_1/fail', () => ({ body: { ...task, state: 'failed' } }));
  });

  it('is opened for ourselves when nobody is named', async () => {
    await client().task({ purpose: 'x', tools: ['orders.read'], ttl: '5m' });
    expect(JSON.parse(issuer.seen[0]?.body as string)).toEqual({
      purpose: 'x',
      agents: [AGENT],
      scope: { tools: ['orders.read'] },
      ttl_seconds: 300,
    });
  });

  it.each(['', '0s', '100ms', 'soon', 0, -1, Number.NaN])(
    'a ttl of %j is refused before anything is asked',
    async (ttl) => {
      const error = await thrownBy(client().task({ purpose: 'x', agents: [], ttl }));
      expect(error).toBeInstanceOf(InvalidRequest);
      expect(issuer.seen).toEqual([]);
    },
  );

  it('asks for one token however many want it at once, and for the next before it ends', async () => {
    const running = await client().task({ purpose: 'x' });
    const all = await Promise.all(Array.from({ length: 5 }, () => running.token('https://orders.example', ['b', 'a'])));
    expect(new Set(all).size).toBe(1);
    issuer.nowMs += 225_000;
    const next = await Promise.all(
      Array.from({ length: 5 }, () => running.token('https://orders.example', ['a', 'b'])),
    );
    expect(new Set([...all, ...next]).size).toBe(2);
    expect(asked('/oauth2/token')).toHaveLength(2);
  });

  it('asks for other tools, another resource or another binding separately', async () => {
    const running = await client().task({ purpose: 'x' });
    await running.token('https://orders.example', ['a']);
    await running.token('https://orders.example', ['b']);
    await running.token('https://b.example', ['a']);
    await running.token('https://orders.example', ['a'], { binding: 'dpop' });
    expect(asked('/oauth2/token')).toHaveLength(4);
  });

  it('does not keep a refusal', async () => {
    const running = await client().task({ purpose: 'x' });
    issuer.on('POST /oauth2/token', () => ({ status: 503, body: { code: 'unavailable' } }));
    expect(await thrownBy(running.token('https://orders.example'))).toBeInstanceOf(Unavailable);
    issuer.on('POST /oauth2/token', () => ({ body: TOKEN }));
    await expect(running.token('https://orders.example')).resolves.toBeDefined();
  });

  it('stops when a token is refused because it is over', async () => {
    const running = await client().task({ purpose: 'x' });
    issuer.on('POST /oauth2/token', () => ({
      status: 400,
      body: { error: 'invalid_authorization_details', code: 'task_over' },
    }));
    expect(await thrownBy(running.token('https://orders.example'))).toBeInstanceOf(Revoked);
    expect(running.signal.aborted).toBe(true);
  });

  it('stops at its deadline', async () => {
    issuer.nowMs += 3_600_000;
    const running = await client().task({ purpose: 'x' });
    expect(running.signal).toMatchObject({ aborted: true, reason: { name: 'Expired' } });
  });

  it('stops when its events say that it is suspended', async () => {
    issuer.on('GET /v1/tasks/tsk_a_1/events', () => ({
      headers: { 'content-type': 'text/event-stream' },
      body: `event: opened\ndata: ${JSON.stringify(task)}\n\nevent: changed\ndata: ${JSON.stringify({ ...task, state: 'suspended' })}\n\n`,
    }));
    const running = await client().task({ purpose: 'x' });
    await new Promise((resolve) => running.signal.addEventListener('abort', resolve));
    expect(running.signal.reason).toMatchObject({ code: 'task_suspended' });
  });

  it('whose events cannot be had goes on', async () => {
    issuer.on('GET /v1/tasks/tsk_a_1/events', () => ({ status: 503, body: { code: 'unavailable' } }));
    const running = await client().task({ purpose: 'x' });
    const { signal } = running;
    await issuer.until(() => asked('/v1/tasks/tsk_a_1/events').length > 0);
    await expect(running.token('https://orders.example')).resolves.toBeDefined();
    expect(signal.aborted).toBe(false);
    await running.complete();
  });

  it('gives nothing after its end', async () => {
    const running = await client().task({ purpose: 'x' });
    await running.complete();
    expect(await thrownBy(running.token('https://orders.example'))).toBeInstanceOf(Revoked);
    expect(asked('/oauth2/token')).toEqual([]);
  });

  it('forgets its tokens when its context changes: they are judged again', async () => {
    issuer.on('PATCH /v1/tasks/tsk_a_1/context', () => ({ body: { task } }));
    const running = await client().task({ purpose: 'x' });
    const before = await running.token('https://orders.example');
    await running.setContext({ risk: 'high' });
    expect(await running.token('https://orders.example')).not.toBe(before);
  });

  const SECRET = {
    request_id: 'req_a_1',
    lease_id: 'lse_a_2',
    lease_duration: 300,
    renewable: true,
    data: { username: 'u', password: 'canary' },
    task: 'tsk_a_1',
    revocability: { kind: 'instant' },
  };

  it('asks for one secret however many want it at once, and for the next only when that one is dead', async () => {
    issuer.on('POST /v1/secrets/orders-db', () => ({ body: SECRET }));
    issuer.on('POST /v1/leases/lse_a_2/revoke', () => ({
      status: 202,
      body: { lease_id: 'lse_a_2', state: 'revoking' },
    }));
    const running = await client().task({ purpose: 'x' });
    const all = await Promise.all(Array.from({ length: 5 }, () => running.secret('orders-db')));
    expect(new Set(all).size).toBe(1);
    expect(asked('/v1/secrets/orders-db')).toHaveLength(1);
    expect(asked('/v1/secrets/orders-db')[0]).toMatchObject({
      body: '{"task":"tsk_a_1"}',
      headers: { 'idempotency-key': expect.stringMatching(/^[0-9a-f-]{36}$/) },
    });
    await (all[0] as (typeof all)[number]).revoke();
    expect(await running.secret('orders-db')).not.toBe(all[0]);
    expect(asked('/v1/secrets/orders-db')).toHaveLength(2);
    await running.complete();
  });

  it('whose secret did not arrive asks again with the same key, so that the broker revokes the first', async () => {
    let first = true;
    issuer.on('POST /v1/secrets/orders-db', () => {
      if (!first) return { body: { ...SECRET, replaces: 'lse_a_1' } };
      first = false;
      return 'hang';
    });
    const running = await client({ timeoutMs: 100 }).task({ purpose: 'x' });
    const secret = await running.secret('orders-db');
    const keys = asked('/v1/secrets/orders-db').map(({ headers }) => headers['idempotency-key']);
    expect(new Set(keys)).toEqual(new Set([keys[0]]));
    expect(keys).toHaveLength(2);
    expect(secret.reply.replaces).toBe('lse_a_1');
    await running.complete();
  });

  it('that is over kills its secrets with it, and gives no new ones', async () => {
    issuer.on('POST /v1/secrets/orders-db', () => ({ body: SECRET }));
    const running = await client().task({ purpose: 'x' });
    const secret = await running.secret('orders-db');
    await running.complete();
    expect(secret.signal.aborted).toBe(true);
    expect(() => secret.expose()).toThrow(Revoked);
    expect(await thrownBy(running.secret('orders-db'))).toBeInstanceOf(Revoked);
  });

  it('does not keep the refusal of a secret', async () => {
    const running = await client().task({ purpose: 'x' });
    issuer.on('POST /v1/secrets/orders-db', () => ({ status: 403, body: { code: 'denied', decision_id: 'dec_a_1' } }));
    expect(await thrownBy(running.secret('orders-db'))).toMatchObject({ name: 'Denied', decisionId: 'dec_a_1' });
    issuer.on('POST /v1/secrets/orders-db', () => ({ body: SECRET }));
    await expect(running.secret('orders-db')).resolves.toMatchObject({ leaseId: 'lse_a_2' });
    await running.complete();
  });

  it('that failed says so even when the broker does not hear it', async () => {
    issuer.on('POST /v1/tasks/tsk_a_1/fail', () => ({ status: 503, body: { code: 'unavailable' } }));
    const work = client().withTask({ purpose: 'x' }, () => Promise.reject(new Error('the real reason')));
    await expect(work).rejects.toThrow('the real reason');
  });

  it('that could not be completed is not reported as done', async () => {
    issuer.on('POST /v1/tasks/tsk_a_1/complete', () => ({ status: 503, body: { code: 'unavailable' } }));
    await expect(client().withTask({ purpose: 'x' }, async () => 42)).rejects.toBeInstanceOf(MayflyError);
  });

  it('sends its heartbeats while it runs, three within each period, and none after', async () => {
    issuer.on('POST /v1/tasks', () => ({ status: 201, body: { ...task, heartbeat_seconds: 0.03 } }));
    issuer.on('POST /v1/tasks/tsk_a_1/heartbeat', () => ({ body: task }));
    const running = await client().task({ purpose: 'x', heartbeatSeconds: 1 });
    const beats = () => asked('/v1/tasks/tsk_a_1/heartbeat').length;
    await issuer.until(() => beats() >= 3);
    await running.complete();
    // Those that were on their way arrive; after some round trips more, none has come.
    const roundTrips = async () => {
      for (let trip = 0; trip < 5; trip++) await client().tasks.complete('tsk_a_1');
    };
    await roundTrips();
    const before = beats();
    await roundTrips();
    expect(beats()).toBe(before);
  });
});
