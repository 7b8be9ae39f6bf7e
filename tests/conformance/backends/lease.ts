import { inspect } from 'node:util';
import type { Handle, SecretData } from '../../../src/core/credential.js';
import { newId } from '../../../src/core/ids.js';
import type { Secret } from '../../../src/core/secret.js';
import {
  type Backend,
  BackendProblem,
  type Confirmation,
  type Credential,
  type Issued,
} from '../../../src/plugins/backends/contract.js';
import type { SecretCase } from './harness.js';

const AGENT = 'spiffe://prod.example/agent/refunds';
const CALL_MS = 8_000;

/** What the broker does with a backend for one lease, and no more: the record is this object. */
export class Lease {
  readonly id = newId('lse', 'a', Date.now());
  readonly secret: SecretCase;
  readonly settings: Record<string, unknown>;
  readonly expiresAtMs: number;
  readonly #backend: Backend;
  handle: Handle;
  kept: Secret<SecretData> | undefined;
  isPending = true;
  /** Every answer that came back, of all issues. */
  readonly answers: SecretData[] = [];

  constructor(backend: Backend, secret: SecretCase, ttlMs = secret.ttlMs ?? 300_000) {
    this.#backend = backend;
    this.secret = secret;
    this.settings = backend.secretSettings.parse(secret.settings);
    this.expiresAtMs = Date.now() + ttlMs;
    this.handle = backend.plan({ leaseId: this.id, settings: this.settings });
  }

  async issue(
    given: {
      agent?: string;
      taskId?: string;
      onBehalfOf?: string;
      deadlineMs?: number;
      signal?: AbortSignal;
      backend?: Backend;
      onNote?: () => void | Promise<void>;
    } = {},
  ): Promise<Issued> {
    const issued = await (given.backend ?? this.#backend).issue({
      leaseId: this.id,
      settings: this.settings,
      handle: this.handle,
      expiresAtMs: this.expiresAtMs,
      deadlineMs: given.deadlineMs ?? Date.now() + CALL_MS,
      agent: given.agent ?? AGENT,
      taskId: given.taskId ?? newId('tsk', 'a', Date.now()),
      ...(given.onBehalfOf !== undefined && { onBehalfOf: given.onBehalfOf }),
      signal: given.signal ?? AbortSignal.timeout(CALL_MS),
      note: async (more, keep) => {
        await given.onNote?.();
        if (!this.isPending) throw new Error('the lease is no longer pending');
        if (keep && this.kept) throw new Error('the lease has something in keeping');
        this.handle = { ...this.handle, ...more };
        if (keep) this.kept = keep;
      },
    });
    this.handle = { ...this.handle, ...issued.handle };
    this.answers.push(issued.data.expose());
    return issued;
  }

  credential(): Credential {
    const { id: leaseId, handle, expiresAtMs, kept } = this;
    return { leaseId, handle, expiresAtMs, ...(kept && { kept }) };
  }

  revoke(signal = AbortSignal.timeout(CALL_MS), backend = this.#backend): Promise<void> {
    this.isPending = false;
    return backend.revoke(this.credential(), signal);
  }

  confirm(signal = AbortSignal.timeout(CALL_MS)): Promise<Confirmation> {
    return this.#backend.confirm(this.credential(), signal);
  }

  /** As the broker's worker does it: again and again until the backend says that it is gone, or that nobody can know. */
  async retire(): Promise<Confirmation> {
    return eventually('revoked and confirmed', async () => {
      await this.revoke();
      const confirmation = await this.confirm();
      return confirmation.state === 'there' ? undefined : confirmation;
    });
  }
}

/** Asks until there is an answer; for what takes its time, within a time. */
export async function eventually<T>(what: string, ask: () => Promise<T | undefined>, withinMs = 15_000): Promise<T> {
  const endMs = Date.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() >= endMs) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Every error that any case has seen, for the search for secrets at the end. */
export const seen: unknown[] = [];

/** The error of a call that has to fail. */
export async function failureOf(run: () => Promise<unknown>): Promise<unknown> {
  try {
    await run();
  } catch (error) {
    seen.push(error);
    return error;
  }
  throw new Error('it had to fail, and did not');
}

export async function problemOf(run: () => Promise<unknown>): Promise<BackendProblem> {
  const error = await failureOf(run);
  if (error instanceof BackendProblem) return error;
  throw new Error(`not a BackendProblem: ${inspect(error)}`);
}

/** Whatever of an error could be printed by anybody. */
export function everythingPrintable(error: unknown): string {
  const { message, stack, cause } = Object(error) as Error;
  const shown = inspect(error, { depth: 12, showHidden: true, maxStringLength: null, maxArrayLength: null });
  const json = JSON.stringify(error, Object.getOwnPropertyNames(Object(error))) ?? '';
  return [message, stack, String(error), shown, json, cause === undefined ? '' : everythingPrintable(cause)].join('\n');
}

/** A case for those kinds that promise it; the first case of the suite checks that a row says all of what its kind can do. */
export const when = (isPromised: boolean) => (name: string, run: () => Promise<unknown>) => {
  if (isPromised) it(name, run);
};
