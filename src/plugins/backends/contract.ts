import type { z } from 'zod';
import type { Handle, Revocability, SecretData } from '../../core/credential.js';
import type { Observe } from '../../core/observe.js';
import type { Secret } from '../../core/secret.js';
import type { Clock, EpochMs } from '../../core/time.js';

/**
 * A system that issues credentials. Only broker/issue.ts calls `issue`, only broker/retire.ts calls `revoke`.
 *
 * Every method may be called twice for the same lease, at the same time too (a worker that was stopped and came back), and must then do no
 * harm. Every method ends within its time: it takes a signal and gives up when that aborts; what it had sent may still happen. What goes
 * wrong is thrown as a BackendProblem; no vendor's error leaves the family, and no text of it holds a secret.
 */
export interface SecretBackend {
  /** Checks the `settings` of a secret's declaration (`config/secrets/*.yaml`); what the other methods take is its output. */
  readonly secretSettings: z.ZodType<Record<string, unknown>>;

  /** How well credentials with these settings can be taken back. It is a promise, and the conformance suite holds the kind to it. */
  revocability(settings: Record<string, unknown>): Revocability;

  /** Names everything that `issue` will make, before anything is made: pure, no I/O. It stands in the intent, so that a crash at any point leaves what `revoke` needs. */
  plan(order: Order): Handle;

  /**
   * Makes the credential, named after the lease. Nothing is made past `deadlineMs` where the backend can be told so. What a crash would lose
   * (an accessor) is recorded through `note` before the next step. Throws when it is not certain that it worked; then the engine revokes by lease.
   */
  issue(order: IssueOrder): Promise<Issued>;

  /** Takes it back: no login, no session. Does nothing when there is nothing. Its return is not the confirmation. */
  revoke(credential: Credential, signal: AbortSignal): Promise<void>;

  /** Asks the backend what is there, never its own memory. */
  confirm(credential: Credential, signal: AbortSignal): Promise<Confirmation>;

  /**
   * Whether this secret can be issued and revoked as promised, tried on the real thing at load: rights, settings, a made and revoked canary.
   * Returns what is wrong, each with what to do; empty when all is well.
   */
  check(secret: { name: string; settings: Record<string, unknown> }, signal: AbortSignal): Promise<string[]>;

  close(): Promise<void>;
}

/** Longer life for a live credential; optional. */
export interface Renewable {
  /** Returns the new end, which may be earlier than wished. */
  renew(credential: Credential, expiresAtMs: EpochMs, signal: AbortSignal): Promise<{ expiresAtMs: EpochMs }>;
}

/** What exists under this installation's names; optional. */
export interface Findable {
  find(signal: AbortSignal): AsyncIterable<Found>;
  /** Whether `find` shows this credential as long as it is there: only then is one that it does not show lost. Absent: it shows all. */
  covers?(credential: Credential): boolean;
}

/** Trying a credential that should be dead; optional. */
export interface Probeable {
  /**
   * Logs in with the issued credential, and as a control with another one that has to work in the same second (a probe that fails because the
   * backend is down proves nothing). `refused` only for an answer that says so of this credential.
   */
  probe(
    credential: Credential,
    data: Secret<SecretData>,
    signal: AbortSignal,
  ): Promise<{ credential: 'refused' | 'accepted' | 'unclear'; control: 'accepted' | 'refused' }>;
}

/** What a secret's lease asks for. */
export interface Order {
  leaseId: string;
  /** As `secretSettings` gave them. */
  settings: Record<string, unknown>;
}

export interface IssueOrder extends Order {
  handle: Handle;
  /** The end of the credential. */
  expiresAtMs: EpochMs;
  /** The intent's deadline: past it nothing may be made. */
  deadlineMs: EpochMs;
  agent: string;
  taskId: string;
  onBehalfOf?: string;
  /**
   * Records more of the handle in the lease. `keep` is what this kind cannot revoke without (an upstream's token): it rests encrypted under the
   * root key from now until the lease is closed, and comes back as `Credential.kept`. Only the first is taken. Throws when the lease is no longer
   * pending, or has something in keeping already: then stop, take back what is in hand, and make nothing more.
   */
  note(more: Handle, keep?: Secret<SecretData>): Promise<void>;
  signal: AbortSignal;
}

export interface Issued {
  data: Secret<SecretData>;
  /** What became known while it was made; merged into the lease's handle. */
  handle: Handle;
  /** When the backend itself ends it; never later than ordered. */
  expiresAtMs: EpochMs;
  renewable: boolean;
  /** What the holder should know: "static value, dead only when rotated". */
  warnings?: string[];
}

/** A credential as its lease knows it. The declaration may be gone by now: the handle has all that is needed. */
export interface Credential {
  leaseId: string;
  handle: Handle;
  expiresAtMs: EpochMs;
  /** What `issue` gave into keeping (`note`). Absent when it never came to that: the answer was lost, or nothing was asked. */
  kept?: Secret<SecretData>;
}

/**
 * `gone`: the backend was asked and does not have it. With `residue` nobody can use it any more, but something of it is left that has to be
 * cleared away (shown, tried again). `there`: it still is, and why.
 *
 * `unknowable`: there is nobody to ask (the kind's revocability says so, or the answer that would have told was lost). With `untilMs` it may work
 * until then: the lease stays `revoking`, is next looked at then, and is closed as `expired`. Without, it works until somebody rotates the value:
 * the lease stays `revoking` with the evidence `unbounded`, is looked at again at the longest back-off (that is no failed attempt, and wants no
 * record of its own), and `confirm` says `gone` once the value was rotated.
 */
export type Confirmation =
  | { state: 'gone'; residue?: string }
  | { state: 'there'; detail: string }
  | { state: 'unknowable'; untilMs?: EpochMs };

/**
 * What is there. A backend that keeps no name of ours (the leases of a Vault do not say whose they are) leaves `leaseId` out: the thing then
 * belongs to the lease whose handle has every entry of this one, and to nobody when no lease's has. Its place was declared to be this
 * installation's alone, so what is nobody's is an orphan, once it was there for longer than an issue can take: a lease that is still pending
 * does not know its credential yet. Such an orphan is revoked with an empty `leaseId` and the handle as found.
 */
export interface Found {
  leaseId?: string;
  handle: Handle;
  /**
   * How long it has been there, by the backend's own clock; undefined when it is gone. Given with what has no name, and asked only when it seems to be
   * nobody's.
   */
  ageMs?(signal: AbortSignal): Promise<number | undefined>;
  /** Set when the backend itself has given up on revoking it. */
  givenUp?: boolean;
}

/** A backend as this broker has it: by the name that secrets and selectors use. */
export interface Backend extends SecretBackend, Partial<Renewable & Findable & Probeable> {
  readonly name: string;
  readonly kind: string;
  readonly bounds: Bounds;
  /** What stands in front of it (guard.ts); a kind has none of its own. */
  readonly guard?: Guard;
}

/** How a backend does, as seen by the calls that were made to it. */
export interface Guard {
  readonly state: 'closed' | 'open';
  /** False while calls are not let through: it did not answer lately, and somebody else is trying it. */
  readonly admits: boolean;
  /** Why it did not answer last time; undefined when it did. */
  readonly problem: string | undefined;
  /** Told when it answers again after its breaker was open. */
  onBack(listener: () => void): void;
}

/** What is let through to one backend at a time; the engine keeps to it, so that a slow backend starves no other. */
export interface Bounds {
  issuesMax: number;
  revocationsMax: number;
  /** Calls a second; absent: as many as the backend takes. */
  ratePerSecond?: number;
  issueTimeoutMs: number;
  revokeTimeoutMs: number;
}

export interface Backends {
  /** Undefined: this broker has no backend of that name. */
  get(name: string): Backend | undefined;
  all(): readonly Backend[];
  close(): Promise<void>;
}

/** What a kind may use, besides its own configuration. */
export interface BackendDeps {
  name: string;
  /** Eight characters of `[a-z0-9]` that keep this installation's names apart from others' (core/credential.ts). */
  installation: string;
  clock: Clock;
  observe: Observe;
  /** A JWT signed with our own key: a backend that trusts our issuer knows by it who asks. */
  assertion(claims: Assertion): Promise<Secret<string>>;
  /** A value that rests encrypted under the root key, in a file or in Redis. */
  decrypt(place: string, encrypted: string): Secret<string>;
  /** The same for the same value at the same place, and nothing can be learned from it: a MAC under the root key. May stand in a handle. */
  fingerprint(place: string, value: Secret<string>): string;
}

export interface Assertion {
  /** Absent: our own issuer. A client that authenticates by such a JWT is its issuer itself (RFC 7523 section 3). */
  issuer?: string;
  /** The agent's SPIFFE ID, or the broker's own name. */
  subject: string;
  audience: string;
  ttlMs: number;
  /** The lease it is made for. */
  id?: string;
  /** Further claims, such as `act`. */
  claims?: Readonly<Record<string, unknown>>;
}

/**
 * Something went wrong at a backend. `message` is for operators and the audit log: it names no host, user or secret beyond what the handle
 * names. `isSure` means that nothing was made or changed; anything else is *unknown*.
 */
export class BackendProblem extends Error {
  readonly kind: BackendProblemKind;
  readonly isSure: boolean;

  constructor(
    kind: BackendProblemKind,
    message: string,
    { isSure = false, cause }: { isSure?: boolean; cause?: unknown } = {},
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'BackendProblem';
    this.kind = kind;
    this.isSure = isSure;
  }
}

/**
 * `unreachable` and `timeout` count for the circuit breaker, as does `sealed`; `forbidden` and `misconfigured` want an operator; `too_late`: past
 * the intent's deadline; `busy`: try again soon; `failed`: the backend said no for a reason of its own.
 */
export type BackendProblemKind =
  | 'unreachable'
  | 'timeout'
  | 'sealed'
  | 'forbidden'
  | 'misconfigured'
  | 'too_late'
  | 'busy'
  | 'failed';
