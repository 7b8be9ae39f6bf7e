import { TASK_DETAIL_TYPE } from '../core/claims.js';
import { BrokerError } from '../core/errors.js';
import { isId } from '../core/ids.js';
import { parseScope } from '../core/scope.js';
import { refIn } from '../core/task.js';
import { currentBundle } from './authenticate.js';
import type { Caller } from './caller.js';
import { otherThing } from './named.js';
import type { Parts } from './parts.js';
import { notFound } from './refusal.js';

const ORCHESTRATORS_ASKED_MAX = 32;

/**
 * The id of the task a caller names by id or by `ref:<ref>`. A ref is looked up among the caller's own, and then, for an agent that was
 * handed its orchestrator's ref (and for operators), among those of the declared orchestrators; whether the caller may see the task is decided later.
 */
export async function findTaskId(
  parts: Parts,
  name: string,
  caller: Pick<Caller, 'name' | 'principal'>,
): Promise<string> {
  if (isId('tsk', name)) return name;
  const ref = refIn(name);
  if (ref === undefined) throw notFound('task', 'neither an id nor a ref', otherThing('tsk', name));
  const own = await parts.views.taskIdByRef(caller.name, ref);
  if (own) return own;
  // What another orchestrator calls the same is none of this one's business.
  if (caller.principal.kind === 'orchestrator') throw notFound('task', `no task has ref ${ref}`);
  const openers = currentBundle(parts)
    .workloads.filter((workload) => workload.role === 'orchestrator' && !workload.spiffeId.endsWith('/*'))
    .slice(0, ORCHESTRATORS_ASKED_MAX);
  for (const opener of openers) {
    const id = await parts.views.taskIdByRef(opener.spiffeId, ref);
    if (id) return id;
  }
  throw notFound('task', `no task has ref ${ref}`);
}

/** What a token request names as its task, and the tools it asks for by scope. */
export interface TaskNamed {
  /** An id or `ref:…`. */
  name?: string;
  /** A task to be opened by the agent itself. */
  open?: Record<string, unknown>;
  /** Undefined when no tool was asked for by name. */
  tools?: string[];
}

/**
 * Reads `authorization_details` (RFC 9396) and `scope`. The task is named by either; both and different is `invalid_request`. Every other
 * scope value is a tool's name.
 */
export function readTaskNamed(scope: string | undefined, details: unknown): TaskNamed {
  const detail = readDetail(details);
  const values = scope === undefined ? [] : parseScope(scope);
  if (!values)
    throw new BrokerError('scope_invalid', 'scope: names separated by single spaces, each once.', { field: 'scope' });
  const named = values.filter((value) => value.startsWith('task:')).map((value) => value.slice('task:'.length));
  if (detail?.identifier) named.push(detail.identifier);
  if (new Set(named).size > 1 || (detail?.open && named.length > 0)) {
    throw new BrokerError('invalid_request', 'The request names two tasks.', { field: 'authorization_details' });
  }
  const tools = values.filter((value) => !value.startsWith('task:'));
  return {
    ...(named[0] !== undefined && { name: named[0] }),
    ...(detail?.open && { open: detail.open }),
    ...(tools.length > 0 && { tools }),
  };
}

function readDetail(details: unknown): { identifier?: string; open?: Record<string, unknown> } | undefined {
  if (details === undefined) return undefined;
  const malformed = (message: string) =>
    new BrokerError('details_invalid', `authorization_details: ${message}`, { field: 'authorization_details' });
  if (!Array.isArray(details) || details.length !== 1) throw malformed('an array with exactly one element.');
  const detail: unknown = details[0];
  if (typeof detail !== 'object' || detail === null) throw malformed('its element is an object.');
  const { type, identifier, task, ...others } = detail as Record<string, unknown>;
  if (type !== TASK_DETAIL_TYPE) throw malformed(`the only type is ${TASK_DETAIL_TYPE}.`);
  const [other] = Object.keys(others);
  if (other !== undefined) throw malformed(`${other} is not a member of this type (identifier, task).`);
  if (typeof identifier === 'string' && task === undefined) return { identifier };
  if (identifier === undefined && typeof task === 'object' && task !== null && !Array.isArray(task)) {
    return { open: task as Record<string, unknown> };
  }
  throw malformed('either `identifier` (a task id or ref:…) or `task` (one to open).');
}
