import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mustOperate } from './permitted.js';
import { record, recordingRefusals } from './refusal.js';

/** Raises the epoch by hand, after a restore: every token of earlier epochs is dead, and grants go on in the new one. */
export async function recover(parts: Parts, caller: Caller, request: { reason: string }): Promise<{ epoch: number }> {
  return recordingRefusals(parts, caller, { action: 'recover' }, async () => {
    mustOperate(parts, caller, 'recover', { bound: true });
    return parts.ledger.recover({
      by: caller.name,
      reason: request.reason,
      nowMs: parts.clock.now(),
      audit: record(parts, 'epoch.raised', caller, { action: 'recover', effect: 'allow', reasons: [request.reason] }),
    });
  });
}
