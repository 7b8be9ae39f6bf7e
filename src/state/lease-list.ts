import { strangeCursor } from '../core/cursor.js';
import { isClosed, type LeaseRecord } from '../core/lease.js';
import { type Cell, isLeaseId, pathOf } from './cell.js';
import { leasesById } from './look.js';
import { pageAfter, readPlace, writePlace } from './paging.js';
import { decodeToken, learnProfiles } from './read.js';
import type { Page, Views } from './stores.js';

type Filter = Parameters<Views['leases']>[0];

/** Where an enumeration is: which source, and the place in it ('' for its beginning). */
interface Cursor {
  source: string;
  place: string;
}

interface Step {
  leases: LeaseRecord[];
  /** Undefined: this source is used up. */
  place?: string;
}

/** A source of leases in a stable order, resumable at any place it gave. */
type Source = (place: string, limit: number) => Promise<Step>;

const PAGE_MAX = 500;
/** A page gives up looking after so many steps that filtered everything out; its cursor goes on from there. */
const STEPS_MAX = 100;

/** `Views.leases`: credentials first, then tokens; of the whole cell by the second they were made in, of a task by their end. */
export async function listLeases(cell: Cell, filter: Filter): Promise<Page<LeaseRecord>> {
  const limit = Math.min(filter.limit, PAGE_MAX);
  const sources = await sourcesOf(cell, filter);
  const names = [...sources.keys()];
  const nowMs = cell.line.earlierMs();
  const isWanted = (lease: LeaseRecord) =>
    isListed(lease, nowMs) &&
    (filter.task === undefined || lease.path.includes(filter.task)) &&
    (filter.agent === undefined || lease.agent === filter.agent) &&
    (filter.backend === undefined || lease.backend === filter.backend) &&
    (filter.live === undefined || filter.live !== isClosed(lease)) &&
    (filter.givenFor === undefined || (filter.givenFor === 'task') === (lease.taskId !== undefined)) &&
    (filter.state === undefined || (filter.state === 'stuck' ? lease.stuck : lease.state === filter.state));
  const items: LeaseRecord[] = [];
  if (names.length === 0) return { items: [] };
  let cursor: Cursor | undefined = readCursor(filter.cursor) ?? { source: names[0] as string, place: '' };
  const first = filter.task !== undefined && filter.cursor === undefined ? await firstSteps(sources, limit) : undefined;
  for (let step = 0; cursor && step < STEPS_MAX && items.length < limit; step++) {
    const source = sources.get(cursor.source);
    if (!source) throw strangeCursor();
    const room = limit - items.length;
    const begun: Step | undefined = cursor.place === '' ? first?.get(cursor.source) : undefined;
    const { leases, place }: Step = begun && begun.leases.length <= room ? begun : await source(cursor.place, room);
    items.push(...leases.filter(isWanted));
    const next: string | undefined = names[names.indexOf(cursor.source) + 1];
    if (place !== undefined) cursor = { source: cursor.source, place };
    else cursor = next === undefined ? undefined : { source: next, place: '' };
  }
  return { items, ...(cursor && { cursor: `${cursor.source}.${cursor.place}` }) };
}

/** Asked for at once, since of most tasks this is all there is. */
async function firstSteps(sources: ReadonlyMap<string, Source>, limit: number): Promise<Map<string, Step>> {
  return new Map(
    await Promise.all([...sources].map(async ([name, source]) => [name, await source('', limit)] as const)),
  );
}

/** The narrowest source that has all that is asked for. */
async function sourcesOf(cell: Cell, { task, backend, state }: Filter): Promise<Map<string, Source>> {
  if (state === 'stuck') return new Map([['s', credentialsOf(cell, cell.keys.named('stuck'))]]);
  if (task !== undefined) return taskSources(cell, task);
  if (backend !== undefined) return new Map([['b', credentialsByScore(cell, cell.keys.backendCredentials(backend))]]);
  return cellSources(cell);
}

function cellSources(cell: Cell): Map<string, Source> {
  return new Map([
    ['c', credentialsOf(cell, cell.keys.named('credentials'))],
    ['t', allTokens(cell)],
  ]);
}

async function taskSources(cell: Cell, taskId: string): Promise<Map<string, Source>> {
  const root = (await pathOf(cell, taskId))?.[0];
  if (root === undefined) return new Map();
  return new Map([
    ['c', credentialsOf(cell, cell.keys.treeCredentials(root))],
    ...(root === taskId ? [['r', tokensByEnd(cell, cell.keys.tokensOf(root))] as const] : []),
    ['x', tokensByEnd(cell, cell.keys.tree(root))],
  ]);
}

/** Credentials that are not closed, by their ids. */
function credentialsOf(cell: Cell, key: string): Source {
  return async (place, limit) => {
    if (place !== '' && !isLeaseId(place)) throw strangeCursor();
    const from = place === '' ? '-' : `(${place}`;
    const ids = await cell.line.ask((client) => client.zrangebylex(key, from, '+', 'LIMIT', 0, limit));
    return { leases: await inOrder(cell, ids), ...(ids.length === limit && { place: ids.at(-1) as string }) };
  };
}

/** Credentials of a backend, those first that have the longest way to go: whoever moves on is met again, not missed. */
function credentialsByScore(cell: Cell, key: string): Source {
  return async (place, limit) => {
    const places = await pageAfter(cell, key, readPlace(place || undefined), limit);
    const ids = places.map(({ member }) => member);
    const last = places.at(-1);
    return { leases: await inOrder(cell, ids), ...(last && places.length === limit && { place: writePlace(last) }) };
  };
}

/** Token leases of a sorted set by their ends, those past it left out. */
function tokensByEnd(cell: Cell, key: string): Source {
  return async (place, limit) => {
    const places = await pageAfter(cell, key, readPlace(place || undefined), limit, { above: cell.line.earlierMs() });
    const ids = places.map(({ member }) => member).filter(isLeaseId);
    const last = places.at(-1);
    return { leases: await inOrder(cell, ids), ...(last && places.length === limit && { place: writePlace(last) }) };
  };
}

const TOKEN_PLACE = /^(?:(\d{1,16})_(\d{1,20})_(.{0,100}))?$/s;

/** All token leases, second by second. The place is the second, where in it, and (in a small one) the last field taken. */
function allTokens(cell: Cell): Source {
  return async (place, limit) => {
    const found = TOKEN_PLACE.exec(place);
    if (!found) throw strangeCursor();
    const [, at = '', scan = '0', field = ''] = found;
    const second = await firstSecondFrom(cell, at === '' ? '-inf' : at);
    if (second === undefined) return { leases: [] };
    const resumes = second === at;
    const key = cell.keys.tokensAt(Number(second));
    const [next, words] = await cell.line.ask((client) =>
      client.hscan(key, resumes ? scan : '0', 'COUNT', Math.ceil(limit * 0.8)),
    );
    let rows: [field: string, row: string][] = [];
    for (let index = 0; index < words.length; index += 2) {
      rows.push([words[index] as string, words[index + 1] as string]);
    }
    let following = next === '0' ? `${Number(second) + 1}_0_` : `${second}_${next}_`;
    if (next === '0' && (!resumes || scan === '0')) {
      // All of a small second comes at once, however little was asked for: it is given out in order, as much as is wanted.
      rows = rows.filter(([own]) => !resumes || own > field).sort(([a], [b]) => (a < b ? -1 : 1));
      if (rows.length > limit) {
        rows = rows.slice(0, limit);
        following = `${second}_0_${rows.at(-1)?.[0]}`;
      }
    }
    await learnProfiles(
      cell,
      rows.map(([, row]) => row),
    );
    const leases = rows.flatMap(([own, row]) => decodeToken(cell, cell.tokens.idOf(own), row) ?? []);
    return { leases, place: following };
  };
}

async function firstSecondFrom(cell: Cell, from: string): Promise<string | undefined> {
  const seconds = await cell.line.ask((client) =>
    client.zrangebyscore(cell.keys.named('tokens'), from, '+inf', 'LIMIT', 0, 1),
  );
  return seconds[0];
}

async function inOrder(cell: Cell, ids: readonly string[]): Promise<LeaseRecord[]> {
  if (ids.length === 0) return [];
  const leases = await leasesById(cell, ids);
  return ids.flatMap((id) => leases.get(id) ?? []);
}

/** Not past its end; a credential until it is closed. */
function isListed(lease: LeaseRecord, nowMs: number): boolean {
  if (lease.kind === 'token') return lease.expiresAtMs > nowMs;
  return !isClosed(lease) || lease.residue !== undefined;
}

function readCursor(text: string | undefined): Cursor | undefined {
  if (text === undefined) return undefined;
  const match = /^([a-z])\.(.{0,300})$/s.exec(text);
  if (!match) throw strangeCursor();
  return { source: match[1] as string, place: match[2] as string };
}
