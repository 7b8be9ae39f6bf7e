import { z } from 'zod';
import type { TaskRecord } from '../../../core/task.js';
import { defined, instant, seconds } from '../wire.js';
import { anyRecord, moment, texts } from './shapes.js';

export const taskShape = z.strictObject({
  id: z.string(),
  ref: z.string().optional(),
  type: z.string().optional(),
  params: anyRecord,
  purpose: z.string(),
  risk: z.enum(['low', 'medium', 'high']),
  path: texts.meta({ description: 'Ids from the root to this task' }),
  parent: z.string().optional(),
  state: z.enum(['active', 'suspended', 'completed', 'failed', 'cancelled', 'expired', 'silent', 'revoked']),
  generation: z.int().meta({ description: 'Raised by every context change, suspension and resumption' }),
  opener: z.string(),
  opener_kind: z.enum(['agent', 'orchestrator', 'person']),
  self_opened: z.boolean().meta({ description: 'An agent opened it for itself: its context is untrusted' }),
  on_behalf_of: z.strictObject({ name: z.string(), proven: z.boolean() }).optional(),
  agents: texts,
  scope: z.strictObject({ tools: texts, resources: texts, secrets: texts }),
  context: anyRecord,
  created_at: moment,
  deadline: moment,
  heartbeat_seconds: z.int().optional(),
  last_heartbeat_at: moment.optional(),
  on_silence: z.enum(['suspend', 'end']),
  on_context_change: z.enum(['re-evaluate', 'revoke']),
  bundle: z.string(),
  ended_at: moment.optional(),
  ended_by: z.string().optional(),
  end_reason: z.string().optional(),
});

/** What of a task leaves the house: not what the store keeps for itself. */
export function taskOnWire(task: TaskRecord): z.output<typeof taskShape> {
  return defined({
    id: task.id,
    ref: task.ref,
    type: task.type,
    params: task.params,
    purpose: task.purpose,
    risk: task.risk,
    path: task.path,
    parent: task.path.at(-2),
    state: task.state,
    generation: task.generation,
    opener: task.opener,
    opener_kind: task.openerKind,
    self_opened: task.selfOpened,
    on_behalf_of: task.onBehalfOf && { name: task.onBehalfOf.name, proven: task.onBehalfOf.proven },
    agents: task.agents,
    scope: task.scope,
    context: task.context,
    created_at: instant(task.createdAtMs),
    deadline: instant(task.deadlineMs),
    heartbeat_seconds: seconds(task.heartbeatMs),
    last_heartbeat_at: instant(task.lastHeartbeatMs),
    on_silence: task.onSilence,
    on_context_change: task.onContextChange,
    bundle: task.bundle,
    ended_at: instant(task.endedAtMs),
    ended_by: task.endedBy,
    end_reason: task.endReason,
  });
}
