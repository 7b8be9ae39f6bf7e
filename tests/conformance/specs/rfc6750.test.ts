import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { requireTask, type TaskRequest, type TaskResponse } from '../../../src/client/express.js';
import { createVerifier, type Verifier } from '../../../src/client/verifier.js';
import { FakeIssuer } from '../../fakes/issuer.js';

/* RFC 6750, bearer token usage, at a resource behind `requireTask`. Test names begin with the section. */

let issuer: FakeIssuer;
let verifier: Verifier;
let server: Server;
let origin: string;

beforeAll(async () => {
  issuer = await new FakeIssuer().start();
  verifier = createVerifier({
    issuer: issuer.url,
    audience: 'https://orders.example',
    identity: { bearer: async () => 'svid' },
    clock: { now: () => issuer.nowMs },
    elapsedMs: () => 0,
  });
  await verifier.ready();
  const guard = requireTask({ verifier, tool: 'orders.read' });
  server = createServer((request, response) =>
    guard(request as unknown as TaskRequest, response as unknown as TaskResponse, () => response.end('in')),
  );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await verifier.close();
  await issuer.stop();
});

interface Challenge {
  scheme: string;
  params: Record<string, string>;
}

/** `WWW-Authenticate` by the grammar of RFC 9110 section 11.6.1; throws on what does not follow it. */
function challengesOf(header: string | null): Challenge[] {
  const challenges: Challenge[] = [];
  const token = /^([A-Za-z0-9!#$%&'*+.^_`|~-]+)/;
  let rest = header ?? '';
  while (rest !== '') {
    const [, word = ''] = token.exec(rest) ?? [];
    if (word === '') throw new Error(`no token at ${rest}`);
    rest = rest.slice(word.length);
    const value = /^="((?:[\x20\x21\x23-\x5b\x5d-\x7e])*)"/.exec(rest);
    if (value) {
      const { params } = challenges.at(-1) as Challenge;
      if (Object.hasOwn(params, word)) throw new Error(`${word} twice`);
      params[word] = value[1] as string;
      rest = rest.slice(value[0].length).replace(/^, */, '');
    } else {
      challenges.push({ scheme: word, params: {} });
      rest = rest.replace(/^ +/, '');
    }
  }
  return challenges;
}

async function ask(headers: Record<string, string>, init: RequestInit = {}, path = '/orders') {
  const response = await fetch(origin + path, { headers, ...init });
  const bearer = challengesOf(response.headers.get('www-authenticate')).find(({ scheme }) => scheme === 'Bearer');
  return { status: response.status, bearer: bearer?.params, text: await response.text() };
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

it('2.1: a token in the Authorization header is taken', async () => {
  expect(await ask(bearer(issuer.mint()))).toMatchObject({ status: 200, text: 'in' });
});

it('2.2: a token in a form is not taken', async () => {
  const body = new URLSearchParams({ access_token: issuer.mint() });
  expect((await ask({}, { method: 'POST', body })).status).toBe(401);
});

it('2.3: a token in the query is not taken', async () => {
  expect((await ask({}, {}, `/orders?access_token=${issuer.mint()}`)).status).toBe(401);
});

it('3: a request without a token gets a challenge, and no error in it', async () => {
  const { status, bearer: params } = await ask({});
  expect(status).toBe(401);
  expect(params).toEqual({
    scope: 'orders.read',
    resource_metadata: 'https://orders.example/.well-known/oauth-protected-resource',
  });
});

it.each<[string, () => Record<string, string>]>([
  ['expired', () => bearer(issuer.mint(issuer.claims({ exp: 1 })))],
  ['malformed', () => bearer('not.a.token')],
  ['for somebody else', () => bearer(issuer.mint(issuer.claims({ aud: 'https://b.example' })))],
])('3.1: invalid_token, 401, for a token that is %s', async (_, headers) => {
  expect(await ask(headers())).toMatchObject({ status: 401, bearer: { error: 'invalid_token' } });
});

it('3.1: insufficient_scope, 403, with the scope that is needed', async () => {
  const token = issuer.mint(issuer.claims({ scope: 'orders.write' }));
  expect(await ask(bearer(token))).toMatchObject({
    status: 403,
    bearer: { error: 'insufficient_scope', scope: 'orders.read' },
  });
});

it('3.1: invalid_request, 400, for a header that holds no single token', async () => {
  expect(await ask({ authorization: 'Bearer a b' })).toMatchObject({
    status: 400,
    bearer: { error: 'invalid_request' },
  });
});

it('5.2: nothing that was refused may be cached', async () => {
  const response = await fetch(`${origin}/orders`);
  expect(response.headers.get('cache-control')).toBe('no-store');
});
