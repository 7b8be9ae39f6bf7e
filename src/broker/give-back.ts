import type { LeaseRecord } from '../core/lease.js';
import type { Caller } from './caller.js';
import { hurry } from './hurry.js';
import type { Parts } from './parts.js';
import { mustOperate } from './permitted.js';
import { reachLease } from './reach-lease.js';
import { record, recordingRefusals } from './refusal.js';

/** One lease, before its task is over: by its holder, its task's opener, or an operator. A credential is dead when its backend says so. */
export async function giveBack(parts: Parts, caller: Caller, id: string): Promise<Pick<LeaseRecord, 'id' | 'state'>> {
  return recordingRefusals(parts, caller, { action: 'revoke', lease: id }, async () => {
    const { lease, standing } = await reachLease(parts, caller, id);
    if (standing === 'operator') mustOperate(parts, caller, 'revoke', { bound: true });
    const reason = standing === 'holder' ? 'given back by its holder' : `revoked by its ${standing}`;
    const { revoked } = await parts.ledger.revokeLeases({
      leaseIds: [id],
      reason,
      announce: true,
      nowMs: parts.clock.now(),
      audit: record(parts, lease.kind === 'token' ? 'token.revoked' : 'credential.revoking', caller, {
        lease: id,
        ...(lease.taskId !== undefined && { task: lease.taskId }),
        ...(lease.secret !== undefined && { resource: lease.secret }),
        action: 'revoke',
        effect: 'allow',
        reasons: [reason],
      }),
    });
    if (revoked.length === 0) return { id, state: lease.state };
    hurry(parts, [lease]);
    return { id, state: lease.kind === 'token' ? 'revoked' : 'revoking' };
  });
}
