import { createHash, generateKeyPairSync, type KeyObject, randomUUID, sign } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TaskClaims } from '../../src/core/claims.js';
import { writeFeedFrame } from '../../src/core/feed-frames.js';
import { newId } from '../../src/core/ids.js';
import type { FeedEntry, Match } from '../../src/core/revocations.js';

export interface IssuerKey {
  kid: string;
  alg: 'ES256' | 'RS256';
  privateKey: KeyObject;
  publicJwk: Record<string, unknown>;
}

export interface Seen {
  method: string;
  path: string;
  headers: IncomingMessage['headers'];
  body: string;
}

export type Answer = { status?: number; headers?: Record<string, string>; body?: unknown } | 'hang';

export function makeKey(alg: IssuerKey['alg'] = 'ES256', kid: string = randomUUID()): IssuerKey {
  const { privateKey, publicKey } =
    alg === 'ES256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { kid, alg, privateKey, publicJwk: { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' } };
}

export function signJws(
  header: object,
  payload: object | string,
  { alg, privateKey }: Pick<IssuerKey, 'alg' | 'privateKey'>,
): string {
  const encode = (value: object | string) =>
    Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url');
  const input = `${encode(header)}.${encode(payload)}`;
  const key = alg === 'ES256' ? { key: privateKey, dsaEncoding: 'ieee-p1363' as const } : privateKey;
  return `${input}.${sign('sha256', Buffer.from(input), key).toString('base64url')}`;
}

/** A DPoP client with a key of its own. */
export class ProofMaker {
  readonly key = makeKey();
  readonly jkt: string;

  constructor() {
    const { crv, kty, x, y } = this.key.publicJwk;
    this.jkt = createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
  }

  prove(
    claims: { htm: string; htu: string; iat: number; accessToken?: string } & Record<string, unknown>,
    header: object = {},
  ): string {
    const { accessToken, ...rest } = claims;
    const { crv, kty, x, y } = this.key.publicJwk;
    const ath = accessToken === undefined ? {} : { ath: createHash('sha256').update(accessToken).digest('base64url') };
    return signJws(
      { typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y }, ...header },
      { jti: randomUUID(), ...ath, ...rest },
      this.key,
    );
  }
}

/**
 * A small issuer over real HTTP: its own keys, a JWKS, a feed that says what a test tells it to, and scripted answers for every
 * other path. Times come from `nowMs`.
 */
export class FakeIssuer {
  nowMs = 1_795_382_752_000;
  keys: IssuerKey[] = [makeKey('ES256', 'key-1')];
  epoch = 7;
  /** Entries the feed still has. */
  entries: FeedEntry[] = [];
  /** Whether the feed is answered at all, and whether heads follow by themselves after a snapshot. */
  feedStatus = 200;
  sendsHeads = true;
  readonly seen: Seen[] = [];
  readonly acknowledged: string[] = [];
  jwksStatus = 200;
  readonly #routes = new Map<string, (seen: Seen) => Answer | Promise<Answer>>();
  readonly #streams = new Set<ServerResponse>();
  readonly #changed = new Set<() => void>();
  #seq = 0;
  #head: string | undefined;
  #server: Server | undefined;
  url = '';

  async start(): Promise<this> {
    this.#server = createServer((request, response) => void this.#answer(request, response));
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve));
    this.url = `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
    return this;
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve));
  }

  on(route: string, answer: (seen: Seen) => Answer | Promise<Answer>): void {
    this.#routes.set(route, answer);
  }

  get head(): string {
    return this.#head ?? `${this.epoch}-0-0`;
  }

  set head(position: string) {
    this.#head = position;
  }

  nextPosition(): string {
    return `${this.epoch}-${this.nowMs}-${++this.#seq}`;
  }

  /** A revocation as the store would append it; sent to readers unless `silently`. */
  revoke(
    match: Match,
    { silently = false, pos = this.nextPosition() }: { silently?: boolean; pos?: string } = {},
  ): FeedEntry {
    const entry: FeedEntry = { pos, untilMs: match.key ? null : this.nowMs + 960_000, match };
    this.entries.push(entry);
    this.#head = pos;
    if (!silently) this.send(writeFeedFrame({ kind: 'entry', entry }));
    return entry;
  }

  beat(position: string = this.head): void {
    this.send(writeFeedFrame({ kind: 'head', position }));
  }

  send(text: string): void {
    for (const stream of this.#streams) stream.write(text);
  }

  sendBytes(bytes: Buffer): void {
    for (const stream of this.#streams) stream.write(bytes);
  }

  /** Ends every stream cleanly, or cuts it. */
  cut(how: 'end' | 'destroy' = 'destroy'): void {
    for (const stream of this.#streams) how === 'end' ? stream.end() : stream.destroy();
    this.#streams.clear();
  }

  get readers(): number {
    return this.#streams.size;
  }

  /** Resolves when something this issuer has seen or holds fulfils the condition. */
  async until(condition: () => boolean, timeoutMs = 5_000): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the condition never held')), timeoutMs);
      const look = () => {
        if (!condition()) return;
        clearTimeout(timer);
        this.#changed.delete(look);
        resolve();
      };
      this.#changed.add(look);
    });
  }

  claims({ mayfly, ...rest }: Partial<Omit<TaskClaims, 'mayfly'>> & { mayfly?: object } = {}): TaskClaims {
    const iat = Math.floor(this.nowMs / 1_000);
    const agent = 'spiffe://dev.mayfly/agent/refunds';
    const task = newId('tsk', 'a', this.nowMs);
    return {
      iss: this.url,
      sub: agent,
      aud: 'https://orders.example',
      client_id: agent,
      iat,
      exp: iat + 300,
      jti: newId('lse', 'a', this.nowMs),
      scope: 'orders.read',
      authorization_details: [{ type: 'urn:mayfly:task', identifier: task }],
      ...rest,
      mayfly: { cell: 'a', path: [task], pos: this.head, sel: ['owner-hash'], bundle: 'sha256:b', ...mayfly },
    };
  }

  mint(
    claims: object = this.claims(),
    { key = this.keys[0] as IssuerKey, header = {} }: { key?: IssuerKey; header?: object } = {},
  ): string {
    return signJws({ typ: 'at+jwt', alg: key.alg, kid: key.kid, ...header }, claims, key);
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const [path = ''] = (request.url ?? '').split('?');
    const seen: Seen = {
      method: request.method ?? '',
      path: request.url ?? '',
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    };
    this.seen.push(seen);
    try {
      const scripted = this.#routes.get(`${seen.method} ${path}`);
      if (scripted) this.#reply(response, await scripted(seen));
      else if (path === '/.well-known/jwks.json') {
        this.#reply(response, { status: this.jwksStatus, body: { keys: this.keys.map((key) => key.publicJwk) } });
      } else if (path === '/v1/feed') this.#feed(seen, response);
      else if (path === '/v1/feed/ack') {
        this.acknowledged.push(JSON.parse(seen.body).pos);
        this.#reply(response, { status: 204 });
      } else this.#reply(response, { status: 404, body: { code: 'not_found' } });
    } finally {
      for (const look of [...this.#changed]) look();
    }
  }

  #reply(response: ServerResponse, answer: Answer): void {
    if (answer === 'hang') return;
    const body =
      answer.body === undefined
        ? undefined
        : typeof answer.body === 'string'
          ? answer.body
          : JSON.stringify(answer.body);
    response.writeHead(answer.status ?? 200, { 'content-type': 'application/json', ...answer.headers }).end(body);
  }

  #feed(seen: Seen, response: ServerResponse): void {
    if (this.feedStatus !== 200) {
      this.#reply(response, { status: this.feedStatus, body: {} });
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.flushHeaders();
    const cursor = seen.headers['last-event-id'];
    const known = this.entries.findIndex((entry) => entry.pos === cursor);
    if (cursor === undefined || (known === -1 && cursor !== this.head)) {
      response.write(writeFeedFrame({ kind: 'reset' }));
      for (const entry of this.entries) response.write(writeFeedFrame({ kind: 'entry', entry }));
    } else if (known !== -1) {
      for (const entry of this.entries.slice(known + 1)) response.write(writeFeedFrame({ kind: 'entry', entry }));
    }
    if (this.sendsHeads) response.write(writeFeedFrame({ kind: 'head', position: this.head }));
    this.#streams.add(response);
    response.on('close', () => this.#streams.delete(response));
  }
}
