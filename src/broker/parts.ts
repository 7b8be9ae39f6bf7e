import type { VerificationKey } from '../core/jwk.js';
import type { LeaseRecord } from '../core/lease.js';
import type { Observe } from '../core/observe.js';
import type { SelectorHash } from '../core/selector.js';
import type { Clock, EpochMs } from '../core/time.js';
import type { Backends } from '../plugins/backends/contract.js';
import type { IdentityProof, TrustBundles } from '../plugins/identity/contract.js';
import type { BundleFormat, PolicyEngine, PreparedPolicy } from '../plugins/policy/contract.js';
import type { RingKey, Signer } from '../plugins/signers/contract.js';
import type { AuditLog, Feed, Health, Ledger, Quotas, ReplayGuard, Schedule, Views } from '../state/stores.js';

/** Everything a verb may use: one record, built in main/compose.ts, and from fakes in tests. */
export interface Parts {
  settings: BrokerSettings;
  clock: Clock;
  observe: Observe;
  identity: IdentityProof;
  trustBundles: TrustBundles;
  bundleFormat: BundleFormat;
  policyEngine: PolicyEngine;
  /** The policy of the bundle that Redis names active, once this broker has loaded it. */
  policies: ActivePolicies;
  signer: Signer;
  keys: KeyRing;
  backends: Backends;
  /** What of the declared secrets can be had at this broker now. */
  secretChecks: SecretChecks;
  /** What this process has to take back and could not yet, by lease: in memory only (`takeBack`). */
  untaken: Map<string, Untaken>;
  ledger: Ledger;
  views: Views;
  feed: Feed;
  schedule: Schedule;
  replayGuard: ReplayGuard;
  auditLog: AuditLog;
  health: Health;
  /** Keyed by the cell's key. */
  selectorHash: SelectorHash;
  cellKey: Uint8Array;
}

export interface BrokerSettings {
  issuer: string;
  mtlsIssuer?: string;
  cell: string;
  ttlMsDefault: number;
  ttlMsMax: number;
  /** Longest life of a task when its type says nothing. */
  taskTtlMsMax: number;
  taskTtlMsDefault: number;
  operatorTtlMs: number;
  personTokenAgeMsMax: number;
  identityLeftMsMin: number;
  skewMs: number;
  quotas: Quotas;
  dpopWindowMs: number;
  dpopNonceRequired: boolean;
  judgeWithinMs: number;
  judgeBundleWithinMs: number;
  /** Share of the credentials that are not sensitive which are tried after they were revoked; sensitive ones always are. */
  probeShare: number;
}

export interface ActivePolicies {
  /** The prepared policy of that digest; `unavailable` when this broker has not loaded it (it then loads it in the background). */
  of(digest: string): PreparedPolicy;
  /** Loads the bundle that Redis names active now; what was loaded stays on failure. */
  refresh(): Promise<PreparedPolicy>;
  current(): PreparedPolicy | undefined;
}

/** The signing keys as this broker knows them now. */
export interface KeyRing {
  /** The key that signs now. */
  active(): RingKey;
  /** A key by its kid, ready to verify with; also tainted ones, so that their use is noticed. */
  byKid(kid: string): (RingKey & { verification: VerificationKey }) | undefined;
  all(): RingKey[];
  version(): number;
  refresh(): Promise<void>;
}

/** What is known of one declared secret at this broker. */
export interface SecretStatus {
  name: string;
  backend: string;
  /** Why it cannot be had now; absent while it can. For operators. */
  problem?: string;
}

/**
 * Whether declared secrets can be issued and taken back as promised. A secret is closed until its backend has tried it on the real thing (a made
 * and revoked canary), and again when its declaration changes; what fails is tried again, ever more slowly.
 */
export interface SecretChecks {
  problemOf(secret: string): string | undefined;
  status(): SecretStatus[];
  /** Takes up what the active bundle declares, and tries what is due. Called every second; never throws. */
  tick(): Promise<void>;
  /** Tries every secret of a backend now. */
  checkBackend(backend: string): Promise<void>;
}

/** A lease whose credential nobody was given, and which the store could not be told to revoke so far. */
export interface Untaken {
  lease: Pick<LeaseRecord, 'id' | 'kind' | 'backend' | 'taskId' | 'expiresAtMs'>;
  reason: string;
  failures: number;
  dueAtMs: EpochMs;
}
