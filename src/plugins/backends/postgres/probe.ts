import type { SecretData } from '../../../core/credential.js';
import type { Secret } from '../../../core/secret.js';
import type { Clock } from '../../../core/time.js';
import type { Sought } from './catalogue.js';
import { findRoles, readRoles } from './catalogue.js';
import type { PostgresConfig } from './config.js';
import { ask, cut, logIn, passwordOf } from './connect.js';
import { sqlStateOf } from './problems.js';

const LIMITS = { statementMs: 2_000, lockMs: 500 };
/** The control has to work within the same second: what was refused longer before proves nothing of it. */
const REFUSAL_AGE_MS_MAX = 1_000;

/** How a login went: in, or the SQLSTATE, the place in the server that refused it, and when; or no answer that says anything. */
type Attempt = 'in' | { state: string; routine: string; atMs: number } | undefined;

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
 * catalogue says *after* the attempt, over the control login, any refusal of the login itself is that of a role that does not exist. A login that keeps
 * the others waiting takes their proof away, and no more: they are tried again.
 */
export async function probeLogins(
  config: PostgresConfig,
  manager: PostgresConfig['managers'][number],
  trials: Trial[],
  clock: Clock,
): Promise<Tried[]> {
  const attempts = await Promise.all(trials.map(({ data }) => attemptLogin(config, data, clock)));
  const there = await askAsControl(
    config,
    manager,
    trials.map(({ role }) => role),
    clock,
  );
  const control = there === undefined ? 'refused' : 'accepted';
  return attempts.map((attempt, at) => {
    if (attempt === 'in') return { credential: 'accepted', control };
    if (attempt === undefined || there === undefined) return { credential: 'unclear', control };
    if (Math.abs(there.inAtMs - attempt.atMs) > REFUSAL_AGE_MS_MAX) return { credential: 'unclear', control };
    const isBarred = attempt.state === '28000' && attempt.routine === 'InitializeSessionUserId';
    const isUnknown = !there.isThere[at] && (attempt.state === '28P01' || attempt.state === '28000');
    return { credential: isBarred || isUnknown ? 'refused' : 'unclear', control };
  });
}

async function attemptLogin(config: PostgresConfig, data: Secret<SecretData>, clock: Clock): Promise<Attempt> {
  const { username, password, database } = data.expose();
  try {
    const login = { user: String(username), password: String(password), database: String(database) };
    cut(await logIn(config, login, LIMITS));
    return 'in';
  } catch (error) {
    const state = sqlStateOf(error);
    if (state === undefined) return undefined;
    return { state, routine: String((error as { routine?: unknown }).routine), atMs: clock.now() };
  }
}

/** Whether each of the roles is there, asked over a login made just now, and when that worked; undefined when it does not. */
async function askAsControl(
  config: PostgresConfig,
  manager: PostgresConfig['managers'][number],
  roles: Sought[],
  clock: Clock,
): Promise<{ inAtMs: number; isThere: boolean[] } | undefined> {
  try {
    const login = { user: manager.user, password: await passwordOf(manager), database: config.database };
    const client = await logIn(config, login, LIMITS);
    const inAtMs = clock.now();
    try {
      const [rows] = await ask(client, findRoles(roles), LIMITS.statementMs);
      return { inAtMs, isThere: readRoles(rows ?? [], roles).map((found) => found !== undefined) };
    } finally {
      cut(client);
    }
  } catch {
    return undefined;
  }
}
