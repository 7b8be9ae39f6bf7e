import { connect, type Socket } from 'node:net';
import { type OpenDoor, openDoor } from './open-door.js';

const GET = 'GET /livez HTTP/1.1\r\nHost: mayfly.example\r\n\r\n';

/** A connection that stays, and everything that came back on it. */
class Line {
  received = '';
  isOver = false;
  readonly #socket: Socket;

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1');
    this.#socket.setEncoding('utf8').on('data', (text: string) => (this.received += text));
    this.#socket.on('close', () => {
      this.isOver = true;
    });
    this.#socket.on('error', () => {});
  }

  say(text: string): void {
    this.#socket.write(text);
  }

  async hears(what: string): Promise<void> {
    await until(() => this.received.includes(what));
  }

  end(): void {
    this.#socket.destroy();
  }
}

async function until(holds: () => boolean, withinMs = 10_000): Promise<void> {
  const endMs = performance.now() + withinMs;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error('it never held');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe('a door that closes', () => {
  let at: OpenDoor;
  let line: Line;
  beforeEach(async () => {
    at = await openDoor();
    line = new Line(at.door.plain.port);
    line.say(GET);
    await line.hears('{"live":true}');
    expect(line.received).not.toMatch(/connection: close/i);
    line.received = '';
  });
  afterEach(async () => {
    line.end();
    await at.close();
  });

  it('while it leaves, takes new connections and ends each with its next reply', async () => {
    at.door.leave();
    for (const one of [line, new Line(at.door.plain.port)]) {
      one.say(GET);
      await one.hears('{"live":true}');
      expect(one.received).toMatch(/^HTTP\/1\.1 200[\s\S]*\r\nconnection: close\r\n/i);
      await until(() => one.isOver);
    }
  });

  it('answers a request that was on its way on an idle connection', async () => {
    const closed = at.door.close(10_000);
    line.say(GET);
    await line.hears('{"live":true}');
    expect(line.received).toMatch(/\r\nconnection: close\r\n/i);
    await closed;
    expect(line.isOver).toBe(true);
  });

  it('answers a request whose second half comes while it closes', async () => {
    line.say(GET.slice(0, 20));
    const closed = at.door.close(10_000);
    line.say(GET.slice(20));
    await line.hears('{"live":true}');
    await closed;
  });

  it('takes no new connection, and is closed without waiting for its grace once nobody is there', async () => {
    line.end();
    const startedAtMs = performance.now();
    await at.door.close(60_000);
    expect(performance.now() - startedAtMs).toBeLessThan(5_000);
    const late = new Line(at.door.plain.port);
    late.say(GET);
    await until(() => late.isOver);
    expect(late.received).toBe('');
  });

  it('cuts what is not over at the end of its grace', async () => {
    line.say(GET.slice(0, 20));
    const startedAtMs = performance.now();
    await at.door.close(300);
    expect(performance.now() - startedAtMs).toBeLessThan(5_000);
    await until(() => line.isOver);
  });
});
