import pg from 'pg';
import type { EpochMs } from '../../../core/time.js';

/** Text becomes SQL here and nowhere else. */
export const identifier = (name: string): string => pg.escapeIdentifier(name);
export const text = (value: string): string => pg.escapeLiteral(value);
export const instant = (ms: EpochMs): string => text(new Date(ms).toISOString());

export const identifiers = (names: Iterable<string>): string => [...names].map(identifier).join(', ');

/** A list for `= ANY (…)`: an empty one is fine there, and matches nothing. */
export const names = (values: Iterable<string>): string => `ARRAY[${[...values].map(text).join(', ')}]::name[]`;

export function oids(values: Iterable<string>): string {
  const list = [...values];
  for (const oid of list) if (!isOid(oid)) throw new Error('assertion failed: an oid is a number');
  return `'{${list.join(',')}}'::oid[]`;
}

export function isOid(value: string | undefined): value is string {
  return value !== undefined && /^[1-9]\d{0,9}$/.test(value);
}

/** Refuses, as 22012, once the server's clock is past the deadline. Its place in a transaction is first and last. */
export const refuseAfter = (deadlineMs: EpochMs): string =>
  `SELECT 1 / (pg_catalog.clock_timestamp() < ${instant(deadlineMs)}::timestamptz)::int`;

export const TOO_LATE = '22012';
