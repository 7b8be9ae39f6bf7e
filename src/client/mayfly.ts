import type { Selector } from '../core/selector.js';
import { type Clock, parseDurationMs, systemClock } from '../core/time.js';
import { BrokerConnection, newIdempotencyKey } from './broker-connection.js';
import { environmentOptions } from './environment.js';
import { type ClientIdentity, isCertificate, isPerson, spiffeIdOf, tlsOf } from './identity.js';
import { InvalidRequest } from './mayfly-error.js';
import { serverSentEvents } from './server-sent-events.js';
import { Task } from './task.js';
import { TaskToken, type TokenRequest } from './task-token.js';
import { type Fetch, nodeFetch } from './transport.js';
import type {
  AuditQuery,
  AuditReply,
  BundlePreviewReply,
  BundleReply,
  FeedReaderReply,
  HealthReply,
  KeptEnd,
  KeyReply,
  LeaseReply,
  LockReply,
  Page,
  PageQuery,
  RevocationReply,
  RevokedReply,
  TaskBody,
  TaskEvent,
  TaskReply,
  TokenReply,
} from './wire.js';

export type { BearerIdentity, CertificateIdentity, ClientIdentity, PersonIdentity } from './identity.js';
export {
  ApprovalRequired,
  Conflict,
  Denied,
  Expired,
  IdentityRejected,
  InvalidRequest,
  MayflyError,
  NotFound,
  Revoked,
  Unavailable,
} from './mayfly-error.js';
export { Task } from './task.js';
export { TaskToken, type TokenRequest } from './task-token.js';
export type * from './wire.js';

export interface MayflyOptions {
  /** The broker's address. */
  url: string;
  /** What the broker calls itself, when that is not its address (its mTLS listener has another port). */
  issuer?: string;
  /** Who we are; without one only what is public can be asked. */
  identity?: ClientIdentity;
  /** A private CA for the broker's certificate, PEM. */
  ca?: string | Buffer;
  /** Instead of node's own http(s); `ca` and a certificate identity are then its business. */
  fetch?: Fetch;
  /** For one call. Default 10 s. */
  timeoutMs?: number;
  clock?: Clock;
}

export interface TaskOptions {
  /** One line for whoever reads the record. */
  purpose: string;
  type?: string;
  params?: Record<string, unknown>;
  /** SPIFFE IDs; default: ourselves. */
  agents?: string[];
  tools?: string[];
  resources?: string[];
  secrets?: string[];
  context?: Record<string, unknown>;
  /** Such as `5m`, `90s`, or a number of seconds. */
  ttl?: string | number;
  ref?: string;
  parent?: string;
  /** Declares a heartbeat and sends it while the task runs. */
  heartbeatSeconds?: number;
  onSilence?: 'suspend' | 'end';
  onContextChange?: 're-evaluate' | 'revoke';
}

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';
const ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

/**
 * A broker, asked as one identity. The grouped methods (`tasks`, `leases`, `locks`…) are the API as it is on the wire; `withTask` and
 * `task` are what an agent writes. Every refusal is a MayflyError.
 */
export class Mayfly {
  readonly #broker: BrokerConnection;
  readonly #identity: ClientIdentity | undefined;

  constructor(options: MayflyOptions) {
    const url = options.url.replace(/\/$/, '');
    this.#identity = options.identity;
    this.#broker = new BrokerConnection({
      url,
      issuer: options.issuer ?? url,
      fetch: options.fetch ?? nodeFetch(tlsOf(options.identity, options.ca)),
      clock: options.clock ?? systemClock,
      timeoutMs: options.timeoutMs ?? 10_000,
      ...(options.identity ? { identity: options.identity } : {}),
    });
  }

  /**
   * The broker and the identity that the environment names: `MAYFLY_ADDR` (or the development broker of `MAYFLY_DATA`), and
   * `MAYFLY_JWT_SVID_FILE`, or `MAYFLY_CERT_FILE` with `MAYFLY_KEY_FILE`; `MAYFLY_CA_FILE`, `MAYFLY_ISSUER` where needed. Files are read anew when they are used.
   */
  static fromEnv(environment: NodeJS.ProcessEnv = process.env, more: Partial<MayflyOptions> = {}): Mayfly {
    return new Mayfly({ ...environmentOptions(environment), ...more });
  }

  /** Opens a task, runs `work` with it, and ends it: completed when `work` returns, failed when it throws. Either way everything given is dead. */
  async withTask<Result>(options: TaskOptions, work: (task: Task) => Promise<Result>): Promise<Result> {
    const task = await this.task(options);
    let result: Result;
    try {
      result = await work(task);
    } catch (error) {
      // What went wrong may quote anything; its kind is all that goes into the record. A failed end must not hide the error.
      await task.fail(error instanceof Error ? error.name : 'thrown').catch(() => undefined);
      throw error;
    }
    await task.complete();
    return result;
  }

  /** Opens a task; `await using` completes it at the end of the block. */
  async task(options: TaskOptions): Promise<Task> {
    const self = options.agents ? undefined : await this.#ownName();
    const scope = { tools: options.tools, resources: options.resources, secrets: options.secrets };
    const reply = await this.tasks.start(
      defined({
        purpose: options.purpose,
        type: options.type,
        params: options.params,
        ref: options.ref,
        agents: options.agents ?? (self === undefined ? undefined : [self]),
        scope: Object.values(scope).some((values) => values !== undefined) ? defined(scope) : undefined,
        context: options.context,
        ttl_seconds: secondsOf(options.ttl),
        heartbeat_seconds: options.heartbeatSeconds,
        on_silence: options.onSilence,
        on_context_change: options.onContextChange,
        parent: options.parent,
      }),
    );
    return new Task(this, reply, { clock: this.#broker.options.clock });
  }

  /** A task that somebody else opened for us. */
  async join(task: string): Promise<Task> {
    return new Task(this, await this.tasks.get(task), { clock: this.#broker.options.clock });
  }

  /** A token for one task and one resource (RFC 8693; over mTLS, client_credentials). */
  async token(request: TokenRequest): Promise<TaskToken> {
    const { clock, issuer } = this.#broker.options;
    const askedAtMs = clock.now();
    const reply = await this.#broker.form<TokenReply>(
      '/oauth2/token',
      {
        ...(await this.#grant(request, issuer)),
        resource: request.resource,
        scope: request.tools && request.tools.length > 0 ? request.tools.join(' ') : undefined,
        authorization_details:
          request.task === undefined
            ? undefined
            : JSON.stringify([{ type: 'urn:mayfly:task', identifier: request.task }]),
      },
      { proof: request.binding === 'dpop' },
    );
    return new TaskToken(reply, askedAtMs, this.#broker.prover, clock);
  }

  readonly tasks = {
    /** With `ref`, repeating is safe: the same opener's ref answers with the task there is. */
    start: (body: TaskBody, { idempotencyKey = newIdempotencyKey() } = {}) =>
      this.#broker.call<TaskReply>('/v1/tasks', { method: 'POST', body, idempotencyKey }),
    /** Opens the task of that ref, or answers with the one there is. */
    put: ({ ref, ...body }: TaskBody & { ref: string }) =>
      this.#broker.call<TaskReply>(`/v1/tasks/${encodeURIComponent(`ref:${ref}`)}`, { method: 'PUT', body }),
    get: (task: string) => this.#broker.call<TaskReply>(taskPath(task)),
    list: (query: PageQuery & { opener?: string; agent?: string; live?: boolean } = {}) =>
      this.#broker.call<Page<TaskReply>>('/v1/tasks', { query: { ...query } }),
    complete: (task: string, reason?: string) => this.#end(task, 'complete', reason),
    fail: (task: string, reason?: string) => this.#end(task, 'fail', reason),
    cancel: (task: string, reason?: string) => this.#end(task, 'cancel', reason),
    suspend: (task: string, reason?: string) =>
      this.#broker.call<TaskReply>(taskPath(task, 'suspend'), { method: 'POST', body: defined({ reason }) }),
    resume: (task: string) => this.#broker.call<TaskReply>(taskPath(task, 'resume'), { method: 'POST', body: {} }),
    heartbeat: (task: string) =>
      this.#broker.call<TaskReply>(taskPath(task, 'heartbeat'), { method: 'POST', body: {} }),
    /** Merges into the context. `generation`: only if the task is still at it. `dryRun`: what would be revoked. */
    setContext: (
      task: string,
      context: Record<string, unknown>,
      { generation, dryRun }: { generation?: number; dryRun?: boolean } = {},
    ) =>
      this.#broker.call<{ task: TaskReply; preview?: { kept: number; revoked: string[] } }>(taskPath(task, 'context'), {
        method: 'PATCH',
        body: defined({ context, generation, dry_run: dryRun }),
      }),
    /** The task as it is, and then at each change, until it is over or the signal aborts. */
    events: (task: string, signal: AbortSignal = new AbortController().signal) => this.#events(task, signal),
  };

  readonly leases = {
    list: (query: PageQuery & { task?: string; agent?: string; state?: string } = {}) =>
      this.#broker.call<Page<LeaseReply>>('/v1/leases', { query: { ...query } }),
    get: (id: string) => this.#broker.call<LeaseReply>(`/v1/leases/${encodeURIComponent(id)}`),
  };

  readonly revocations = {
    /** What a selector would hit; nothing is done. */
    preview: (selector: Selector) =>
      this.#broker.call<RevokedReply>('/v1/revocations', {
        method: 'POST',
        body: { selector, reason: 'preview', dry_run: true },
      }),
    /** Effective at once, however much it hits. Needs a bound identity. */
    make: (selector: Selector, reason: string, { idempotencyKey = newIdempotencyKey() } = {}) =>
      this.#broker.call<RevokedReply>('/v1/revocations', {
        method: 'POST',
        body: { selector, reason },
        idempotencyKey,
      }),
    list: (query: PageQuery = {}) =>
      this.#broker.call<Page<RevocationReply>>('/v1/revocations', { query: { ...query } }),
    get: (id: string) => this.#broker.call<RevocationReply>(`/v1/revocations/${encodeURIComponent(id)}`),
  };

  readonly locks = {
    preview: (selector: Selector) =>
      this.#broker.call<RevokedReply>('/v1/locks', {
        method: 'POST',
        body: { selector, reason: 'preview', dry_run: true },
      }),
    /** Stop: revokes, and forbids new grants until lifted or expired. Needs a bound identity. */
    make: (
      selector: Selector,
      reason: string,
      {
        expiresInSeconds,
        idempotencyKey = newIdempotencyKey(),
      }: { expiresInSeconds?: number; idempotencyKey?: string } = {},
    ) =>
      this.#broker.call<RevokedReply>('/v1/locks', {
        method: 'POST',
        body: defined({ selector, reason, expires_in: expiresInSeconds }),
        idempotencyKey,
      }),
    list: () => this.#broker.call<{ items: LockReply[] }>('/v1/locks'),
    /** `requested` by the first person, `lifted` when a second one repeats it within 15 minutes. */
    lift: async (id: string): Promise<'requested' | 'lifted'> => {
      const path = `/v1/locks/${encodeURIComponent(id)}`;
      const reply = await this.#broker.call<{ state: 'requested' } | undefined>(path, { method: 'DELETE' });
      return reply ? 'requested' : 'lifted';
    },
  };

  readonly keys = {
    list: () => this.#broker.call<{ items: KeyReply[] }>('/v1/keys'),
    /** Published, not yet used. */
    prepare: (alg: 'ES256' | 'RS256' = 'ES256') =>
      this.#broker.call<KeyReply>('/v1/keys', { method: 'POST', body: { alg } }),
    activate: (kid: string) =>
      this.#broker.call<KeyReply>(`/v1/keys/${encodeURIComponent(kid)}/activate`, { method: 'POST', body: {} }),
    /** Its tokens are dead at once. */
    taint: (kid: string, reason: string) =>
      this.#broker.call<KeyReply>(`/v1/keys/${encodeURIComponent(kid)}/taint`, { method: 'POST', body: { reason } }),
  };

  readonly feed = {
    /** Enforcement points, and up to where each has acknowledged. */
    readers: () => this.#broker.call<{ items: FeedReaderReply[] }>('/v1/feed/readers'),
  };

  readonly bundle = {
    get: () => this.#broker.call<BundleReply>('/v1/bundle'),
    preview: (files: Record<string, string>) =>
      this.#broker.call<BundlePreviewReply>('/v1/bundle/preview', { method: 'POST', body: { files } }),
    /** `again`: a version that was active before. */
    activate: (files: Record<string, string>, { again = false } = {}) =>
      this.#broker.call<{ digest: string; previous?: string; position?: string }>('/v1/bundle', {
        method: 'PUT',
        body: { files, again },
      }),
  };

  /** The audit log, newest first. */
  audit(query: AuditQuery = {}): Promise<Page<AuditReply>> {
    return this.#broker.call('/v1/audit', { query: { ...query } });
  }

  /** Explains a decision, a lease, a task or a token. */
  why(about: string): Promise<Record<string, unknown>> {
    return this.#broker.call('/v1/why', { method: 'POST', body: { about } });
  }

  /** Every token of earlier epochs is dead: the store may have forgotten. Needs a bound identity. */
  recover(reason: string): Promise<{ epoch: number }> {
    return this.#broker.call('/v1/recover', { method: 'POST', body: { reason } });
  }

  health(): Promise<HealthReply> {
    return this.#broker.call('/v1/health');
  }

  /** Whether a token is alive (RFC 7662), for the owners of its audience. */
  introspect(token: string): Promise<{ active: boolean; [claim: string]: unknown }> {
    return this.#broker.form('/oauth2/introspect', { token }, { anonymous: false });
  }

  /** Ends one token (RFC 7009). */
  async revokeToken(token: string): Promise<void> {
    await this.#broker.form('/oauth2/revoke', { token }, { anonymous: false });
  }

  /** Any call under this broker, with this identity: for what has no method yet. */
  call<Reply>(path: string, request: { method?: string; body?: unknown } = {}): Promise<Reply> {
    return this.#broker.call<Reply>(path, request);
  }

  #end(task: string, verb: 'complete' | 'fail' | 'cancel', reason: string | undefined): Promise<TaskReply | KeptEnd> {
    return this.#broker.call(taskPath(task, verb), { method: 'POST', body: defined({ reason }) });
  }

  async *#events(task: string, signal: AbortSignal): AsyncGenerator<TaskEvent> {
    for await (const { event, data } of serverSentEvents(this.#broker.events(taskPath(task, 'events'), signal))) {
      yield { kind: event, task: JSON.parse(data) as TaskReply };
    }
  }

  /** Who asks, in the parameters of a token request. */
  async #grant(request: TokenRequest, issuer: string): Promise<Record<string, string | undefined>> {
    const identity = this.#identity;
    const person = request.onBehalfOf ?? (identity && isPerson(identity) ? await identity.person(issuer) : undefined);
    const subject = request.subjectToken ?? person;
    const exchange = {
      grant_type: EXCHANGE,
      subject_token: subject,
      subject_token_type: request.subjectToken === undefined ? ID_TOKEN : ACCESS_TOKEN,
    };
    if (!identity || isPerson(identity)) return exchange;
    if (isCertificate(identity)) {
      const clientId = await spiffeIdOf(identity, issuer);
      return subject === undefined
        ? { grant_type: 'client_credentials', client_id: clientId }
        : { ...exchange, client_id: clientId };
    }
    const svid = await identity.bearer(issuer);
    return subject === undefined
      ? { grant_type: EXCHANGE, subject_token: svid, subject_token_type: JWT }
      : { ...exchange, actor_token: svid, actor_token_type: JWT };
  }

  async #ownName(): Promise<string | undefined> {
    return this.#identity && spiffeIdOf(this.#identity, this.#broker.options.issuer);
  }
}

function taskPath(task: string, verb?: string): string {
  return `/v1/tasks/${encodeURIComponent(task)}${verb === undefined ? '' : `/${verb}`}`;
}

function secondsOf(ttl: string | number | undefined): number | undefined {
  if (ttl === undefined) return undefined;
  const durationMs = typeof ttl === 'number' ? ttl * 1_000 : parseDurationMs(ttl);
  if (durationMs !== undefined && durationMs >= 1_000) return Math.floor(durationMs / 1_000);
  throw new InvalidRequest({
    code: 'invalid_request',
    status: 0,
    message: `ttl is a duration of at least a second, such as 5m; not ${String(ttl)}.`,
    field: 'ttl',
  });
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

function defined<T extends object>(record: T): Defined<T> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined)) as Defined<T>;
}
