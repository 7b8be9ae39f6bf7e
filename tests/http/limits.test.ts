import { connect } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import { z } from 'zod';
import { defineRoute, json } from '../../src/edge/http/route.js';
import { type OpenDoor, openDoor } from './open-door.js';

const open: OpenDoor[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((door) => door.close()));
});

/** A route that answers when it is told to. */
function held() {
  let goOn = () => {};
  let isThere = () => {};
  const until = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  const there = new Promise<void>((resolve) => {
    isThere = resolve;
  });
  const route = defineRoute({
    method: 'POST',
    path: '/v1/held',
    auth: 'none',
    summary: 'Held',
    body: json(z.unknown(), { optional: true }),
    reply: { 200: z.unknown() },
    errors: [],
    handle: async (_, { signal }) => {
      isThere();
      await until;
      return { status: 200, body: { aborted: signal().aborted } };
    },
  });
  return { route, goOn: () => goOn(), there };
}

async function door(options: Parameters<typeof openDoor>[0] = {}): Promise<OpenDoor> {
  const opened = await openDoor(options);
  open.push(opened);
  return opened;
}

describe('closing', () => {
  it('a request in flight is answered, on a connection that then ends; a new one is not taken', async () => {
    const { route, goOn, there } = held();
    const opened = await door({ routes: [route] });
    const asking = opened.call('POST', '/v1/held');
    await there;
    const closed = opened.door.close(60_000);
    await expect(opened.call('POST', '/v1/held')).rejects.toThrow();
    goOn();
    const { status, headers, body } = await asking;
    expect([status, headers.get('connection'), body.aborted]).toEqual([200, 'close', true]);
    await closed;
  });

  it('idle connections do not hold it up', async () => {
    const opened = await door();
    expect((await opened.call('GET', '/livez')).status).toBe(200);
    await opened.door.close(60_000);
  });

  it('what is not done when the grace is over is cut', async () => {
    const { route, there } = held();
    const opened = await door({ routes: [route] });
    const asking = expect(opened.call('POST', '/v1/held')).rejects.toThrow();
    await there;
    await opened.door.close(0);
    await asking;
  });
});

describe('connections', () => {
  it('headers that come too slowly end the connection', async () => {
    const opened = await door({ limits: { headersTimeoutMs: 50, requestTimeoutMs: 50, slowCheckMs: 10 } });
    const received = await opened.raw('GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ');
    expect(received).toMatch(/^HTTP\/1\.1 400 /);
    expect(received).toContain('too slowly');
  });

  it('a body that comes too slowly ends the connection', async () => {
    const { route } = held();
    const opened = await door({
      routes: [route],
      limits: { headersTimeoutMs: 50, requestTimeoutMs: 50, slowCheckMs: 10 },
    });
    const received = await opened.raw(
      'POST /v1/held HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{',
    );
    expect(received).toMatch(/^HTTP\/1\.1 400 /);
  });

  it('a connection carries a bounded number of requests', async () => {
    const opened = await door({ limits: { requestsPerSocketMax: 2 } });
    const one = 'GET /livez HTTP/1.1\r\nHost: x\r\n\r\n';
    const received = await opened.raw(`${one}${one}GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 503']);
    expect(received).toMatch(/connection: close/i);
  });

  it('a port that is taken fails the start, and leaves nothing open', async () => {
    const first = await door();
    await expect(openDoor({ plain: { host: '127.0.0.1', port: first.door.plain.port } })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  it('bytes after a bad request are not taken for another one', async () => {
    const opened = await door();
    const received = await opened.raw('GET //x HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n');
    expect(received.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 400']);
  });

  it('a client that goes away in the middle of its body leaves no error behind', async () => {
    const { route } = held();
    const opened = await door({ routes: [route] });
    await new Promise<void>((resolve) => {
      const socket = connect(opened.door.plain.port, '127.0.0.1', () => {
        socket.write(
          'POST /v1/held HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{',
        );
        setImmediate(() => socket.destroy());
      });
      socket.on('close', () => resolve());
    });
    while (!opened.parts.events.some((event) => event.event === 'http.request')) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(opened.parts.events.at(-1)).toMatchObject({ status: 400, level: 'info' });
  });
});
