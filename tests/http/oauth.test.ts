import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { ProofMaker } from '../fakes/issuer.js';
import { ISSUER } from '../fakes/parts.js';
import { ORDERS, ORDERS_TOOL, REFUNDS } from '../fakes/policy.js';
import { bearer } from './open-door.js';
import { NAMES, openWorld, tokenForm, type World } from './world.js';

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world.close());

const good = () => tokenForm(NAMES.agent, world.task);
const token = (form: Record<string, string | string[]> | string, headers: Record<string, string> = {}) =>
  world.call('POST', '/oauth2/token', { form, headers });

describe('POST /oauth2/token', () => {
  it('200: a token for the task, not to be kept by anything on the way', async () => {
    const { status, body, headers } = await token(good());
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(headers.get('pragma')).toBe('no-cache');
    expect(body).toEqual({
      access_token: expect.stringMatching(/^[\w-]+\.[\w-]+\.[\w-]+$/),
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
      expires_in: 300,
      scope: expect.any(String),
      authorization_details: [{ type: 'urn:mayfly:task', identifier: world.task }],
      lease_id: expect.stringMatching(/^lse_a_/),
    });
  });

  it('200: bound to the key of its DPoP proof', async () => {
    const proof = new ProofMaker().prove({
      htm: 'POST',
      htu: `${ISSUER}/oauth2/token`,
      iat: world.parts.clock.now() / 1000,
    });
    const { status, body } = await token(good(), { dpop: proof });
    expect([status, body.token_type]).toEqual([200, 'DPoP']);
    const again = await token(good(), { dpop: proof });
    expect([again.status, again.body.error]).toEqual([400, 'invalid_dpop_proof']);
    expect(again.headers.has('www-authenticate')).toBe(false);
  });

  it.each(['grant_type', 'subject_token', 'subject_token_type', 'scope', 'authorization_details', 'client_id'])(
    '400 invalid_request: %s twice',
    async (name) => {
      const form = good();
      const { status, body } = await token({ ...form, [name]: [form[name] ?? 'x', form[name] ?? 'x'] });
      expect([status, body.error, body.field]).toEqual([400, 'invalid_request', name]);
    },
  );

  it('400 invalid_target: two resources; each may be repeated for itself', async () => {
    const two = await token({ ...good(), resource: [ORDERS, 'https://mail.example'] });
    expect([two.status, two.body.error]).toEqual([400, 'invalid_target']);
    expect((await token({ ...good(), resource: [ORDERS, ORDERS] })).status).toBe(200);
  });

  it('400 invalid_request: a misspelt parameter, with the right one', async () => {
    const { body } = await token({ ...good(), authorisation_details: '[]' });
    expect(body).toMatchObject({ error: 'invalid_request', field: 'authorisation_details' });
    expect(body.error_description).toContain("did you mean 'authorization_details'?");
  });

  it('400 invalid_request: no grant_type', async () => {
    const { grant_type: _, ...form } = good();
    expect((await token(form)).body).toMatchObject({ error: 'invalid_request', field: 'grant_type' });
  });

  it('400 unsupported_grant_type', async () => {
    const { status, body } = await token({ ...good(), grant_type: 'password' });
    expect([status, body.error]).toEqual([400, 'unsupported_grant_type']);
  });

  it.each([
    'not json',
    '[{"type":"urn:mayfly:task","type":"x"}]',
    `${'['.repeat(40)}${']'.repeat(40)}`,
    '[]',
    '{}',
    '[{"type":"urn:other","identifier":"x"}]',
    '[{"type":"urn:mayfly:task"}]',
  ])('400 invalid_authorization_details: %s', async (details) => {
    const { status, body } = await token({ ...good(), authorization_details: details });
    expect([status, body.error]).toEqual([400, 'invalid_authorization_details']);
  });

  it('400 invalid_request: a subject_token nobody vouches for (RFC 8693 section 2.2.2)', async () => {
    const { status, body } = await token({ ...good(), subject_token: bearer('nobody') });
    expect([status, body.error]).toEqual([400, 'invalid_request']);
  });

  it('401 invalid_client: an Authorization that is neither Bearer nor DPoP', async () => {
    const { status, body, headers } = await token(good(), { authorization: 'Basic YTpi' });
    expect([status, body.error]).toEqual([401, 'invalid_client']);
    expect(headers.get('www-authenticate')).toMatch(/^Bearer /);
  });

  it('400 access_denied: with the decision that says why, and nothing that is ours', async () => {
    const { status, body } = await token({ ...good(), scope: 'orders.read nothing.such' });
    expect(status).toBe(400);
    expect(body).toMatchObject({ error: expect.any(String), decision_id: expect.stringMatching(/^dec_a_/) });
    expect(body).not.toHaveProperty('reason');
  });

  it('error_description holds visible ASCII without quotes and backslashes (RFC 6749 section 5.2)', async () => {
    const { body } = await token({ ...good(), 'sc"ope': 'x' });
    expect(body.error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/);
  });
});

describe('POST /oauth2/introspect', () => {
  const introspect = (form: Record<string, string>, as?: string) =>
    world.call('POST', '/oauth2/introspect', { form, ...(as !== undefined && { as }) });

  it('200 active: for the owner of the audience', async () => {
    const { status, body } = await introspect({ token: world.toolToken }, NAMES.tool);
    expect(status).toBe(200);
    expect(body).toMatchObject({ active: true, client_id: REFUNDS, aud: ORDERS });
  });

  it('200 inactive, and nothing else: for anybody else, and for what is no token', async () => {
    expect((await introspect({ token: world.toolToken }, NAMES.other)).body).toEqual({ active: false });
    expect((await introspect({ token: 'rubbish' }, NAMES.tool)).body).toEqual({ active: false });
  });

  it('200: the client authenticates by assertion in the form', async () => {
    const { body } = await introspect({
      token: world.toolToken,
      client_id: ORDERS_TOOL,
      client_assertion: bearer(NAMES.tool),
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe',
    });
    expect(body.active).toBe(true);
  });

  it('401 invalid_client: client_id names another', async () => {
    const { status, body } = await introspect({ token: world.toolToken, client_id: REFUNDS }, NAMES.tool);
    expect([status, body.error]).toEqual([401, 'invalid_client']);
  });

  it('401 invalid_client: an assertion of another type (RFC 6749 section 5.2: an unsupported authentication method)', async () => {
    const assertion = { token: 'x', client_assertion: bearer(NAMES.tool) };
    for (const type of ['urn:x', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer']) {
      const { status, body } = await introspect({ ...assertion, client_assertion_type: type });
      expect([status, body.error]).toEqual([401, 'invalid_client']);
    }
  });

  it('400: an assertion beside an Authorization, or without its type', async () => {
    const assertion = { token: 'x', client_assertion: bearer(NAMES.tool) };
    const type = 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe';
    expect((await introspect({ ...assertion, client_assertion_type: type }, NAMES.tool)).status).toBe(400);
    expect((await introspect(assertion)).status).toBe(400);
    expect((await introspect({ token: 'x', client_assertion_type: type })).status).toBe(400);
  });
});

describe('POST /oauth2/revoke', () => {
  it('200: whatever the token is, and whatever the hint says (RFC 7009 section 2.2)', async () => {
    for (const form of [{ token: 'rubbish' }, { token: world.toolToken, token_type_hint: 'refresh_token' }]) {
      const { status, text } = await world.call('POST', '/oauth2/revoke', { as: NAMES.other, form });
      expect([status, text]).toEqual([200, '']);
    }
    const { body } = await world.call('POST', '/oauth2/introspect', {
      as: NAMES.tool,
      form: { token: world.toolToken },
    });
    expect(body.active).toBe(true);
  });
});
