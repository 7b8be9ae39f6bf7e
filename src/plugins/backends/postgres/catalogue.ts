import type { Prepared } from './connect.js';
import type { Rows } from './sessions.js';
import { identifier, identifiers, names, oids, text } from './sql.js';

/** A role to look for: by its oid once that is known, else by its name. */
export interface Sought {
  name: string;
  oid?: string;
}

/** What the catalogue says of a role. */
export interface FoundRole {
  oid: string;
  name: string;
  mayLogIn: boolean;
  groups: string[];
}

/**
 * By oid too: whoever renamed a role has not taken it out of our hands. An oid that the server has given out anew is not followed: such a role
 * was not made by this manager.
 */
export function findRoles(sought: readonly Sought[]): Prepared {
  return {
    name: 'find_roles',
    text: `SELECT r.oid::text, r.rolname, r.rolcanlogin,
        ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid) AS groups
      FROM pg_roles r WHERE r.rolname = ANY ($1::name[])
      UNION SELECT r.oid::text, r.rolname, r.rolcanlogin,
        ARRAY(SELECT pg_get_userbyid(m.roleid)::text FROM pg_auth_members m WHERE m.member = r.oid)
      FROM pg_roles r JOIN pg_auth_members made ON made.roleid = r.oid
      WHERE r.oid = ANY ($2::oid[]) AND made.admin_option AND pg_get_userbyid(made.member) = session_user`,
    values: [sought.map(({ name }) => name), sought.flatMap(({ oid }) => (oid === undefined ? [] : [oid]))],
  };
}

export function readRoles(rows: Rows, sought: readonly Sought[]): (FoundRole | undefined)[] {
  const found = rows.map((row) => ({
    oid: row['oid'] as string,
    name: row['rolname'] as string,
    mayLogIn: row['rolcanlogin'] as boolean,
    groups: row['groups'] as string[],
  }));
  const byName = new Map(found.map((role) => [role.name, role]));
  const byOid = new Map(found.map((role) => [role.oid, role]));
  return sought.map(({ name, oid }) => (oid === undefined ? undefined : byOid.get(oid)) ?? byName.get(name));
}

/**
 * Ends the sessions of these roles and says whose there were. The function, not the view: the view leaves out what belongs to a dropped role.
 * For the end of a message that has changed something.
 */
export function endSessions(of: readonly string[]): string {
  return `SELECT usesysid::text AS oid, count(pg_terminate_backend(pid))::int AS sessions
    FROM pg_stat_get_activity(NULL) WHERE usesysid = ANY (${oids(of)}) GROUP BY 1`;
}

/** What keeps a role from being dropped: what it owns or was granted, by database (none: shared by all of them), and prepared transactions. */
export interface Tie {
  database?: string;
  /** The name of a prepared transaction. */
  prepared?: string;
}

/** What there is of a role besides itself. */
export interface Remains {
  sessions: number;
  ties: Tie[];
}

/** Sessions and ties of these roles, which may be gone themselves. `end` ends the sessions that it counts. */
export function findRemains(of: readonly string[], { end }: { end: boolean }): Prepared {
  return {
    name: end ? 'end_and_find_remains' : 'find_remains',
    text: `SELECT usesysid::text AS oid, count(${end ? 'pg_terminate_backend(pid)' : '*'})::int AS sessions, NULL::text AS database, NULL::text AS prepared
        FROM pg_stat_get_activity(NULL) WHERE usesysid = ANY ($1::oid[]) GROUP BY 1
      UNION ALL SELECT DISTINCT s.refobjid::text, 0, d.datname::text, NULL::text
        FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
        WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = ANY ($1::oid[]) AND s.classid <> 'pg_auth_members'::regclass
      UNION ALL SELECT p.ownerid::text, 0, d.datname::text, p.gid
        FROM pg_prepared_xact() p LEFT JOIN pg_database d ON d.oid = p.dbid WHERE p.ownerid = ANY ($1::oid[])`,
    values: [[...of]],
  };
}

export function readRemains(rows: Rows, of: readonly string[]): Remains[] {
  const remains = new Map(of.map((oid): [string, Remains] => [oid, { sessions: 0, ties: [] }]));
  for (const { oid, sessions, database, prepared } of rows) {
    const one = remains.get(oid as string);
    if (!one) continue;
    if ((sessions as number) > 0) one.sessions = sessions as number;
    else {
      one.ties.push({
        ...(database !== null && { database: database as string }),
        ...(prepared !== null && { prepared: prepared as string }),
      });
    }
  }
  return of.map((oid) => remains.get(oid) as Remains);
}

/**
 * No login, no privileges, no session, in one transaction and one message. Sessions are ended in the same message as the role is altered: a
 * session that goes on changing its own password would win against the ALTER alone, time and again. The last answer says whose sessions there
 * still were once the transaction was over.
 */
export function cutRoles(roles: readonly FoundRole[]): string {
  const members = new Map<string, string[]>();
  for (const { name, groups } of roles) {
    for (const group of groups) members.set(group, [...(members.get(group) ?? []), name]);
  }
  return [
    'BEGIN',
    endSessions(roles.map(({ oid }) => oid)),
    ...roles.filter(({ mayLogIn }) => mayLogIn).map(({ name }) => `ALTER ROLE ${identifier(name)} NOLOGIN`),
    // In order, as they are granted.
    ...[...members]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([group, of]) => `REVOKE ${identifier(group)} FROM ${identifiers(of)}`),
    'COMMIT',
    endSessions(roles.map(({ oid }) => oid)),
  ].join(';\n');
}

/** Those of these roles that somebody holds a lock on: who names a role in a grant does, until that transaction ends. */
export function findLocked(of: readonly string[]): Prepared {
  return {
    name: 'find_locked',
    text: `SELECT DISTINCT l.objid::text AS oid FROM pg_locks l
      WHERE l.locktype = 'object' AND l.classid = 'pg_authid'::regclass AND l.objid = ANY ($1::oid[]) AND l.granted`,
    values: [[...of]],
  };
}

/** What somebody holds a lock on is soon given up: nothing that lives hangs on it. */
const DROP_LOCK_MS = 250;

export function dropRoles(roles: readonly FoundRole[], before: readonly string[]): string {
  return [
    'BEGIN',
    `SET LOCAL lock_timeout = ${DROP_LOCK_MS}`,
    ...before,
    `DROP ROLE IF EXISTS ${identifiers(roles.map(({ name }) => name))}`,
    'COMMIT',
    endSessions(roles.map(({ oid }) => oid)),
  ].join(';\n');
}

/** Every role under this installation's names, and which of these managers made it. */
export function listRoles(prefix: string, managers: readonly string[]): string {
  return `SELECT r.oid::text, r.rolname, r.rolvaliduntil < now() AS is_expired, (
      SELECT u.rolname::text FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
      WHERE m.roleid = r.oid AND m.admin_option AND u.rolname = ANY (${names(managers)}) LIMIT 1
    ) AS manager
    FROM pg_roles r WHERE starts_with(r.rolname, ${text(prefix)}) ORDER BY r.rolname`;
}
