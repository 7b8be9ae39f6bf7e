import { asRecorded } from '../core/as-recorded.js';
import { isId } from '../core/ids.js';
import { isBefore } from '../core/position.js';
import type { RevocationRecord } from '../state/stores.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mayOperate } from './permitted.js';
import { notFound, recordingRefusals } from './refusal.js';

/** An enforcement point, and whether it has said that it refuses what was revoked. */
export interface ReaderState {
  name: string;
  resources: string[];
  acknowledged: boolean;
}

/** A revocation, how far its enumeration is, and its receipt: a signed statement of what is known so far. */
export async function getRevocation(
  parts: Parts,
  caller: Caller,
  id: string,
): Promise<{ revocation: RevocationRecord; readers: ReaderState[]; receipt: string }> {
  const recorded = asRecorded('rev', id);
  return recordingRefusals(parts, caller, { action: 'get_revocation', detail: { revocation: recorded } }, async () => {
    const found = mayOperate(parts, caller, 'view') && isId('rev', id) ? await parts.views.revocation(id) : undefined;
    if (!found) throw notFound('revocation', recorded);
    const readers = await readersOf(parts, found);
    return { revocation: found, readers, receipt: receiptOf(parts, found, readers) };
  });
}

/**
 * Everybody who ought to have heard of it: whoever acknowledged anything lately, and the owners of every audience that is enforced by the
 * feed, heard of or not. One that never came is silent, not absent.
 */
async function readersOf(parts: Parts, { position }: RevocationRecord): Promise<ReaderState[]> {
  const states = new Map<string, ReaderState>();
  for (const { resource, owners, enforcement } of parts.policies.current()?.bundle.resources.values() ?? []) {
    if (enforcement !== 'feed') continue;
    for (const name of owners) {
      const resources = [...(states.get(name)?.resources ?? []), resource];
      states.set(name, { name, resources, acknowledged: false });
    }
  }
  for (const reader of await parts.feed.readers()) {
    const acknowledged = position !== undefined && !isBefore(reader.position, position);
    states.set(reader.name, { name: reader.name, resources: reader.resources, acknowledged });
  }
  return [...states.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** What was revoked, which enforcement points acknowledged, which are silent, what remains and until when. */
function receiptOf(parts: Parts, revocation: RevocationRecord, readers: ReaderState[]): string {
  const { id, selector, reason, by, lockId, createdAtMs, position, found, remains = {}, done, untilMs } = revocation;
  const names = (acknowledged: boolean) =>
    readers.filter((reader) => reader.acknowledged === acknowledged).map((reader) => reader.name);
  const nowMs = parts.clock.now();
  return parts.signer.sign(parts.keys.active(), 'mayfly-receipt+jwt', {
    iss: parts.settings.issuer,
    iat: Math.floor(nowMs / 1000),
    jti: id,
    revocation: {
      selector,
      reason,
      by,
      lock: lockId,
      at: new Date(createdAtMs).toISOString(),
      position,
      found,
      enumeration: done ? 'finished' : 'running',
      effective_until: untilMs === undefined ? undefined : new Date(untilMs).toISOString(),
      acknowledged: names(true),
      silent: names(false),
      remains: Object.entries(remains)
        .filter(([, endMs]) => endMs > nowMs)
        .map(([resource, endMs]) => ({ resource, until: new Date(endMs).toISOString() })),
    },
  });
}
