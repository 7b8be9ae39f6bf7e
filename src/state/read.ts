import type { LeaseRecord } from '../core/lease.js';
import { type Cell, tokenPlace } from './cell.js';
import { readCredential } from './credential-record.js';

/** A lease as lua/read-task.lua answers it: `token` and its row, or `credential` and its fields and values. */
export type LeaseReply = string[] | null;

/** Leases of either kind by their ids; those that are not there are missing. */
export async function leasesById(cell: Cell, ids: readonly string[]): Promise<Map<string, LeaseRecord>> {
  const answers = await cell.line.ask(async (client) => {
    const batch = client.pipeline();
    for (const id of ids) {
      const [key, field] = tokenPlace(cell, id);
      batch.hget(key, field).hgetall(cell.keys.credential(id));
    }
    const replies = await batch.exec();
    // A connection that broke under way can leave fewer answers than questions: then nothing is known.
    if (replies?.length !== 2 * ids.length) throw new Error('the answers are not whole');
    return replies.map(([error, answer]) => {
      if (error) throw error;
      // What is not there is null, or has no fields: this is no answer at all.
      if (answer === undefined) throw new Error('the answers are not whole');
      return answer;
    });
  });
  const leases = await readLeases(
    cell,
    ids,
    ids.map((_, at) => {
      const row = answers[2 * at] as string | null;
      if (typeof row === 'string') return ['token', row];
      const fields = Object.entries((answers[2 * at + 1] ?? {}) as Record<string, string>).flat();
      return fields.length > 0 ? ['credential', ...fields] : null;
    }),
  );
  return new Map(leases.flatMap((lease) => (lease ? [[lease.id, lease]] : [])));
}

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
