import { readCursor, writeCursor } from '../core/cursor.js';
import type { Page } from '../state/stores.js';
import type { Caller } from './caller.js';
import type { Parts } from './parts.js';

/** One page of a list, for whoever may see it: its cursor goes on here, for this caller and these filters, and nowhere else. */
export async function paged<Item, Filter extends { cursor?: string; limit: number }>(
  { cellKey }: Pick<Parts, 'cellKey'>,
  caller: Caller,
  list: string,
  filter: Filter,
  read: (filter: Filter) => Promise<Page<Item>>,
): Promise<Page<Item>> {
  const { cursor, limit: _, ...filters } = filter;
  const asked = { list, caller: caller.name, filter: filters };
  const from = cursor === undefined ? {} : { cursor: readCursor(cellKey, asked, cursor) };
  const page = await read({ ...filter, ...from });
  return { ...page, ...(page.cursor !== undefined && { cursor: writeCursor(cellKey, asked, page.cursor) }) };
}
