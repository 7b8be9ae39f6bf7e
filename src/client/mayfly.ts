import { type Clock, parseDurationMs, systemClock } from '../core/time.js';
import { Api } from './api.js';
import { BrokerConnection } from './broker-connection.js';
import { defined } from './defined.js';
import { environmentOptions } from './environment.js';
import { type ClientIdentity, isCertificate, isPerson, spiffeIdOf, tlsOf } from './identity.js';
import { InvalidRequest } from './mayfly-error.js';
import { Task } from './task.js';
import { TaskToken, type TokenRequest } from './task-token.js';
import { type Fetch, nodeFetch } from './transport.js';
import type { TokenReply } from './wire.js';

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
export { TaskSecret } from './task-secret.js';
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
export class Mayfly extends Api {
  readonly #broker: BrokerConnection;
  readonly #identity: ClientIdentity | undefined;

  constructor(options: MayflyOptions) {
    const url = options.url.replace(/\/$/, '');
    const broker = new BrokerConnection({
      url,
      issuer: options.issuer ?? url,
      fetch: options.fetch ?? nodeFetch(tlsOf(options.identity, options.ca)),
      clock: options.clock ?? systemClock,
      timeoutMs: options.timeoutMs ?? 10_000,
      ...(options.identity ? { identity: options.identity } : { isNobody: !options.fetch }),
    });
    super(broker);
    this.#broker = broker;
    this.#identity = options.identity;
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

  /** Who asks, in the parameters of a token request. */
  async #grant(request: TokenRequest, issuer: string): Promise<Record<string, string | undefined>> {
    const identity = this.#identity;
    const person = request.onBehalfOf ?? (identity && isPerson(identity) ? await identity.person(issuer) : undefined);
    const subject = request.subjectToken ?? person;
    if (subject === undefined) this.#broker.checkSomebody();
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
