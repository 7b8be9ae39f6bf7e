import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import {
  ACCESS_TOKEN,
  EXCHANGE,
  type Form,
  JWT,
  JWT_BEARER,
  JWT_SPIFFE,
  type Knock,
  knockAt,
  LEDGER,
  ORDERS,
  REFUNDS,
  type Sent,
  withColleagues,
} from '../../fakes/knock.js';

/*
 * RFC 6749, the token endpoint: section 3.2 (parameters), 4.4 (client credentials), 5.1 (answers) and 5.2 (errors), with what RFC 7523
 * (assertions) and the SPIFFE client authentication draft add to it.
 */

let door: FakeDoor;
let knock: Knock;
let task: string;

beforeAll(async () => {
  door = await openFakeDoor({ bundle: withColleagues });
  knock = knockAt(door);
  task = await knock.task();
});
afterAll(() => door.close());

const refusal = async (form: Form, sent?: Sent) => {
  const { status, body } = await knock.token(form, sent);
  return { status, error: body.error, field: body.field };
};
const good = (more: Form = {}) => knock.exchange('/agent/refunds', task, more);
const client = (more: Form = {}): Form => ({
  grant_type: 'client_credentials',
  client_assertion_type: JWT_SPIFFE,
  client_assertion: knock.svid('/agent/refunds'),
  resource: ORDERS,
  scope: `task:${task}`,
  ...more,
});
const assertion = (more: Form = {}): Form => ({
  grant_type: JWT_BEARER,
  assertion: knock.svid('/agent/refunds'),
  resource: ORDERS,
  scope: `task:${task}`,
  ...more,
});
const NO_SVID = () =>
  door.trustDomain.jwtSvid({ path: '/agent/refunds', audience: 'https://other.example', ttlSeconds: 60 });

describe('section 3.2: parameters', () => {
  it('a parameter without a value counts as left out', async () => {
    expect((await knock.token(good({ actor_token: '', actor_token_type: '', scope: '', client_id: '' }))).status).toBe(
      200,
    );
    expect(await refusal(good({ subject_token: '' }))).toEqual({
      status: 400,
      error: 'invalid_request',
      field: 'subject_token',
    });
  });

  it('an unknown parameter is ignored, as any client of another dialect sends some', async () => {
    const more = { nonce: 'n', client_secret: 's', requested_issuer: 'i', code_verifier: 'v', claims: '{}' };
    expect((await knock.token(good(more))).status).toBe(200);
  });

  it.each([
    ['scopes', 'orders.read'],
    ['resources', ORDERS],
    ['authorisation_details', '[]'],
    ['actor_tokn', 'x'],
  ])('one that is nearly ours is refused: ignoring %s would give more than was asked for', async (field, value) => {
    expect(await refusal(good({ [field]: value }))).toEqual({ status: 400, error: 'invalid_request', field });
  });

  it.each([
    'grant_type',
    'subject_token',
    'subject_token_type',
    'actor_token',
    'actor_token_type',
    'assertion',
    'client_assertion',
    'client_assertion_type',
    'client_id',
    'scope',
    'requested_token_type',
    'authorization_details',
    'unknown',
  ])('TOK-5 no parameter comes twice: %s', async (field) => {
    const value = (good()[field] as string | undefined) ?? 'x';
    expect(await refusal(good({ [field]: [value, value] }))).toEqual({ status: 400, error: 'invalid_request', field });
  });

  it('section 3.2: the endpoint takes POST and nothing else', async () => {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const answer = await knock.api(method, '/oauth2/token', undefined);
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST']);
    }
  });

  it('section 2.3.1: nothing that was sent in the query counts', async () => {
    const { status, body } = await knock.post(`/oauth2/token?grant_type=${EXCHANGE}`, good());
    expect([status, body.error]).toEqual([400, 'invalid_request']);
  });
});

describe('section 5.1: the answer', () => {
  it.each([
    ['token exchange', () => good()],
    ['client_credentials', () => client()],
    ['jwt-bearer', () => assertion()],
  ])('%s: a token with its type, its life and its scope, kept by nobody on the way', async (_, form) => {
    const { status, headers, body } = await knock.token(form());
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('pragma')).toBe('no-cache');
    expect(headers.get('content-type')).toMatch(/^application\/json/);
    expect(body).toEqual({
      access_token: expect.any(String),
      issued_token_type: ACCESS_TOKEN,
      token_type: 'Bearer',
      expires_in: 300,
      scope: 'orders.read orders.refund',
      authorization_details: [{ type: 'urn:mayfly:task', identifier: task }],
      lease_id: expect.stringMatching(/^lse_a_/),
    });
    expect(body).not.toHaveProperty('refresh_token');
  });
});

describe('section 5.2: errors', () => {
  const cases: [name: string, form: () => Form, error: string, field?: string][] = [
    ['no grant_type', () => good({ grant_type: undefined }), 'invalid_request', 'grant_type'],
    ['an unknown grant_type', () => good({ grant_type: 'password' }), 'unsupported_grant_type', 'grant_type'],
    [
      'a grant_type of the prototype',
      () => good({ grant_type: 'constructor' }),
      'unsupported_grant_type',
      'grant_type',
    ],
    ['the authorization code grant', () => ({ grant_type: 'authorization_code', code: 'x' }), 'unsupported_grant_type'],
    ['the refresh grant', () => ({ grant_type: 'refresh_token', refresh_token: 'x' }), 'unsupported_grant_type'],
    ['exchange without a subject_token', () => good({ subject_token: undefined }), 'invalid_request', 'subject_token'],
    [
      'exchange without its type',
      () => good({ subject_token_type: undefined }),
      'invalid_request',
      'subject_token_type',
    ],
    [
      'a subject_token beside client_credentials',
      () => client({ subject_token: 'x', subject_token_type: JWT }),
      'invalid_request',
      'subject_token',
    ],
    [
      'an actor_token in the place of client authentication',
      () => ({
        ...client({ client_assertion: undefined, client_assertion_type: undefined }),
        actor_token: knock.svid('/agent/refunds'),
        actor_token_type: JWT,
      }),
      'invalid_request',
      'actor_token',
    ],
    ['an assertion beside token exchange', () => good({ assertion: 'x' }), 'invalid_request', 'assertion'],
    ['jwt-bearer without an assertion', () => assertion({ assertion: undefined }), 'invalid_request', 'assertion'],
    [
      'an assertion without its type',
      () => client({ client_assertion_type: undefined }),
      'invalid_request',
      'client_assertion_type',
    ],
    [
      'an assertion type without assertion',
      () => good({ client_assertion_type: JWT_SPIFFE }),
      'invalid_request',
      'client_assertion_type',
    ],
    ['a scope with two spaces', () => good({ scope: 'orders.read  orders.refund' }), 'invalid_scope', 'scope'],
    ['a scope value twice', () => good({ scope: 'orders.read orders.read' }), 'invalid_scope', 'scope'],
    ['a scope that is not of the task', () => good({ scope: 'search.query' }), 'invalid_scope', 'scope'],
    ['a scope with a quote', () => good({ scope: 'orders."read' }), 'invalid_scope', 'scope'],
  ];

  it.each(cases.map(([name, form, error, field]) => ({ name, form, error, field })))(
    '400: $name',
    async ({ form, error, field }) => {
      const got = await refusal(form());
      expect({ status: got.status, error: got.error }).toEqual({ status: 400, error });
      if (field !== undefined) expect(got.field).toBe(field);
    },
  );

  const unauthenticated: [name: string, form: () => Form, sent?: Sent][] = [
    [
      'no client authentication at all',
      () => client({ client_assertion: undefined, client_assertion_type: undefined }),
    ],
    [
      'a client_secret instead',
      () => client({ client_assertion: undefined, client_assertion_type: undefined, client_secret: 'x' }),
    ],
    ['an assertion for another audience', () => client({ client_assertion: NO_SVID() })],
    ['an assertion that is no JWT', () => client({ client_assertion: 'x' })],
    [
      'an unsupported method: private_key_jwt',
      () => client({ client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' }),
    ],
    ['a client_id that is not the one of the assertion', () => client({ client_id: LEDGER })],
    [
      'a client_id that is not the one of the certificate',
      () => ({ grant_type: 'client_credentials', client_id: LEDGER, scope: `task:${task}` }),
      { over: '/agent/refunds' },
    ],
    ['an assertion about to expire', () => client({ client_assertion: knock.svid('/agent/refunds', 30) })],
    ['Authorization: Basic', () => client(), { headers: { authorization: 'Basic YTpi' } }],
    ['Authorization: Bearer', () => good(), { headers: { authorization: 'Bearer x' } }],
  ];

  it.each(unauthenticated.map(([name, form, sent]) => ({ name, form, sent })))(
    '401 invalid_client with a challenge: $name',
    async ({ form, sent }) => {
      const { status, body, headers } = await knock.token(form(), sent);
      expect({ status, error: body.error }).toEqual({ status: 401, error: 'invalid_client' });
      expect(headers.get('www-authenticate')).toMatch(/^Bearer realm="mayfly"/);
      expect(headers.get('cache-control')).toBe('no-store');
    },
  );

  it('400 invalid_request: more than one mechanism of client authentication (section 2.3)', async () => {
    const authorization = `Bearer ${knock.svid('/agent/refunds')}`;
    expect(await refusal(client(), { headers: { authorization } })).toMatchObject({
      status: 400,
      error: 'invalid_request',
    });
    expect(await refusal({ ...client(), client_id: REFUNDS }, { over: '/agent/ledger' })).toMatchObject({
      status: 400,
      error: 'invalid_request',
    });
  });

  it('two identities in one request are refused, whichever two', async () => {
    const ledger = knock.svid('/agent/ledger');
    const asAssertion = { client_assertion: ledger, client_assertion_type: JWT_SPIFFE };
    for (const [form, sent] of [
      [good(), { over: '/agent/ledger' }],
      [good(asAssertion)],
      [good({ actor_token: ledger, actor_token_type: JWT })],
      [assertion(asAssertion)],
      [assertion(), { over: '/agent/ledger' }],
      [client(), { over: '/agent/ledger' }],
    ] as [Form, Sent?][]) {
      expect(await refusal(form, sent)).toMatchObject({ status: 400, error: 'invalid_request' });
    }
  });

  it('two proofs of one identity are one identity', async () => {
    const own = { client_assertion: knock.svid('/agent/refunds'), client_assertion_type: JWT_SPIFFE };
    expect((await knock.token(good(own), { over: '/agent/refunds' })).status).toBe(200);
  });

  it('an error says what it is in JSON, and error_description holds what it may hold', async () => {
    const { headers, body } = await knock.token(good({ scope: 'orders."read\u2019' }));
    expect(headers.get('content-type')).toMatch(/^application\/json/);
    expect(body.error).toBe('invalid_scope');
    expect(body.error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/);
  });

  it('413 and 415 keep the shape of an OAuth error', async () => {
    const large = await knock.token(good({ subject_token: 'a'.repeat(200_000) }));
    expect([large.status, large.body.error]).toEqual([413, 'invalid_request']);
    const json = await knock.post('/oauth2/token', '{}', { headers: { 'content-type': 'application/json' } });
    expect([json.status, json.body.error]).toEqual([415, 'invalid_request']);
  });
});

describe('section 4.4 and the SPIFFE client authentication draft', () => {
  it('spiffe_jwt: client_id may be left out, or equals the sub', async () => {
    expect((await knock.token(client({ client_id: REFUNDS }))).status).toBe(200);
    expect((await knock.token(client())).status).toBe(200);
  });

  it('spiffe_x509: client_id has to be there, and equals the URI of the certificate', async () => {
    const form = { grant_type: 'client_credentials', resource: ORDERS, scope: `task:${task}` };
    expect(await refusal(form, { over: '/agent/refunds' })).toEqual({
      status: 400,
      error: 'invalid_request',
      field: 'client_id',
    });
    const { claims } = await knock.minted({ ...form, client_id: REFUNDS }, { over: '/agent/refunds' });
    expect(claims).toMatchObject({ client_id: REFUNDS, cnf: { 'x5t#S256': expect.any(String) } });
  });

  it('the SVID is not used up: it is sent again until it expires', async () => {
    const svid = knock.svid('/agent/refunds');
    for (let round = 0; round < 3; round++) {
      expect((await knock.token(client({ client_assertion: svid }))).status).toBe(200);
    }
  });

  it('a workload that nobody declared is told so, without being told what there is', async () => {
    const { status, body } = await knock.token(client({ client_assertion: knock.svid('/agent/refund') }));
    expect([status, body.error]).toEqual([400, 'access_denied']);
    expect(body.hint).toContain('/agent/refunds');
  });
});

describe('RFC 7523 section 3.1: the jwt-bearer grant', () => {
  it.each([
    ['for another audience', () => NO_SVID()],
    ['no JWT', () => 'x'],
    ['about to expire', () => knock.svid('/agent/refunds', 30)],
    ['a person’s token', () => knock.person('alice')],
    [
      'signed by somebody else',
      () => `${knock.svid('/agent/refunds').split('.').slice(0, 2).join('.')}.${'A'.repeat(86)}`,
    ],
  ])('400 invalid_grant: an assertion that is %s', async (_, made) => {
    expect(await refusal(assertion({ assertion: made() }))).toMatchObject({ status: 400, error: 'invalid_grant' });
  });

  it('401 invalid_client: a good assertion beside a client authentication that fails', async () => {
    expect(await refusal(assertion({ client_assertion: 'x', client_assertion_type: JWT_SPIFFE }))).toMatchObject({
      status: 401,
      error: 'invalid_client',
    });
  });
});
