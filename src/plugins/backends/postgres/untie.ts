import type pg from 'pg';
import type { FoundRole, Tie } from './catalogue.js';
import type { PostgresConfig } from './config.js';
import { ask, passwordOf, withSession } from './connect.js';
import { problemOf } from './problems.js';
import type { Sessions } from './sessions.js';
import { identifier, oids, text } from './sql.js';

/** Each takes a lock until its transaction ends, and the locks are shared by all of the server. */
const LARGE_OBJECTS_AT_ONCE = 500;

/**
 * Clears away what keeps a role from being dropped: rolls back its prepared transactions (when that is wanted), and drops what it owns, in each database
 * where it owns something. Nothing is ever given to somebody else: a function that runs as its owner would then run as them. Things of others that hang
 * on it are left alone.
 *
 * Only for such a role does the manager take its privileges, because it has to: every role that a manager inherits makes all it does slower.
 *
 * Returns false when something is left. The role can do nothing by now, so that is a residue, not a failure.
 */
export async function untie(
  at: {
    config: PostgresConfig;
    manager: PostgresConfig['managers'][number];
    sessions: Sessions;
    onResidue: (role: FoundRole, reason: string) => void;
  },
  role: FoundRole,
  ties: readonly Tie[],
): Promise<boolean> {
  const { config, manager, sessions } = at;
  const prepared = ties.filter((tie) => tie.prepared !== undefined);
  if (prepared.length > 0 && config.prepared_transactions !== 'roll_back') return false;
  const timeoutMs = Math.round(config.revoke_timeout_seconds * 1000);
  const limits = { statementMs: timeoutMs, lockMs: 1_000 };
  const password = await passwordOf(manager);
  const doing = 'clear away what a role owns';
  const inDatabase = (database: string, ...statements: string[]) =>
    withSession(config, { user: manager.user, password, database }, limits, doing, async (client) => {
      for (const statement of statements) await ask(client, statement, timeoutMs);
    });
  const [name, itself] = [identifier(role.name), identifier(manager.user)];
  try {
    await sessions.ask(`GRANT ${name} TO ${itself} WITH INHERIT TRUE, SET ${prepared.length > 0 ? 'TRUE' : 'FALSE'}`);
    for (const { database, prepared: gid } of prepared) {
      // Only its owner may end a prepared transaction, and only where it was begun. Nothing of the role's runs in this.
      await inDatabase(database as string, `SET ROLE ${name}`, `ROLLBACK PREPARED ${text(gid as string)}`);
    }
    const places = new Set(
      ties.filter((tie) => tie.prepared === undefined).map(({ database }) => database ?? config.database),
    );
    for (const database of places) {
      await withSession(config, { user: manager.user, password, database }, limits, doing, (client) =>
        unlinkLargeObjects(client, role, timeoutMs),
      );
      await inDatabase(database, `DROP OWNED BY ${name}`);
    }
    return true;
  } catch (error) {
    at.onResidue(role, problemOf(error, doing).message);
    await sessions.ask(`GRANT ${name} TO ${itself} WITH INHERIT FALSE, SET FALSE`).catch(() => undefined);
    return false;
  }
}

/** In pages, each a transaction: an owner of thousands would take more locks than there are. */
async function unlinkLargeObjects(client: pg.Client, { oid }: FoundRole, timeoutMs: number): Promise<void> {
  for (let unlinked = LARGE_OBJECTS_AT_ONCE; unlinked === LARGE_OBJECTS_AT_ONCE; ) {
    const [rows] = await ask(
      client,
      `SELECT count(lo_unlink(oid))::int AS many FROM (
        SELECT oid FROM pg_largeobject_metadata WHERE lomowner = ANY (${oids([oid])}) LIMIT ${LARGE_OBJECTS_AT_ONCE}) page`,
      timeoutMs,
    );
    unlinked = rows?.[0]?.['many'] as number;
  }
}
