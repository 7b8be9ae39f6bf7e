import { BrokerError } from '../core/errors.js';
import { comparePositions, type Position } from '../core/position.js';
import type { FeedFrame, FeedReader } from '../state/stores.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';
import { mustOperate } from './permitted.js';
import { recordingRefusals } from './refusal.js';

/** The revocations, for whoever owns an audience: a snapshot (or what came since `from`), then as they happen. Ends with the reader's identity. */
export async function followFeed(
  parts: Parts,
  caller: Caller,
  request: { from?: Position; signal: AbortSignal },
): Promise<AsyncIterable<FeedFrame>> {
  return recordingRefusals(parts, caller, { action: 'follow_feed' }, async () => {
    mustOwnAnAudience(caller);
    return parts.feed.follow(request);
  });
}

/** An enforcement point has applied everything up to here. What it says of positions that do not exist yet is not believed. */
export async function acknowledge(parts: Parts, caller: Caller, request: { position: Position }): Promise<void> {
  return recordingRefusals(parts, caller, { action: 'acknowledge' }, async () => {
    const resources = mustOwnAnAudience(caller);
    if (comparePositions(request.position, await parts.feed.head()) > 0) {
      throw new BrokerError('invalid_request', 'pos: ahead of the feed.', { field: 'pos' });
    }
    await parts.feed.acknowledge(caller.name, resources, request.position, parts.clock.now());
  });
}

export async function feedReaders(parts: Parts, caller: Caller): Promise<FeedReader[]> {
  return recordingRefusals(parts, caller, { action: 'list_feed_readers' }, async () => {
    mustOperate(parts, caller, 'view', { bound: false });
    return parts.feed.readers();
  });
}

function mustOwnAnAudience(caller: Caller): string[] {
  if (caller.principal.kind === 'tool') return caller.principal.resources;
  throw new BrokerError('denied', 'Only the owners of an audience read the feed.', {
    hint: 'A resource in the bundle (resources/*.yaml) names its owners by SPIFFE ID.',
  });
}
