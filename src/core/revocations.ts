import type { Position } from './position.js';
import type { EpochMs } from './time.js';

/**
 * What one feed entry kills. One or more members, all must hold for a token (STANDARDS: the feed's `match`):
 * `task`, `lease` anywhere in `path` (`lease` also as `jti`); `key` the token's `kid`; `sel` every hash listed is in the
 * token's `sel`; `client`, `prefix` (whole segments), `trust_domain` any of `client_id`, `sub`, `act.sub`; `tool` in `scope`;
 * `resource` the `aud`; `bundle`; `all` every token. A member nobody knows matches (fail closed).
 */
export interface Match {
  task?: string;
  lease?: string;
  key?: string;
  sel?: string[];
  client?: string;
  prefix?: string;
  trust_domain?: string;
  tool?: string;
  resource?: string;
  bundle?: string;
  all?: true;
  /** Only moves the fence: kills nothing (a bundle activation). */
  none?: true;
}

/** One entry of the feed: every matching token whose position is older than `pos` is dead, until nothing it can kill is left. */
export interface FeedEntry {
  pos: Position;
  /** The latest end of anything it can kill plus 60 s; trimming goes by it. Key entries stay for ever (`null`). */
  untilMs: EpochMs | null;
  match: Match;
}
