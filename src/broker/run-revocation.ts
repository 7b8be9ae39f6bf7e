import { isBefore, ORIGIN } from '../core/position.js';
import { selects } from '../core/selector.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

const PAGE = 500;

/**
 * Enumerates what a revocation hit: moves the records of matching leases, so that backends are asked to revoke, and counts them. It was
 * effective before this began. Resumable by cursor; two workers on the same page count it once. Lifting its lock does not cancel it.
 */
export async function runRevocation(parts: Parts, id: string): Promise<void> {
  let revocation = await parts.views.revocation(id);
  while (revocation && !revocation.done) {
    const fromCursor = revocation.cursor ?? '';
    const page = await parts.views.leases({ ...(fromCursor && { cursor: fromCursor }), limit: PAGE });
    const { selector, position = ORIGIN } = revocation;
    const reason = `revocation ${id}`;
    // What was decided after the revocation is none of its business (a lock forbids it anyway). What an earlier worker moved
    // before it died is counted now.
    const hits = page.items.filter(
      (lease) =>
        (lease.state !== 'revoked' || lease.revokedReason === reason) &&
        isBefore(lease.position, position) &&
        selects(selector, lease),
    );
    if (hits.length > 0) {
      await parts.ledger.revokeLeases({
        leaseIds: hits.map((lease) => lease.id),
        reason,
        nowMs: parts.clock.now(),
        audit: systemRecord(parts, 'leases.revoked', {
          reasons: [revocation.reason],
          detail: { revocation: id, leases: hits.map((lease) => lease.id) },
        }),
      });
    }
    const done = page.cursor === undefined;
    await parts.ledger.advanceRevocation({
      id,
      fromCursor,
      cursor: page.cursor ?? fromCursor,
      found: {
        leases: hits.filter((lease) => lease.kind === 'token').length,
        credentials: hits.filter((lease) => lease.kind === 'credential').length,
        tasks: new Set(hits.map((lease) => lease.taskId)).size,
        agents: new Set(hits.map((lease) => lease.agent)).size,
      },
      done,
      nowMs: parts.clock.now(),
      ...(done && { audit: systemRecord(parts, 'revocation.finished', { detail: { revocation: id } }) }),
    });
    revocation = await parts.views.revocation(id);
  }
}
