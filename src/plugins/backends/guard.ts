import type { Observe } from '../../core/observe.js';
import type { Clock } from '../../core/time.js';
import { Breaker } from './breaker.js';
import { type Backend, BackendProblem, type Backends, type Guard } from './contract.js';
import { Turnstile } from './turnstile.js';

/** A backend that does not heed its signal is left behind after so much more. */
const GRACE_MS = 500;
const CHECK_TIMEOUT_MS = 30_000;
const FIND_TIMEOUT_MS = 30_000;

/**
 * The same backend, no call of which lasts longer than its bounds say, or is made while others fill them or its breaker is open. What fails
 * for those reasons is a BackendProblem that is sure: nothing was asked.
 */
export function guardBackend(backend: Backend, { clock, observe }: { clock: Clock; observe: Observe }): Backend {
  const { name, bounds } = backend;
  const listeners = new Set<() => void>();
  const breaker = new Breaker(clock, (state) => {
    observe({ event: 'backend.breaker', level: state === 'open' ? 'error' : 'info', backend: name, state });
    if (state === 'closed') for (const listener of listeners) listener();
  });
  let problem: BackendProblem | undefined;
  const issues = new Turnstile(bounds.issuesMax, bounds.ratePerSecond);
  const revocations = new Turnstile(bounds.revocationsMax, bounds.ratePerSecond);
  const checks = new Turnstile(1);

  const bounded = async <T>(
    turnstile: Turnstile,
    timeoutMs: number,
    outer: AbortSignal | undefined,
    call: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> => {
    const { signal, release } = timeLimit(timeoutMs, outer);
    try {
      await turnstile.enter(signal);
    } catch (cause) {
      release();
      throw new BackendProblem('busy', `${name}: too much is under way there`, { isSure: true, cause });
    }
    try {
      if (!breaker.enter()) throw new BackendProblem('unreachable', `${name} does not answer`, { isSure: true });
      return await answerOf(call, signal);
    } finally {
      turnstile.leave();
      release();
    }
  };
  const answerOf = async <T>(call: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> => {
    try {
      const answer = await Promise.race([call(signal), endOf(signal, name)]);
      problem = undefined;
      breaker.answered();
      return answer;
    } catch (error) {
      const told = problemOf(error, signal, name);
      if (isSilence(told)) {
        problem = told;
        breaker.failed();
      } else {
        breaker.answered();
      }
      throw told;
    }
  };
  const guard: Guard = {
    get state() {
      return breaker.state;
    },
    get admits() {
      return breaker.admits;
    },
    get problem() {
      return problem?.message;
    },
    onBack: (listener) => void listeners.add(listener),
  };

  const { renew, find, probe } = backend;
  return {
    name,
    kind: backend.kind,
    bounds,
    guard,
    secretSettings: backend.secretSettings,
    revocability: (settings) => backend.revocability(settings),
    plan: (order) => backend.plan(order),
    issue: (order) =>
      bounded(issues, bounds.issueTimeoutMs, order.signal, (signal) => backend.issue({ ...order, signal })),
    revoke: (credential, outer) =>
      bounded(revocations, bounds.revokeTimeoutMs, outer, (signal) => backend.revoke(credential, signal)),
    confirm: (credential, outer) =>
      bounded(revocations, bounds.revokeTimeoutMs, outer, (signal) => backend.confirm(credential, signal)),
    check: (secret, outer) => bounded(checks, CHECK_TIMEOUT_MS, outer, (signal) => backend.check(secret, signal)),
    ...(renew && {
      renew: (credential, expiresAtMs, outer) =>
        bounded(issues, bounds.issueTimeoutMs, outer, (signal) => renew.call(backend, credential, expiresAtMs, signal)),
    }),
    ...(probe && {
      probe: (credential, data, outer) =>
        bounded(revocations, bounds.revokeTimeoutMs, outer, (signal) => probe.call(backend, credential, data, signal)),
    }),
    ...(find && {
      async *find(outer) {
        const found = await bounded(checks, FIND_TIMEOUT_MS, outer, async (signal) => {
          const all = [];
          for await (const one of find.call(backend, signal)) all.push(one);
          return all;
        });
        for (const { ageMs, ...one } of found) {
          yield {
            ...one,
            ...(ageMs && { ageMs: (own) => bounded(revocations, bounds.revokeTimeoutMs, own, ageMs) }),
          };
        }
      },
    }),
    close: () => backend.close(),
  };
}

export function guardBackends(backends: Backends, deps: { clock: Clock; observe: Observe }): Backends {
  const guarded = new Map(backends.all().map((backend) => [backend.name, guardBackend(backend, deps)]));
  const all = [...guarded.values()];
  return { get: (name) => guarded.get(name), all: () => all, close: () => backends.close() };
}

/**
 * A signal that aborts when this time is over, or when the caller's does. Released once there is an answer: the timer of each answered call would
 * otherwise go off later, for nobody.
 */
function timeLimit(timeoutMs: number, outer: AbortSignal | undefined): { signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const abort = () => controller.abort();
  const timer = setTimeout(abort, timeoutMs).unref();
  if (outer?.aborted) abort();
  else outer?.addEventListener('abort', abort, { once: true });
  return {
    signal: controller.signal,
    release: () => {
      clearTimeout(timer);
      outer?.removeEventListener('abort', abort);
    },
  };
}

/** Rejects a little after the signal has aborted; whoever heeds the signal is faster. */
function endOf(signal: AbortSignal, name: string): Promise<never> {
  return new Promise((_, reject) => {
    const give = () =>
      setTimeout(() => reject(new BackendProblem('timeout', `${name}: no answer in time`)), GRACE_MS).unref();
    if (signal.aborted) give();
    else signal.addEventListener('abort', give, { once: true });
  });
}

function problemOf(error: unknown, signal: AbortSignal, name: string): BackendProblem {
  if (error instanceof BackendProblem) return error;
  if (signal.aborted) return new BackendProblem('timeout', `${name}: no answer in time`, { cause: error });
  // What a kind let out is a mistake of ours; its text may hold anything, so nobody is told it.
  return new BackendProblem('failed', `${name}: the call ended in an error that its kind does not know`, {
    cause: error,
  });
}

function isSilence({ kind }: BackendProblem): boolean {
  return kind === 'unreachable' || kind === 'timeout' || kind === 'sealed';
}
