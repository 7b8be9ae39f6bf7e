import type { EpochMs } from '../../../core/time.js';
import { identifier, identifiers, instant, names, refuseAfter, text } from './sql.js';
import { fillTemplate } from './templates.js';

/** A role as it is to be. Times are the server's. */
export interface NewRole {
  name: string;
  verifier: string;
  groups: readonly string[];
  database: string;
  connectionLimit?: number | undefined;
  validUntilMs: EpochMs;
}

/**
 * All of it in one message, so that nothing of ours can stop between its steps, and in one transaction, which the server itself refuses to
 * begin or to end past the deadline.
 *
 * CREATE ROLE first, groups last: granting one locks its row until the end, and what comes after it would be done under that lock. Groups
 * in order, so that two transactions never wait for each other. `IN ROLE` would let the holder SET ROLE to the group and leave behind what it makes there.
 *
 * Its last answer but two: the roles' names and oids.
 */
export function makeRoles(roles: readonly NewRole[], deadlineMs: EpochMs, creation: readonly string[]): string {
  const members = new Map<string, string[]>();
  for (const role of roles) {
    for (const group of new Set(role.groups)) members.set(group, [...(members.get(group) ?? []), role.name]);
  }
  return [
    'BEGIN',
    refuseAfter(deadlineMs),
    ...roles.map(createRole),
    ...[...members]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(
        ([group, of]) => `GRANT ${identifier(group)} TO ${identifiers(of)} WITH INHERIT TRUE, SET FALSE, ADMIN FALSE`,
      ),
    ...roles.flatMap((role) => creation.map((template) => fillTemplate(template, templateValues(role)))),
    `SELECT oid::text, rolname FROM pg_catalog.pg_roles WHERE rolname = ANY (${names(roles.map(({ name }) => name))})`,
    refuseAfter(deadlineMs),
    'COMMIT',
  ].join(';\n');
}

function createRole({ name, verifier, connectionLimit, validUntilMs }: NewRole): string {
  const limit = connectionLimit === undefined ? '' : ` CONNECTION LIMIT ${connectionLimit}`;
  return `CREATE ROLE ${identifier(name)} LOGIN INHERIT PASSWORD ${text(verifier)} VALID UNTIL ${instant(validUntilMs)}${limit}`;
}

export function templateValues(role: { name: string; database: string; validUntilMs: EpochMs }) {
  return {
    role: identifier(role.name),
    role_text: text(role.name),
    database: identifier(role.database),
    expires_at: instant(role.validUntilMs),
  };
}

/** PostgreSQL 16 gives whoever makes a role ADMIN on it. */
export const COUNT_OWN_ROLES =
  'SELECT count(*)::int AS live FROM pg_catalog.pg_auth_members ' +
  'WHERE admin_option AND member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user)';

/** Moves a role's end. What it holds open is not ended by that: only logins look at it. */
export function renewRole(
  role: { name: string; database: string; validUntilMs: EpochMs },
  renewal: readonly string[],
): string {
  return [
    'BEGIN',
    `ALTER ROLE ${identifier(role.name)} VALID UNTIL ${instant(role.validUntilMs)}`,
    ...renewal.map((template) => fillTemplate(template, templateValues(role))),
    'COMMIT',
  ].join(';\n');
}
