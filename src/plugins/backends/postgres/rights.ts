import type { PostgresConfig, PostgresSettings } from './config.js';
import type { Rows } from './sessions.js';
import { names, text } from './sql.js';

const VERSION_OLDEST = 160_000;
/** What one manager of one broker needs to revoke, look and try at the same time. */
const PLACES_MIN = 4;
/** Predefined roles that give data to read or write, and nothing else. */
const HARMLESS = [
  'pg_read_all_data',
  'pg_write_all_data',
  'pg_read_all_settings',
  'pg_read_all_stats',
  'pg_stat_scan_tables',
  'pg_monitor',
];

/** PostgreSQL lets everybody make large objects, which need no right to create and outlive the session. */
const MAKE_LARGE_OBJECTS = ['lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import'];

/** What the server is and what this session may do there. */
export const SERVER_AND_MANAGER = `SELECT current_setting('server_version_num')::int AS version,
    current_setting('server_version') AS version_text,
    pg_is_in_recovery() AS is_standby,
    current_setting('max_prepared_transactions')::int AS prepared_max,
    session_user::text AS session_user, current_user::text AS current_user,
    r.rolsuper OR r.rolbypassrls OR r.rolreplication OR r.rolcreatedb AS is_mighty, r.rolcreaterole,
    pg_has_role(session_user, 'pg_signal_backend', 'USAGE') AS may_end_sessions,
    COALESCE(current_setting('reserved_connections', true)::int, 0) AS reserved_connections,
    EXISTS (SELECT FROM pg_roles p WHERE p.rolname = 'pg_use_reserved_connections'
      AND pg_has_role(session_user, p.oid, 'USAGE')) AS may_use_reserved,
    ARRAY(SELECT datname::text FROM pg_database WHERE datallowconn AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1) AS public_databases
  FROM pg_roles r WHERE r.rolname = session_user`;

interface ServerRow {
  version: number;
  version_text: string;
  is_standby: boolean;
  prepared_max: number;
  session_user: string;
  current_user: string;
  is_mighty: boolean;
  rolcreaterole: boolean;
  may_end_sessions: boolean;
  reserved_connections: number;
  may_use_reserved: boolean;
  public_databases: string[];
}

/** The server and the manager, as far as every secret needs them. */
export function problemsOfManager(rows: Rows, manager: string, config: PostgresConfig, database: string): string[] {
  const row = rows[0] as ServerRow | undefined;
  if (!row) return [`The manager ${manager} is not to be found in pg_roles.`];
  const isOpen = (name: string) => name === database || config.public_databases.includes(name);
  const open = row.public_databases.filter((name) => !isOpen(name));
  const problems: (string | false)[] = [
    row.version < VERSION_OLDEST &&
      `PostgreSQL ${row.version_text} is too old: before 16 whoever may make roles can take the rights of others. Upgrade to 16 or later.`,
    row.is_standby && 'The server is a standby: name the primary as host.',
    (row.session_user !== manager || row.current_user !== manager) &&
      `A login as ${manager} becomes ${row.session_user}, acting as ${row.current_user}: name a role that is itself (no mapping, no SET role).`,
    row.is_mighty &&
      `The manager ${manager} may do too much: ALTER ROLE … NOSUPERUSER NOBYPASSRLS NOREPLICATION NOCREATEDB.`,
    !row.rolcreaterole && `The manager ${manager} may not make roles: ALTER ROLE … CREATEROLE.`,
    !row.may_end_sessions && `The manager ${manager} may not end sessions: GRANT pg_signal_backend TO it.`,
    ...(config.without_reserved_connections === 'refuse' ? problemsOfPlaces(row, manager) : []),
    row.prepared_max > 0 &&
      config.prepared_transactions === 'refuse' &&
      `The server allows ${row.prepared_max} prepared transactions, which outlive their role with all their locks: set max_prepared_transactions = 0 there, or prepared_transactions: roll_back here.`,
    open.length > 0 &&
      `Anybody may connect to ${open.join(', ')}: REVOKE CONNECT ON DATABASE … FROM PUBLIC, or list it in public_databases.`,
  ];
  return problems.filter((problem) => problem !== false);
}

/** One holder can take every connection that anybody may have; then whoever is to revoke it has to get in all the same. */
function problemsOfPlaces({ version, reserved_connections, may_use_reserved }: ServerRow, manager: string): string[] {
  if (version < VERSION_OLDEST) return [];
  const problems: (string | false)[] = [
    reserved_connections < PLACES_MIN &&
      `The server keeps ${reserved_connections} connections free for who revokes: set reserved_connections = 8 in its postgresql.conf and restart it, or without_reserved_connections: accept here.`,
    !may_use_reserved &&
      `The manager ${manager} may not use reserved connections: GRANT pg_use_reserved_connections TO it WITH INHERIT TRUE, SET FALSE.`,
  ];
  return problems.filter((problem) => problem !== false);
}

/** The groups and every role that they are members of themselves, as seen in the database that the secret is for. */
export function groupsAndAbove(groups: readonly string[]): string {
  const grantable = (table: string, acl: string) =>
    `EXISTS (SELECT FROM ${table} o, aclexplode(o.${acl}) a WHERE a.grantee = r.oid AND a.is_grantable)`;
  return `WITH RECURSIVE above(oid) AS (
      SELECT oid FROM pg_roles WHERE rolname = ANY (${names(groups)})
      UNION SELECT m.roleid FROM pg_auth_members m JOIN above ON m.member = above.oid
    )
    SELECT r.rolname::text AS name,
      r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls OR r.rolcanlogin AS has_attributes,
      r.oid < 16384 AS is_predefined,
      pg_has_role(session_user, r.oid, 'MEMBER WITH ADMIN OPTION') AS is_ours_to_grant,
      has_database_privilege(r.oid, current_database(), 'CONNECT') AS may_connect,
      EXISTS (SELECT FROM pg_shdepend s WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid
        AND s.deptype = 'o' AND s.classid <> 'pg_auth_members'::regclass) AS owns,
      EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid AND m.admin_option) AS has_admin,
      ARRAY(SELECT 'the schema ' || nspname FROM pg_namespace WHERE has_schema_privilege(r.oid, oid, 'CREATE')
        UNION SELECT 'the database ' || datname FROM pg_database WHERE has_database_privilege(r.oid, oid, 'CREATE')
        UNION SELECT 'the tablespace ' || spcname FROM pg_tablespace WHERE has_tablespace_privilege(r.oid, oid, 'CREATE')
        ORDER BY 1) AS may_create_in,
      EXISTS (SELECT FROM pg_proc f WHERE f.pronamespace = 'pg_catalog'::regnamespace
        AND f.proname = ANY (${names(MAKE_LARGE_OBJECTS)}) AND has_function_privilege(r.oid, f.oid, 'EXECUTE')) AS may_make_large_objects,
      ${grantable('pg_class', 'relacl')} OR ${grantable('pg_namespace', 'nspacl')} OR ${grantable('pg_proc', 'proacl')}
        OR ${grantable('pg_database', 'datacl')} OR ${grantable('pg_type', 'typacl')} AS may_pass_on
    FROM above JOIN pg_roles r ON r.oid = above.oid ORDER BY 1`;
}

/**
 * A group that owns something, may make something, or is more than its privileges, gives its holders what outlives them: a function that runs as its owner, a
 * privilege passed on to somebody else.
 */
export function problemsOfGroups(rows: Rows, settings: PostgresSettings, manager: string): string[] {
  const found = rows as unknown as {
    name: string;
    has_attributes: boolean;
    is_predefined: boolean;
    is_ours_to_grant: boolean;
    may_connect: boolean;
    owns: boolean;
    has_admin: boolean;
    may_create_in: string[];
    may_pass_on: boolean;
    may_make_large_objects: boolean;
  }[];
  const known = new Set(found.map(({ name }) => name));
  const missing = settings.groups.filter((name) => !known.has(name));
  const problems = missing.map((name) => `There is no role ${text(name)} to be a group.`);
  for (const group of found) {
    const { name } = group;
    if (group.may_make_large_objects) {
      problems.push(
        `The group ${name} may make large objects in ${settings.database}: REVOKE EXECUTE ON FUNCTION lo_creat, lo_create, lo_from_bytea, lo_import FROM PUBLIC there.`,
      );
    }
    if (group.is_predefined) {
      if (!HARMLESS.includes(name)) problems.push(`The group ${name} is PostgreSQL’s own and gives more than data.`);
      continue;
    }
    if (group.has_attributes) {
      problems.push(
        `The group ${name} is more than a group: ALTER ROLE … NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS.`,
      );
    }
    if (group.owns) problems.push(`The group ${name} owns something: give that to a role that nobody is a member of.`);
    if (group.has_admin) problems.push(`The group ${name} may admit others to a role: take its ADMIN OPTION away.`);
    if (group.may_pass_on) problems.push(`The group ${name} may pass on a privilege: take its GRANT OPTION away.`);
    if (group.may_create_in.length > 0) {
      problems.push(
        `The group ${name} may create in ${group.may_create_in.slice(0, 5).join(', ')}: REVOKE CREATE (from PUBLIC too).`,
      );
    }
  }
  for (const group of found.filter(({ name }) => settings.groups.includes(name))) {
    if (!group.is_ours_to_grant) {
      problems.push(
        `The manager ${manager} may not grant ${group.name}: GRANT it WITH ADMIN TRUE, INHERIT FALSE, SET FALSE.`,
      );
    }
  }
  if (found.length > 0 && !found.some(({ may_connect }) => may_connect)) {
    problems.push(`None of the groups may connect to ${settings.database}: GRANT CONNECT ON DATABASE.`);
  }
  return problems;
}
