import type { LeaseRecord } from '../core/lease.js';
import { isBefore, ORIGIN } from '../core/position.js';
import { type Selector, selects } from '../core/selector.js';
import type { EpochMs } from '../core/time.js';
import type { RevocationHit } from '../state/stores.js';
import { hurry } from './hurry.js';
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
    const hits: LeaseRecord[] = [];
    for (const lease of page.items) {
      // What was decided after the revocation is none of its business (a lock forbids it anyway). What an earlier worker moved
      // before it died is counted now.
      if (lease.state === 'revoked' && lease.revokedReason !== reason) continue;
      if (isBefore(lease.position, position) && (await isHit(parts, selector, lease))) hits.push(lease);
    }
    if (hits.length > 0) {
      await parts.ledger.revokeLeases({
        leaseIds: hits.map((lease) => lease.id),
        known: hits,
        reason,
        sinceMs: revocation.createdAtMs,
        nowMs: parts.clock.now(),
        audit: systemRecord(parts, 'leases.revoked', {
          reasons: [revocation.reason],
          detail: { revocation: id, leases: hits.map((lease) => lease.id) },
        }),
      });
      hurry(parts, hits);
    }
    const done = page.cursor === undefined;
    await parts.ledger.advanceRevocation({
      id,
      fromCursor,
      cursor: page.cursor ?? fromCursor,
      hit: hitOf(parts, hits),
      done,
      nowMs: parts.clock.now(),
      ...(done && { audit: systemRecord(parts, 'revocation.finished', { detail: { revocation: id } }) }),
    });
    revocation = await parts.views.revocation(id);
  }
}

/** A credential got with a delegated token dies with the leases above it; a token below one is told by its own path. */
async function isHit(parts: Parts, selector: Selector, lease: LeaseRecord): Promise<boolean> {
  if (selects(selector, lease)) return true;
  if (lease.kind === 'token' || !lease.path.some((id) => id.startsWith('lse_'))) return false;
  const found = await parts.views.leaseWithAbove(lease);
  return found?.leases.some((above) => selects(selector, above)) ?? false;
}

/** No end that anybody can name (RFC 5280, section 4.1.2.5, writes it so too). */
const NO_END_MS = Date.UTC(9999, 11, 31, 23, 59, 59);

/** What a credential may still do after it was revoked, by the name of its secret. */
function remainsOf(
  { secret = '', revocability, expiresAtMs }: LeaseRecord,
  nowMs: EpochMs,
  remains: Record<string, EpochMs>,
): void {
  const until = (endMs: EpochMs) => {
    remains[secret] = Math.max(endMs, remains[secret] ?? 0);
  };
  if (revocability?.kind === 'eventual') until(nowMs + revocability.withinMs);
  if (revocability?.kind === 'expiry-only') until(expiresAtMs);
  if (revocability?.kind === 'rotate-only') until(NO_END_MS);
}

function hitOf(parts: Parts, hits: readonly LeaseRecord[]): RevocationHit {
  const resources = parts.policies.current()?.bundle.resources;
  const remains: Record<string, EpochMs> = {};
  for (const lease of hits) {
    const { resource, expiresAtMs } = lease;
    if (lease.kind === 'credential') remainsOf(lease, parts.clock.now(), remains);
    if (resource === undefined) continue;
    // While no bundle is loaded nobody can say how it is enforced; the worst is assumed.
    if (resources && resources.get(resource)?.enforcement !== 'expiry-only') continue;
    remains[resource] = Math.max(expiresAtMs, remains[resource] ?? 0);
  }
  return {
    leases: hits.filter((lease) => lease.kind === 'token').length,
    credentials: hits.filter((lease) => lease.kind === 'credential').length,
    tasks: [...new Set(hits.flatMap((lease) => lease.taskId ?? []))],
    agents: [...new Set(hits.map((lease) => lease.agent))],
    remains,
  };
}
