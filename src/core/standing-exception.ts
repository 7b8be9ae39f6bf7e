import type { WorkloadDeclaration } from './agent.js';
import type { EpochMs } from './time.js';

/** Why a workload may hold a standing secret nevertheless, who answers for it, and until when. */
export interface StandingException {
  reason: string;
  owner: string;
  untilMs: EpochMs;
}

/**
 * The exception under which a workload may be handed a secret that only a rotation kills; undefined when it has none that is alive. A retired
 * workload has none, and one ends as its day begins (UTC), as a review date does. Of several, the one that lasts longest.
 *
 * broker/issue.ts asks this of every secret of kind `static` after policy said yes, writes reason and owner into the record of each use, and lets
 * no lease outlive `untilMs`; broker/renew.ts asks again.
 */
export function standingException(
  { retired, standingExceptions }: Pick<WorkloadDeclaration, 'retired' | 'standingExceptions'>,
  secret: string,
  nowMs: EpochMs,
): StandingException | undefined {
  if (retired) return undefined;
  let best: StandingException | undefined;
  for (const { secret: name, reason, owner, until } of standingExceptions) {
    const untilMs = Date.parse(until);
    // An end that cannot be read is past: NaN is not later than anything.
    if (name !== secret || owner === '' || !(untilMs > nowMs)) continue;
    if (best === undefined || untilMs > best.untilMs) best = { reason, owner, untilMs };
  }
  return best;
}
