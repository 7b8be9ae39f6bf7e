import { isPosition, type Position } from './position.js';
import type { FeedEntry, Match } from './revocations.js';

/**
 * What the feed says. `reset`: a snapshot begins. `entry`: one revocation, oldest first. `head`: everything up to this
 * place has been sent; one that is not the last entry received is a gap.
 */
export type FeedFrame = { kind: 'reset' } | { kind: 'entry'; entry: FeedEntry } | { kind: 'head'; position: Position };

/** A frame as a server-sent event: `reset`, `revoke {pos, until, match}` with its place as id, `head {pos}`. `until` is in whole seconds. */
export function writeFeedFrame(frame: FeedFrame): string {
  if (frame.kind === 'reset') return 'event: reset\ndata: {}\n\n';
  if (frame.kind === 'head') return `event: head\ndata: ${JSON.stringify({ pos: frame.position })}\n\n`;
  const { pos, untilMs, match } = frame.entry;
  const until = untilMs === null ? null : Math.ceil(untilMs / 1_000);
  return `id: ${pos}\nevent: revoke\ndata: ${JSON.stringify({ pos, until, match })}\n\n`;
}

/**
 * Reads one event. Undefined for an event nobody knows (if it was a revocation, the next head shows the gap). What cannot be
 * evaluated is read as wide as it can be: no `match` matches everything, no `until` stays for ever. Throws when there is no
 * position to put it at.
 */
export function readFeedFrame(event: string, data: string): FeedFrame | undefined {
  if (event === 'reset') return { kind: 'reset' };
  if (event !== 'head' && event !== 'revoke') return undefined;
  const { pos, until, match } = JSON.parse(data) as Record<string, unknown>;
  if (!isPosition(pos)) throw new Error(`the feed's ${event} has no position`);
  if (event === 'head') return { kind: 'head', position: pos };
  const untilMs = typeof until === 'number' && Number.isFinite(until) ? until * 1_000 : null;
  const isMatch = typeof match === 'object' && match !== null && !Array.isArray(match);
  return { kind: 'entry', entry: { pos, untilMs, match: isMatch ? (match as Match) : {} } };
}
