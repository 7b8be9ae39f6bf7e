import type { Bundle } from '../../core/bundle.js';
import type { Decision, PolicyQuestion } from '../../core/decision.js';

/**
 * Reads a bundle's files (`agents/*.yaml`, `orchestrators/*.yaml`, `tasks/*.yaml`, `resources/*.yaml`, `secrets/*.yaml`,
 * `policies/*.cedar`, `policies/*.test.yaml`) into a Bundle. Throws `BrokerError('bundle_invalid')` whose
 * `detail.problems` name file, field, what is wrong and what to do, all of them at once.
 */
export interface BundleFormat {
  parse(files: Record<string, string>): Bundle;
}

export interface PolicyEngine {
  /**
   * Validates the bundle's policies against the schema (its task params included) and makes them ready. Throws
   * `bundle_invalid` as above; what was prepared before stays usable.
   */
  prepare(bundle: Bundle): Promise<PreparedPolicy>;
}

/** One bundle's policies, ready. Deciding is synchronous, has no I/O and never throws: an engine's failure is a deny with its error. */
export interface PreparedPolicy {
  readonly bundle: Bundle;
  decide(question: PolicyQuestion): Decision;
  /** For `mayfly why`: what was nearest to permitting it, in words ("agent not listed; did you mean /agent/refunds?"). */
  nearestMiss(question: PolicyQuestion): string | undefined;
  /**
   * Whether policy decides single calls of this tool (by arguments, counts, time or approvals), so that a token for it has to be
   * marked `call`. Takes the mint's question; true when in doubt.
   */
  constrainsCalls(question: PolicyQuestion): boolean;
}

/** Outcome of one case of `policies/*.test.yaml`. */
export interface PolicyTestResult {
  file: string;
  name: string;
  passed: boolean;
  /** What was expected and what came, when it failed. */
  message?: string;
}
