import type { Bundle } from '../core/bundle.js';
import { BrokerError } from '../core/errors.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import type { Caller } from './caller.js';
import { problemsOfSettings } from './check-secrets.js';
import type { Parts } from './parts.js';
import { mustOperate, operateUnder } from './permitted.js';
import { previewVerdicts, type Verdicts } from './re-evaluate.js';
import { record, recordingRefusals, systemRecord } from './refusal.js';

export interface BundleRequest {
  /** Path below `config/` to content. */
  files: Record<string, string>;
}

export interface BundleChanges {
  added: string[];
  changed: string[];
  removed: string[];
}

/** Makes a bundle the active one, by a person: also one that was active before. Everything live is then judged under it, within a minute. */
export async function activateBundle(
  parts: Parts,
  caller: Caller,
  request: BundleRequest,
): Promise<{ digest: string; previous: string | undefined; changed: boolean }> {
  return recordingRefusals(parts, caller, { action: 'activate' }, async () => {
    mustOperate(parts, caller, 'activate', { bound: true });
    const { bundle, policy } = await validated(parts, request.files);
    checkWayBack(parts, caller, policy);
    const previous = parts.policies.current()?.bundle.digest;
    const outcome = await parts.ledger.activateBundle({
      digest: bundle.digest,
      files: bundle.files,
      again: true,
      nowMs: parts.clock.now(),
      audit: record(parts, 'bundle.activated', caller, {
        action: 'activate',
        effect: 'allow',
        bundle: bundle.digest,
        detail: { previous },
      }),
    });
    await takeUp(parts, bundle.digest);
    return { digest: bundle.digest, previous, changed: outcome.outcome === 'activated' };
  });
}

/**
 * The bundle a broker finds in its own `config/` at start: activated when no broker ever had it. One that was active before is not taken up
 * again by a restart, only by a person; production goes on with the active one and says so.
 */
export async function activateOwnBundle(
  parts: Parts,
  files: Record<string, string>,
  options: { again: boolean },
): Promise<{ outcome: 'activated' | 'already' | 'seen'; digest: string; active: string }> {
  const { bundle } = await validated(parts, files);
  const outcome = await parts.ledger.activateBundle({
    digest: bundle.digest,
    files: bundle.files,
    again: options.again,
    nowMs: parts.clock.now(),
    audit: systemRecord(parts, 'bundle.activated', {
      action: 'activate',
      bundle: bundle.digest,
      detail: { at: 'start' },
    }),
  });
  await takeUp(parts, outcome.active);
  return { outcome: outcome.outcome, digest: bundle.digest, active: outcome.active };
}

/** What a bundle would change, and which live leases would die of it. */
export async function previewBundle(
  parts: Parts,
  caller: Caller,
  request: BundleRequest,
): Promise<{ digest: string; changes: BundleChanges; verdicts: Verdicts }> {
  return recordingRefusals(parts, caller, { action: 'preview_bundle' }, async () => {
    mustOperate(parts, caller, 'activate', { bound: false });
    const { bundle, policy } = await validated(parts, request.files);
    const verdicts = await previewVerdicts(parts, {}, policy);
    return {
      digest: bundle.digest,
      changes: changesOf(parts.policies.current()?.bundle.files ?? {}, bundle.files),
      verdicts,
    };
  });
}

/** A bundle that does not validate is refused by name and the last good one stays. */
async function validated(
  parts: Parts,
  files: Record<string, string>,
): Promise<{ bundle: Bundle; policy: PreparedPolicy }> {
  const bundle = parts.bundleFormat.parse(files);
  const policy = await parts.policyEngine.prepare(bundle);
  const problems = problemsOfSettings(parts, bundle);
  if (problems.length > 0) throw new BrokerError('bundle_invalid', 'The bundle does not validate.', { problems });
  return { bundle, policy };
}

/** Under a bundle that keeps whoever activates it from activating another one, nobody may be left who can stop anything: an empty folder is such a bundle. */
function checkWayBack(parts: Parts, caller: Caller, policy: PreparedPolicy): void {
  if (operateUnder(policy, parts, caller, 'activate').effect === 'allow') return;
  throw new BrokerError('bundle_invalid', 'The bundle would lock you out.', {
    problems: [`policies: under this bundle ${caller.name} could not activate another one; permit Action::"activate"`],
  });
}

async function takeUp(parts: Parts, digest: string): Promise<void> {
  const policy = await parts.policies.refresh();
  if (policy.bundle.digest !== digest) {
    throw new BrokerError('unavailable', 'Another bundle became active meanwhile.', { retryAfterSeconds: 1 });
  }
  parts.schedule.add({ name: 're-evaluate-bundle', id: digest });
}

export function changesOf(before: Record<string, string>, after: Record<string, string>): BundleChanges {
  const names = Object.keys(after);
  return {
    added: names.filter((name) => !Object.hasOwn(before, name)).sort(),
    changed: names.filter((name) => Object.hasOwn(before, name) && before[name] !== after[name]).sort(),
    removed: Object.keys(before)
      .filter((name) => !Object.hasOwn(after, name))
      .sort(),
  };
}
