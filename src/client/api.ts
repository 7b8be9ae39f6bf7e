import type { Selector } from '../core/selector.js';
import { type BrokerConnection, newIdempotencyKey } from './broker-connection.js';
import { defined } from './defined.js';
import { serverSentEvents } from './server-sent-events.js';
import type {
  AuditQuery,
  AuditReply,
  BackendReply,
  BundlePreviewReply,
  BundleReply,
  FeedReaderReply,
  HealthReply,
  KeptEnd,
  KeyReply,
  LeaseReply,
  LockReply,
  OpenedReply,
  Page,
  PageQuery,
  ReadinessReply,
  RenewalReply,
  RevocationReply,
  RevokedReply,
  SecretBody,
  SecretReply,
  SecretSummary,
  TaskBody,
  TaskEvent,
  TaskReply,
  VerdictsReply,
} from './wire.js';

/** The API as it is on the wire, grouped by what it is about. Every refusal is a MayflyError. */
export class Api {
  readonly #broker: BrokerConnection;

  constructor(broker: BrokerConnection) {
    this.#broker = broker;
  }

  readonly tasks = {
    /** With `ref`, repeating is safe: the same opener's ref answers with the task there is (409 when that is for something else). */
    start: (body: TaskBody, { idempotencyKey = newIdempotencyKey() } = {}) =>
      this.#broker.call<OpenedReply>('/v1/tasks', { method: 'POST', body, idempotencyKey }),
    /** Opens the task of that ref, or answers with the one there is. */
    put: ({ ref, ...body }: TaskBody & { ref: string }) =>
      this.#broker.call<OpenedReply>(`/v1/tasks/${encodeURIComponent(`ref:${ref}`)}`, { method: 'PUT', body }),
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
      this.#broker.call<{ task: TaskReply; preview?: VerdictsReply; warnings?: string[] }>(taskPath(task, 'context'), {
        method: 'PATCH',
        body: defined({ context, generation, dry_run: dryRun }),
      }),
    /** The task as it is, and then at each change, until it is over or the signal aborts. */
    events: (task: string, signal: AbortSignal = new AbortController().signal) => this.#events(task, signal),
  };

  readonly leases = {
    list: (
      query: PageQuery & {
        task?: string;
        agent?: string;
        state?: string;
        /** Not over by their own state, or the others that are not past their end. */
        live?: boolean;
        /** `operator`: the tokens of persons, which belong to no task. */
        given_for?: 'task' | 'operator';
      } = {},
    ) => this.#broker.call<Page<LeaseReply>>('/v1/leases', { query: { ...query } }),
    get: (id: string) => this.#broker.call<LeaseReply>(leasePath(id)),
    /** Longer life for a credential, decided anew. */
    renew: (id: string, incrementSeconds?: number) =>
      this.#broker.call<RenewalReply>(leasePath(id, 'renew'), {
        method: 'POST',
        body: defined({ increment_seconds: incrementSeconds }),
      }),
    /** Gives a credential back before its task is over. */
    revoke: (id: string) =>
      this.#broker.call<{ lease_id: string; state: string }>(leasePath(id, 'revoke'), { method: 'POST', body: {} }),
    /** `requested` by the first person, `abandoned` when a second one repeats it within 15 minutes. */
    abandon: async (id: string, reason: string): Promise<'requested' | 'abandoned'> => {
      const reply = await this.#broker.call<{ state: 'requested' } | undefined>(leasePath(id, 'abandon'), {
        method: 'POST',
        body: { reason },
      });
      return reply ? 'requested' : 'abandoned';
    },
  };

  readonly secrets = {
    /** A credential for a task. Asked again with the same key, the first one is revoked and another is issued. */
    get: (name: string, body: SecretBody, { idempotencyKey = newIdempotencyKey() } = {}) =>
      this.#broker.call<SecretReply>(`/v1/secrets/${encodeURIComponent(name)}`, {
        method: 'POST',
        body,
        idempotencyKey,
      }),
    list: (query: PageQuery = {}) => this.#broker.call<Page<SecretSummary>>('/v1/secrets', { query: { ...query } }),
  };

  readonly backends = {
    list: () => this.#broker.call<{ items: BackendReply[] }>('/v1/backends'),
    /** Tries every secret of a backend on the real thing, now. */
    check: (name: string) =>
      this.#broker.call<BackendReply>(`/v1/backends/${encodeURIComponent(name)}/check`, { method: 'POST', body: {} }),
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
    /** Also a version that was active before: a person says so. */
    activate: (files: Record<string, string>) =>
      this.#broker.call<{ digest: string; previous?: string; changed: boolean }>('/v1/bundle', {
        method: 'PUT',
        body: { files },
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

  /** Which checks are well, by their names: what anybody may know, also while nobody can sign in. Undefined when there is no such answer. */
  async readiness(): Promise<ReadinessReply | undefined> {
    const reply = await this.#broker.call<ReadinessReply>('/readyz', { anonymous: true, takesAnyStatus: true });
    return Array.isArray(Object(reply).checks) ? reply : undefined;
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
}

function taskPath(task: string, verb?: string): string {
  return `/v1/tasks/${encodeURIComponent(task)}${verb === undefined ? '' : `/${verb}`}`;
}

function leasePath(lease: string, verb?: string): string {
  return `/v1/leases/${encodeURIComponent(lease)}${verb === undefined ? '' : `/${verb}`}`;
}
