import { connect, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from '@jest/globals';
import { BrokerError } from '../../src/core/errors.js';
import { defineRoute, type EventChunk } from '../../src/edge/http/route.js';
import { EVENTS } from '../../src/edge/http/wire.js';
import { svid } from '../fakes/identity.js';
import { ORCHESTRATOR, ORDERS_TOOL, REFUNDS } from '../fakes/policy.js';
import { bearer, type OpenDoor, openDoor } from './open-door.js';
import { NAMES, openWorld, type World } from './world.js';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

/** A stream being read: its text so far, and whether it is over. */
class Reader {
  text = '';
  isOver = false;
  readonly socket: Socket;

  constructor(door: OpenDoor, path: string, { as, headers = '' }: { as: string; headers?: string }) {
    this.socket = connect(door.door.plain.port, '127.0.0.1');
    this.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${bearer(as)}\r\nConnection: close\r\n${headers}\r\n`,
    );
    this.socket.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk;
    });
    this.socket.on('close', () => {
      this.isOver = true;
    });
    this.socket.on('error', () => {});
    open.push({ close: async () => void this.socket.destroy() });
  }

  get events(): string[] {
    return [...this.text.matchAll(/^event: (\w+)/gm)].map((match) => match[1] as string);
  }
}

async function world(): Promise<World> {
  const made = await openWorld();
  open.push(made);
  return made;
}

const emit = (at: World) =>
  at.send('operator', 'POST', '/v1/revocations', { json: { selector: { owner: 'x@example.com' }, reason: 'drill' } });

describe('GET /v1/feed', () => {
  it('200: a snapshot that ends with the head, then what happens, each with its place as id', async () => {
    const at = await world();
    const reader = new Reader(at, '/v1/feed', { as: NAMES.tool });
    await until(() => reader.events.at(-1) === 'head');
    expect(reader.text).toContain('content-type: text/event-stream');
    expect(reader.events[0]).toBe('reset');
    expect(reader.events.slice(1, -1).every((event) => event === 'revoke')).toBe(true);
    const seen = reader.events.length;
    await emit(at);
    await until(() => reader.events.length > seen + 1);
    expect(reader.text).toMatch(/id: (\d+-\d+-\d+)\nevent: revoke\ndata: \{"pos":"\1","until":\d+,"match":\{/);
  });

  it('200: from Last-Event-ID there is no snapshot', async () => {
    const at = await world();
    const whole = new Reader(at, '/v1/feed', { as: NAMES.tool });
    await until(() => whole.events.at(-1) === 'head');
    const last = [...whole.text.matchAll(/^id: (.*)$/gm)].at(-1)?.[1] as string;
    const rest = new Reader(at, '/v1/feed', { as: NAMES.tool, headers: `Last-Event-ID: ${last}\r\n` });
    await until(() => rest.events.length > 0);
    expect(rest.events).toEqual(['head']);
  });

  it('400: a Last-Event-ID that is no position', async () => {
    const at = await world();
    const answer = await at.send('tool', 'GET', '/v1/feed', { headers: { 'last-event-id': 'yesterday' } });
    expect([answer.status, answer.body.field]).toEqual([400, 'last-event-id']);
  });

  it('403: an agent owns no audience', async () => {
    const at = await world();
    const answer = await at.send('agent', 'GET', '/v1/feed');
    expect([answer.status, answer.body.code]).toEqual([403, 'denied']);
  });

  it('ends with the identity of its reader, not a moment later', async () => {
    const at = await world();
    const shortLived = svid(ORDERS_TOOL, { expMs: at.parts.clock.now() + 60_000 });
    const brief = new Reader(at, '/v1/feed', { as: shortLived });
    const long = new Reader(at, '/v1/feed', { as: NAMES.tool });
    await until(() => brief.events.includes('head') && long.events.includes('head'));
    at.parts.clock.advance(59_000);
    const seen = long.events.length;
    await emit(at);
    await until(() => long.events.length > seen && brief.events.length === long.events.length);
    at.parts.clock.advance(1_000);
    const before = brief.text;
    const told = long.events.length;
    await emit(at);
    await until(() => brief.isOver && long.events.length > told);
    expect(brief.text.replace(before, '')).not.toContain('revoke');
    expect(long.isOver).toBe(false);
  });

  it('ends when its reader is no longer who it was, and goes on while nobody can tell', async () => {
    const at = await world();
    const reader = new Reader(at, '/v1/feed', { as: NAMES.tool });
    await until(() => reader.events.includes('head'));
    const jwt = at.parts.identity.jwt.bind(at.parts.identity);
    const heads = () => reader.events.filter((event) => event === 'head').length;
    const next = async () => {
      const seen = heads();
      at.parts.clock.advance(5_000);
      await emit(at);
      await until(() => reader.isOver || heads() > seen);
    };
    at.parts.identity.jwt = async (token) => {
      if (token === bearer(NAMES.tool)) throw new BrokerError('unavailable', 'The bundle is not there.');
      return jwt(token);
    };
    await next();
    expect(reader.isOver).toBe(false);
    at.parts.identity.jwt = async (token) => {
      if (token === bearer(NAMES.tool)) throw new BrokerError('identity_rejected', 'The identity was not accepted.');
      return jwt(token);
    };
    await next();
    await until(() => reader.isOver);
  });

  it('ends at once when the door closes, whatever grace requests have', async () => {
    const at = await world();
    const reader = new Reader(at, '/v1/feed', { as: NAMES.tool });
    await until(() => reader.events.includes('head'));
    await at.door.close(60_000);
    await until(() => reader.isOver);
  });

  it('lets go of the feed when its reader is gone', async () => {
    const at = await world();
    const reader = new Reader(at, '/v1/feed', { as: NAMES.tool });
    await until(() => reader.events.includes('head'));
    const requests = () => at.parts.events.filter((event) => event['route'] === '/v1/feed').length;
    expect(requests()).toBe(0);
    reader.socket.destroy();
    await until(() => requests() === 1);
  });
});

describe('GET /v1/tasks/{id}/events', () => {
  it('200: the task as it is, and its end; then the stream is over', async () => {
    const at = await world();
    const reader = new Reader(at, `/v1/tasks/${at.task}/events`, { as: svid(ORCHESTRATOR) });
    await until(() => reader.events.length === 1);
    expect(reader.events).toEqual(['opened']);
    await at.send('orchestrator', 'POST', `/v1/tasks/${at.task}/complete`);
    await until(() => reader.isOver);
    expect(reader.events).toEqual(['opened', 'ended']);
    expect(reader.text).toContain('"state":"completed"');
  });

  it('404 before a stream: not yours', async () => {
    const at = await world();
    const answer = await at.send('other', 'GET', `/v1/tasks/${at.task}/events`);
    expect(answer.status).toBe(404);
  });
});

describe('a slow reader', () => {
  const CHUNK = Buffer.from(`data: ${'x'.repeat(64 * 1024)}\n\n`);
  const CHUNKS = 1_000;

  async function door(pace: EventChunk['pace']) {
    const state = { pulled: 0, isLetGo: false };
    async function* chunks(): AsyncGenerator<EventChunk> {
      try {
        for (; state.pulled < CHUNKS; state.pulled++) yield { bytes: CHUNK, pace };
      } finally {
        state.isLetGo = true;
      }
    }
    const route = defineRoute({
      method: 'GET',
      path: '/v1/much',
      auth: 'caller',
      summary: 'Much',
      reply: { 200: EVENTS },
      errors: [],
      handle: (parts) => ({ status: 200, events: { chunks: chunks(), endsAtMs: parts.clock.now() + 3_600_000 } }),
    });
    const opened = await openDoor({ routes: [route] });
    open.push(opened);
    return { opened, state };
  }

  it('is cut off when deltas wait for it, a megabyte behind', async () => {
    const { opened, state } = await door('sender');
    const reader = new Reader(opened, '/v1/much', { as: svid(REFUNDS) });
    reader.socket.pause();
    await until(() => state.isLetGo);
    expect(state.pulled).toBeLessThan(CHUNKS);
    reader.socket.resume();
    await until(() => reader.isOver);
  });

  it('gets the whole snapshot at its own pace', async () => {
    const { opened, state } = await door('reader');
    const reader = new Reader(opened, '/v1/much', { as: svid(REFUNDS) });
    reader.socket.pause();
    await until(() => state.pulled > 0);
    // More than any buffer between us holds: the source waits for the reader.
    for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(state.pulled).toBeLessThan(CHUNKS);
    reader.socket.resume();
    await until(() => reader.isOver);
    expect(state.pulled).toBe(CHUNKS);
    expect(reader.text.split('data: ').length - 1).toBe(CHUNKS);
  });
});
