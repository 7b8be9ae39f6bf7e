import { JwsRefused } from '../core/jws.js';
import type { Caller } from './caller.js';
import { type OwnToken, readOwnToken } from './own-token.js';
import type { Parts } from './parts.js';
import { record } from './refusal.js';

/**
 * RFC 7009: the agent that holds a token gives it up. Unknown tokens, and those of others, are answered the same and nothing happens. There
 * are no refresh tokens here.
 */
export async function revokeToken(parts: Parts, caller: Caller, request: { token: string }): Promise<void> {
  let own: OwnToken;
  try {
    own = await readOwnToken(parts, request.token);
  } catch (error) {
    if (error instanceof JwsRefused) return;
    throw error;
  }
  const { lease } = own;
  if (!lease || own.dead || lease.agent !== caller.name) return;
  const nowMs = parts.clock.now();
  const reason = 'given up by its holder';
  await parts.ledger.revokeLeases({
    leaseIds: [lease.id],
    reason,
    announce: true,
    nowMs,
    audit: record(parts, 'token.revoked', caller, {
      lease: lease.id,
      ...(lease.taskId && { task: lease.taskId }),
      action: 'revoke',
      effect: 'allow',
      reasons: [reason],
    }),
  });
}
