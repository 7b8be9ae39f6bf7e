import type { Command } from 'commander';
import type { Page, PageQuery } from '../../client/mayfly.js';
import { type OutputFlags, type Row, say, show, UsageError } from './output.js';

/* Lists come in pages: their options, and how to get what is not in this one. */

export interface PageFlags extends OutputFlags {
  limit: string;
  cursor?: string;
}

export function inPages(command: Command, limit = '50'): Command {
  return command.option('--limit <n>', 'how many', limit).option('--cursor <cursor>', 'go on where a page ended');
}

export function pageOf({ limit, cursor }: PageFlags): PageQuery {
  if (!/^[1-9]\d{0,8}$/.test(limit)) throw new UsageError(`--limit: a number of at least 1, such as 50; not ${limit}.`);
  return { limit: Number(limit), ...(cursor !== undefined && { cursor }) };
}

/** The cursor is talk, as it is no entry: a script finds it on standard error, whatever it has printed. */
export function showPage({ items, next_cursor: next }: Page<object>, flags: PageFlags, columns: string[]): void {
  show(items as Row[], flags, columns);
  if (next !== undefined) say(`More: --cursor ${next}`);
}
