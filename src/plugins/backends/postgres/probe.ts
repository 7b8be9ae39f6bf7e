import type { SecretData } from '../../../core/credential.js';
import type { Secret } from '../../../core/secret.js';
import type { Sought } from './catalogue.js';
import { findRoles, readRoles } from './catalogue.js';
import type { PostgresConfig } from './config.js';
import { ask, cut, logIn, passwordOf } from './connect.js';
import { sqlStateOf } from './problems.js';

const LIMITS = { statementMs: 2_000, lockMs: 500 };

/** How a login went: in, or the SQLSTATE and the place in the server that refused it, or no answer that says anything. */
type Attempt = 'in' | { state: string; routine: string } | undefined;

/** A credential to try: the role it is of, and what was handed out. */
export interface Trial {
  role: Sought;
  data: Secret<SecretData>;
}

export type Tried = { credential: 'refused' | 'accepted' | 'unclear'; control: 'accepted' | 'refused' };

/**
 * Logs in with each of the issued credentials and, as the control of them all, right after with the manager's, which has to work.
 *
 * What a refusal proves depends on what there is. While the role is there, only the refusal of a role that may not log in is proof: a wrong password, an
 * expired one and a missing role are told alike (28P01), and a holder may have changed its password. Once the role is gone, by name and by oid, as the
 * catalogue says *after* the attempt, over the control login, any refusal of the login itself is that of a role that does not exist.
 */
export async function probeLogins(
  config: PostgresConfig,
  manager: PostgresConfig['managers'][number],
  trials: Trial[],
): Promise<Tried[]> {
  const attempts = await Promise.all(trials.map(({ data }) => attemptLogin(config, data)));
  const there = await askAsControl(
    config,
    manager,
    trials.map(({ role }) => role),
  );
  const control = there === undefined ? 'refused' : 'accepted';
  return attempts.map((attempt, at) => {
    if (attempt === 'in') return { credential: 'accepted', control };
    if (attempt === undefined || there === undefined) return { credential: 'unclear', control };
    const isBarred = attempt.state === '28000' && attempt.routine === 'InitializeSessionUserId';
    const isUnknown = !there[at] && (attempt.state === '28P01' || attempt.state === '28000');
    return { credential: isBarred || isUnknown ? 'refused' : 'unclear', control };
  });
}

async function attemptLogin(config: PostgresConfig, data: Secret<SecretData>): Promise<Attempt> {
  const { username, password, database } = data.expose();
  try {
    const login = { user: String(username), password: String(password), database: String(database) };
    cut(await logIn(config, login, LIMITS));
    return 'in';
  } catch (error) {
    const state = sqlStateOf(error);
    if (state === undefined) return undefined;
    return { state, routine: String((error as { routine?: unknown }).routine) };
  }
}

/** Whether each of the roles is there, asked over a login made just now; undefined when that login does not work. */
async function askAsControl(
  config: PostgresConfig,
  manager: PostgresConfig['managers'][number],
  roles: Sought[],
): Promise<boolean[] | undefined> {
  try {
    const login = { user: manager.user, password: await passwordOf(manager), database: config.database };
    const client = await logIn(config, login, LIMITS);
    try {
      const [rows] = await ask(client, findRoles(roles), LIMITS.statementMs);
      return readRoles(rows ?? [], roles).map((found) => found !== undefined);
    } finally {
      cut(client);
    }
  } catch {
    return undefined;
  }
}
