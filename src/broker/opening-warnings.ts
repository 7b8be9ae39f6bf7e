import { type Bundle, findWorkload } from '../core/bundle.js';
import { parseSpiffeId } from '../core/spiffe-id.js';
import { isTerminal, type TaskRecord } from '../core/task.js';
import type { EpochMs } from '../core/time.js';
import { undeclaredKeysIn } from '../core/undeclared.js';
import type { LockRecord, Reading } from '../state/stores.js';
import { lockForbidding } from './locked.js';

/** What whoever opened a task should hear now, and not only when nothing is given for it: one sentence each. */
export function openingWarnings(
  bundle: Bundle,
  { agents, context, ...task }: TaskRecord,
  reading: Pick<Reading, 'locks' | 'position'>,
  nowMs: EpochMs,
): string[] {
  const warnings = undeclaredKeysIn(bundle, context);
  if (isTerminal(task.state)) return warnings;
  if (agents.length === 0) warnings.push('No agent is named in agents: nobody can join this task.');
  for (const agent of agents) {
    const lock = lockOnAgent(bundle, agent, { agents, context, ...task }, reading, nowMs);
    if (lock) warnings.push(`Lock ${lock.id} forbids to give anything to ${agent} for it: ${lock.reason}`);
  }
  return warnings;
}

function lockOnAgent(
  bundle: Bundle,
  agent: string,
  task: TaskRecord,
  { locks, position }: Pick<Reading, 'locks' | 'position'>,
  nowMs: EpochMs,
): LockRecord | undefined {
  const id = parseSpiffeId(agent);
  const declaration = id && findWorkload(bundle, id);
  return lockForbidding(locks, nowMs, {
    path: task.path,
    agent,
    opener: task.opener,
    ...(task.onBehalfOf && { onBehalfOf: task.onBehalfOf.name }),
    ...(declaration && { owner: declaration.owner, team: declaration.team, environment: declaration.environment }),
    position,
    bundle: bundle.digest,
  });
}
