import { randomBytes } from 'node:crypto';
import { type BackendDeps, BackendProblem } from '../contract.js';
import { listRoles } from './catalogue.js';
import type { PostgresConfig, PostgresSettings } from './config.js';
import { ask, cut, logIn, passwordOf, withSession } from './connect.js';
import type { Lane } from './lane.js';
import { problemOf } from './problems.js';
import { groupsAndAbove, problemsOfGroups, problemsOfManager, SERVER_AND_MANAGER } from './rights.js';
import type { MadePassword } from './verifiers.js';

const CANARY_TTL_MS = 60_000;

export interface CheckParts {
  config: PostgresConfig;
  deps: BackendDeps;
  lanes: readonly Lane[];
  makePassword(): Promise<MadePassword>;
}

/** Whether a secret can be issued and revoked as promised, by each of the managers: the rights first, and when they are right, a canary. */
export async function checkSecret(
  parts: CheckParts,
  settings: PostgresSettings,
  signal: AbortSignal,
): Promise<string[]> {
  const found = await Promise.all(parts.lanes.map((lane) => checkLane(parts, lane, settings, signal)));
  return [...new Set(found.flat())];
}

async function checkLane(
  parts: CheckParts,
  lane: Lane,
  settings: PostgresSettings,
  signal: AbortSignal,
): Promise<string[]> {
  const { config } = parts;
  const { user } = lane.manager;
  try {
    const [rows] = await lane.revoking.ask(SERVER_AND_MANAGER);
    const ofManager = problemsOfManager(rows ?? [], user, config, settings.database);
    const ofGroups = problemsOfGroups(await lookAtGroups(config, lane, settings), settings, user);
    const problems = [...ofManager, ...ofGroups];
    if (problems.length > 0) return problems;
    await clearOldCanaries(parts, lane, signal);
    return await tryCanary(parts, lane, settings, signal);
  } catch (error) {
    return [`${problemOf(error, `check the manager ${user}`).message} (manager ${user}).`];
  }
}

async function lookAtGroups(config: PostgresConfig, { manager }: Lane, settings: PostgresSettings) {
  const login = { user: manager.user, password: await passwordOf(manager), database: settings.database };
  const limits = { statementMs: 5_000, lockMs: 1_000 };
  return withSession(config, login, limits, `look into the database ${settings.database}`, async (client) => {
    const [rows] = await ask(client, groupsAndAbove(settings.groups), limits.statementMs);
    return rows ?? [];
  });
}

/** A role made, used and revoked as an agent's would be. Its name says what it is, so that one that was left behind is cleared away. */
async function tryCanary(
  { config, deps, makePassword }: CheckParts,
  lane: Lane,
  settings: PostgresSettings,
  signal: AbortSignal,
): Promise<string[]> {
  const name = `${canaryPrefix(deps)}${randomBytes(5).toString('hex')}`;
  const made = await makePassword();
  const nowMs = deps.clock.now();
  const logInAsCanary = async () =>
    cut(
      await logIn(
        config,
        { user: name, password: made.password.expose(), database: settings.database },
        { statementMs: 2_000, lockMs: 500 },
      ),
    );
  const problems: string[] = [];
  try {
    const oid = await lane.maker.make({
      name,
      verifier: made.verifier,
      groups: settings.groups,
      database: settings.database,
      connectionLimit: settings.connection_limit,
      expiresAtMs: nowMs + CANARY_TTL_MS,
      deadlineMs: nowMs + Math.round(config.issue_timeout_seconds * 1000),
      signal,
    });
    await logInAsCanary().catch((error: unknown) => {
      problems.push(`A role made for a try cannot log in: ${problemOf(error, 'log in with it').message}.`);
    });
    await lane.retirer.retire({ name, oid }, signal);
    const left = await lane.confirm({ name, oid });
    if (left.state !== 'gone') throw new BackendProblem('failed', 'A role made for a try is still there');
    if (left.residue) problems.push(`A role made for a try could not be cleared away: ${left.residue}.`);
    const isIn = await logInAsCanary().then(
      () => true,
      () => false,
    );
    if (isIn) problems.push('A role made for a try logged in after it was revoked.');
  } catch (error) {
    await lane.retirer.retire({ name }, signal).catch(() => undefined);
    problems.push(`${problemOf(error, 'make and revoke a role for a try').message} (manager ${lane.manager.user}).`);
  }
  return problems;
}

async function clearOldCanaries({ deps }: CheckParts, lane: Lane, signal: AbortSignal): Promise<void> {
  const [rows] = await lane.revoking.ask(listRoles(canaryPrefix(deps), [lane.manager.user]));
  for (const row of rows ?? []) {
    if (row['manager'] === null || row['is_expired'] !== true) continue;
    await lane.retirer.retire({ name: row['rolname'] as string, oid: row['oid'] as string }, signal);
  }
}

function canaryPrefix(deps: BackendDeps): string {
  return `mayfly_${deps.installation}_canary_`;
}
