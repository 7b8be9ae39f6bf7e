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
export function findRoles(sought: readonly Sought[]): string {
  const known = sought.flatMap(({ oid }) => (oid === undefined ? [] : [oid]));
  return `SELECT r.oid::text, r.rolname, r.rolcanlogin, ARRAY(
      SELECT g.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid ORDER BY 1
    ) AS groups
    FROM pg_catalog.pg_roles r
    WHERE r.rolname = ANY (${names(sought.map(({ name }) => name))})
      OR r.oid = ANY (${oids(known)}) AND EXISTS (
        SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid AND m.admin_option
          AND m.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user))`;
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

/** Ends the sessions and says whose there were. The function, not the view: the view leaves out what belongs to a dropped role. */
export function endSessions(of: readonly string[]): string {
  return `SELECT usesysid::text AS oid, count(pg_catalog.pg_terminate_backend(pid))::int AS sessions
    FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid = ANY (${oids(of)}) GROUP BY 1`;
}

export function countSessions(of: readonly string[]): string {
  return `SELECT usesysid::text AS oid, count(*)::int AS sessions
    FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid = ANY (${oids(of)}) GROUP BY 1`;
}

/**
 * No login, no privileges, no session, in one transaction and one message. Sessions are ended in the same message as the role is altered: a
 * session that goes on changing its own password would win against the ALTER alone, time and again.
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
  ].join(';\n');
}

/** What keeps a role from being dropped: what it owns or was granted, by database (none: shared by all of them), and prepared transactions. */
export interface Tie {
  oid: string;
  database?: string;
  /** The name of a prepared transaction. */
  prepared?: string;
}

export function findTies(of: readonly string[]): string {
  const list = oids(of);
  return `SELECT DISTINCT s.refobjid::text AS oid, d.datname::text AS database, NULL::text AS prepared
      FROM pg_catalog.pg_shdepend s LEFT JOIN pg_catalog.pg_database d ON d.oid = s.dbid
      WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.refobjid = ANY (${list})
        AND s.classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass
    UNION ALL SELECT p.ownerid::text, d.datname::text, p.gid
      FROM pg_catalog.pg_prepared_xact() p LEFT JOIN pg_catalog.pg_database d ON d.oid = p.dbid WHERE p.ownerid = ANY (${list})`;
}

export function readTies(rows: Rows): Map<string, Tie[]> {
  const ties = new Map<string, Tie[]>();
  for (const row of rows) {
    const tie: Tie = { oid: row['oid'] as string };
    if (row['database'] !== null) tie.database = row['database'] as string;
    if (row['prepared'] !== null) tie.prepared = row['prepared'] as string;
    ties.set(tie.oid, [...(ties.get(tie.oid) ?? []), tie]);
  }
  return ties;
}

export function dropRoles(roleNames: readonly string[], before: readonly string[]): string {
  return ['BEGIN', ...before, `DROP ROLE IF EXISTS ${identifiers(roleNames)}`, 'COMMIT'].join(';\n');
}

/** Every role under this installation's names, and which of these managers made it. */
export function listRoles(prefix: string, managers: readonly string[]): string {
  return `SELECT r.oid::text, r.rolname, r.rolvaliduntil < pg_catalog.now() AS is_expired, (
      SELECT u.rolname::text FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles u ON u.oid = m.member
      WHERE m.roleid = r.oid AND m.admin_option AND u.rolname = ANY (${names(managers)}) LIMIT 1
    ) AS manager
    FROM pg_catalog.pg_roles r WHERE pg_catalog.starts_with(r.rolname, ${text(prefix)}) ORDER BY r.rolname`;
}
