import { z } from 'zod';
import {
  credentialName,
  type Handle,
  leaseIdOfName,
  type Revocability,
  type SecretData,
} from '../../src/core/credential.js';
import { Secret } from '../../src/core/secret.js';
import type { Clock, EpochMs } from '../../src/core/time.js';
import {
  type Backend,
  BackendProblem,
  type BackendProblemKind,
  type Backends,
  type Bounds,
  type Confirmation,
  type Credential,
  type Found,
  type Issued,
  type IssueOrder,
  type Order,
  type Probeable,
} from '../../src/plugins/backends/contract.js';

const INSTALLATION = 'fake0000';

export type BackendCall = 'plan' | 'issue' | 'revoke' | 'confirm' | 'check' | 'renew' | 'find' | 'probe';

/** What went wrong, and whether what was asked for happened all the same (a reply that was lost). */
export interface Fault {
  kind?: BackendProblemKind;
  /** The work is done, the answer is not given. */
  happens?: boolean;
  /** Nothing answers until the call's signal aborts. */
  hangs?: boolean;
}

interface Made {
  leaseId: string;
  password: string;
  expiresAtMs: EpochMs;
}

/**
 * A backend in memory that keeps every promise of the contract: what exists there is asked of it and nobody else. `faults` break its next calls,
 * `down` all of them; `live` tells a test's oracle what can be logged in with now.
 */
export class FakeBackend implements Backend {
  readonly name: string;
  readonly kind = 'fake';
  readonly bounds: Bounds;
  readonly secretSettings = z.strictObject({ role: z.string().default('readers') });
  readonly calls: { call: BackendCall; leaseId?: string; atMs: EpochMs }[] = [];
  readonly faults: Partial<Record<BackendCall, Fault[]>> = {};
  down: BackendProblemKind | undefined;
  revokes: Revocability = { kind: 'instant' };
  renewable = true;
  /** What `check` finds wrong. */
  problems: string[] = [];
  /** A revoked credential that goes on working, as a fault of the backend's own. */
  immortal = false;
  residue: string | undefined;
  unknowable: { untilMs?: EpochMs } | undefined;
  /** Called in the middle of `issue`, when it is made and nobody knows yet. */
  onMade: (leaseId: string) => Promise<void> | void = () => {};
  readonly #clock: Clock;
  readonly #made = new Map<string, Made>();
  #passwords = 0;

  constructor(clock: Clock, name = 'pg', bounds: Partial<Bounds> = {}) {
    this.#clock = clock;
    this.name = name;
    this.bounds = {
      issuesMax: 8,
      revocationsMax: 8,
      issueTimeoutMs: 2_000,
      revokeTimeoutMs: 5_000,
      ...bounds,
    };
  }

  /** Leases whose credentials exist now. */
  live(): string[] {
    const nowMs = this.#clock.now();
    return [...this.#made.values()].filter((made) => made.expiresAtMs > nowMs).map(({ leaseId }) => leaseId);
  }

  /** Whether somebody gets in with this. */
  accepts(data: SecretData): boolean {
    const made = this.#made.get(String(data['username']));
    return made !== undefined && made.password === data['password'] && made.expiresAtMs > this.#clock.now();
  }

  expiryOf(leaseId: string): EpochMs | undefined {
    return this.#made.get(nameOf(leaseId))?.expiresAtMs;
  }

  /** Puts something there that no lease asked for. */
  plant(leaseId: string, expiresAtMs = this.#clock.now() + 3_600_000): void {
    this.#made.set(nameOf(leaseId), { leaseId, password: 'planted', expiresAtMs });
  }

  /** It vanishes, and nobody here did it. */
  lose(leaseId: string): void {
    this.#made.delete(nameOf(leaseId));
  }

  revocability(): Revocability {
    return this.revokes;
  }

  plan({ leaseId }: Order): Handle {
    return { role: nameOf(leaseId) };
  }

  async issue(order: IssueOrder): Promise<Issued> {
    return this.#call('issue', order.leaseId, order.signal, async () => {
      if (this.#clock.now() >= order.deadlineMs) {
        throw new BackendProblem('too_late', 'the deadline has passed', { isSure: true });
      }
      await order.note({ lane: '1' });
      const username = nameOf(order.leaseId);
      const password = `pw-${++this.#passwords}-${order.leaseId}`;
      this.#made.set(username, { leaseId: order.leaseId, password, expiresAtMs: order.expiresAtMs });
      await this.onMade(order.leaseId);
      return {
        data: new Secret<SecretData>({ host: 'db.example', port: 5432, database: 'orders', username, password }),
        handle: { oid: String(this.#passwords) },
        expiresAtMs: order.expiresAtMs,
        renewable: this.renewable,
      };
    });
  }

  async revoke({ leaseId, handle }: Credential, signal: AbortSignal): Promise<void> {
    return this.#call('revoke', leaseId, signal, async () => {
      if (!this.immortal) this.#made.delete(handle['role'] ?? nameOf(leaseId));
    });
  }

  async confirm({ leaseId, handle }: Credential, signal: AbortSignal): Promise<Confirmation> {
    return this.#call('confirm', leaseId, signal, async () => {
      if (this.unknowable) return { state: 'unknowable', ...this.unknowable };
      const made = this.#made.get(handle['role'] ?? nameOf(leaseId));
      if (made && made.expiresAtMs > this.#clock.now()) return { state: 'there', detail: 'the role can log in' };
      return { state: 'gone', ...(this.residue !== undefined && { residue: this.residue }) };
    });
  }

  async renew({ leaseId }: Credential, expiresAtMs: EpochMs, signal: AbortSignal): Promise<{ expiresAtMs: EpochMs }> {
    return this.#call('renew', leaseId, signal, async () => {
      const made = this.#made.get(nameOf(leaseId));
      if (!made) throw new BackendProblem('failed', 'there is no such role', { isSure: true });
      made.expiresAtMs = expiresAtMs;
      return { expiresAtMs };
    });
  }

  async *find(signal: AbortSignal): AsyncIterable<Found> {
    const found = await this.#call('find', undefined, signal, async () => [...this.#made.keys()]);
    for (const role of found) {
      const leaseId = leaseIdOfName(INSTALLATION, role);
      if (leaseId !== undefined) yield { leaseId, handle: { role } };
    }
  }

  async probe({ leaseId }: Credential, data: Secret<SecretData>, signal: AbortSignal): ReturnType<Probeable['probe']> {
    return this.#call('probe', leaseId, signal, async () => ({
      credential: this.accepts(data.expose()) ? ('accepted' as const) : ('refused' as const),
      control: 'accepted' as const,
    }));
  }

  async check({ name }: { name: string }, signal: AbortSignal): Promise<string[]> {
    return this.#call('check', undefined, signal, async () => this.problems.map((problem) => `${name}: ${problem}`));
  }

  async close(): Promise<void> {}

  async #call<T>(
    call: BackendCall,
    leaseId: string | undefined,
    signal: AbortSignal,
    act: () => Promise<T>,
  ): Promise<T> {
    this.calls.push({ call, atMs: this.#clock.now(), ...(leaseId !== undefined && { leaseId }) });
    if (signal.aborted) throw new BackendProblem('timeout', `${call}: no time was left`, { isSure: true });
    const fault = this.faults[call]?.shift() ?? (this.down && { kind: this.down });
    if (!fault) return act();
    if (fault.happens) await act();
    if (fault.hangs) {
      await new Promise((_, reject) => {
        signal.addEventListener('abort', () => reject(new BackendProblem('timeout', `${call}: no answer in time`)));
      });
    }
    throw new BackendProblem(fault.kind ?? 'unreachable', `${call} failed`);
  }
}

function nameOf(leaseId: string): string {
  return credentialName(INSTALLATION, leaseId);
}

export function fakeBackends(...backends: Backend[]): Backends {
  return {
    get: (name) => backends.find((backend) => backend.name === name),
    all: () => backends,
    close: async () => {},
  };
}
