import { z } from 'zod';
import type { EpochMs } from '../../core/time.js';

/** No body: 202 and 204. */
export const NOTHING = z.void();

/** A stream of server-sent events. */
export const EVENTS = z.unknown().meta({ description: 'text/event-stream' });

/** A moment as clients see it: RFC 3339 in UTC. */
export function instant(atMs: EpochMs): string;
export function instant(atMs: EpochMs | undefined): string | undefined;
export function instant(atMs: EpochMs | undefined): string | undefined {
  return atMs === undefined ? undefined : new Date(atMs).toISOString();
}

/** A duration as clients see it: whole seconds. */
export function seconds(durationMs: number): number;
export function seconds(durationMs: number | undefined): number | undefined;
export function seconds(durationMs: number | undefined): number | undefined {
  return durationMs === undefined ? undefined : Math.floor(durationMs / 1000);
}

export function milliseconds(durationSeconds: number | undefined): number | undefined {
  return durationSeconds === undefined ? undefined : durationSeconds * 1000;
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** The same record without its undefined members. */
export function defined<T extends object>(record: T): Defined<T> {
  const kept: Partial<T> = {};
  for (const name of Object.keys(record) as (keyof T)[]) if (record[name] !== undefined) kept[name] = record[name];
  return kept as unknown as Defined<T>;
}
