import { strangeCursor } from '../core/cursor.js';
import type { Cell } from './cell.js';

/** A place in a sorted set that survives changes around it: the last member taken, and its score for when that member is gone. */
interface Place {
  score: number;
  member: string;
}

export function writePlace({ score, member }: Place): string {
  return `${score}~${member}`;
}

/** Undefined for none: the list begins. `invalid_request` for what no page of ours ended with. */
export function readPlace(cursor: string | undefined): Place | undefined {
  if (cursor === undefined) return undefined;
  const match = /^(-?\d{1,16})~(.{1,200})$/s.exec(cursor);
  if (!match) throw strangeCursor();
  return { score: Number(match[1]), member: match[2] as string };
}

/**
 * Members of a sorted set after a place, in order of their scores; `newestFirst` the other way round. When the place's member has gone, the
 * page begins with those of the same score: some may come twice, none is missed.
 */
export async function pageAfter(
  cell: Cell,
  key: string,
  place: Place | undefined,
  limit: number,
  options: { newestFirst?: boolean; above?: number } = {},
): Promise<Place[]> {
  const { newestFirst, above } = options;
  const start = await cell.line.ask(async (client) => {
    if (!place) return above === undefined ? 0 : client.zcount(key, '-inf', String(above));
    const rank = await (newestFirst ? client.zrevrank(key, place.member) : client.zrank(key, place.member));
    if (rank !== null) return rank + 1;
    const passed = `(${place.score}`;
    return newestFirst ? client.zcount(key, passed, '+inf') : client.zcount(key, '-inf', passed);
  });
  const stop = start + limit - 1;
  const words = await cell.line.ask((client) =>
    newestFirst
      ? client.zrevrange(key, start, stop, 'WITHSCORES')
      : client.zrange(key, String(start), String(stop), 'WITHSCORES'),
  );
  const places: Place[] = [];
  for (let at = 0; at < words.length; at += 2) {
    places.push({ member: words[at] as string, score: Number(words[at + 1]) });
  }
  return places;
}
