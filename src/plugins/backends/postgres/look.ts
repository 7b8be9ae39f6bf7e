import type { Confirmation } from '../contract.js';
import { findRemains, findRoles, readRemains, readRoles, type Sought, type Tie } from './catalogue.js';
import type { Sessions } from './sessions.js';

/** Asks the catalogue and the server's list of sessions what is there of each of these roles. */
export async function lookFor(sessions: Sessions, sought: readonly Sought[]): Promise<Confirmation[]> {
  const [roleRows] = await sessions.ask(findRoles(sought));
  const roles = readRoles(roleRows ?? [], sought);
  const oids = sought.map(({ oid }, at) => roles[at]?.oid ?? oid);
  const known = oids.filter((oid) => oid !== undefined);
  const [rows] = await sessions.ask(findRemains(known, { end: false }));
  const remains = new Map(readRemains(rows ?? [], known).map((one, at) => [known[at], one]));
  return oids.map((oid, at) => {
    const role = roles[at];
    const { sessions: count, ties: left } = remains.get(oid) ?? { sessions: 0, ties: [] };
    if (role?.mayLogIn) return there('the role may log in');
    if (count > 0) return there(`it has ${count} session${count === 1 ? '' : 's'}`);
    if (role && role.groups.length > 0) return there(`the role is in ${role.groups.length} groups`);
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
