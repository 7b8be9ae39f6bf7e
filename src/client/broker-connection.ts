import { randomUUID } from 'node:crypto';
import type { Clock } from '../core/time.js';
import { DpopProver } from './dpop-prover.js';
import { type ClientIdentity, isCertificate, isPerson, NO_IDENTITY } from './identity.js';
import { MayflyError, mayflyError, problemOf } from './mayfly-error.js';
import { reasonOf } from './reason.js';
import { chunksOf, type Fetch, textOf } from './transport.js';

export interface BrokerConnectionOptions {
  /** Where requests go, without a trailing slash. */
  url: string;
  /** What the broker calls itself: the audience of our identity. */
  issuer: string;
  identity?: ClientIdentity;
  /** No identity is here, and none is shown by a `fetch` of the program's own: only what is public can be asked. */
  isNobody?: boolean;
  fetch: Fetch;
  clock: Clock;
  timeoutMs: number;
}

export interface BrokerRequest {
  method?: string;
  body?: unknown;
  query?: Record<string, string | number | boolean | undefined>;
  /** Makes a POST safe to repeat; it is repeated once when no answer came. */
  idempotencyKey?: string;
  signal?: AbortSignal;
  /** No identity is sent. */
  anonymous?: boolean;
  /** A refusal says as much as an answer does: its body is the reply. */
  takesAnyStatus?: boolean;
}

const BODY_BYTES_MAX = 8 * 1024 * 1024;
/** An operator token this close to its end is not used any more. */
const OPERATOR_TOKEN_LEFT_MS_MIN = 20_000;

/** What TLS says of a certificate whose CA it does not know. */
const UNTRUSTED = new Set([
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
]);

/** One broker and one identity: how a call is authenticated, sent, answered and refused. */
export class BrokerConnection {
  readonly prover = new DpopProver();
  readonly options: BrokerConnectionOptions;
  #operator: { token: string; usableUntilMs: number } | undefined;

  constructor(options: BrokerConnectionOptions) {
    this.options = options;
  }

  /** A JSON call under `/v1` or `/.well-known`. Throws MayflyError. Answers undefined when there is no body. */
  async call<Reply>(path: string, request: BrokerRequest = {}): Promise<Reply> {
    const response = await this.#send(path, request);
    return (await (request.takesAnyStatus ? this.#json(response) : this.#bodyOf(response))) as Reply;
  }

  /** An OAuth form call. Several values of one name are repeated. */
  async form<Reply>(
    path: string,
    fields: Record<string, string | string[] | undefined>,
    { proof = false, anonymous = true }: { proof?: boolean; anonymous?: boolean } = {},
  ): Promise<Reply> {
    const form = new URLSearchParams();
    for (const [name, value] of Object.entries(fields)) {
      for (const one of value === undefined ? [] : [value].flat()) form.append(name, one);
    }
    const url = `${this.options.url}${path}`;
    for (let attempt = 1; ; attempt++) {
      const headers: Record<string, string> = {
        'content-type': 'application/x-www-form-urlencoded',
        accept: 'application/json',
        ...(anonymous ? {} : await this.#identity('POST', path)),
      };
      if (proof) headers['dpop'] = this.#proof('POST', path);
      const response = await this.#fetch(url, { method: 'POST', headers, body: form.toString() });
      try {
        return (await this.#bodyOf(response)) as Reply;
      } catch (error) {
        // The nonce came with the refusal: the next proof carries it (RFC 9449 section 8).
        if (attempt > 1 || !(error instanceof MayflyError) || error.code !== 'dpop_nonce_required') throw error;
      }
    }
  }

  /** The bytes of an event stream, for as long as it lasts. */
  async *events(path: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const response = await this.#send(path, { signal }, { accept: 'text/event-stream' }, false);
    if (!response.ok) throw this.#refusal(response, await this.#json(response));
    yield* chunksOf(response);
  }

  async #send(
    path: string,
    request: BrokerRequest,
    more: Record<string, string> = {},
    isBounded = true,
  ): Promise<Response> {
    const { method = 'GET', body, query = {}, idempotencyKey, signal, anonymous } = request;
    const asked = Object.entries(query).filter(([, value]) => value !== undefined);
    const search = new URLSearchParams(
      asked.map(([name, value]): [string, string] => [name, String(value)]),
    ).toString();
    const url = `${this.options.url}${path}${search === '' ? '' : `?${search}`}`;
    for (let attempt = 1; ; attempt++) {
      const headers: Record<string, string> = {
        accept: 'application/json',
        ...more,
        ...(anonymous ? {} : await this.#identity(method, path)),
      };
      if (body !== undefined) headers['content-type'] = 'application/json';
      if (idempotencyKey !== undefined) headers['idempotency-key'] = idempotencyKey;
      try {
        const response = await this.#fetch(
          url,
          {
            method,
            headers,
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
            ...(signal ? { signal } : {}),
          },
          isBounded,
        );
        const wantsNonce = response.status === 401 && response.headers.has('dpop-nonce');
        if (!wantsNonce || attempt > 1) return response;
        await response.body?.cancel();
      } catch (error) {
        // No answer: the outcome is unknown, and a key (or a method that repeats naturally) makes asking again safe.
        const isRepeatable = idempotencyKey !== undefined || method === 'GET' || method === 'PUT';
        if (attempt > 1 || !isRepeatable || signal?.aborted) throw error;
      }
    }
  }

  async #fetch(
    url: string,
    init: { method: string; headers: Record<string, string>; body?: string; signal?: AbortSignal },
    isBounded = true,
  ): Promise<Response> {
    const signals = [init.signal, isBounded ? AbortSignal.timeout(this.options.timeoutMs) : undefined];
    try {
      const response = await this.options.fetch(url, {
        ...init,
        signal: AbortSignal.any(signals.filter((signal) => signal !== undefined)),
        redirect: 'error',
      });
      this.prover.noteNonce(this.#publicUrl, response.headers.get('dpop-nonce'));
      return response;
    } catch (error) {
      // A file of ours that cannot be read is no broker that does not answer.
      if (error instanceof MayflyError) throw error;
      throw mayflyError({
        code: 'unavailable',
        status: 0,
        message: `No answer from ${this.options.url}: ${reasonOf(error)}.`,
        ...(UNTRUSTED.has(reasonOf(error)) && {
          hint: 'Its certificate is from no CA that is trusted here: set MAYFLY_CA_FILE (in a program: ca) to that CA, such as bundle.pem.',
        }),
        cause: error,
      });
    }
  }

  async #bodyOf(response: Response): Promise<unknown> {
    const body = await this.#json(response);
    // 202 is an answer of its own only for what a second person or a later moment completes.
    const isPending = response.status === 202 && Object(body).code === 'approval_pending';
    if (response.ok && !isPending) return body;
    throw this.#refusal(response, body);
  }

  /** A Mayfly's refusals say what they are. Of another's only the status is known: its class follows that, its words are no Mayfly's. */
  #refusal(response: Response, body: unknown): MayflyError {
    const problem = problemOf(response.status, response.headers, body);
    const { code, detail, error_description: description } = Object(body);
    const speaks = [code, detail, description].some((text) => typeof text === 'string');
    return mayflyError(speaks ? problem : { ...problem, ...this.#stranger(response) });
  }

  #stranger(response: Response): { message: string; hint: string } {
    const type = response.headers.get('content-type')?.split(';')[0] ?? 'no content type';
    return {
      message: `What answered at ${this.options.url} is no Mayfly: ${response.status}, ${type}, and nothing that a Mayfly says.`,
      hint: 'Look at MAYFLY_ADDR (in a program: url): it names another server, or a proxy in between answered for the broker.',
    };
  }

  async #json(response: Response): Promise<unknown> {
    try {
      const text = await textOf(response, BODY_BYTES_MAX);
      return text === '' ? undefined : JSON.parse(text);
    } catch (error) {
      if (!response.ok) return undefined;
      const problem = { code: 'unavailable', status: response.status } as const;
      if (error instanceof SyntaxError) throw mayflyError({ ...problem, ...this.#stranger(response) });
      throw mayflyError({
        ...problem,
        message: `The answer of ${this.options.url} cannot be read: ${reasonOf(error)}.`,
        cause: error,
      });
    }
  }

  /** How a call says who makes it. With a certificate the connection says it. */
  async #identity(method: string, path: string): Promise<Record<string, string>> {
    const { identity, issuer } = this.options;
    this.checkSomebody();
    if (!identity || isCertificate(identity)) return {};
    if (!isPerson(identity)) return { authorization: `Bearer ${await identity.bearer(issuer)}` };
    const token = await this.#operatorToken();
    return { authorization: `DPoP ${token}`, dpop: this.#proof(method, path, token) };
  }

  /** Said here, because the broker could only say that it does not know who asks. */
  checkSomebody(): void {
    if (!this.options.isNobody) return;
    throw mayflyError({
      code: 'invalid_request',
      status: 0,
      field: 'identity',
      message: NO_IDENTITY,
      hint: 'In a program: pass identity, a bearer function or a certificate with its key.',
    });
  }

  /** A proof names the broker as it calls itself: its issuer, and at the mTLS listener that address. */
  #proof(method: string, path: string, accessToken?: string): string {
    const { clock } = this.options;
    return this.prover.prove({
      method,
      url: `${this.#publicUrl}${path}`,
      nowMs: clock.now(),
      ...(accessToken === undefined ? {} : { accessToken }),
    });
  }

  get #publicUrl(): string {
    const { identity, url, issuer } = this.options;
    return identity && isCertificate(identity) ? url : issuer;
  }

  /** A person acts with a five-minute token bound to our key; it is fetched when needed and used until shortly before its end. */
  async #operatorToken(): Promise<string> {
    const { identity, issuer, clock } = this.options;
    const nowMs = clock.now();
    if (this.#operator && nowMs < this.#operator.usableUntilMs) return this.#operator.token;
    if (!identity || !isPerson(identity)) throw new Error('an operator token is for a person');
    const reply = await this.form<{ access_token: string; expires_in: number }>(
      '/oauth2/token',
      {
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: await identity.person(issuer),
        subject_token_type: 'urn:ietf:params:oauth:token-type:id_token',
        resource: issuer,
      },
      { proof: true },
    );
    const usableUntilMs = nowMs + reply.expires_in * 1_000 - OPERATOR_TOKEN_LEFT_MS_MIN;
    this.#operator = { token: reply.access_token, usableUntilMs };
    return reply.access_token;
  }
}

export function newIdempotencyKey(): string {
  return randomUUID();
}
