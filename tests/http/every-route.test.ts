import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { surfaceOf } from '../../src/edge/http/error-response.js';
import type { Route } from '../../src/edge/http/route.js';
import { routes } from '../../src/edge/http/routes/index.js';
import { type Answer, bearer, type Call } from './open-door.js';
import { NAMES, openWorld, TASK, tokenForm, type Who, type World } from './world.js';

/** One good request per route: who may, where, with what, and the status it gets. */
interface Sample {
  who: Who;
  path?: (world: World) => string;
  send?: Call | ((world: World) => Call);
  status: number;
  /** Replies with a stream: only its head is looked at. */
  streams?: true;
}

const reason = 'a drill';
const selector = { agent: 'spiffe://dev.mayfly/agent/refunds' };
const ofTask = (suffix: string) => (world: World) => `/v1/tasks/${world.task}${suffix}`;

const SAMPLES: Record<string, Sample> = {
  'GET /': { who: 'nobody', status: 200 },
  'GET /livez': { who: 'nobody', status: 200 },
  'GET /readyz': { who: 'nobody', status: 200 },
  'GET /openapi.json': { who: 'nobody', status: 200 },
  'GET /errors/{code}': { who: 'nobody', path: () => '/errors/denied', status: 200 },
  'GET /.well-known/oauth-authorization-server': { who: 'nobody', status: 200 },
  'GET /.well-known/openid-configuration': { who: 'nobody', status: 200 },
  'GET /.well-known/jwks.json': { who: 'nobody', status: 200 },
  'GET /.well-known/oauth-protected-resource': { who: 'nobody', status: 200 },
  'POST /oauth2/token': {
    who: 'nobody',
    send: ({ task }) => ({ form: tokenForm(NAMES.agent, task) }),
    status: 200,
  },
  'POST /oauth2/introspect': { who: 'tool', send: ({ toolToken }) => ({ form: { token: toolToken } }), status: 200 },
  'POST /oauth2/revoke': { who: 'agent', send: ({ toolToken }) => ({ form: { token: toolToken } }), status: 200 },
  'GET /oauth2/authorize': { who: 'nobody', path: () => '/oauth2/authorize?response_type=code', status: 400 },
  'POST /v1/tasks': { who: 'orchestrator', send: { json: TASK }, status: 201 },
  'GET /v1/tasks': { who: 'orchestrator', path: () => '/v1/tasks?live=true&limit=5', status: 200 },
  'PUT /v1/tasks/{id}': { who: 'orchestrator', path: () => '/v1/tasks/ref:run-2', send: { json: TASK }, status: 201 },
  'GET /v1/tasks/{id}': { who: 'orchestrator', path: ofTask(''), status: 200 },
  'POST /v1/tasks/{id}/complete': { who: 'orchestrator', path: ofTask('/complete'), send: { json: {} }, status: 200 },
  'POST /v1/tasks/{id}/fail': { who: 'agent', path: ofTask('/fail'), send: { json: { reason } }, status: 200 },
  'POST /v1/tasks/{id}/cancel': { who: 'orchestrator', path: ofTask('/cancel'), status: 200 },
  'POST /v1/tasks/{id}/suspend': { who: 'orchestrator', path: ofTask('/suspend'), send: { json: {} }, status: 200 },
  'POST /v1/tasks/{id}/resume': { who: 'orchestrator', path: ofTask('/resume'), status: 200 },
  'POST /v1/tasks/{id}/heartbeat': { who: 'agent', path: ofTask('/heartbeat'), status: 200 },
  'PATCH /v1/tasks/{id}/context': {
    who: 'orchestrator',
    path: ofTask('/context'),
    send: { json: { context: { risk: 'high' } } },
    status: 200,
  },
  'GET /v1/tasks/{id}/events': { who: 'orchestrator', path: ofTask('/events'), status: 200, streams: true },
  'GET /v1/leases': { who: 'agent', status: 200 },
  'GET /v1/leases/{id}': { who: 'agent', path: ({ lease }) => `/v1/leases/${lease}`, status: 200 },
  'POST /v1/leases/{id}/renew': {
    who: 'agent',
    path: ({ credential }) => `/v1/leases/${credential}/renew`,
    send: { json: { increment_seconds: 500 } },
    status: 200,
  },
  'POST /v1/leases/{id}/revoke': {
    who: 'agent',
    path: ({ credential }) => `/v1/leases/${credential}/revoke`,
    status: 202,
  },
  'POST /v1/leases/{id}/abandon': {
    who: 'operator',
    path: ({ dying }) => `/v1/leases/${dying}/abandon`,
    send: { json: { reason } },
    status: 202,
  },
  'POST /v1/secrets/{name}': {
    who: 'agent',
    path: () => '/v1/secrets/orders-db',
    send: ({ task }) => ({ json: { task } }),
    status: 200,
  },
  'GET /v1/secrets': { who: 'operator', status: 200 },
  'GET /v1/backends': { who: 'operator', status: 200 },
  'POST /v1/backends/{name}/check': {
    who: 'operator',
    path: () => '/v1/backends/pg/check',
    send: { json: {} },
    status: 200,
  },
  'POST /v1/revocations': { who: 'operator', send: { json: { selector, reason } }, status: 201 },
  'GET /v1/revocations': { who: 'operator', status: 200 },
  'GET /v1/revocations/{id}': { who: 'operator', path: (world) => `/v1/revocations/${world.revocation}`, status: 200 },
  'POST /v1/locks': { who: 'operator', send: { json: { selector, reason, expires_in: 60 } }, status: 201 },
  'GET /v1/locks': { who: 'operator', status: 200 },
  'DELETE /v1/locks/{id}': { who: 'operator', path: ({ lock }) => `/v1/locks/${lock}`, status: 202 },
  'GET /v1/feed': { who: 'tool', status: 200, streams: true },
  'POST /v1/feed/ack': { who: 'tool', send: { json: { pos: '0-0-0' } }, status: 204 },
  'GET /v1/feed/readers': { who: 'operator', status: 200 },
  'GET /v1/audit': { who: 'operator', path: () => '/v1/audit?type=task.opened&from=2026-01-01T00:00:00Z', status: 200 },
  'GET /v1/decisions/{id}': { who: 'other', path: ({ decision }) => `/v1/decisions/${decision}`, status: 200 },
  'POST /v1/why': { who: 'agent', send: ({ toolToken }) => ({ json: { about: toolToken } }), status: 200 },
  'GET /v1/bundle': { who: 'operator', status: 200 },
  'PUT /v1/bundle': { who: 'operator', send: { json: { files: { name: 'sample' } } }, status: 200 },
  'POST /v1/bundle/preview': { who: 'operator', send: { json: { files: { name: 'sample' } } }, status: 200 },
  'GET /v1/keys': { who: 'operator', status: 200 },
  'POST /v1/keys': { who: 'operator', send: { json: { alg: 'ES256' } }, status: 201 },
  'POST /v1/keys/{kid}/activate': { who: 'operator', path: () => '/v1/keys/es256-fake-1/activate', status: 200 },
  'POST /v1/keys/{kid}/taint': {
    who: 'operator',
    path: () => '/v1/keys/es256-fake-1/taint',
    send: { json: { reason } },
    status: 200,
  },
  'GET /v1/health': { who: 'operator', status: 200 },
  'POST /v1/recover': { who: 'operator', send: { json: { reason } }, status: 200 },
};

const nameOf = ({ method, path }: Route) => `${method} ${path}`;
const all = routes.map((route): [string, Route] => [nameOf(route), route]);
const asking = all.filter(([, route]) => route.auth !== 'none');
const underV1 = all.filter(([, route]) => route.path.startsWith('/v1/'));
const withBody = all.filter(([, route]) => route.body);
const named = asking.filter(([, route]) => /\{id\}/.test(route.path) && route.method !== 'PUT');

function sampleOf(name: string): Sample {
  const sample = SAMPLES[name];
  if (!sample) throw new Error(`no sample for ${name}`);
  return sample;
}

let world: World;
beforeAll(async () => {
  world = await openWorld();
});
afterAll(() => world.close());

const pathOf = (name: string, route: Route, at: World = world) => sampleOf(name).path?.(at) ?? route.path;
const goodCall = (name: string, at: World = world): Call => {
  const { send } = sampleOf(name);
  return typeof send === 'function' ? send(at) : (send ?? {});
};

/** What every refusal looks like, and what none says. */
function expectRefusal(route: Route, answer: Answer, status: number): void {
  expect({ status: answer.status, text: answer.status === status ? '' : answer.text }).toEqual({ status, text: '' });
  expect(answer.text).not.toMatch(/\bat .+:\d+:\d+|node_modules|\.ts\b|src\//);
  expect(answer.headers.get('cache-control')).toBe('no-store');
  expect(answer.body.request_id).toBe(answer.headers.get('x-request-id'));
  if (surfaceOf(route.path) === 'oauth') {
    expect(answer.headers.get('content-type')).toBe('application/json');
    expect(answer.body).toMatchObject({ error: expect.any(String), error_description: expect.any(String) });
  } else {
    expect(answer.headers.get('content-type')).toBe('application/problem+json');
    expect(answer.body).toMatchObject({ type: expect.any(String), title: expect.any(String), status });
  }
  if (status === 401) expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer .*resource_metadata=.*DPoP /);
}

it('every route has a sample, and every sample a route', () => {
  expect(Object.keys(SAMPLES).sort()).toEqual(all.map(([name]) => name).sort());
});

it('no two routes share method and path', () => {
  expect(new Set(all.map(([name]) => name)).size).toBe(all.length);
});

describe('a good request', () => {
  it.each(all.filter(([name]) => !sampleOf(name).streams))('%s answers as declared', async (name, route) => {
    const fresh = await openWorld();
    try {
      const { who, status } = sampleOf(name);
      const answer = await fresh.send(who, route.method, pathOf(name, route, fresh), goodCall(name, fresh));
      expect({ status: answer.status, text: answer.status === status ? '' : answer.text }).toEqual({
        status,
        text: '',
      });
      expect(answer.headers.get('x-request-id')).toBeTruthy();
    } finally {
      await fresh.close();
    }
  });
});

describe('without an identity', () => {
  it.each(asking)('401: %s', async (name, route) => {
    const answer = await world.call(route.method, pathOf(name, route), goodCall(name));
    expectRefusal(route, answer, 401);
  });
});

describe('with a wrong identity', () => {
  it.each(asking)('401: %s', async (name, route) => {
    for (const as of ['rubbish', 'svid:spiffe://evil.example/agent/refunds', `${NAMES.agent};exp=1`]) {
      const answer = await world.call(route.method, pathOf(name, route), { ...goodCall(name), as });
      expectRefusal(route, answer, 401);
      expect(answer.body.detail ?? answer.body.error_description).toBe('The identity was not accepted.');
    }
  });
});

describe('with a token for a tool', () => {
  it.each(underV1)('401: %s', async (name, route) => {
    const answer = await world.call(route.method, pathOf(name, route), {
      ...goodCall(name),
      headers: { authorization: `Bearer ${world.toolToken}` },
    });
    expectRefusal(route, answer, 401);
    expect(answer.body.code).toBe('token_refused');
  });
});

describe('with a bearer where a bound identity is needed', () => {
  it.each(all.filter(([, route]) => route.auth === 'bound'))('403: %s', async (name, route) => {
    const answer = await world.call(route.method, pathOf(name, route), { ...goodCall(name), as: NAMES.operator });
    expectRefusal(route, answer, 403);
    expect(answer.body).toMatchObject({ code: 'denied', hint: expect.any(String), decision_id: expect.any(String) });
  });

  it.each(['POST /v1/locks', 'POST /v1/revocations'])('403: %s, unless it is a dry run', async (name) => {
    const [, route] = all.find(([one]) => one === name) as [string, Route];
    const call = { json: { selector, reason }, as: NAMES.operator };
    expectRefusal(route, await world.call(route.method, route.path, call), 403);
    const preview = await world.call(route.method, route.path, { ...call, json: { ...call.json, dry_run: true } });
    expect(preview.status).toBe(200);
  });
});

describe("someone else's object looks exactly like none", () => {
  it.each(named)('%s', async (name, route) => {
    const theirs = pathOf(name, route);
    const own = /\/((?:tsk|lse|rev|lck|dec)_[^/]+)/.exec(theirs)?.[1] as string;
    const missing = theirs.replace(own, `${own.slice(0, -3)}000`);
    const stranger = route.path.includes('decisions') ? 'agent' : 'other';
    // A bound identity is asked for before anything else is.
    const who = route.auth === 'bound' ? 'operator' : stranger;
    const answers = [
      ...(who === 'operator' ? [] : [await world.send(who, route.method, theirs, goodCall(name))]),
      await world.send(who, route.method, missing, goodCall(name)),
    ];
    for (const answer of answers) {
      expectRefusal(route, answer, 404);
      expect({ ...answer.body, request_id: '', decision_id: '' }).toEqual({
        ...answers[0]?.body,
        request_id: '',
        decision_id: '',
      });
    }
  });
});

describe('bodies that are no good', () => {
  const send = (name: string, route: Route, call: Call) => {
    const { who } = sampleOf(name);
    return world.send(who, route.method, pathOf(name, route), call);
  };
  const typeOf = (route: Route) =>
    route.body?.kind === 'form' ? 'application/x-www-form-urlencoded' : 'application/json';
  const raw = (route: Route, body: string): Call => ({ body, headers: { 'content-type': typeOf(route) } });

  it.each(withBody)('415: %s in another type', async (name, route) => {
    for (const type of ['text/plain', 'application/xml', 'multipart/form-data; boundary=x']) {
      expectRefusal(route, await send(name, route, { body: 'x', headers: { 'content-type': type } }), 415);
    }
  });

  it.each(withBody)('413: %s oversized', async (name, route) => {
    const bytesMax = route.body?.bytesMax as number;
    const body = route.body?.kind === 'form' ? `token=${'a'.repeat(bytesMax)}` : JSON.stringify('a'.repeat(bytesMax));
    expectRefusal(route, await send(name, route, raw(route, body)), 413);
  });

  it.each(withBody)('400: %s nested too deep', async (name, route) => {
    const deep = `${'{"a":'.repeat(40)}1${'}'.repeat(40)}`;
    const form = `grant_type=x&authorization_details=${encodeURIComponent(deep)}`;
    expectRefusal(route, await send(name, route, raw(route, route.body?.kind === 'form' ? form : deep)), 400);
  });

  it.each(withBody)('400: %s with a member twice', async (name, route) => {
    const body = route.body?.kind === 'form' ? 'token=a&token=b' : '{"reason":"a","reason":"b"}';
    expectRefusal(route, await send(name, route, raw(route, body)), 400);
  });

  // Forms are OAuth's: there an unknown parameter is ignored (tests/conformance/specs/rfc6749.test.ts).
  const withJson = withBody.filter(([, route]) => route.body?.kind !== 'form');
  it.each(withJson)('400: %s with an unknown member, by its name', async (name, route) => {
    const answer = await send(name, route, { json: { ...(goodCall(name).json as object), surprise: 1 } });
    expectRefusal(route, answer, 400);
    expect(answer.body.field).toBe('surprise');
  });

  it.each(withBody)('400: %s with rubbish', async (name, route) => {
    const rubbish = route.body?.kind === 'form' ? ['%', 'token=%ff', '=&=='] : ['{', '[]', 'null', '"a"', '1', '{}}'];
    for (const body of rubbish) expectRefusal(route, await send(name, route, raw(route, body)), 400);
  });

  it.each(all.filter(([, route]) => !route.body && route.method !== 'GET'))(
    '400: %s with a body',
    async (name, route) => {
      expectRefusal(route, await send(name, route, { json: {} }), 400);
    },
  );
});

describe('queries that are no good', () => {
  const strict = all.filter(([, route]) => !route.anyQuery);
  const ask = (name: string, route: Route, query: string) => {
    const [path] = pathOf(name, route).split('?');
    return world.send(sampleOf(name).who, route.method, `${path}?${query}`, goodCall(name));
  };

  it.each(strict)('400: %s with a parameter twice', async (name, route) => {
    expectRefusal(route, await ask(name, route, 'limit=1&limit=1'), 400);
  });

  it.each(strict)('400: %s with an unknown parameter, by its name', async (name, route) => {
    const answer = await ask(name, route, 'surprise=1');
    expectRefusal(route, answer, 400);
    expect(answer.body.field).toBe('surprise');
  });

  it.each(strict)('400: %s with a token in the query (RFC 9700)', async (name, route) => {
    const answer = await ask(name, route, `access_token=${bearer(NAMES.agent)}`);
    expectRefusal(route, answer, 400);
  });
});

describe('another method', () => {
  const paths = [...new Set(routes.map((route) => route.path))];
  it.each(paths)('405: %s', async (path) => {
    const known = routes.filter((route) => route.path === path);
    const [first] = known as [Route];
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND']) {
      if (known.some((route) => route.method === method)) continue;
      const answer = await world.call(method, pathOf(nameOf(first), first).split('?', 1)[0] as string);
      expectRefusal(first, answer, 405);
      const isPublic = (route: Route) => route.method === 'GET' && route.auth === 'none';
      const allowed = known.flatMap((route) => (isPublic(route) ? [route.method, 'HEAD'] : [route.method]));
      expect(answer.headers.get('allow')).toBe(allowed.join(', '));
    }
  });
});
