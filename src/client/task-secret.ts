import type { SecretData } from '../core/credential.js';
import { Secret } from '../core/secret.js';
import type { Clock, EpochMs } from '../core/time.js';
import { Expired, MayflyError, Revoked, Unavailable } from './mayfly-error.js';
import type { RenewalReply, SecretReply } from './wire.js';

/** What a secret asks of its broker. */
export interface SecretCalls {
  renew(lease: string): Promise<RenewalReply>;
  revoke(lease: string): Promise<unknown>;
}

/** Share of what is left of its life after which a credential is renewed. */
const RENEW_AT = 0.5;
const RETRY_MS_MIN = 1_000;
/** setTimeout's own limit. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/**
 * A credential that a backend made for a task. It is renewed at half of its life for as long as the task lives and policy allows, and prints
 * as nothing: `expose()` is the one way to its values. `signal` aborts when it is worth nothing any more, whoever ended it.
 */
export class TaskSecret implements AsyncDisposable {
  readonly name: string;
  readonly leaseId: string;
  /** The whole answer but the values. */
  readonly reply: Omit<SecretReply, 'data'>;
  readonly #data: Secret<SecretData>;
  readonly #calls: SecretCalls;
  readonly #clock: Clock;
  readonly #over = new AbortController();
  readonly #forget: () => void;
  #expiresAtMs: EpochMs;
  #renewable: boolean;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    name: string,
    { data, ...reply }: SecretReply,
    askedAtMs: EpochMs,
    { calls, clock, taskSignal }: { calls: SecretCalls; clock: Clock; taskSignal: AbortSignal },
  ) {
    this.name = name;
    this.leaseId = reply.lease_id;
    this.reply = reply;
    this.#data = new Secret(data);
    this.#calls = calls;
    this.#clock = clock;
    this.#expiresAtMs = askedAtMs + reply.lease_duration * 1_000;
    this.#renewable = reply.renewable;
    const onTaskOver = () => this.#stop(taskSignal.reason);
    this.#forget = () => taskSignal.removeEventListener('abort', onTaskOver);
    taskSignal.addEventListener('abort', onTaskOver, { once: true });
    if (taskSignal.aborted) onTaskOver();
    else this.#wait(this.#nextMs());
  }

  /** The values. What is copied out of here nobody can take back, so keep it as short as you can. Throws when the credential is dead. */
  expose(): SecretData {
    this.signal.throwIfAborted();
    return this.#data.expose();
  }

  /** Aborts when the credential is revoked, its task is over, or its life has passed. */
  get signal(): AbortSignal {
    return this.#over.signal;
  }

  get expiresAtMs(): EpochMs {
    return this.#expiresAtMs;
  }

  /** Gives it back before the task is over. Repeating it is safe. */
  async revoke(): Promise<void> {
    await this.#calls.revoke(this.leaseId);
    this.#stop(
      new Revoked({ code: 'token_refused', status: 0, message: `The credential ${this.name} was given back.` }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.signal.aborted) await this.revoke();
  }

  #nextMs(): number {
    const leftMs = this.#expiresAtMs - this.#clock.now();
    return this.#renewable ? Math.max(leftMs * RENEW_AT, Math.min(RETRY_MS_MIN, leftMs)) : leftMs;
  }

  #wait(ms: number): void {
    const untilMs = this.#clock.now() + ms;
    const wake = () => {
      if (this.signal.aborted) return;
      if (this.#clock.now() < untilMs) this.#wait(untilMs - this.#clock.now());
      else void this.#due();
    };
    this.#timer = setTimeout(wake, Math.min(Math.max(ms, 0), TIMER_MS_MAX));
    this.#timer.unref();
  }

  async #due(): Promise<void> {
    if (this.#clock.now() >= this.#expiresAtMs) {
      this.#stop(new Expired({ code: 'token_refused', status: 0, message: `The life of ${this.name} has passed.` }));
      return;
    }
    const askedAtMs = this.#clock.now();
    try {
      const { lease_duration: seconds, renewable } = await this.#calls.renew(this.leaseId);
      this.#expiresAtMs = askedAtMs + seconds * 1_000;
      this.#renewable = renewable;
    } catch (error) {
      // An outage is no end: it is tried again until the life has passed. A refusal to renew leaves what is left of the life.
      if (error instanceof Revoked) return this.#stop(error);
      if (error instanceof MayflyError && !(error instanceof Unavailable)) this.#renewable = false;
    }
    if (!this.signal.aborted) this.#wait(this.#nextMs());
  }

  #stop(reason: unknown): void {
    clearTimeout(this.#timer);
    this.#forget();
    this.#over.abort(reason);
  }
}
