import { z } from 'zod';
import type { Observe } from '../../../core/observe.js';
import type { Clock, EpochMs } from '../../../core/time.js';
import { BackendProblem } from '../contract.js';
import { problemOf, VaultAnswer } from './answers.js';
import type { Call, VaultClient } from './client.js';
import type { BrokerToken } from './login.js';
import { vaultPath } from './path.js';

interface Held extends BrokerToken {
  endsAtMs: EpochMs;
}

interface SessionDeps {
  name: string;
  clock: Clock;
  observe: Observe;
  logIn(signal: AbortSignal): Promise<BrokerToken>;
  /** False for a token that somebody else looks after. */
  isOurs: boolean;
  /** No login or renewal takes longer. */
  timeoutMs: number;
}

const renewReply = z.object({ auth: z.object({ lease_duration: z.int().min(0), renewable: z.boolean() }) });

const RETRY_MS_MAX = 5_000;

const GIVE_BACK_MS_MAX = 1_000;

/**
 * The broker's own token: got when it is first needed, renewed at a third of its life, got anew when it can be renewed no more or was revoked.
 * When nothing helps, it is said at a third of its life left (`backend.login_ending`), and past its end every call is refused with the reason of the
 * last login: nothing is issued. What has been issued does not hang on it (the tokens of leases are orphans).
 */
export class VaultSession {
  readonly #client: VaultClient;
  readonly #deps: SessionDeps;
  #held: Held | undefined;
  #loggingIn: Promise<Held> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(client: VaultClient, deps: SessionDeps) {
    this.#client = client;
    this.#deps = deps;
  }

  /**
   * Calls with the broker's own token. A refusal may mean that the token is gone (revoked by somebody): that is looked up, and after a new login asked once
   * more. So is a call whose connection broke, since one that had been idle may have been closed by the other side: whatever the broker asks by itself
   * may be asked twice (a second token of a lease has nothing and dies by itself).
   */
  async ask<Reply>(call: Omit<Call<Reply>, 'token'>): Promise<Reply> {
    const held = await this.#token(call.signal);
    try {
      return await this.#client.ask({ ...call, token: held.token });
    } catch (error) {
      const isCut = error instanceof BackendProblem && error.kind === 'unreachable' && !error.isSure;
      if (!isCut && !(await this.#isRefused(error, held, call.signal))) throw error;
      const { token } = await this.#token(call.signal);
      return await this.#client.ask({ ...call, token });
    }
  }

  async call<Reply>(call: Omit<Call<Reply>, 'token'>): Promise<Reply> {
    try {
      return await this.ask(call);
    } catch (error) {
      throw problemOf(error, call.doing);
    }
  }

  /** A token that the broker got for itself is given back. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    const held = this.#held;
    this.#held = undefined;
    if (held === undefined || !this.#deps.isOurs) return;
    const call = { method: 'POST', path: vaultPath('auth/token/revoke-self'), reply: z.unknown() } as const;
    const signal = AbortSignal.timeout(GIVE_BACK_MS_MAX);
    await this.#client.call({ ...call, token: held.token, signal, doing: 'give the token back' }).catch(() => {});
  }

  /** One login for all who wait for it. A caller that gives up leaves it to the others. */
  #token(signal: AbortSignal): Promise<Held> | Held {
    const held = this.#held;
    if (held !== undefined && this.#deps.clock.now() < held.endsAtMs) return held;
    return orGivenUp(this.#anew(), signal);
  }

  #anew(): Promise<Held> {
    this.#loggingIn ??= this.#logIn().finally(() => {
      this.#loggingIn = undefined;
    });
    return this.#loggingIn;
  }

  async #logIn(): Promise<Held> {
    const { clock, logIn, timeoutMs } = this.#deps;
    const nowMs = clock.now();
    const given = await logIn(AbortSignal.timeout(timeoutMs));
    const held = { ...given, endsAtMs: given.ttlMs === 0 ? Number.POSITIVE_INFINITY : nowMs + given.ttlMs };
    this.#hold(held);
    return held;
  }

  #hold(held: Held): void {
    this.#held = held;
    this.#lookAgain(held, held.ttlMs / 3);
  }

  #lookAgain(held: Held, inMs: number): void {
    clearTimeout(this.#timer);
    if (this.#isClosed || held.ttlMs === 0) return;
    this.#timer = setTimeout(() => void this.#prolong(held), inMs).unref();
  }

  async #prolong(held: Held): Promise<void> {
    if (this.#held !== held) return;
    try {
      const renewed = await this.#renewed(held);
      if (renewed === undefined) await this.#anew();
      else this.#hold(renewed);
    } catch (error) {
      const { clock, observe, name } = this.#deps;
      const leftMs = held.endsAtMs - clock.now();
      if (leftMs < held.ttlMs / 3) {
        const problem = (error as Error).message;
        observe({ event: 'backend.login_ending', level: 'error', backend: name, leftMs, problem });
      }
      if (leftMs > 0) this.#lookAgain(held, Math.min(RETRY_MS_MAX, held.ttlMs / 20));
    }
  }

  /** Undefined when it cannot be renewed, or (near its longest life) not by much: then a new login is due. */
  async #renewed(held: Held): Promise<Held | undefined> {
    if (!held.renewable) return undefined;
    const nowMs = this.#deps.clock.now();
    const path = vaultPath('auth/token/renew-self');
    const signal = AbortSignal.timeout(this.#deps.timeoutMs);
    try {
      const { auth } = await this.#client.ask({
        method: 'POST',
        path,
        token: held.token,
        reply: renewReply,
        signal,
        doing: 'renew the broker’s token',
      });
      const givenMs = auth.lease_duration * 1000;
      if (givenMs < (held.ttlMs * 2) / 3) return undefined;
      return { ...held, renewable: auth.renewable, endsAtMs: nowMs + givenMs };
    } catch (error) {
      // It said no: revoked, or not renewable after all. Whether it can be reached at all, the login will find.
      if (error instanceof VaultAnswer) return undefined;
      throw error;
    }
  }

  /** True when it was the token, which then is forgotten. */
  async #isRefused(error: unknown, held: Held, signal: AbortSignal): Promise<boolean> {
    if (!isForbidden(error)) return false;
    const call = { method: 'GET', path: vaultPath('auth/token/lookup-self'), reply: z.unknown(), signal } as const;
    try {
      await this.#client.ask({ ...call, token: held.token, doing: 'look at the broker’s token' });
      return false;
    } catch (lookup) {
      if (!isForbidden(lookup)) return false;
      if (this.#held === held) this.#held = undefined;
      return true;
    }
  }
}

function isForbidden(error: unknown): boolean {
  return error instanceof VaultAnswer && error.status === 403;
}

function orGivenUp<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(new BackendProblem('timeout', 'no login in time', { isSure: true }));
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
  });
}
