import { namesIn, type TaskClaims, toolsOf } from './claims.js';
import { assert } from './errors.js';
import { comparePlaces, epochOf, isPosition, ORIGIN, type Place, type Position, placeOf } from './position.js';
import { hasPrefix } from './spiffe-id.js';
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

/** Whether a match holds for a token, its position aside. What cannot be evaluated (an unknown member, a wrong type) holds. */
export function matches(match: Match, claims: TaskClaims, kid: string): boolean {
  return Object.entries(match).every(([member, value]) => holds(member, value, claims, kid));
}

function holds(member: string, value: unknown, claims: TaskClaims, kid: string): boolean {
  if (member === 'none') return value !== true;
  if (member === 'sel') {
    return !isTexts(value) || value.every((hash) => claims.mayfly.sel.includes(hash));
  }
  if (typeof value !== 'string') return true;
  switch (member) {
    case 'task':
      return claims.mayfly.path.includes(value);
    case 'lease':
      return claims.jti === value || claims.mayfly.path.includes(value);
    case 'key':
      return kid === value;
    case 'client':
      return namesIn(claims).includes(value);
    case 'prefix':
      return namesIn(claims).some((name) => hasPrefix(name, value));
    case 'trust_domain':
      return namesIn(claims).some((name) => name.startsWith(`spiffe://${value}/`));
    case 'tool':
      return toolsOf(claims).includes(value);
    case 'resource':
      return claims.aud === value;
    case 'bundle':
      return claims.mayfly.bundle === value;
    default:
      return true;
  }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string');
}

/** Members with one plain value that a table looks up, the usually rarest first. `sel` is the eleventh: one key per hash. */
const PLAIN_MEMBERS = [
  'lease',
  'task',
  'client',
  'prefix',
  'key',
  'bundle',
  'tool',
  'resource',
  'trust_domain',
] as const satisfies readonly (keyof Match)[];

type Facet = (typeof PLAIN_MEMBERS)[number] | 'sel';

interface Indexed {
  readonly entry: FeedEntry;
  readonly place: Place;
  /** `key` entries do not look at positions: whatever that key signed is dead, whenever it was. */
  readonly timeless: boolean;
  /** One known member and nothing else: being found under it is the whole match. */
  readonly certain: boolean;
  readonly bucket: Bucket;
  gone: boolean;
}

/** Entries found under one value, oldest first (timeless ones last), so that a look from the end may stop early. */
interface Bucket {
  entries: Indexed[];
  readonly index: Map<string, Bucket> | undefined;
  readonly value: string;
}

/**
 * The live part of the feed, as broker and verifier hold it. A look costs the lookups of the token's own facts, whatever the number
 * of entries: each entry waits under exactly one of its members, the rarest at that moment, and those that cannot be
 * told by any known member are looked at every time.
 *
 * It only ever forgets through `expire` and `clear`: applying an older snapshot over it un-revokes nothing. A token of an epoch before the
 * table's own is dead, whether or not the entry that said so is still there.
 */
export class RevocationTable {
  readonly #facets: Record<Facet, Map<string, Bucket>> = {
    lease: new Map(),
    task: new Map(),
    client: new Map(),
    prefix: new Map(),
    key: new Map(),
    bundle: new Map(),
    tool: new Map(),
    resource: new Map(),
    trust_domain: new Map(),
    sel: new Map(),
  };
  readonly #always: Bucket = { entries: [], index: undefined, value: '' };
  readonly #byPosition = new Map<string, Indexed>();
  /** Whole seconds of `untilMs`, rounded up, so that expiring costs what has expired. */
  readonly #bySecond = new Map<number, Indexed[]>();
  #position: Position = ORIGIN;
  #place: Place = placeOf(ORIGIN);
  #epochPrefix = '0-';

  /** The latest place this table has seen: of an entry, or of a head it was advanced to. */
  get position(): Position {
    return this.#position;
  }

  /** Live entries; those that kill nothing are not kept. */
  get size(): number {
    return this.#byPosition.size;
  }

  /** Adds an entry; the same one again changes nothing, in any order. Throws on a `pos` that is no position. */
  apply(entry: FeedEntry): void {
    assert(isPosition(entry.pos), 'a feed entry has a position');
    this.advance(entry.pos);
    if (entry.match.none === true) return;
    const key = this.#freeKey(entry);
    if (key === undefined) return;
    const indexed = this.#index(entry);
    this.#byPosition.set(key, indexed);
    if (entry.untilMs === null || entry.match.key !== undefined) return;
    const second = Math.ceil(entry.untilMs / 1_000);
    const sameSecond = this.#bySecond.get(second);
    if (sameSecond) sameSecond.push(indexed);
    else this.#bySecond.set(second, [indexed]);
  }

  /** Moves the position to a head; never back. */
  advance(position: Position): void {
    const place = placeOf(position);
    if (comparePlaces(place, this.#place) <= 0) return;
    this.#position = position;
    this.#place = place;
    this.#epochPrefix = `${place.epoch}-`;
  }

  /** An entry that kills a token with these claims, signed by `kid`; undefined when none does. */
  find(claims: TaskClaims, kid: string): FeedEntry | undefined {
    const own = claims.mayfly;
    if (!own.pos.startsWith(this.#epochPrefix) && epochOf(own.pos) < this.#place.epoch) return this.#epochEntry();
    const { lease, task, client, prefix, key, bundle, tool, resource, trust_domain: domain, sel } = this.#facets;
    return (
      lookIn(this.#always, claims, kid) ??
      (lease.size > 0
        ? (under(lease, claims.jti, claims, kid) ?? underAny(lease, own.path, claims, kid))
        : undefined) ??
      (task.size > 0 ? underAny(task, own.path, claims, kid) : undefined) ??
      (key.size > 0 ? under(key, kid, claims, kid) : undefined) ??
      (sel.size > 0 ? underAny(sel, own.sel, claims, kid) : undefined) ??
      (resource.size > 0 ? under(resource, claims.aud, claims, kid) : undefined) ??
      (bundle.size > 0 ? under(bundle, own.bundle, claims, kid) : undefined) ??
      (tool.size > 0 ? underAny(tool, toolsOf(claims), claims, kid) : undefined) ??
      (client.size + prefix.size + domain.size > 0 ? this.#underNames(claims, kid) : undefined)
    );
  }

  /** Forgets the entries that can kill nothing any more. Returns how many. Key entries stay for ever. */
  expire(nowMs: EpochMs): number {
    const touched = new Set<Bucket>();
    let count = 0;
    for (const [second, indexed] of this.#bySecond) {
      if (second * 1_000 > nowMs) continue;
      this.#bySecond.delete(second);
      for (const one of indexed) {
        one.gone = true;
        touched.add(one.bucket);
        count++;
      }
    }
    if (count === 0) return 0;
    for (const bucket of touched) {
      bucket.entries = bucket.entries.filter((one) => !one.gone);
      if (bucket.entries.length === 0) bucket.index?.delete(bucket.value);
    }
    for (const [key, one] of this.#byPosition) if (one.gone) this.#byPosition.delete(key);
    return count;
  }

  /** The live entries, oldest first: a snapshot. */
  entries(): FeedEntry[] {
    return [...this.#byPosition.values()].sort((a, b) => comparePlaces(a.place, b.place)).map((one) => one.entry);
  }

  /** Forgets everything, the position included. */
  clear(): void {
    for (const index of Object.values(this.#facets)) index.clear();
    this.#always.entries = [];
    this.#byPosition.clear();
    this.#bySecond.clear();
    this.#position = ORIGIN;
    this.#place = placeOf(ORIGIN);
    this.#epochPrefix = '0-';
  }

  /** Undefined when this very entry is there already. Two different ones at one place are both kept. */
  #freeKey(entry: FeedEntry): string | undefined {
    let key = entry.pos;
    for (let at = 1; ; at++) {
      const there = this.#byPosition.get(key);
      if (!there) return key;
      if (JSON.stringify(there.entry) === JSON.stringify(entry)) return undefined;
      key = `${entry.pos}#${at}`;
    }
  }

  #index(entry: FeedEntry): Indexed {
    const bucket = this.#rarestBucket(entry.match);
    const indexed: Indexed = {
      entry,
      place: placeOf(entry.pos),
      timeless: entry.match.key !== undefined,
      certain: bucket !== this.#always && Object.keys(entry.match).length === 1 && (entry.match.sel?.length ?? 1) === 1,
      bucket,
      gone: false,
    };
    let at = bucket.entries.length;
    while (at > 0 && comesAfter(bucket.entries[at - 1] as Indexed, indexed)) at--;
    if (at === bucket.entries.length) bucket.entries.push(indexed);
    else bucket.entries.splice(at, 0, indexed);
    return indexed;
  }

  /** Where an entry waits: under the member that fewest others wait under, or among those looked at every time. */
  #rarestBucket(match: Match): Bucket {
    let best: { index: Map<string, Bucket>; value: string; others: number } | undefined;
    const consider = (facet: Facet, value: unknown) => {
      if (typeof value !== 'string') return;
      const index = this.#facets[facet];
      const others = index.get(value)?.entries.length ?? 0;
      if (!best || others < best.others) best = { index, value, others };
    };
    for (const member of PLAIN_MEMBERS) consider(member, match[member]);
    if (isTexts(match.sel)) for (const hash of match.sel) consider('sel', hash);
    if (!best) return this.#always;
    const { index, value } = best;
    const there = index.get(value);
    if (there) return there;
    const made: Bucket = { entries: [], index, value };
    index.set(value, made);
    return made;
  }

  #underNames(claims: TaskClaims, kid: string): FeedEntry | undefined {
    const { client_id: client, sub } = claims;
    const found =
      this.#underName(client, claims, kid) ?? (sub === client ? undefined : this.#underName(sub, claims, kid));
    if (found) return found;
    for (let actor = claims.act; actor; actor = actor.act) {
      const acted = actor.sub === client ? undefined : this.#underName(actor.sub, claims, kid);
      if (acted) return acted;
    }
    return undefined;
  }

  #underName(name: string, claims: TaskClaims, kid: string): FeedEntry | undefined {
    const { client, prefix, trust_domain: domain } = this.#facets;
    return (
      (client.size > 0 ? under(client, name, claims, kid) : undefined) ??
      (prefix.size > 0 ? underPrefixes(prefix, name, claims, kid) : undefined) ??
      (domain.size > 0 && name.startsWith('spiffe://')
        ? under(domain, name.slice('spiffe://'.length, name.indexOf('/', 'spiffe://'.length)), claims, kid)
        : undefined)
    );
  }

  #epochEntry(): FeedEntry {
    return { pos: `${this.#place.epoch}-0-0`, untilMs: null, match: { all: true } };
  }
}

function comesAfter(one: Indexed, other: Indexed): boolean {
  if (one.timeless !== other.timeless) return one.timeless;
  return comparePlaces(one.place, other.place) > 0;
}

/** The newest entry waiting here that kills the token. */
function lookIn({ entries }: Bucket, claims: TaskClaims, kid: string): FeedEntry | undefined {
  if (entries.length === 0) return undefined;
  const place = placeOf(claims.mayfly.pos);
  for (let at = entries.length - 1; at >= 0; at--) {
    const one = entries[at] as Indexed;
    // Sorted: when this one is no newer than the token, none before it is. A place that is no number is older than everything.
    if (!one.timeless && comparePlaces(place, one.place) >= 0) return undefined;
    if (one.certain || matches(one.entry.match, claims, kid)) return one.entry;
  }
  return undefined;
}

function under(index: Map<string, Bucket>, value: string, claims: TaskClaims, kid: string): FeedEntry | undefined {
  const bucket = index.get(value);
  return bucket && lookIn(bucket, claims, kid);
}

function underAny(
  index: Map<string, Bucket>,
  values: readonly string[],
  claims: TaskClaims,
  kid: string,
): FeedEntry | undefined {
  for (const value of values) {
    const found = under(index, value, claims, kid);
    if (found) return found;
  }
  return undefined;
}

/** Every text that `hasPrefix` holds for: the name cut before each slash, and the whole of it. */
function underPrefixes(
  index: Map<string, Bucket>,
  name: string,
  claims: TaskClaims,
  kid: string,
): FeedEntry | undefined {
  for (let at = name.indexOf('/'); at !== -1; at = name.indexOf('/', at + 1)) {
    const found = under(index, name.slice(0, at), claims, kid);
    if (found) return found;
  }
  return under(index, name, claims, kid);
}
