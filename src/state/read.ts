import type { LeaseRecord } from '../core/lease.js';
import type { Cell } from './cell.js';
import { readCredential } from './credential-record.js';

/** A lease as lua/read-task.lua answers it: `token` and its row, or `credential` and its fields and values. */
export type LeaseReply = string[] | null;

/** Replies as records. A token row whose profile is gone is not there any more. */
export async function readLeases(
  cell: Cell,
  ids: readonly string[],
  replies: readonly LeaseReply[],
): Promise<(LeaseRecord | undefined)[]> {
  await learnProfiles(
    cell,
    replies.flatMap((reply) => (reply?.[0] === 'token' ? [reply[1] as string] : [])),
  );
  return replies.map((reply, at) => {
    if (!reply) return undefined;
    return reply[0] === 'token'
      ? decodeToken(cell, ids[at] as string, reply[1] as string)
      : readCredential(reply.slice(1));
  });
}

/** Learns the profiles of token rows that this broker has not seen: one round trip at most, none when all are known. */
export async function learnProfiles(cell: Cell, rows: readonly string[]): Promise<void> {
  const hashes = new Set(rows.map((row) => cell.tokens.profileHashOf(row)));
  const unknown = [...hashes].filter((hash) => !cell.tokens.knows(hash));
  if (unknown.length === 0) return;
  const profiles = await cell.line.ask((client) => client.mget(unknown.map((hash) => cell.keys.profile(hash))));
  for (const [at, profile] of profiles.entries()) if (profile) cell.tokens.learn(unknown[at] as string, profile);
}

export function decodeToken(cell: Cell, id: string, row: string): LeaseRecord | undefined {
  return cell.tokens.knows(cell.tokens.profileHashOf(row)) ? cell.tokens.decode(id, row) : undefined;
}
