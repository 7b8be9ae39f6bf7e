import type { TaskClaims } from '../core/claims.js';
import { BrokerError } from '../core/errors.js';
import { JwsRefused } from '../core/jws.js';
import { type DeadBecause, deadBecause, type LeaseRecord } from '../core/lease.js';
import type { TaskRecord } from '../core/task.js';
import { readTaskToken } from '../core/task-token.js';
import type { Parts } from './parts.js';
import { systemRecord } from './refusal.js';

/** A token of ours that is genuine, with what the store knows of it. It may still be dead. */
export interface OwnToken {
  claims: TaskClaims;
  kid: string;
  lease?: LeaseRecord;
  tasks: TaskRecord[];
  leases: LeaseRecord[];
  /** Why it is worth nothing now; `unknown` when there is no lease for it. */
  dead?: DeadBecause | 'unknown' | 'tainted-key';
}

/** Whether a token names a key of our ring: then it is ours to judge, and nobody else's. */
export function isOwnToken(parts: Parts, token: string): boolean {
  const end = token.indexOf('.');
  if (end < 1 || end > 1024) return false;
  try {
    const header: unknown = JSON.parse(Buffer.from(token.slice(0, end), 'base64url').toString('utf8'));
    const kid = (header as { kid?: unknown } | null)?.kid;
    return typeof kid === 'string' && parts.keys.byKid(kid) !== undefined;
  } catch {
    return false;
  }
}

/**
 * Reads a token of ours and everything that decides whether it still counts. Throws JwsRefused when it is not genuine;
 * a genuine one that is dead comes back with `dead`. A positive record is required: no lease, no worth.
 */
export async function readOwnToken(parts: Parts, token: string): Promise<OwnToken> {
  const nowMs = parts.clock.now();
  let tainted = false;
  const { claims, kid } = readTaskToken(token, {
    issuer: parts.settings.issuer,
    keyOf: (name) => {
      const key = parts.keys.byKid(name);
      tainted = key?.state === 'tainted';
      return key?.verification;
    },
    nowMs,
    skewMs: parts.settings.skewMs,
    lifeMsMax: parts.settings.ttlMsMax,
  });
  if (tainted) {
    await raiseTaintedUse(parts, claims, kid);
    return { claims, kid, tasks: [], leases: [], dead: 'tainted-key' };
  }
  const found = await parts.views.leaseWithAbove(claims.jti);
  if (!found) return { claims, kid, tasks: [], leases: [], dead: 'unknown' };
  // A stop acknowledged by another broker, or a new epoch, may be on its way to this one's table.
  await parts.feed.reached(found.fence, 1_000);
  const revoked = parts.feed.table().find(claims, kid) !== undefined;
  const dead = deadBecause(found.lease, { tasks: found.tasks, leases: found.leases, revoked }, nowMs);
  const { lease, tasks, leases } = found;
  return { claims, kid, lease, tasks, leases, ...(dead && { dead }) };
}

/** A tainted key in use is an attack or a forgotten copy: somebody has to look. */
async function raiseTaintedUse(parts: Parts, claims: TaskClaims, kid: string): Promise<void> {
  parts.observe({ event: 'key.tainted_use', level: 'error', kid, lease: claims.jti });
  await parts.ledger.note(
    systemRecord(parts, 'key.tainted_use', {
      lease: claims.jti,
      effect: 'deny',
      detail: { kid, client: claims.client_id },
    }),
  );
}

/** The one refusal for a token of ours, whatever is wrong with it. */
export function tokenRefused(error: unknown): BrokerError {
  if (!(error instanceof JwsRefused)) throw error;
  return new BrokerError('token_refused', 'The token is refused.', { reason: error.message });
}
