import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { BrokerError } from '../../src/core/errors.js';
import { defineRoute, form, json } from '../../src/edge/http/route.js';
import { NOTHING } from '../../src/edge/http/wire.js';
import { svid } from '../fakes/identity.js';
import { REFUNDS } from '../fakes/policy.js';
import { type OpenDoor, openDoor } from './open-door.js';

const thing = z.strictObject({
  name: z.string().min(1).max(20),
  labels: z.record(z.string(), z.string()).optional(),
  limits: z.strictObject({ ttl_seconds: z.int().positive() }).optional(),
});

const toys = [
  defineRoute({
    method: 'POST',
    path: '/oauth2/toy',
    hot: true,
    auth: 'none',
    summary: 'A hot toy',
    body: form(z.strictObject({ name: z.string(), resource: z.array(z.string()).optional() })),
    reply: { 200: z.unknown() },
    errors: [],
    handle: (_, { body }) => ({ status: 200, body }),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/toys',
    auth: 'caller',
    summary: 'A toy',
    body: json(thing),
    reply: { 201: z.strictObject({ name: z.string(), digest: z.string(), by: z.string() }) },
    errors: [],
    handle: (_, { body, bodyDigest, caller }) => ({
      status: 201,
      body: { name: body.name, digest: bodyDigest(), by: caller.name },
    }),
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/toys/{id}',
    auth: 'none',
    summary: 'One toy',
    params: z.strictObject({ id: z.string().max(100) }),
    query: z.strictObject({ limit: z.coerce.number().int().max(5).default(3), cursor: z.string().optional() }),
    reply: { 200: z.unknown() },
    errors: [],
    handle: (_, { params, query, evidence }) => ({ status: 200, body: { ...params, ...query, url: evidence().url } }),
  }),
  defineRoute({
    method: 'PUT',
    path: '/v1/toys/{id}',
    auth: 'bound',
    summary: 'A big toy',
    params: z.strictObject({ id: z.string() }),
    body: json(z.unknown(), { bytesMax: 1024 * 1024 }),
    reply: { 204: NOTHING },
    errors: [],
    handle: () => ({ status: 204 }),
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/anything',
    auth: 'none',
    summary: 'Anything',
    body: json(z.unknown()),
    reply: { 200: z.unknown() },
    errors: [],
    handle: (_, { body }) => ({ status: 200, body: { depth: JSON.stringify(body).length } }),
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/broken/{how}',
    auth: 'none',
    summary: 'A broken toy',
    params: z.strictObject({ how: z.enum(['throws', 'lies', 'undeclared', 'nonce', 'busy', 'refused']) }),
    reply: { 200: z.strictObject({ fine: z.boolean() }) },
    errors: [],
    handle: (_, { params }) => {
      if (params.how === 'throws') throw new TypeError('the password is hunter2');
      if (params.how === 'nonce') {
        throw new BrokerError('dpop_nonce_required', 'Use the nonce.', { dpopNonce: 'fresh', reason: 'secret reason' });
      }
      if (params.how === 'busy') throw new BrokerError('unavailable', 'Not now.', { retryAfterSeconds: 7 });
      if (params.how === 'refused') {
        throw new BrokerError('denied', 'Policy does not allow it.', {
          decisionId: 'dec_a_1',
          policyIds: ['p1'],
          hint: 'Ask "them".',
          reason: 'secret reason',
        });
      }
      return params.how === 'lies' ? { status: 200, body: { fine: 'yes' } } : { status: 299 };
    },
  }),
];

const agent = svid(REFUNDS);
let it_: OpenDoor;

beforeAll(async () => {
  it_ = await openDoor({ routes: toys });
});
afterAll(() => it_.close());

const get = (path: string, headers: string[] = []) =>
  it_.raw([`GET ${path} HTTP/1.1`, 'Host: x', 'Connection: close', ...headers, '', ''].join('\r\n'));

const statusOf = (received: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(received)?.[1]);

describe('what comes in', () => {
  it('201: a good request, its body digested, its sender proven', async () => {
    const { status, body } = await it_.call('POST', '/v1/toys', { as: agent, json: { name: 'kite' } });
    expect(status).toBe(201);
    expect(body).toEqual({ name: 'kite', digest: expect.stringMatching(/^[\w-]{43}$/), by: REFUNDS });
  });

  it.each([
    'Authorization: Bearer a',
    'DPoP: a',
    'Content-Type: a/b',
    'X-Request-ID: a',
    'Idempotency-Key: k',
    'Traceparent: t',
  ])('400: a second %s', async (header) => {
    const received = await get('/v1/toys/1', [header, header]);
    expect(statusOf(received)).toBe(400);
    expect(received).toContain('may come only once');
    expect(received).toMatch(/connection: close/i);
  });

  it('400: a second Host, spelt otherwise', async () => {
    expect(statusOf(await get('/v1/toys/1', ['hOST: y']))).toBe(400);
  });

  it.each(['xchunked', 'identity', 'gzip, chunked', 'chunked, chunked'])(
    '400: Transfer-Encoding: %s',
    async (coding) => {
      const received = await it_.raw(
        `POST /v1/anything HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: ${coding}\r\n\r\n1\r\n1\r\n0\r\n\r\n`,
      );
      expect(statusOf(received)).toBe(400);
    },
  );

  it('400: chunked in HTTP/1.0', async () => {
    const received = await it_.raw(
      'POST /v1/anything HTTP/1.0\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n',
    );
    expect(statusOf(received)).toBe(400);
  });

  it('400: Content-Length beside Transfer-Encoding', async () => {
    const received = await it_.raw(
      'POST /v1/anything HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\n\r\n',
    );
    expect(statusOf(received)).toBe(400);
    expect(received).toContain('application/problem+json');
  });

  it('413: 101 headers, and 100 are fine', async () => {
    const many = (count: number) => Array.from({ length: count }, (_, at) => `X-${at}: 1`);
    expect(statusOf(await get('/v1/toys/1', many(98)))).toBe(200);
    expect(statusOf(await get('/v1/toys/1', many(99)))).toBe(413);
    expect(statusOf(await get('/v1/toys/1', many(400)))).toBe(413);
  });

  it('413: more than 16 KiB of headers', async () => {
    expect(statusOf(await get('/v1/toys/1', [`X-Long: ${'a'.repeat(17_000)}`]))).toBe(413);
  });

  it('413: an Authorization of more than 8 KiB', async () => {
    expect(statusOf(await get('/v1/toys/1', [`Authorization: Bearer ${'a'.repeat(8 * 1024)}`]))).toBe(413);
  });

  it.each([
    'http://evil.example/v1/toys/1',
    '//evil.example/v1/toys/1',
    '/v1//toys/1',
    '/v1/toys/1/',
    '/v1/toys/../toys/1',
    '/v1/toys/%2e%2e',
    '/v1/toys/.%2E',
    '/v1/toys/a%2db',
    '/v1/toys/a%2Db',
    '/v1/toys/a%62',
    '/v1/toys/a%62%2F',
    '/v1/toys/a%7Eb',
    '/v1/toys/a%5Fb',
    '/v1/toys/a%2fb',
    '/v1/toys/a%C3%a4',
    '/v1/toys/%00',
    '/v1/toys/a%5cb',
    '/v1/toys/a\\b',
    '/v1/toys/%ff',
    '/v1/toys/%zz',
    '/v1/toys/a#b',
    '/v1/toys/"',
    '*',
  ])('400: the target %s is not canonical', async (target) => {
    expect(statusOf(await get(target))).toBe(400);
  });

  it('404: another case is another path', async () => {
    expect((await it_.call('GET', '/V1/toys/1')).status).toBe(404);
  });

  it('200: a parameter is decoded once', async () => {
    const { body } = await it_.call('GET', '/v1/toys/ref:a%252Fb');
    expect(body.id).toBe('ref:a%2Fb');
  });

  it('200: the URL a proof names is that of the issuer, whatever Host says', async () => {
    const received = await get('/v1/toys/1?limit=2');
    expect(received).toContain('"url":"https://mayfly.example/v1/toys/1"');
  });

  it('200: empty pairs of a query, however many, are no parameters', async () => {
    const { status, body } = await it_.call('GET', '/v1/toys/1?&&limit=2&&cursor=x&');
    expect([status, body.limit, body.cursor]).toEqual([200, 2, 'x']);
  });

  it('400: a query parameter twice, unknown, or out of bounds', async () => {
    expect((await it_.call('GET', '/v1/toys/1?limit=1&limit=2')).body.field).toBe('limit');
    expect((await it_.call('GET', '/v1/toys/1?limt=1')).body.detail).toBe(
      'There is no field "limt"; did you mean "limit"?',
    );
    expect((await it_.call('GET', '/v1/toys/1?limit=6')).body.field).toBe('limit');
    expect((await it_.call('GET', '/v1/toys/1?__proto__=1')).status).toBe(400);
  });

  it('400: a body on a route that takes none', async () => {
    const received = await it_.raw('GET /v1/toys/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}');
    expect(statusOf(received)).toBe(400);
  });
});

describe('bodies', () => {
  const post = (body: string | Uint8Array, type = 'application/json') =>
    it_.call('POST', '/v1/anything', { body, headers: { 'content-type': type } });

  it('200: nested 32 deep; 400: 33', async () => {
    expect((await post('['.repeat(32) + ']'.repeat(32))).status).toBe(200);
    expect((await post('['.repeat(33) + ']'.repeat(33))).status).toBe(400);
    expect((await post(`${'[{"a":'.repeat(25_00)}1${'}]'.repeat(25_00)}`)).status).toBe(400);
  });

  it.each([
    ['{"a":1,"a":2}', 'a member twice'],
    ['{"a":1,"\\u0061":2}', 'a member twice, once spelt with escapes'],
    ['{"__proto__":{}}', 'a prototype'],
    ['{"a":1e999}', 'a number out of range'],
    ['{"a":9007199254740993}', 'an integer that a double cannot hold'],
    ['{"a":"\\u0000"}', 'NUL'],
    ['{"a":1} x', 'more after the value'],
    ['\ufeff{}', 'a byte-order mark'],
    ['', 'nothing'],
  ])('400: %s (%s)', async (body) => {
    const answer = await post(body);
    expect(answer.status).toBe(400);
    expect(answer.body.code).toBe('invalid_request');
  });

  it('400: bytes that are not UTF-8', async () => {
    expect((await post(new Uint8Array([0x22, 0xff, 0x22]))).status).toBe(400);
  });

  it.each(['text/plain', 'application/json; charset=utf-16', 'application/json, text/plain', 'application/jsonx', ''])(
    '415: Content-Type "%s"',
    async (type) => {
      expect((await post('{}', type)).status).toBe(415);
    },
  );

  it('200: charset=utf-8', async () => {
    expect((await post('{}', 'Application/JSON; charset=UTF-8')).status).toBe(200);
  });

  it('415: compressed', async () => {
    const answer = await it_.call('POST', '/v1/anything', {
      body: '{}',
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip' },
    });
    expect(answer.status).toBe(415);
  });

  it('413: more than 64 KiB, announced or not', async () => {
    const big = JSON.stringify('a'.repeat(64 * 1024));
    expect((await post(big)).status).toBe(413);
    const chunked = `${big.length.toString(16)}\r\n${big}\r\n0\r\n\r\n`;
    const received = await it_.raw(
      `POST /v1/anything HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}`,
    );
    expect(statusOf(received)).toBe(413);
    expect((await post(JSON.stringify('a'.repeat(64 * 1024 - 2)))).status).toBe(200);
  });

  it('400: unknown fields, each with what was probably meant', async () => {
    const { status, body } = await it_.call('POST', '/v1/toys', {
      as: agent,
      json: { nmae: 'kite', limits: { ttl_second: 5 } },
    });
    expect(status).toBe(400);
    expect(body.field).toBe('limits.ttl_second');
    expect(body.problems).toEqual([
      'There is no field "limits.ttl_second"; did you mean "ttl_seconds"?',
      'There is no field "nmae"; did you mean "name"?',
      expect.stringContaining('"name"'),
      expect.stringContaining('"limits.ttl_seconds"'),
    ]);
  });

  it('400: an unknown field is shown back without its odd signs', async () => {
    const { body } = await it_.call('POST', '/v1/toys', { as: agent, json: { name: 'a', '"\n\u202e': 1 } });
    expect(body.detail).toContain('There is no field "???"');
  });

  it('415 and 400: the hot way has the same checks', async () => {
    const hot = (form: string, type?: string) =>
      it_.call('POST', '/oauth2/toy', type ? { body: form, headers: { 'content-type': type } } : { form });
    expect((await hot('name=a&resource=x&resource=y')).body).toEqual({ name: 'a', resource: ['x', 'y'] });
    expect((await hot('name=a', 'application/json')).status).toBe(415);
    expect((await hot('name=a&name=b')).body).toMatchObject({ error: 'invalid_request', field: 'name' });
    expect((await hot('name=a&nam=b')).body).toMatchObject({ error: 'invalid_request', field: 'nam' });
    expect((await hot('name=a&resource=')).body).toEqual({ name: 'a' });
    expect((await hot('name=%ff')).status).toBe(400);
    expect((await hot('name=%00')).status).toBe(400);
    expect((await hot('name=')).status).toBe(400);
    expect((await hot(Array.from({ length: 65 }, (_, at) => `x${at}=1`).join('&'))).status).toBe(413);
    expect((await hot(`name=${'a'.repeat(70_000)}`)).status).toBe(413);
  });
});

describe('who comes in', () => {
  it('401: nobody, with challenges and without an error (RFC 6750 section 3)', async () => {
    const { status, headers, body } = await it_.call('POST', '/v1/toys', { json: { name: 'kite' } });
    expect(status).toBe(401);
    expect(body.code).toBe('identity_rejected');
    const challenge = headers.get('www-authenticate');
    expect(challenge).toContain('Bearer realm="mayfly", resource_metadata=');
    expect(challenge).toContain('DPoP algs=');
    expect(challenge).not.toContain('error=');
  });

  it('401: a refused bearer, with error="invalid_token"', async () => {
    const { status, headers } = await it_.call('POST', '/v1/toys', { as: 'nobody', json: { name: 'kite' } });
    expect(status).toBe(401);
    expect(headers.get('www-authenticate')).toContain('error="invalid_token"');
  });

  it.each(['Basic YTpi', 'Bearer', 'Bearer a b', 'Negotiate x'])('401: Authorization: %s', async (authorization) => {
    const answer = await it_.call('POST', '/v1/toys', { json: { name: 'kite' }, headers: { authorization } });
    expect(answer.status).toBe(401);
  });

  it('401 before 400: the body of somebody unknown is not read', async () => {
    const answer = await it_.call('POST', '/v1/toys', { body: 'not even json', headers: { 'content-type': 'x/y' } });
    expect(answer.status).toBe(401);
  });

  it('403: a bearer where a bound identity is needed, with a hint', async () => {
    const { status, body } = await it_.call('PUT', '/v1/toys/1', { as: agent, json: {} });
    expect(status).toBe(403);
    expect(body).toMatchObject({ code: 'denied', hint: expect.stringContaining('mTLS') });
  });
});

describe('what goes out', () => {
  it('echoes a well-formed X-Request-ID, and makes its own otherwise', async () => {
    const kept = await it_.call('GET', '/v1/toys/1', { headers: { 'x-request-id': 'my-1.2' } });
    expect(kept.headers.get('x-request-id')).toBe('my-1.2');
    const odd = await it_.call('GET', '/v1/nowhere', { headers: { 'x-request-id': 'a b' } });
    expect(odd.headers.get('x-request-id')).toMatch(/^req_a_/);
    expect(odd.body.request_id).toBe(odd.headers.get('x-request-id'));
  });

  it('the hot way and the other carry the same headers', async () => {
    const names = (headers: Headers) => [...headers.keys()].filter((name) => name !== 'www-authenticate').sort();
    const hot = await it_.call('POST', '/oauth2/toy', { form: 'name=a' });
    const cold = await it_.call('GET', '/v1/toys/1');
    expect(names(hot.headers)).toEqual(names(cold.headers));
    expect(cold.headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(cold.headers.get('x-content-type-options')).toBe('nosniff');
    expect(cold.headers.get('cache-control')).toBe('no-store');
    expect(cold.headers.has('x-powered-by')).toBe(false);
  });

  it("405: with Allow, on hot and other paths, in the path's own words", async () => {
    const hot = await it_.call('GET', '/oauth2/toy');
    expect([hot.status, hot.headers.get('allow'), hot.body.error]).toEqual([405, 'POST', 'invalid_request']);
    for (const method of ['DELETE', 'PATCH', 'OPTIONS', 'TRACE']) {
      if (method === 'TRACE') {
        expect(statusOf(await it_.raw('TRACE /v1/toys/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'))).toBe(405);
      } else {
        const cold = await it_.call(method, '/v1/toys/1');
        expect([cold.status, cold.headers.get('allow')]).toEqual([405, 'GET, HEAD, PUT']);
      }
    }
  });

  it('200: HEAD on what is public, without a body; 405 on what is not', async () => {
    const head = await it_.call('HEAD', '/v1/toys/1');
    expect([head.status, head.text]).toEqual([200, '']);
    expect(Number(head.headers.get('content-length'))).toBeGreaterThan(0);
    expect((await it_.call('HEAD', '/v1/toys', { as: agent })).status).toBe(405);
  });

  it('404: an address that is none, in problem+json also below /oauth2', async () => {
    for (const path of ['/nowhere', '/oauth2/nowhere', '/v1/toys/1/2']) {
      const { status, body, headers } = await it_.call('GET', path);
      expect([status, body.code, headers.get('content-type')]).toEqual([404, 'not_found', 'application/problem+json']);
    }
  });

  it.each(['throws', 'lies', 'undeclared'])('500: a route that %s, in a fixed text', async (how) => {
    const { status, body, text } = await it_.call('GET', `/v1/broken/${how}`);
    expect(status).toBe(500);
    expect(body).toEqual({
      type: 'https://mayfly.example/errors/internal',
      title: 'Something went wrong inside',
      status: 500,
      detail: 'Something went wrong inside.',
      code: 'internal',
      request_id: expect.any(String),
    });
    expect(text).not.toMatch(/hunter2|\.ts|at /);
    expect(it_.parts.events.at(-1)).toMatchObject({ event: 'http.request', level: 'error', status: 500 });
  });

  it("403: the caller's face of an error, and not ours", async () => {
    const { status, body, headers, text } = await it_.call('GET', '/v1/broken/refused');
    expect(status).toBe(403);
    expect(headers.get('content-type')).toBe('application/problem+json');
    expect(body).toEqual({
      type: 'https://mayfly.example/errors/denied',
      title: 'Policy does not allow it',
      status: 403,
      detail: 'Policy does not allow it.',
      code: 'denied',
      request_id: expect.any(String),
      decision_id: 'dec_a_1',
      policy_ids: ['p1'],
      hint: 'Ask "them".',
    });
    expect(text).not.toContain('secret reason');
  });

  it('401: a nonce is asked for at a resource (RFC 9449 section 9)', async () => {
    const { status, headers } = await it_.call('GET', '/v1/broken/nonce');
    expect(status).toBe(401);
    expect(headers.get('dpop-nonce')).toBe('fresh');
    expect(headers.get('www-authenticate')).toContain('DPoP error="use_dpop_nonce"');
  });

  it('503: with Retry-After', async () => {
    const { status, headers } = await it_.call('GET', '/v1/broken/busy');
    expect([status, headers.get('retry-after')]).toEqual([503, '7']);
  });

  it('one wide line per request, with the caller and never a token', async () => {
    await it_.call('POST', '/v1/toys', { as: agent, json: { name: 'kite' } });
    const line = it_.parts.events.at(-1);
    expect(line).toMatchObject({ event: 'http.request', route: '/v1/toys', status: 201, caller: REFUNDS });
    expect(JSON.stringify(line)).not.toContain(Buffer.from(agent).toString('base64url'));
  });

  it('400 in problem+json and a closed connection for what is not HTTP', async () => {
    const received = await it_.raw('GET / HTTP/1.1\r\nHost : x\r\n\r\n');
    expect(statusOf(received)).toBe(400);
    expect(received).toContain('application/problem+json');
  });
});
