import { setTimeout as delay } from 'node:timers/promises';
import { lockKey, unlockKey } from '../broker/lock.js';
import type { Parts } from '../broker/parts.js';

const RETRY_MS = 1_000;

interface Move {
  keyId: string;
  failed: 'key.lock_failed' | 'key.unlock_failed';
  run(parts: Parts, keyId: string): Promise<void>;
}

export interface FollowingTrust {
  close(): Promise<void>;
}

/**
 * A key that left its trust bundle ends what was obtained with it; one that is back may be used again. One move after the other, in the
 * order in which the bundles changed (a kid that names another key now is gone and back in one moment), and each is repeated until the
 * store has taken it: a Redis that is away when a key leaves must not leave the key's tokens alive.
 */
export function followTrust(parts: Parts, retryMs = RETRY_MS): FollowingTrust {
  const closing = new AbortController();
  const moves: Move[] = [];
  let working: Promise<void> | undefined;

  const work = async () => {
    for (let move = moves[0]; move && !closing.signal.aborted; move = moves[0]) {
      try {
        await move.run(parts, move.keyId);
        moves.shift();
      } catch (error) {
        const problem = error instanceof Error ? error.message : 'unknown';
        parts.observe({ event: move.failed, level: 'error', keyId: move.keyId, problem });
        await delay(retryMs, undefined, { signal: closing.signal }).catch(() => undefined);
      }
    }
  };
  const each = (failed: Move['failed'], run: Move['run']) => (keyIds: string[]) => {
    moves.push(...keyIds.map((keyId) => ({ keyId, failed, run })));
    working ??= work().finally(() => {
      working = undefined;
    });
  };
  parts.trustBundles.onKeysGone(each('key.lock_failed', lockKey));
  parts.trustBundles.onKeysBack(each('key.unlock_failed', unlockKey));
  void sayWhatStaysLocked(parts);

  return {
    async close() {
      closing.abort();
      await working;
    },
  };
}

/**
 * A key that came back while no broker ran is still locked: whether this broker's bundle is the newer one cannot be told from here, so that
 * is for two people to say.
 */
async function sayWhatStaysLocked(parts: Parts): Promise<void> {
  try {
    const trusted = new Set(parts.trustBundles.keyIds());
    for (const { id, system, selector } of await parts.views.locks(parts.clock.now())) {
      if (!system || selector.key === undefined || !trusted.has(selector.key)) continue;
      parts.observe({
        event: 'key.trusted_but_locked',
        level: 'warn',
        keyId: selector.key,
        lock: id,
        advice: `The key is in its trust bundle, and was locked when it had left. To trust it again: mayfly lock lift ${id}`,
      });
    }
  } catch {
    // It is only said; readiness tells of a store that is away.
  }
}
