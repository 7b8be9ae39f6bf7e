import { asRecorded } from '../core/as-recorded.js';
import { isId } from '../core/ids.js';
import type { LeaseWithAbove } from '../state/stores.js';
import type { Caller } from './caller.js';
import { otherThing } from './named.js';
import type { Parts } from './parts.js';
import { mayOperate, standingOf } from './permitted.js';
import { notFound } from './refusal.js';
import { spokenFor } from './spoken-for.js';

/** What somebody is to a lease: the agent that holds it, the opener of its task, an operator whom policy lets in. */
export type LeaseStanding = 'holder' | 'opener' | 'operator';

/** Finds a lease the caller may know of; not there and not yours end in the same refusal, after the same reads. */
export async function reachLease(
  parts: Parts,
  caller: Caller,
  id: string,
): Promise<LeaseWithAbove & { standing: LeaseStanding }> {
  const found = isId('lse', id) ? await parts.views.leaseWithAbove(id) : undefined;
  const operator = mayOperate(parts, caller, 'view');
  const standing = found && standingTo(caller, found, operator);
  if (!found || !standing) {
    throw notFound('lease', `${caller.name} asked for ${asRecorded('lse', id)}`, otherThing('lse', id));
  }
  return { ...found, standing };
}

function standingTo(caller: Caller, { lease, tasks }: LeaseWithAbove, operator: boolean): LeaseStanding | undefined {
  const held = spokenFor(caller);
  // A token of ours speaks for its own task only.
  if (lease.agent === caller.name && (!held || held.taskId === lease.taskId)) return 'holder';
  if (tasks.length > 0 && standingOf(caller, tasks, operator) === 'opener') return 'opener';
  return operator ? 'operator' : undefined;
}
