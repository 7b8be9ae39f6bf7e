import { createPrivateKey } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { ProofMaker, signJws } from '../../fakes/issuer.js';
import {
  ACCESS_TOKEN,
  CLERK,
  EXCHANGE,
  type Form,
  ID_TOKEN,
  JWT,
  JWT_SPIFFE,
  type Knock,
  knockAt,
  LEDGER,
  ORDERS,
  REFUNDS,
  type Sent,
  withColleagues,
} from '../../fakes/knock.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

/*
 * RFC 8693, token exchange: section 2.1 (request), 2.2 (answer and errors), 4.1 (act), 4.4 (may_act), with TOK-1 to TOK-5 of our own
 * reading of it; RFC 8707 (resource), RFC 9396 (authorization_details); and what delegation means here: it only ever narrows, and dies
 * with what it came from.
 */

const SEARCH = 'https://search.example';
const DETAIL = 'urn:mayfly:task';
const PERSON = 'https://people.dev.mayfly#alice';

let clock: VirtualClock;
let door: FakeDoor;
let knock: Knock;
let task: string;

beforeAll(async () => {
  clock = new VirtualClock(Date.now());
  door = await openFakeDoor({ clock, bundle: withColleagues });
  knock = knockAt(door);
});
afterAll(() => door.close());

beforeEach(async () => {
  task = await knock.task({ agents: [REFUNDS, LEDGER, CLERK] });
});

const refusal = async (form: Form, sent?: Sent) => {
  const { status, body } = await knock.token(form, sent);
  return { status, error: body.error };
};
const good = (more: Form = {}) => knock.exchange('/agent/refunds', task, more);
const details = (...elements: unknown[]) => JSON.stringify(elements);

/** A token of the task that may be passed on: its only audience is the issuer. */
const passable = (more: Form = {}) => knock.minted(good({ resource: door.url, ...more }));
/** What the agent of that path sends to receive it. */
const pass = (token: string, path: string, more: Form = {}): Form => ({
  grant_type: EXCHANGE,
  subject_token: token,
  subject_token_type: ACCESS_TOKEN,
  actor_token: knock.svid(path),
  actor_token_type: JWT,
  resource: ORDERS,
  ...more,
});
const isActive = async (token: string) => (await knock.introspect(token)).body.active;

describe('section 2.1: the request', () => {
  it.each(['jwt', 'jwt_spiffe', 'id_token', 'access_token'])('a JWT-SVID goes by the type %s', async (type) => {
    const form = good({ subject_token_type: `urn:ietf:params:oauth:token-type:${type}` });
    expect((await knock.token(form)).status).toBe(200);
  });

  it.each(['saml2', 'refresh_token', 'nonsense'])(
    '400 invalid_request: the type %s of a subject_token',
    async (type) => {
      const form = good({ subject_token_type: `urn:ietf:params:oauth:token-type:${type}` });
      expect(await refusal(form)).toEqual({ status: 400, error: 'invalid_request' });
    },
  );

  it('400 invalid_request: actor_token and its type come together', async () => {
    expect(await refusal(good({ actor_token: knock.svid('/agent/refunds') }))).toMatchObject({
      error: 'invalid_request',
    });
    expect(await refusal(good({ actor_token_type: JWT }))).toMatchObject({ error: 'invalid_request' });
  });

  it('requested_token_type: an access token, which is a JWT; nothing else', async () => {
    for (const type of [ACCESS_TOKEN, JWT]) {
      expect((await knock.token(good({ requested_token_type: type }))).body.issued_token_type).toBe(ACCESS_TOKEN);
    }
    for (const type of [ID_TOKEN, 'urn:ietf:params:oauth:token-type:refresh_token', 'urn:x']) {
      expect(await refusal(good({ requested_token_type: type }))).toEqual({ status: 400, error: 'invalid_request' });
    }
  });

  it('a token of ours says that it is one: as a mere JWT it is refused', async () => {
    const { token } = await passable();
    expect(await refusal(pass(token, '/agent/ledger', { subject_token_type: JWT }))).toMatchObject({
      error: 'invalid_request',
    });
  });
});

describe('TOK-1 section 2.2.2: a bad subject or actor token is invalid_request', () => {
  const bad: [name: string, token: () => string][] = [
    ['no JWT', () => 'nothing'],
    [
      'for another audience',
      () => door.trustDomain.jwtSvid({ path: '/agent/refunds', audience: ORDERS, ttlSeconds: 60 }),
    ],
    [
      'signed by somebody else',
      () => `${knock.svid('/agent/refunds').split('.').slice(0, 2).join('.')}.${'A'.repeat(86)}`,
    ],
    ['alg none', () => `${Buffer.from('{"alg":"none","kid":"x"}').toString('base64url')}.e30.`],
    ['longer lived than an SVID may be', () => knock.svid('/agent/refunds', 1000)],
    ['about to expire', () => knock.svid('/agent/refunds', 59)],
  ];

  it.each(bad.map(([name, token]) => ({ name, token })))('subject_token: $name', async ({ token }) => {
    expect(await refusal(good({ subject_token: token() }))).toEqual({ status: 400, error: 'invalid_request' });
  });

  it.each(bad.map(([name, token]) => ({ name, token })))('actor_token: $name', async ({ token }) => {
    const form = good({ subject_token: knock.person('alice'), actor_token: token(), actor_token_type: JWT });
    expect(await refusal(form)).toEqual({ status: 400, error: 'invalid_request' });
  });

  it('all of them answer with one text', async () => {
    const texts = new Set<string>();
    for (const [, token] of bad.slice(0, 5)) {
      texts.add((await knock.token(good({ subject_token: token() }))).body.error_description);
    }
    expect([...texts]).toEqual(['The identity was not accepted.']);
  });

  it('subject_token: a token for a tool, even to its holder', async () => {
    const { token } = await knock.minted(good());
    expect(await refusal(pass(token, '/agent/refunds'))).toEqual({ status: 400, error: 'invalid_request' });
    expect(await refusal(pass(token, '/agent/ledger'))).toEqual({ status: 400, error: 'invalid_request' });
  });

  it('subject_token: one that was revoked, ended, or touched', async () => {
    const { token } = await passable();
    const [head, body, signature] = token.split('.') as [string, string, string];
    const touched = `${head}.${body}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`;
    expect(await refusal(pass(touched, '/agent/ledger'))).toMatchObject({ error: 'invalid_request' });
    expect((await knock.token(pass(token, '/agent/ledger'))).status).toBe(200);
    const given = { token, client_assertion: knock.svid('/agent/refunds'), client_assertion_type: JWT_SPIFFE };
    await knock.post('/oauth2/revoke', given);
    expect(await refusal(pass(token, '/agent/ledger'))).toEqual({ status: 400, error: 'invalid_request' });
    const again = await passable();
    await knock.api('POST', `/v1/tasks/${task}/complete`, '/orchestrator/workflow', {});
    expect(await refusal(pass(again.token, '/agent/ledger'))).toEqual({ status: 400, error: 'invalid_request' });
  });

  it('actor_token: a token of ours is no identity', async () => {
    const { token } = await passable();
    expect(await refusal({ ...pass(token, '/agent/ledger'), actor_token: token })).toMatchObject({
      error: 'invalid_request',
    });
  });
});

describe('TOK-2 section 2.2.2 and RFC 8707: a bad target is invalid_target', () => {
  it.each([
    'https://unknown.example',
    SEARCH,
    'https://orders.example/',
    'https://orders.example#fragment',
    'HTTPS://orders.example',
    'orders',
    'spiffe://dev.mayfly/tool/orders',
  ])('resource %s', async (resource) => {
    expect(await refusal(good({ resource }))).toEqual({ status: 400, error: 'invalid_target' });
    expect(await refusal(good({ resource: undefined, audience: resource }))).toEqual({
      status: 400,
      error: 'invalid_target',
    });
  });

  it('a token is for one place: two are refused, in whichever parameters they come', async () => {
    for (const more of [
      { resource: [ORDERS, SEARCH] },
      { resource: ORDERS, audience: SEARCH },
      { resource: undefined, audience: [ORDERS, door.url] },
      { resource: ORDERS, audience: door.url },
    ]) {
      expect(await refusal(good(more))).toEqual({ status: 400, error: 'invalid_target' });
    }
  });

  it('the same place said twice is one place', async () => {
    for (const more of [
      { resource: [ORDERS, ORDERS] },
      { resource: ORDERS, audience: ORDERS },
      { resource: undefined, audience: ORDERS },
    ]) {
      expect((await knock.minted(good(more))).claims['aud']).toBe(ORDERS);
    }
  });

  it('the only resource of a task need not be named; of several, one has to be', async () => {
    expect((await knock.minted(good({ resource: undefined }))).claims['aud']).toBe(ORDERS);
    const research = await knock.task({ type: 'research', params: {}, agents: ['spiffe://dev.mayfly/agent/research'] });
    const form = knock.exchange('/agent/research', research, { resource: undefined });
    const { status, body } = await knock.token(form);
    expect([status, body.error]).toEqual([400, 'invalid_target']);
    expect(body.hint).toContain(SEARCH);
    expect((await knock.token({ ...form, resource: SEARCH })).status).toBe(200);
  });
});

describe('RFC 9396: the task is named by authorization_details, or by a task: scope', () => {
  const unnamed = (more: Form = {}) => good({ authorization_details: undefined, ...more });

  it('either names it, and both may when they agree', async () => {
    const named = details({ type: DETAIL, identifier: task });
    for (const more of [
      { authorization_details: named },
      { scope: `task:${task}` },
      { authorization_details: named, scope: `orders.read task:${task}` },
    ]) {
      expect((await knock.minted(unnamed(more))).claims['authorization_details']).toEqual([
        { type: DETAIL, identifier: task },
      ]);
    }
  });

  it('the task: value is no tool: what is granted holds tools alone', async () => {
    const { answer, claims } = await knock.minted(unnamed({ scope: `task:${task} orders.read` }));
    expect([answer.body.scope, claims['scope']]).toEqual(['orders.read', 'orders.read']);
  });

  it('400 invalid_request: two different tasks', async () => {
    const other = await knock.task();
    for (const more of [
      { authorization_details: details({ type: DETAIL, identifier: task }), scope: `task:${other}` },
      { scope: `task:${task} task:${other}` },
    ]) {
      expect(await refusal(unnamed(more))).toEqual({ status: 400, error: 'invalid_request' });
    }
  });

  it('ref: names it for its agents by the name that its opener gave', async () => {
    const ref = `run-${task}`;
    const named = await knock.task({ ref });
    for (const more of [
      { scope: `task:ref:${ref}` },
      { authorization_details: details({ type: DETAIL, identifier: `ref:${ref}` }) },
    ]) {
      expect((await knock.minted(unnamed(more))).claims['authorization_details']).toEqual([
        { type: DETAIL, identifier: named },
      ]);
    }
  });

  it('no task at all', async () => {
    expect(await refusal(unnamed())).toEqual({ status: 400, error: 'invalid_authorization_details' });
    expect(await refusal(unnamed({ scope: 'orders.read' }))).toMatchObject({ error: 'invalid_authorization_details' });
  });

  it.each([
    ['no JSON', 'nothing'],
    ['no array', '{}'],
    ['empty', '[]'],
    ['two elements', '[{"type":"urn:mayfly:task","identifier":"a"},{"type":"urn:mayfly:task","identifier":"a"}]'],
    ['an element that is none', '[null]'],
    ['no type', '[{"identifier":"a"}]'],
    ['an unknown type', '[{"type":"payment","identifier":"a"}]'],
    ['an unknown field', '[{"type":"urn:mayfly:task","identifier":"a","actions":["read"]}]'],
    ['a field of another type', '[{"type":"urn:mayfly:task","identifier":7}]'],
    ['a member twice', '[{"type":"urn:mayfly:task","identifier":"a","identifier":"b"}]'],
    ['neither an id nor a ref', '[{"type":"urn:mayfly:task","identifier":"run 7"}]'],
  ])('section 5, 400 invalid_authorization_details: %s', async (_, text) => {
    expect(await refusal(unnamed({ authorization_details: text }))).toEqual({
      status: 400,
      error: 'invalid_authorization_details',
    });
  });

  describe('with a task instead of an identifier, the agent opens it itself, where policy lets it', () => {
    const open = (path: string, own: Record<string, unknown>, more: Form = {}) =>
      knock.exchange(path, '', {
        resource: 'https://orders.sandbox.example',
        authorization_details: details({ type: DETAIL, task: own }),
        scope: 'sandbox.orders.read',
        ...more,
      });
    const trial = { type: 'research', purpose: 'try it', context: { environment: 'sandbox' }, ttl_seconds: 600 };

    it('section 7.1: what was granted is returned with the identifier of the new task', async () => {
      const { answer, claims } = await knock.minted(open('/agent/sandbox', trial));
      const [{ type, identifier }] = answer.body.authorization_details;
      expect([type, identifier]).toEqual([DETAIL, expect.stringMatching(/^tsk_a_/)]);
      expect(claims).toMatchObject({ authorization_details: [{ type: DETAIL, identifier }] });
      expect((await knock.api('GET', `/v1/tasks/${identifier}`, '/agent/sandbox')).body.state).toBe('active');
    });

    it.each([
      ['an agent that policy does not let', 'access_denied', () => open('/agent/refunds', trial)],
      [
        'more life than policy lets it have',
        'access_denied',
        () => open('/agent/sandbox', { ...trial, ttl_seconds: 901 }),
      ],
      ['another environment', 'access_denied', () => open('/agent/sandbox', { ...trial, context: {} })],
      [
        'an unknown member',
        'invalid_authorization_details',
        () => open('/agent/sandbox', { ...trial, agents: [REFUNDS] }),
      ],
      ['no purpose', 'invalid_authorization_details', () => open('/agent/sandbox', { ...trial, purpose: undefined })],
      ['a tool of another resource', 'invalid_scope', () => open('/agent/sandbox', trial, { scope: 'search.query' })],
      ['a task named beside it', 'invalid_request', () => open('/agent/sandbox', trial, { scope: `task:${task}` })],
    ] as const)('400: %s is %s', async (_, error, form) => {
      expect(await refusal(form())).toEqual({ status: 400, error });
    });

    it('asking in vain leaves no task behind, and never ends one that was there', async () => {
      const ref = `mine-${task}`;
      const inVain = () => open('/agent/sandbox', { ...trial, ref }, { scope: 'search.query' });
      expect((await refusal(inVain())).error).toBe('invalid_scope');
      const read = async () => (await knock.api('GET', `/v1/tasks/ref:${ref}`, '/agent/sandbox')).body;
      expect(await read()).toMatchObject({ state: 'cancelled' });
      const kept = `kept-${task}`;
      const { claims } = await knock.minted(open('/agent/sandbox', { ...trial, ref: kept }));
      expect((await refusal(open('/agent/sandbox', { ...trial, ref: kept }, { scope: 'search.query' }))).error).toBe(
        'invalid_scope',
      );
      const { identifier } = claims['authorization_details'][0];
      expect((await knock.api('GET', `/v1/tasks/${identifier}`, '/agent/sandbox')).body.state).toBe('active');
    });
  });

  it('a task that is not there, is somebody else’s, or is of others looks the same', async () => {
    const foreign = await knock.task({ agents: [LEDGER], scope: { tools: ['orders.read'] } });
    const absent = `${task.slice(0, -1)}${task.endsWith('0') ? '1' : '0'}`;
    const answers = [];
    for (const identifier of [foreign, absent, 'ref:nobodys']) {
      const form = unnamed({ authorization_details: details({ type: DETAIL, identifier }) });
      const { status, body } = await knock.token(form);
      const { request_id: _, decision_id: __, ...rest } = body;
      answers.push({ status, ...rest });
    }
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
    expect(answers[0]).toMatchObject({ status: 400, error: 'invalid_authorization_details' });
  });

  it('a task that is over, or suspended', async () => {
    await knock.api('POST', `/v1/tasks/${task}/suspend`, '/orchestrator/workflow', {});
    expect(await refusal(good())).toEqual({ status: 400, error: 'invalid_authorization_details' });
    await knock.api('POST', `/v1/tasks/${task}/resume`, '/orchestrator/workflow', {});
    expect((await knock.token(good())).status).toBe(200);
    await knock.api('POST', `/v1/tasks/${task}/complete`, '/orchestrator/workflow', {});
    expect(await refusal(good())).toEqual({ status: 400, error: 'invalid_authorization_details' });
  });
});

describe('delegation: a token for the issuer, passed on to the agent of the actor_token', () => {
  it('section 4.1: sub stays, act names who acts now, and earlier actors below it', async () => {
    const first = await passable();
    expect(first.claims).toMatchObject({ sub: REFUNDS, client_id: REFUNDS });
    expect(first.claims).not.toHaveProperty('act');
    const second = await knock.minted(pass(first.token, '/agent/ledger', { resource: door.url }));
    expect(second.claims).toMatchObject({ sub: REFUNDS, client_id: LEDGER, act: { sub: LEDGER } });
    const third = await knock.minted(pass(second.token, '/agent/clerk'));
    expect(third.claims).toMatchObject({
      sub: REFUNDS,
      client_id: CLERK,
      aud: ORDERS,
      act: { sub: CLERK, act: { sub: LEDGER } },
      mayfly: { path: [task, first.claims['jti'], second.claims['jti']] },
    });
  });

  it('TOK-3, TOK-4: act holds who, and nothing else', async () => {
    const first = await passable();
    const second = await knock.minted(pass(first.token, '/agent/ledger', { resource: door.url }));
    const { claims } = await knock.minted(pass(second.token, '/agent/clerk'));
    expect(claims['act']).toEqual({ sub: CLERK, act: { sub: LEDGER } });
  });

  it('the task is implied by the token; naming another one is refused', async () => {
    const { token } = await passable();
    const other = await knock.task({ agents: [REFUNDS, LEDGER] });
    const { claims } = await knock.minted(pass(token, '/agent/ledger'));
    expect(claims['authorization_details']).toEqual([{ type: DETAIL, identifier: task }]);
    expect((await knock.token(pass(token, '/agent/ledger', { scope: `task:${task}` }))).status).toBe(200);
    expect(await refusal(pass(token, '/agent/ledger', { scope: `task:${other}` }))).toEqual({
      status: 400,
      error: 'invalid_request',
    });
  });

  it('only ever narrows: no tool that the token before did not have', async () => {
    const { token } = await passable({ scope: 'orders.read' });
    expect(await refusal(pass(token, '/agent/ledger', { scope: 'orders.read orders.refund' }))).toEqual({
      status: 400,
      error: 'invalid_scope',
    });
    expect((await knock.minted(pass(token, '/agent/ledger'))).claims['scope']).toBe('orders.read');
  });

  it('each hop is a decision about who receives: what it is not declared for, it does not get', async () => {
    const { token } = await passable();
    expect(await refusal(pass(token, '/agent/ledger', { scope: 'orders.refund' }))).toEqual({
      status: 400,
      error: 'access_denied',
    });
    expect(await refusal(pass(token, '/agent/research'))).toEqual({ status: 400, error: 'invalid_scope' });
    expect(await refusal(pass(token, '/agent/nobody'))).toEqual({ status: 400, error: 'access_denied' });
    expect(await refusal(pass(token, '/tool/orders'))).toEqual({ status: 400, error: 'access_denied' });
  });

  it('an agent that the task does not name receives nothing, though the token is good', async () => {
    const alone = await knock.task({ agents: [REFUNDS] });
    const { token } = await knock.minted(knock.exchange('/agent/refunds', alone, { resource: door.url }));
    expect(await refusal(pass(token, '/agent/ledger'))).toEqual({ status: 400, error: 'access_denied' });
  });

  it('never outlives the token it came from', async () => {
    const { token, claims } = await passable();
    clock.advance(240_000);
    const child = await knock.minted(pass(token, '/agent/ledger'));
    expect(child.claims['exp']).toBe(claims['exp']);
    expect(child.answer.body.expires_in).toBe(60);
    clock.advance(60_000);
    expect(await refusal(pass(token, '/agent/ledger'))).toEqual({ status: 400, error: 'invalid_request' });
  });

  it('never outlives the task or the SVID', async () => {
    const brief = await knock.task({ agents: [REFUNDS], ttl_seconds: 90 });
    const { answer } = await knock.minted(knock.exchange('/agent/refunds', brief));
    expect(answer.body.expires_in).toBe(90);
    const bySvid = await knock.minted(good({ subject_token: knock.svid('/agent/refunds', 70) }));
    expect(bySvid.answer.body.expires_in).toBe(70);
  });

  it('dies with the token it came from, and so does what came from it', async () => {
    const first = await passable();
    const second = await knock.minted(pass(first.token, '/agent/ledger', { resource: door.url }));
    const third = await knock.minted(pass(second.token, '/agent/clerk'));
    const beside = await knock.minted(good());
    expect(await isActive(third.token)).toBe(true);
    const given = {
      token: first.token,
      client_assertion: knock.svid('/agent/refunds'),
      client_assertion_type: JWT_SPIFFE,
    };
    expect((await knock.post('/oauth2/revoke', given)).status).toBe(200);
    expect(await isActive(third.token)).toBe(false);
    expect(await isActive(beside.token)).toBe(true);
    expect(await refusal(pass(second.token, '/agent/clerk'))).toMatchObject({ error: 'invalid_request' });
  });

  it('dies with the task', async () => {
    const { token } = await passable();
    const child = await knock.minted(pass(token, '/agent/ledger'));
    await knock.api('POST', `/v1/tasks/${task}/fail`, '/orchestrator/workflow', {});
    expect(await isActive(child.token)).toBe(false);
  });

  it('401 invalid_client: nobody says who will hold it', async () => {
    const { token } = await passable();
    const form = pass(token, '/agent/ledger', { actor_token: undefined, actor_token_type: undefined });
    expect(await refusal(form)).toEqual({ status: 401, error: 'invalid_client' });
  });

  it('who receives may prove itself by client authentication as well', async () => {
    const { token } = await passable();
    const without = { actor_token: undefined, actor_token_type: undefined };
    const byAssertion = { client_assertion: knock.svid('/agent/ledger'), client_assertion_type: JWT_SPIFFE };
    expect((await knock.minted(pass(token, '/agent/ledger', { ...without, ...byAssertion }))).claims).toMatchObject({
      client_id: LEDGER,
    });
    const overMtls = await knock.minted(pass(token, '/agent/ledger', without), { over: '/agent/ledger' });
    expect(overMtls.claims).toMatchObject({ client_id: LEDGER, cnf: { 'x5t#S256': expect.any(String) } });
  });

  it('a token passed on is bound to the key of who receives it, not of who had it', async () => {
    const [giver, receiver] = [new ProofMaker(), new ProofMaker()];
    const { token, claims } = await knock.minted(good({ resource: door.url }), {
      headers: { dpop: knock.proof(giver) },
    });
    expect(claims['cnf']).toEqual({ jkt: giver.jkt });
    const child = await knock.minted(pass(token, '/agent/ledger'), { headers: { dpop: knock.proof(receiver) } });
    expect(child.claims['cnf']).toEqual({ jkt: receiver.jkt });
  });
});

describe('on behalf of a person: their token as subject_token, the agent as actor', () => {
  const behalf = (more: Form = {}) =>
    good({
      subject_token: knock.person('alice'),
      subject_token_type: ID_TOKEN,
      actor_token: knock.svid('/agent/refunds'),
      actor_token_type: JWT,
      ...more,
    });
  const forPerson = (claims: Record<string, unknown>) =>
    door.trustDomain.personToken({
      subject: 'alice',
      groups: [],
      audience: door.url,
      ttlSeconds: 600,
      ...claims,
    });

  /** A person's token with one claim more than the development issuer gives. */
  const personLetting = (more: Record<string, unknown>) => {
    const [header, payload] = forPerson({}).split('.') as [string, string];
    const { peopleKeyPem } = JSON.parse(readFileSync(join(dirname(door.trustDomain.bundlePath), 'keys.json'), 'utf8'));
    const decode = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString());
    const key = { alg: 'ES256', privateKey: createPrivateKey(peopleKeyPem) } as const;
    return signJws(decode(header), { ...decode(payload), ...more }, key);
  };

  it('sub is the person, act and client_id the agent: two identities, never mixed', async () => {
    const { claims } = await knock.minted(behalf());
    expect(claims).toMatchObject({ sub: PERSON, client_id: REFUNDS, act: { sub: REFUNDS } });
  });

  it('passed on, the person stays, and both agents are named', async () => {
    const { token } = await knock.minted(behalf({ resource: door.url }));
    const { claims } = await knock.minted(pass(token, '/agent/ledger'));
    expect(claims).toMatchObject({ sub: PERSON, client_id: LEDGER, act: { sub: LEDGER, act: { sub: REFUNDS } } });
  });

  it('never outlives the person’s token', async () => {
    const { answer } = await knock.minted(behalf({ subject_token: forPerson({ ttlSeconds: 45 }) }));
    expect(answer.body.expires_in).toBe(45);
  });

  it('400 invalid_request: a person’s token that is too old, or for somebody else', async () => {
    const old = knock.person('alice');
    clock.advance(301_000);
    task = await knock.task({ agents: [REFUNDS] });
    expect(await refusal(behalf({ subject_token: old }))).toEqual({ status: 400, error: 'invalid_request' });
    expect(await refusal(behalf({ subject_token: forPerson({ audience: ORDERS }) }))).toEqual({
      status: 400,
      error: 'invalid_request',
    });
  });

  it('400 invalid_request: a person’s token as actor_token, assertion or client_assertion proves no workload', async () => {
    const person = knock.person('alice');
    expect(await refusal(behalf({ actor_token: person }))).toEqual({ status: 400, error: 'invalid_request' });
    expect(await refusal(behalf({ client_assertion: person, client_assertion_type: JWT_SPIFFE }))).toEqual({
      status: 401,
      error: 'invalid_client',
    });
  });

  it('section 4.4: may_act says who may act for the person, and nobody else may', async () => {
    const lets = (sub: string) => behalf({ subject_token: personLetting({ may_act: { sub } }) });
    expect((await knock.minted(lets(REFUNDS))).claims['sub']).toBe(PERSON);
    expect(await refusal(lets(LEDGER))).toEqual({ status: 400, error: 'invalid_request' });
    expect(await refusal(lets('spiffe://dev.mayfly/agent'))).toEqual({ status: 400, error: 'invalid_request' });
    const shapeless = behalf({ subject_token: personLetting({ may_act: REFUNDS }) });
    expect(await refusal(shapeless)).toEqual({ status: 400, error: 'invalid_request' });
  });

  it('a task opened with one person’s token is not continued with another’s', async () => {
    task = await knock.task({ agents: [REFUNDS], on_behalf_of_token: knock.person('alice') });
    expect((await knock.minted(behalf())).claims['sub']).toBe(PERSON);
    expect((await knock.minted(good())).claims).toMatchObject({ sub: PERSON, act: { sub: REFUNDS } });
    expect(await refusal(behalf({ subject_token: knock.person('bob') }))).toEqual({
      status: 400,
      error: 'invalid_request',
    });
  });

  it('a name that is only asserted never becomes sub', async () => {
    task = await knock.task({ agents: [REFUNDS], on_behalf_of: 'alice' });
    expect((await knock.minted(good())).claims['sub']).toBe(REFUNDS);
  });
});

describe('an operator token: a person’s token exchanged with DPoP', () => {
  const operator = (more: Form = {}): Form => ({
    grant_type: EXCHANGE,
    subject_token: knock.person('operator-1', ['mayfly-operators']),
    subject_token_type: ID_TOKEN,
    ...more,
  });
  const dpop = (maker = new ProofMaker()) => ({ headers: { dpop: knock.proof(maker) } });

  it('is for this issuer alone, names no task, and lives five minutes at most', async () => {
    const maker = new ProofMaker();
    const { claims, answer } = await knock.minted(operator(), dpop(maker));
    expect(claims).toMatchObject({
      sub: 'https://people.dev.mayfly#operator-1',
      aud: door.url,
      scope: '',
      authorization_details: [],
      cnf: { jkt: maker.jkt },
      mayfly: { path: [], roles: ['operator'] },
    });
    expect(answer.body).toMatchObject({ token_type: 'DPoP', expires_in: 300, scope: '' });
  });

  it.each([
    ['without a proof', 'invalid_dpop_proof', () => operator(), undefined],
    ['for a resource', 'access_denied', () => operator({ resource: ORDERS }), dpop],
    ['with a scope', 'access_denied', () => operator({ scope: 'orders.read' }), dpop],
    ['for a task', 'access_denied', () => operator({ scope: `task:${task}` }), dpop],
  ] as const)('400: %s it is %s', async (_, error, form, sent) => {
    expect(await refusal(form(), sent?.())).toEqual({ status: 400, error });
  });

  it('400 invalid_request: the person signed in too long ago', async () => {
    const form = operator();
    clock.advance(301_000);
    expect(await refusal(form, dpop())).toEqual({ status: 400, error: 'invalid_request' });
  });

  it('is not passed on: an agent gets nothing with it', async () => {
    const { token } = await knock.minted(operator(), dpop());
    expect(await refusal(pass(token, '/agent/refunds'))).toMatchObject({ error: 'invalid_authorization_details' });
    expect(await refusal(pass(token, '/agent/refunds', { scope: `task:${task}` }))).toMatchObject({
      error: 'invalid_scope',
    });
  });
});
