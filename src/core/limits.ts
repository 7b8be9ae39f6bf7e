import type { Limits } from './decision.js';

/** From the best to the worst. */
export const REVOCABILITY = ['instant', 'eventual', 'expiry-only', 'rotate-only'] as const;

/**
 * The limits of several permitting policies together, the strictest of each. Approvals of different roles are all needed.
 * Undefined when two of them cannot both be kept: a token is bound in one way, so "dpop" and "mtls" exclude each other.
 */
export function strictest(all: Limits[]): Limits | undefined {
  const together: Limits = {};
  const approvals = new Map<string, number>();
  for (const limits of all) {
    if (limits.ttlMsMax !== undefined)
      together.ttlMsMax = Math.min(limits.ttlMsMax, together.ttlMsMax ?? limits.ttlMsMax);
    if (limits.callsMax !== undefined)
      together.callsMax = Math.min(limits.callsMax, together.callsMax ?? limits.callsMax);
    if (limits.binding !== undefined) {
      const other = together.binding ?? 'any';
      if (limits.binding !== 'any' && other !== 'any' && limits.binding !== other) return undefined;
      together.binding = limits.binding === 'any' ? other : limits.binding;
    }
    if (limits.revocability !== undefined) {
      const ranks = [limits.revocability, together.revocability ?? limits.revocability].map((each) =>
        REVOCABILITY.indexOf(each),
      );
      together.revocability = REVOCABILITY[Math.min(...ranks)] as (typeof REVOCABILITY)[number];
    }
    if (limits.approval !== undefined) {
      const [role, count] = limits.approval.split(':') as [string, string];
      approvals.set(role, Math.max(Number(count), approvals.get(role) ?? 0));
    }
  }
  if (approvals.size > 0) {
    together.approval = [...approvals]
      .sort()
      .map(([role, count]) => `${role}:${count}`)
      .join(',');
  }
  return together;
}
