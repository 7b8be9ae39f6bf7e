import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import { ProofMaker } from '../../fakes/issuer.js';
import { CLERK, JWT_SPIFFE, type Knock, knockAt, LEDGER, ORDERS, REFUNDS, withColleagues } from '../../fakes/knock.js';
import { VirtualClock } from '../../fakes/virtual-clock.js';

/* RFC 7662, token introspection: sections 2.1 to 2.3. Who may ask is decided by who owns the audience. */

const OPERATORS = ['mayfly-operators'];

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

const mint = () => knock.minted(knock.exchange('/agent/refunds', task));

describe('section 2.1: the request', () => {
  it('401 to whoever does not say who it is, with a challenge', async () => {
    const { token } = await mint();
    const { status, body, headers } = await knock.post('/oauth2/introspect', { token });
    expect([status, body.error]).toEqual([401, 'invalid_client']);
    expect(headers.get('www-authenticate')).toMatch(/^Bearer /);
    expect(body).not.toHaveProperty('active');
  });

  it('401 when the authentication is no good, or names another than client_id does', async () => {
    const { token } = await mint();
    const asTool = { client_assertion: knock.svid('/tool/orders'), client_assertion_type: JWT_SPIFFE };
    for (const form of [
      { token, ...asTool, client_assertion: 'x' },
      { token, ...asTool, client_id: REFUNDS },
      { token, ...asTool, client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' },
    ]) {
      const { status, body } = await knock.post('/oauth2/introspect', form);
      expect([status, body.error]).toEqual([401, 'invalid_client']);
    }
  });

  it('400 without a token, or with two', async () => {
    const asTool = { client_assertion: knock.svid('/tool/orders'), client_assertion_type: JWT_SPIFFE };
    for (const token of [undefined, '', ['a', 'b']]) {
      const { status, body } = await knock.post('/oauth2/introspect', { token, ...asTool });
      expect([status, body.error]).toEqual([400, 'invalid_request']);
    }
  });

  it('the token that is asked about authenticates nobody', async () => {
    const { token } = await mint();
    const form = { token, client_assertion: token, client_assertion_type: JWT_SPIFFE };
    expect((await knock.post('/oauth2/introspect', form)).status).toBe(401);
  });

  it('asked by assertion, by bearer or over mTLS: the same answer; and a hint changes nothing', async () => {
    const { token } = await mint();
    const answers = [
      await knock.introspect(token),
      await knock.post(
        '/oauth2/introspect',
        { token },
        { headers: { authorization: `Bearer ${knock.svid('/tool/orders')}` } },
      ),
      await knock.post('/oauth2/introspect', { token, token_type_hint: 'refresh_token' }, { over: '/tool/orders' }),
    ];
    for (const { status, body } of answers) expect({ status, body }).toEqual({ status: 200, body: answers[0]?.body });
  });

  it('GET is not the way: tokens stay out of logs', async () => {
    expect((await knock.api('GET', '/oauth2/introspect', '/tool/orders')).status).toBe(405);
  });
});

describe('section 2.2: the answer', () => {
  it('says what the token says, at the top level, and is kept by nobody', async () => {
    const { token, claims } = await mint();
    const { headers, body } = await knock.introspect(token);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(body).toEqual({
      active: true,
      iss: door.url,
      sub: REFUNDS,
      aud: ORDERS,
      client_id: REFUNDS,
      scope: 'orders.read orders.refund',
      exp: claims['exp'],
      iat: claims['iat'],
      jti: claims['jti'],
      token_type: 'Bearer',
      authorization_details: [{ type: 'urn:mayfly:task', identifier: task }],
    });
  });

  it('a bound token comes with cnf and its own type; on behalf of a person with act', async () => {
    const maker = new ProofMaker();
    const form = knock.exchange('/agent/refunds', task, {
      subject_token: knock.person('alice'),
      actor_token: knock.svid('/agent/refunds'),
      actor_token_type: 'urn:ietf:params:oauth:token-type:jwt',
    });
    const { token } = await knock.minted(form, { headers: { dpop: knock.proof(maker) } });
    expect((await knock.introspect(token)).body).toMatchObject({
      active: true,
      token_type: 'DPoP',
      cnf: { jkt: maker.jkt },
      sub: 'https://people.dev.mayfly#alice',
      act: { sub: REFUNDS },
    });
  });
});

describe('section 2.2: inactive, and not a word more', () => {
  const inactive = { active: false };

  it('whatever is no token of ours', async () => {
    const { token } = await mint();
    const [head, body, signature] = token.split('.') as [string, string, string];
    const forged = Buffer.from(
      JSON.stringify({ ...JSON.parse(Buffer.from(body, 'base64url').toString()), scope: 'x' }),
    );
    for (const text of [
      'nothing',
      knock.svid('/agent/refunds'),
      `${head}.${body}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`,
      `${head}.${forged.toString('base64url')}.${signature}`,
      `${token} `,
      `${token}=`,
      token.slice(0, -1),
      `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString('base64url')}.${body}.`,
    ]) {
      const answer = await knock.introspect(text);
      expect([text, answer.status, answer.body]).toEqual([text, 200, inactive]);
    }
  });

  it('for anybody but the owner of the audience: its holder, its opener, another tool, the agents of its task', async () => {
    const { token } = await mint();
    for (const who of ['/agent/refunds', '/agent/ledger', '/orchestrator/workflow', '/tool/search']) {
      expect((await knock.introspect(token, who)).body).toEqual(inactive);
    }
    expect((await knock.introspect(token, '/tool/orders')).body.active).toBe(true);
  });

  it('for a person, operator or not', async () => {
    const { token } = await mint();
    const authorization = `Bearer ${knock.person('operator-1', OPERATORS)}`;
    expect((await knock.post('/oauth2/introspect', { token }, { headers: { authorization } })).body).toEqual(inactive);
  });

  it('a token for the issuer: nobody owns that audience', async () => {
    const { token } = await knock.minted(knock.exchange('/agent/refunds', task, { resource: door.url }));
    expect((await knock.introspect(token)).body).toEqual(inactive);
  });

  it('after its expiry, to the second', async () => {
    const { token } = await mint();
    clock.advance(299_000);
    expect((await knock.introspect(token)).body.active).toBe(true);
    clock.advance(1_000);
    expect((await knock.introspect(token)).body).toEqual(inactive);
  });

  it.each(['complete', 'fail', 'cancel', 'suspend'])('after its task’s %s', async (verb) => {
    const { token } = await mint();
    expect((await knock.introspect(token)).body.active).toBe(true);
    expect((await knock.api('POST', `/v1/tasks/${task}/${verb}`, '/orchestrator/workflow', {})).status).toBe(200);
    expect((await knock.introspect(token)).body).toEqual(inactive);
  });

  it('after a resume: what was given before the suspension stays dead', async () => {
    const { token } = await mint();
    await knock.api('POST', `/v1/tasks/${task}/suspend`, '/orchestrator/workflow', {});
    await knock.api('POST', `/v1/tasks/${task}/resume`, '/orchestrator/workflow', {});
    expect((await knock.introspect(token)).body).toEqual(inactive);
    expect((await knock.introspect((await mint()).token)).body.active).toBe(true);
  });
});
