import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import {
  protectedResourceMetadata,
  type RequestTask,
  type RequireTaskOptions,
  requireTask,
} from '../../../src/client/express.js';
import { createVerifier, type TokenRefusal, type Verifier } from '../../../src/client/verifier.js';
import { FakeIssuer, ProofMaker } from '../../fakes/issuer.js';

const AUDIENCE = 'https://orders.example/api';
const METADATA = 'https://orders.example/.well-known/oauth-protected-resource/api';

let issuer: FakeIssuer;
let verifier: Verifier;
let server: Server;
let origin: string;
let tasks: RequestTask[];
let refused: TokenRefusal[];
let release: (() => void) | undefined;

async function serving(options: Partial<RequireTaskOptions> = {}): Promise<void> {
  const app = express();
  app.use(express.json());
  app.use(protectedResourceMetadata({ resource: AUDIENCE, issuer: issuer.url, tools: ['orders.read'] }));
  const guard = requireTask({
    verifier,
    tool: 'orders.read',
    onRefused: (refusal) => refused.push(refusal),
    ...options,
  });
  app.all('/orders/:id', guard, (request, response) => {
    tasks.push(request.task as RequestTask);
    response.json({ order: request.params['id'] });
  });
  app.get('/slow', guard, (request, response) => {
    const task = request.task as RequestTask;
    task.signal.addEventListener('abort', () => response.json({ stopped: task.signal.reason.reason }));
    release?.();
  });
  server?.close();
  server = createServer(app);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

beforeEach(async () => {
  issuer = await new FakeIssuer().start();
  tasks = [];
  refused = [];
  verifier = createVerifier({
    issuer: issuer.url,
    audience: 'https://orders.example/api',
    identity: { bearer: async () => 'svid' },
    clock: { now: () => issuer.nowMs },
  });
  await verifier.ready();
  await serving();
});

afterEach(async () => {
  server.closeAllConnections();
  server.close();
  await verifier.close();
  await issuer.stop();
});

const claims = (more: object = {}) => issuer.claims({ aud: AUDIENCE, ...more });
const get = (path: string, headers: Record<string, string> = {}) => fetch(origin + path, { headers });
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('a request with a good token', () => {
  it('200: reaches the handler, with its task', async () => {
    const given = claims();
    const response = await get('/orders/42', bearer(issuer.mint(given)));
    expect([response.status, await response.json()]).toEqual([200, { order: '42' }]);
    expect(tasks[0]).toMatchObject({
      agent: given.client_id,
      taskId: given.mayfly.path[0],
      tools: ['orders.read'],
      claims: given,
    });
  });

  it('200: the scheme is not case-sensitive', async () => {
    expect((await get('/orders/42', { authorization: `bearer ${issuer.mint(claims())}` })).status).toBe(200);
  });

  it('200: a bound token with a proof for this server under its public name', async () => {
    const prover = new ProofMaker();
    const token = issuer.mint(claims({ cnf: { jkt: prover.jkt } }));
    const proof = {
      htm: 'GET',
      htu: 'https://orders.example/orders/42',
      iat: Math.floor(issuer.nowMs / 1_000),
      accessToken: token,
    };
    const response = await get('/orders/42?page=2', { authorization: `DPoP ${token}`, dpop: prover.prove(proof) });
    expect(response.status).toBe(200);
    const elsewhere = prover.prove({ ...proof, htu: `${origin}/orders/42` });
    expect((await get('/orders/42', { authorization: `DPoP ${token}`, dpop: elsewhere })).status).toBe(401);
  });
});

describe('a request without one', () => {
  async function challengeOf(headers: Record<string, string> = {}) {
    const response = await get('/orders/42', headers);
    expect(tasks).toEqual([]);
    expect(response.headers.get('cache-control')).toBe('no-store');
    return {
      status: response.status,
      challenge: response.headers.get('www-authenticate') ?? '',
      body: await response.json(),
    };
  }

  it('401: a challenge per scheme, without an error when nothing was sent', async () => {
    const { status, challenge } = await challengeOf();
    expect(status).toBe(401);
    expect(challenge).toContain(`Bearer scope="orders.read", resource_metadata="${METADATA}"`);
    expect(challenge).toContain('DPoP algs="ES256 ');
    expect(challenge).not.toContain('error=');
  });

  it('401: another scheme counts as nothing', async () => {
    expect((await challengeOf({ authorization: 'Basic YTpi' })).status).toBe(401);
  });

  it('401: invalid_token for every token that is not good, always in the same words', async () => {
    const answers = [
      await challengeOf(bearer('garbage')),
      await challengeOf(bearer(issuer.mint(claims({ aud: 'https://b.example' })))),
      await challengeOf(bearer(issuer.mint(claims({ exp: 5 })))),
    ];
    for (const answer of answers) expect(answer).toEqual(answers[0]);
    expect(answers[0]).toMatchObject({
      status: 401,
      challenge: expect.stringContaining('Bearer error="invalid_token"'),
      body: { error: 'invalid_token', error_description: 'The token is refused.' },
    });
    expect(refused.map(({ reason }) => reason)).toEqual(['spelling', 'audience', 'expired']);
  });

  it('401: once revoked', async () => {
    const given = claims();
    const { pos } = issuer.revoke({ task: given.mayfly.path[0] as string });
    issuer.beat();
    await issuer.until(() => issuer.acknowledged.includes(pos));
    const old = { ...given.mayfly, pos: `${issuer.epoch}-0-0` };
    expect((await challengeOf(bearer(issuer.mint({ ...given, mayfly: old })))).status).toBe(401);
    expect(refused[0]?.reason).toBe('revoked');
  });

  it('401: invalid_dpop_proof for a bound token with a bad proof', async () => {
    const token = issuer.mint(claims({ cnf: { jkt: new ProofMaker().jkt } }));
    const { status, challenge } = await challengeOf({ authorization: `DPoP ${token}`, dpop: 'x' });
    expect(status).toBe(401);
    expect(challenge).toMatch(/DPoP error="invalid_dpop_proof", .*algs="ES256/);
    expect(challenge.split('DPoP')[0]).not.toContain('error=');
  });

  it('401: use_dpop_nonce brings the nonce', async () => {
    await verifier.close();
    verifier = createVerifier({
      issuer: issuer.url,
      audience: AUDIENCE,
      identity: { bearer: async () => 'svid' },
      clock: { now: () => issuer.nowMs },
      dpop: { nonce: { current: () => 'n-1', accepts: (nonce) => nonce === 'n-1' } },
    });
    await verifier.ready();
    await serving();
    const prover = new ProofMaker();
    const token = issuer.mint(claims({ cnf: { jkt: prover.jkt } }));
    const proof = {
      htm: 'GET',
      htu: 'https://orders.example/orders/42',
      iat: Math.floor(issuer.nowMs / 1_000),
      accessToken: token,
    };
    const first = await get('/orders/42', { authorization: `DPoP ${token}`, dpop: prover.prove(proof) });
    expect([first.status, first.headers.get('dpop-nonce')]).toEqual([401, 'n-1']);
    expect(first.headers.get('www-authenticate')).toContain('error="use_dpop_nonce"');
    const second = await get('/orders/42', {
      authorization: `DPoP ${token}`,
      dpop: prover.prove({ ...proof, nonce: 'n-1' }),
    });
    expect(second.status).toBe(200);
  });

  it('403: insufficient_scope names the tool that is missing', async () => {
    const { status, challenge } = await challengeOf(bearer(issuer.mint(claims({ scope: 'orders.write' }))));
    expect(status).toBe(403);
    expect(challenge).toContain('error="insufficient_scope"');
    expect(challenge).toContain('scope="orders.read"');
  });

  it('400: two Authorization headers', async () => {
    const response = await twoHeaders('authorization', [`Bearer ${issuer.mint(claims())}`, 'Bearer x']);
    expect([response, tasks]).toEqual([400, []]);
  });

  it('400: a scheme without a token, or with two', async () => {
    expect((await challengeOf({ authorization: 'Bearer' })).status).toBe(400);
    expect((await challengeOf({ authorization: 'Bearer a b' })).status).toBe(400);
  });

  it('401: two DPoP headers', async () => {
    expect(await twoHeaders('dpop', ['a', 'b'], bearer(issuer.mint(claims())))).toBe(401);
  });

  it('401: a token in the query is not looked at', async () => {
    expect((await get(`/orders/42?access_token=${issuer.mint(claims())}`)).status).toBe(401);
  });

  it('503 with Retry-After: while nothing can be checked', async () => {
    issuer.sendsHeads = false;
    await verifier.close();
    verifier = createVerifier({ issuer: issuer.url, audience: AUDIENCE, identity: { bearer: async () => 'svid' } });
    await serving();
    const response = await get('/orders/42', bearer(issuer.mint(claims())));
    expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1']);
    expect(response.headers.get('www-authenticate')).toBeNull();
  });

  it('503 without a challenge: a token that wants each call decided, where nobody decides; the token is not blamed', async () => {
    await verifier.close();
    verifier = createVerifier({
      issuer: issuer.url,
      audience: AUDIENCE,
      identity: { bearer: async () => 'svid' },
      clock: { now: () => issuer.nowMs },
      onWarning: () => undefined,
    });
    await verifier.ready();
    await serving();
    const response = await get('/orders/42', bearer(issuer.mint(claims({ mayfly: { call: true } }))));
    expect([response.status, await response.json()]).toEqual([
      503,
      {
        error: 'server_error',
        error_description: 'This server is not set up to take this token; the token is not at fault.',
      },
    ]);
    expect([response.headers.get('www-authenticate'), response.headers.get('retry-after')]).toEqual([null, null]);
    expect([tasks, refused.map(({ reason }) => reason)]).toEqual([[], ['decision-point-missing']]);
  });

  async function twoHeaders(name: string, values: string[], headers: Record<string, string> = {}): Promise<number> {
    const { request } = await import('node:http');
    return new Promise((resolve, reject) => {
      const asked = request(`${origin}/orders/42`, { headers: { ...headers, [name]: values } }, (answer) => {
        answer.resume();
        resolve(answer.statusCode ?? 0);
      });
      asked.on('error', reject);
      asked.end();
    });
  }
});

describe('the signal of a running request', () => {
  it('aborts when its task is revoked', async () => {
    const given = claims();
    const running = new Promise<void>((resolve) => {
      release = resolve;
    });
    const response = get('/slow', bearer(issuer.mint(given)));
    await running;
    issuer.revoke({ task: given.mayfly.path[0] as string });
    expect(await (await response).json()).toEqual({ stopped: 'revoked' });
  });

  it('aborts when its token expires', async () => {
    const running = new Promise<void>((resolve) => {
      release = resolve;
    });
    const exp = Math.floor(issuer.nowMs / 1_000) + 1;
    const response = get('/slow', bearer(issuer.mint(claims({ exp }))));
    await running;
    issuer.nowMs += 1_000;
    expect(await (await response).json()).toEqual({ stopped: 'expired' });
  });
});

describe('metadata (RFC 9728)', () => {
  it('200: at the path of the resource', async () => {
    const response = await get('/.well-known/oauth-protected-resource/api');
    expect(await response.json()).toEqual({
      resource: AUDIENCE,
      authorization_servers: [issuer.url],
      bearer_methods_supported: ['header'],
      scopes_supported: ['orders.read'],
      dpop_signing_alg_values_supported: ['ES256', 'ES384', 'RS256', 'PS256', 'EdDSA', 'Ed25519'],
      tls_client_certificate_bound_access_tokens: true,
      authorization_details_types_supported: ['urn:mayfly:task'],
    });
  });

  it('404: nowhere else', async () => {
    expect((await get('/.well-known/oauth-protected-resource')).status).toBe(404);
  });
});

it('a tool that has not the shape of a tool name stops the start', () => {
  expect(() => requireTask({ verifier, tool: 'orders", error="x' })).toThrow('tool');
});
