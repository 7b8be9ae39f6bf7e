import { isTerminal } from '../core/task.js';
import type { Clock, EpochMs } from '../core/time.js';
import { Expired, MayflyError, Revoked } from './mayfly-error.js';
import { type SecretCalls, TaskSecret } from './task-secret.js';
import type { TaskToken, TokenRequest } from './task-token.js';
import type { KeptEnd, SecretBody, SecretReply, TaskEvent, TaskReply } from './wire.js';

/** What a running task asks of its broker. */
export interface TaskCalls {
  token(request: TokenRequest): Promise<TaskToken>;
  readonly tasks: {
    heartbeat(task: string): Promise<TaskReply>;
    setContext(task: string, context: Record<string, unknown>): Promise<{ task: TaskReply }>;
    complete(task: string, reason?: string): Promise<TaskReply | KeptEnd>;
    fail(task: string, reason?: string): Promise<TaskReply | KeptEnd>;
    cancel(task: string, reason?: string): Promise<TaskReply | KeptEnd>;
    events(task: string, signal: AbortSignal): AsyncIterable<TaskEvent>;
  };
  readonly secrets: { get(name: string, body: SecretBody): Promise<SecretReply> };
  readonly leases: SecretCalls;
}

/** Share of a token's life after which it is replaced. */
const RENEW_AT = 0.75;
const WATCH_RETRY_MS = 1_000;
/** setTimeout's own limit. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/**
 * A running task, as its agent holds it: tokens that are renewed before they end, a signal that aborts when the task is over, and
 * the ends. Ending it is the only clean-up there is.
 */
export class Task implements AsyncDisposable {
  readonly id: string;
  readonly createdAtMs: EpochMs;
  readonly deadlineMs: EpochMs;
  readonly #broker: TaskCalls;
  readonly #clock: Clock;
  readonly #over = new AbortController();
  readonly #tokens = new Map<string, Promise<TaskToken>>();
  readonly #secrets = new Map<string, Promise<TaskSecret>>();
  readonly #heartbeat: NodeJS.Timeout | undefined;
  #watching = false;
  #deadline: NodeJS.Timeout | undefined;

  constructor(broker: TaskCalls, reply: TaskReply, { clock }: { clock: Clock }) {
    this.id = reply.id;
    this.createdAtMs = Date.parse(reply.created_at);
    this.deadlineMs = Date.parse(reply.deadline);
    this.#broker = broker;
    this.#clock = clock;
    if (isTerminal(reply.state)) this.#end(reply);
    else if (reply.heartbeat_seconds !== undefined) {
      this.#heartbeat = setInterval(
        () => void this.heartbeat().catch(() => undefined),
        (reply.heartbeat_seconds * 1_000) / 3,
      );
      this.#heartbeat.unref();
    }
  }

  /** Aborts when the task is over, suspended or past its deadline, whoever ended it. The broker is followed from the first use on. */
  get signal(): AbortSignal {
    if (!this.#watching && !this.#over.signal.aborted) {
      this.#watching = true;
      this.#awaitDeadline();
      void this.#watch();
    }
    return this.#over.signal;
  }

  /** A token for one resource; the same one while it is fresh, then a new one, decided anew. */
  async token(
    resource: string,
    tools: string[] = [],
    options: Pick<TokenRequest, 'binding' | 'onBehalfOf'> = {},
  ): Promise<TaskToken> {
    this.#over.signal.throwIfAborted();
    const name = JSON.stringify([resource, [...tools].sort(), options.binding ?? 'none', options.onBehalfOf ?? '']);
    const held = this.#tokens.get(name);
    if (held && this.#isFresh(await held)) return held;
    // Somebody else may have asked for the next one meanwhile.
    const now = this.#tokens.get(name);
    if (now && now !== held) return now;
    const asked = this.#broker.token({ task: this.id, resource, tools, ...options });
    this.#tokens.set(name, asked);
    try {
      return await asked;
    } catch (error) {
      if (this.#tokens.get(name) === asked) this.#tokens.delete(name);
      if (error instanceof Revoked) this.#stop(error);
      throw error;
    }
  }

  /**
   * A credential for this task by its declared name; the same one while it lives, then a new one, decided anew. It is renewed by itself, and
   * dies with the task.
   */
  async secret(name: string, { ttlSeconds }: { ttlSeconds?: number } = {}): Promise<TaskSecret> {
    const { signal } = this;
    signal.throwIfAborted();
    const held = this.#secrets.get(name);
    if (held && !(await held).signal.aborted) return held;
    // Somebody else may have asked for the next one meanwhile.
    const now = this.#secrets.get(name);
    if (now && now !== held) return now;
    const asked = this.#askFor(name, ttlSeconds, signal);
    this.#secrets.set(name, asked);
    try {
      return await asked;
    } catch (error) {
      if (this.#secrets.get(name) === asked) this.#secrets.delete(name);
      throw error;
    }
  }

  async heartbeat(): Promise<void> {
    this.#note(await this.#asking(() => this.#broker.tasks.heartbeat(this.id)));
  }

  /** Merges into the task's context; live tokens are judged again. */
  async setContext(context: Record<string, unknown>): Promise<void> {
    const { task } = await this.#asking(() => this.#broker.tasks.setContext(this.id, context));
    this.#tokens.clear();
    this.#note(task);
  }

  /** Stops following the task and beating for it; it goes on without us. What we were given for it is ours no more. */
  leave(): void {
    if (!this.#over.signal.aborted)
      this.#stop(new Revoked({ code: 'task_over', status: 0, message: 'We left the task.' }));
  }

  complete(reason?: string): Promise<void> {
    return this.#finish('complete', reason);
  }

  fail(reason?: string): Promise<void> {
    return this.#finish('fail', reason);
  }

  cancel(reason?: string): Promise<void> {
    return this.#finish('cancel', reason);
  }

  /** The end of an `await using` block: completed, unless it is over already. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#over.signal.aborted) await this.complete();
  }

  async #askFor(name: string, ttlSeconds: number | undefined, taskSignal: AbortSignal): Promise<TaskSecret> {
    const askedAtMs = this.#clock.now();
    const body = { task: this.id, ...(ttlSeconds !== undefined && { ttl_seconds: ttlSeconds }) };
    const reply = await this.#asking(() => this.#broker.secrets.get(name, body));
    return new TaskSecret(name, reply, askedAtMs, { calls: this.#broker.leases, clock: this.#clock, taskSignal });
  }

  async #finish(verb: 'complete' | 'fail' | 'cancel', reason: string | undefined): Promise<void> {
    // Even when we think it is over: the first end wins at the broker, and repeats answer the same.
    const reply = await this.#broker.tasks[verb](this.id, reason);
    if ('state' in reply) this.#end(reply);
  }

  async #asking<Reply>(ask: () => Promise<Reply>): Promise<Reply> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof Revoked) this.#stop(error);
      throw error;
    }
  }

  #isFresh({ issuedAtMs, expiresAtMs }: TaskToken): boolean {
    return this.#clock.now() < issuedAtMs + (expiresAtMs - issuedAtMs) * RENEW_AT;
  }

  #note(reply: TaskReply): void {
    if (reply.state !== 'active') this.#end(reply);
  }

  #end({ state, end_reason: why }: TaskReply): void {
    const message = `The task is ${state}${why === undefined || why === state ? '' : `: ${why}`}.`;
    const code = state === 'suspended' ? 'task_suspended' : 'task_over';
    this.#stop(new Revoked({ code, status: 0, message }));
  }

  /** Nothing that was given works any more: whoever listens stops, and so do we. */
  #stop(reason: MayflyError): void {
    clearInterval(this.#heartbeat);
    clearTimeout(this.#deadline);
    this.#tokens.clear();
    this.#secrets.clear();
    this.#over.abort(reason);
  }

  #awaitDeadline(): void {
    const leftMs = this.deadlineMs - this.#clock.now();
    if (leftMs <= 0) {
      this.#stop(new Expired({ code: 'task_over', status: 0, message: 'The deadline of the task has passed.' }));
      return;
    }
    this.#deadline = setTimeout(() => this.#awaitDeadline(), Math.min(leftMs, TIMER_MS_MAX));
    this.#deadline.unref();
  }

  /** Follows the task's events until it is over. An outage is no end: the tokens say so themselves when it is one. */
  async #watch(): Promise<void> {
    const { signal } = this.#over;
    while (!signal.aborted) {
      try {
        for await (const { task } of this.#broker.tasks.events(this.id, signal)) this.#note(task);
      } catch (error) {
        const isGone = error instanceof MayflyError && (error.code === 'not_found' || error.code === 'denied');
        if (isGone) this.#stop(new Revoked({ code: 'task_over', status: error.status, message: error.message }));
      }
      if (!signal.aborted) await pause(WATCH_RETRY_MS, signal);
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    timer.unref();
    signal.addEventListener('abort', finish);
  });
}
