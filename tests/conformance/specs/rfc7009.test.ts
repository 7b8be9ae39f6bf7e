import { type FakeDoor, openFakeDoor } from '../../fakes/door.js';
import {
  ACCESS_TOKEN,
  EXCHANGE,
  JWT_SPIFFE,
  type Knock,
  knockAt,
  LEDGER,
  REFUNDS,
  withColleagues,
} from '../../fakes/knock.js';

/* RFC 7009, token revocation: a token is given up by the agent that holds it. There are no refresh tokens here. */

let door: FakeDoor;
let knock: Knock;
let task: string;

beforeAll(async () => {
  door = await openFakeDoor({ bundle: withColleagues });
  knock = knockAt(door);
});
afterAll(() => door.close());
beforeEach(async () => {
  task = await knock.task({ agents: [REFUNDS, LEDGER] });
});

const mint = (more = {}) => knock.minted(knock.exchange('/agent/refunds', task, more));
const revoke = (token: string, as = '/agent/refunds', more = {}) =>
  knock.post('/oauth2/revoke', {
    token,
    client_assertion: knock.svid(as),
    client_assertion_type: JWT_SPIFFE,
    ...more,
  });
const isActive = async (token: string) => (await knock.introspect(token)).body.active;

it('section 2.2: 200 with an empty body, and the token is dead at once; the other tokens of the task are not', async () => {
  const [given, kept] = [await mint(), await mint()];
  const { status, text } = await revoke(given.token);
  expect([status, text]).toEqual([200, '']);
  expect([await isActive(given.token), await isActive(kept.token)]).toEqual([false, true]);
});

it('section 2.2: giving it up again is 200 as well', async () => {
  const { token } = await mint();
  expect([(await revoke(token)).status, (await revoke(token)).status]).toEqual([200, 200]);
});

it('section 2.2: what is no token is already as dead as it gets: 200', async () => {
  for (const token of ['nothing', knock.svid('/agent/refunds'), 'a.b.c']) {
    expect((await revoke(token)).status).toBe(200);
  }
});

it.each(['access_token', 'refresh_token', 'no_such_type'])(
  'section 2.1: a hint is only a hint: with %s the token is found all the same',
  async (hint) => {
    const { token } = await mint();
    expect((await revoke(token, '/agent/refunds', { token_type_hint: hint })).status).toBe(200);
    expect(await isActive(token)).toBe(false);
  },
);

it('section 2.1: somebody else’s token stays alive, and the answer does not tell that there is one', async () => {
  const { token } = await mint();
  for (const who of ['/agent/ledger', '/orchestrator/workflow', '/tool/orders']) {
    const [theirs, nothing] = [await revoke(token, who), await revoke('nothing', who)];
    expect([theirs.status, theirs.text]).toEqual([nothing.status, nothing.text]);
    expect(await isActive(token)).toBe(true);
  }
});

it('section 2.1: what was minted from it goes with it', async () => {
  const parent = await mint({ resource: door.url });
  const child = await knock.minted({
    grant_type: EXCHANGE,
    subject_token: parent.token,
    subject_token_type: ACCESS_TOKEN,
    client_assertion: knock.svid('/agent/ledger'),
    client_assertion_type: JWT_SPIFFE,
    resource: 'https://orders.example',
  });
  expect(await isActive(child.token)).toBe(true);
  await revoke(parent.token);
  expect(await isActive(child.token)).toBe(false);
});

it('section 2.1: a token that was passed on is given up by who holds it now', async () => {
  const parent = await mint({ resource: door.url });
  const child = await knock.minted({
    grant_type: EXCHANGE,
    subject_token: parent.token,
    subject_token_type: ACCESS_TOKEN,
    client_assertion: knock.svid('/agent/ledger'),
    client_assertion_type: JWT_SPIFFE,
    resource: 'https://orders.example',
  });
  await revoke(child.token, '/agent/refunds');
  expect(await isActive(child.token)).toBe(true);
  await revoke(child.token, '/agent/ledger');
  expect(await isActive(child.token)).toBe(false);
});

it('section 2.1: 401 to whoever does not say who it is, and nothing happens', async () => {
  const { token } = await mint();
  const { status, body } = await knock.post('/oauth2/revoke', { token });
  expect([status, body.error]).toEqual([401, 'invalid_client']);
  expect((await revoke(token, '/agent/refunds', { client_assertion: 'x' })).status).toBe(401);
  expect((await revoke(token, '/agent/refunds', { client_id: LEDGER })).status).toBe(401);
  expect(await isActive(token)).toBe(true);
});

it('section 2.1: 400 without a token', async () => {
  const { status, body } = await revoke('');
  expect([status, body.error, body.field]).toEqual([400, 'invalid_request', 'token']);
});

it('section 2.2.1: 503 with Retry-After when it cannot be done now, and the token is still to be given up', async () => {
  const { token } = await mint();
  door.parts.line.out = true;
  try {
    const { status, headers } = await revoke(token);
    expect(status).toBe(503);
    expect(headers.get('retry-after')).toMatch(/^\d+$/);
  } finally {
    door.parts.line.out = false;
  }
  expect((await revoke(token)).status).toBe(200);
  expect(await isActive(token)).toBe(false);
});

it('it is recorded, by lease and never by token', async () => {
  const { token, claims } = await mint();
  await revoke(token);
  const { items } = await door.parts.auditLog.read({ lease: claims['jti'], limit: 10 });
  expect(items.map(({ type }) => type)).toContain('token.revoked');
  expect(JSON.stringify(items)).not.toContain(token.split('.')[2]);
});
