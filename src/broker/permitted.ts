import type { Decision, PolicyAction } from '../core/decision.js';
import { BrokerError } from '../core/errors.js';
import type { TaskRecord } from '../core/task.js';
import type { PreparedPolicy } from '../plugins/policy/contract.js';
import type { Reading } from '../state/stores.js';
import type { Caller } from './caller.js';
import { findTaskId } from './find-task.js';
import type { Parts } from './parts.js';
import { principalEntity } from './questions.js';
import { notFound } from './refusal.js';

const INSTALLATION = { type: 'Installation', id: 'mayfly', attributes: {} } as const;

/** What somebody is to a task: its opener (or an ancestor's), an operator whom policy lets in, one of its agents. */
export type Standing = 'opener' | 'operator' | 'agent';

export interface TaskInReach {
  reading: Reading;
  tasks: TaskRecord[];
  task: TaskRecord;
  standing: Standing;
}

/** Whether policy lets the caller do an operator's action on the whole installation. */
export function mayOperate(parts: Parts, caller: Caller, action: PolicyAction, secondPerson = false): boolean {
  return operate(parts, caller, action, secondPerson).effect === 'allow';
}

/** The same, as a must: throws `denied`. What changes things for others also needs an identity bound to this connection or request. */
export function mustOperate(
  parts: Parts,
  caller: Caller,
  action: PolicyAction,
  needs: { bound: boolean; secondPerson?: boolean },
): void {
  if (needs.bound && !caller.bound) {
    throw new BrokerError('denied', 'This needs an identity bound to the request.', {
      hint: 'Connect with an X.509-SVID, or exchange your token with DPoP for a five-minute operator token.',
    });
  }
  const decision = operate(parts, caller, action, needs.secondPerson ?? false);
  if (decision.effect === 'allow') return;
  throw new BrokerError('denied', 'Policy does not allow it.', {
    policyIds: decision.policyIds,
    reason: [action, ...decision.errors].join('; '),
  });
}

function operate(parts: Parts, caller: Caller, action: PolicyAction, secondPerson: boolean) {
  const policy = parts.policies.current();
  if (!policy) throw new BrokerError('unavailable', 'No bundle is loaded yet.', { retryAfterSeconds: 1 });
  return operateUnder(policy, parts, caller, action, secondPerson);
}

/** What another bundle than the active one says of the caller. */
export function operateUnder(
  policy: Pick<PreparedPolicy, 'decide'>,
  parts: Parts,
  caller: Caller,
  action: PolicyAction,
  secondPerson = false,
): Decision {
  return policy.decide({
    principal: principalEntity(caller.principal, parts.clock.now()),
    action,
    resource: INSTALLATION,
    context: { secondPerson, bound: caller.bound },
  });
}

/**
 * Finds a task the caller may know of. Not there and not yours end in the same refusal, after the same reads: the task is read and policy
 * is asked whether or not there was one.
 */
export async function reachTask(parts: Parts, caller: Caller, name: string): Promise<TaskInReach> {
  const taskId = await findTaskId(parts, name, caller);
  const reading = await parts.ledger.read({ taskId, nowMs: parts.clock.now() });
  const operator = mayOperate(parts, caller, 'view');
  const tasks = reading?.tasks ?? [];
  const task = tasks[tasks.length - 1];
  const standing = task && standingOf(caller, tasks, operator);
  if (!reading || !task || !standing) throw notFound('task', `${caller.name} asked for ${taskId}`);
  return { reading, tasks, task, standing };
}

export function standingOf(caller: Caller, tasks: readonly TaskRecord[], operator: boolean): Standing | undefined {
  const own = tasks[tasks.length - 1] as TaskRecord;
  // A token of ours speaks for its task and those below it, whoever holds it; it never makes an opener of an agent.
  if (caller.token && !caller.token.mayfly.roles) {
    return tasks.some((task) => task.id === taskOf(caller)) ? 'agent' : undefined;
  }
  if (tasks.some((task) => task.opener === caller.name)) return 'opener';
  if (operator) return 'operator';
  return own.agents.includes(caller.name) ? 'agent' : undefined;
}

function taskOf(caller: Caller): string | undefined {
  return caller.token?.mayfly.path.filter((id) => id.startsWith('tsk_')).at(-1);
}

/** Its opener and operators may do everything to a task. Throws `denied` for its agents. */
export function mustControl(parts: Parts, caller: Caller, reach: TaskInReach, what: string): void {
  if (reach.standing === 'opener') return;
  if (reach.standing === 'operator' && mayOperate(parts, caller, 'control')) return;
  throw new BrokerError('denied', `Only the opener of a task and operators may ${what} it.`);
}
