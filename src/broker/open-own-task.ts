import { BrokerError } from '../core/errors.js';
import type { Caller } from './caller.js';
import { endTask } from './end-task.js';
import type { Parts } from './parts.js';
import { startTask } from './start-task.js';

/**
 * The task an agent opens for itself while asking for a token, when policy lets it: `authorization_details` with a `task` instead of an
 * identifier. It names only itself, and its context counts as untrusted (`selfOpened`).
 */
export async function openOwnTask(
  parts: Parts,
  caller: Caller,
  task: Record<string, unknown>,
): Promise<{ taskId: string; isNew: boolean }> {
  const { type, params = {}, purpose, ref, context = {}, ttl_seconds: ttlSeconds, ...others } = task;
  const malformed = (member: string, message: string) =>
    new BrokerError('details_invalid', `authorization_details: task.${member}: ${message}`, {
      field: `authorization_details.task.${member}`,
    });
  const [other] = Object.keys(others);
  if (other !== undefined) throw malformed(other, 'not a member (type, params, purpose, ref, context, ttl_seconds).');
  if (type !== undefined && typeof type !== 'string') throw malformed('type', 'a string.');
  if (!isRecord(params)) throw malformed('params', 'an object.');
  if (!isRecord(context)) throw malformed('context', 'an object.');
  if (typeof purpose !== 'string' || purpose.length === 0 || purpose.length > 1024)
    throw malformed('purpose', '1 to 1024 characters.');
  if (ref !== undefined && (typeof ref !== 'string' || !/^[\x21-\x7e]{1,200}$/.test(ref)))
    throw malformed('ref', '1 to 200 visible characters.');
  if (ttlSeconds !== undefined && !(Number.isSafeInteger(ttlSeconds) && (ttlSeconds as number) > 0)) {
    throw malformed('ttl_seconds', 'a positive integer.');
  }
  const opened = await startTask(parts, caller, {
    ...(type !== undefined && { type }),
    params,
    purpose,
    ...(ref !== undefined && { ref }),
    agents: [caller.name],
    context,
    ...(ttlSeconds !== undefined && { ttlMs: (ttlSeconds as number) * 1000 }),
  });
  return { taskId: opened.task.id, isNew: opened.created };
}

/**
 * A task that was opened for a token which was then refused is nobody's work: it ends with the refusal, so that asking in vain leaves
 * nothing behind. When even that fails, its deadline ends it.
 */
export async function giveUpOwnTask(parts: Parts, caller: Caller, taskId: string): Promise<void> {
  try {
    await endTask(parts, caller, { task: taskId, state: 'cancelled', reason: 'opened for a token that was refused' });
  } catch (error) {
    const problem = error instanceof Error ? error.message : 'unknown';
    parts.observe({ event: 'task.not_given_up', level: 'warn', task: taskId, problem });
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
