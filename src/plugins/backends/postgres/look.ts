import type { Confirmation } from '../contract.js';
import { countSessions, findRoles, findTies, readRoles, readTies, type Sought, type Tie } from './catalogue.js';
import type { Sessions } from './sessions.js';

/** Asks the catalogue and the server's list of sessions what is there of each of these roles. */
export async function lookFor(sessions: Sessions, sought: readonly Sought[]): Promise<Confirmation[]> {
  const [roleRows] = await sessions.ask(findRoles(sought));
  const roles = readRoles(roleRows ?? [], sought);
  const oids = sought.map(({ oid }, at) => roles[at]?.oid ?? oid);
  const known = oids.filter((oid) => oid !== undefined);
  const [sessionRows, tieRows] = await sessions.ask(`${countSessions(known)};\n${findTies(known)}`);
  const alive = new Map((sessionRows ?? []).map((row) => [row['oid'], row['sessions'] as number]));
  const ties = readTies(tieRows ?? []);
  return sought.map((_, at) => {
    const [role, oid] = [roles[at], oids[at] ?? ''];
    const count = alive.get(oid) ?? 0;
    if (role?.mayLogIn) return there('the role may log in');
    if (count > 0) return there(`it has ${count} session${count === 1 ? '' : 's'}`);
    if (role && role.groups.length > 0) return there(`the role is in ${role.groups.length} groups`);
    const left = ties.get(oid) ?? [];
    if (!role && left.length === 0) return { state: 'gone' };
    return { state: 'gone', residue: describe(role !== undefined, left) };
  });
}

function there(detail: string): Confirmation {
  return { state: 'there', detail };
}

function describe(isRole: boolean, ties: readonly Tie[]): string {
  const parts: string[] = [];
  if (isRole) parts.push('the role itself, which cannot log in');
  const databases = [...new Set(ties.filter((tie) => tie.prepared === undefined).map((tie) => tie.database))];
  if (databases.length > 0) {
    const named = databases.filter((name) => name !== undefined).map((name) => JSON.stringify(name));
    parts.push(`what it owns or was granted${named.length > 0 ? ` in ${named.join(', ')}` : ''}`);
  }
  const prepared = ties.filter((tie) => tie.prepared !== undefined).length;
  if (prepared > 0) parts.push(`${prepared} prepared transaction${prepared === 1 ? '' : 's'}`);
  return parts.join('; ');
}
