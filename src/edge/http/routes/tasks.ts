import { z } from 'zod';
import { changeContext } from '../../../broker/change-context.js';
import { endTask } from '../../../broker/end-task.js';
import { heartbeat } from '../../../broker/heartbeat.js';
import { getTask, listTasks } from '../../../broker/look-up.js';
import { startTask } from '../../../broker/start-task.js';
import { resumeTask, suspendTask } from '../../../broker/suspend-task.js';
import { taskEvents } from '../../../broker/task-events.js';
import { BrokerError, type ErrorCode } from '../../../core/errors.js';
import type { TaskRecord } from '../../../core/task.js';
import { onlyOnce } from '../only-once.js';
import { defineRoute, json, type Reply, type Route } from '../route.js';
import { streamEnd } from '../sse.js';
import { defined, EVENTS, milliseconds } from '../wire.js';
import {
  anyRecord,
  durationSeconds,
  name,
  pageOf,
  pageOnWire,
  pageQuery,
  reason,
  taskName,
  taskParams,
  text,
  texts,
} from './shapes.js';
import { taskEventChunks } from './task-events.js';
import { taskOnWire, taskShape } from './task-shape.js';
import { verdictsOnWire, verdictsShape } from './verdicts-shape.js';

const KEYS_MAX = 64;
const userRecord = anyRecord.refine((record) => Object.keys(record).length <= KEYS_MAX, {
  message: `at most ${KEYS_MAX} keys`,
});
const names = (max: number) => z.array(text(2048)).max(max);

const opening = {
  type: text(128).optional(),
  params: userRecord.default({}),
  purpose: text(1024),
  agents: z.array(name).max(64).default([]),
  scope: z
    .strictObject({ tools: names(256).optional(), resources: names(64).optional(), secrets: names(64).optional() })
    .optional(),
  context: userRecord.default({}),
  ttl_seconds: durationSeconds.optional(),
  heartbeat_seconds: durationSeconds.optional(),
  on_silence: z.enum(['suspend', 'end']).optional(),
  on_context_change: z.enum(['re-evaluate', 'revoke']).optional(),
  parent: taskName.optional(),
  on_behalf_of: text(2048).optional().meta({ description: 'A name nobody proved: recorded as asserted' }),
  on_behalf_of_token: text(16 * 1024)
    .optional()
    .meta({ description: 'A person’s token: proves on whose behalf' }),
};
const ref = z
  .string()
  .regex(/^[\x21-\x7e]{1,200}$/, 'must be 1 to 200 visible characters')
  .meta({ description: 'Your own id for it, unique among yours' });
const warnings = texts.optional().meta({ description: 'Context keys that no task type declares: no policy sees them' });
const openedShape = taskShape.extend({
  warnings: texts.optional().meta({
    description: 'Context keys that no policy sees, agents that a lock keeps from getting anything, no agent at all',
  }),
});
const openingBody = z.strictObject({ ...opening, ref: ref.optional() });

function startRequestOf(body: z.output<typeof openingBody>) {
  return {
    params: body.params,
    purpose: body.purpose,
    agents: body.agents,
    context: body.context,
    ...defined({
      type: body.type,
      ref: body.ref,
      scope: body.scope && defined(body.scope),
      ttlMs: milliseconds(body.ttl_seconds),
      heartbeatMs: milliseconds(body.heartbeat_seconds),
      onSilence: body.on_silence,
      onContextChange: body.on_context_change,
      parent: body.parent,
      onBehalfOf: body.on_behalf_of,
      onBehalfOfToken: body.on_behalf_of_token,
    }),
  };
}

const ONE_TASK: readonly ErrorCode[] = ['not_found', 'denied'];
const OPENING: readonly ErrorCode[] = ['denied', 'not_found', 'task_over', 'task_suspended', 'quota_exceeded'];

const openTask = defineRoute({
  method: 'POST',
  path: '/v1/tasks',
  hot: true,
  auth: 'caller',
  summary: 'Opens a task',
  body: json(openingBody),
  reply: {
    201: openedShape,
    200: openedShape.meta({
      description: 'You have that ref already: the task as it is. 409 when it was opened for something else',
    }),
  },
  errors: [...OPENING, 'key_reused', 'conflict'],
  handle: (parts, request) =>
    onlyOnce(parts, request, 'POST /v1/tasks', {
      first: async () => opened(await startTask(parts, request.caller, startRequestOf(request.body))),
      mayStillSee: async ({ id }) => void (await getTask(parts, request.caller, id as string)),
    }),
});

const putTask = defineRoute({
  method: 'PUT',
  path: '/v1/tasks/{id}',
  auth: 'caller',
  summary: 'Opens the task of that ref, or answers with the one there is; 409 when that was opened for something else',
  params: taskParams,
  body: json(z.strictObject(opening)),
  reply: { 201: openedShape, 200: openedShape },
  errors: [...OPENING, 'conflict'],
  handle: async (parts, { caller, params, body }) => {
    const named = ref.safeParse(params.id.replace(/^ref:/, ''));
    if (!params.id.startsWith('ref:') || !named.success) {
      throw new BrokerError('invalid_request', 'A task is put at ref:<ref>, 1 to 200 visible characters.', {
        field: 'id',
      });
    }
    return opened(await startTask(parts, caller, { ...startRequestOf(body), ref: named.data }));
  },
});

function opened({ task, created, warnings }: Awaited<ReturnType<typeof startTask>>): Reply {
  return {
    status: created ? 201 : 200,
    headers: { location: `/v1/tasks/${task.id}` },
    body: { ...taskOnWire(task), ...(warnings.length > 0 && { warnings }) },
    note: { taskId: task.id },
  };
}

const seeTask = defineRoute({
  method: 'GET',
  path: '/v1/tasks/{id}',
  auth: 'caller',
  summary: 'One task',
  params: taskParams,
  reply: { 200: taskShape },
  errors: ['not_found'],
  handle: async (parts, { caller, params }) => answerWith(await getTask(parts, caller, params.id)),
});

const seeTasks = defineRoute({
  method: 'GET',
  path: '/v1/tasks',
  auth: 'caller',
  summary: 'The tasks you may see, newest first',
  query: z.strictObject({
    ...pageQuery,
    opener: name.optional(),
    agent: name.optional(),
    live: z.enum(['true', 'false']).optional(),
  }),
  reply: { 200: pageOf(taskShape) },
  errors: [],
  handle: async (parts, { caller, query }) => {
    const { live, ...filter } = query;
    const page = await listTasks(parts, caller, {
      limit: filter.limit,
      ...defined({ cursor: filter.cursor, opener: filter.opener, agent: filter.agent, live: live && live === 'true' }),
    });
    return { status: 200, body: pageOnWire(page, taskOnWire) };
  },
});

const ENDS = {
  complete: ['completed', 'It is done'],
  fail: ['failed', 'It could not be done'],
  cancel: ['cancelled', 'It is no longer wanted'],
} as const;

const endings = Object.entries(ENDS).map(([verb, [state, why]]) =>
  defineRoute({
    method: 'POST',
    path: `/v1/tasks/{id}/${verb}`,
    hot: true,
    auth: 'caller',
    summary: `${why}: everything given for it is dead. Repeats answer the same; the first end wins`,
    params: taskParams,
    body: json(z.strictObject({ reason: reason.optional() }), { optional: true }),
    reply: {
      200: taskShape,
      202: z
        .strictObject({ ref: z.string(), kept: z.literal(true) })
        .meta({ description: 'You have not opened that ref yet: kept for 16 minutes, and applied when you do' }),
    },
    errors: [...ONE_TASK, 'quota_exceeded'],
    handle: async (parts, { caller, params, body }) => {
      const task = await endTask(parts, caller, { task: params.id, state, ...defined({ reason: body.reason }) });
      if (task) return answerWith(task);
      return { status: 202, body: { ref: params.id.replace(/^ref:/, ''), kept: true } };
    },
  }),
);

const suspend = defineRoute({
  method: 'POST',
  path: '/v1/tasks/{id}/suspend',
  auth: 'caller',
  summary: 'Everything given for it is dead; it can go on later',
  params: taskParams,
  body: json(z.strictObject({ reason: reason.optional() }), { optional: true }),
  reply: { 200: taskShape },
  errors: [...ONE_TASK, 'task_over'],
  handle: async (parts, { caller, params, body }) =>
    answerWith(await suspendTask(parts, caller, { task: params.id, ...defined({ reason: body.reason }) })),
});

const moves = [
  ['resume', resumeTask, 'A suspended task goes on; everything is decided anew', ['task_over'] as const],
  ['heartbeat', heartbeat, 'An agent of the task is alive', ['task_over', 'task_suspended'] as const],
] as const;

const moving = moves.map(([verb, move, summary, errors]) =>
  defineRoute({
    method: 'POST',
    path: `/v1/tasks/{id}/${verb}`,
    hot: true,
    auth: 'caller',
    summary,
    params: taskParams,
    body: json(z.strictObject({}), { optional: true }),
    reply: { 200: taskShape },
    errors: [...ONE_TASK, ...errors],
    handle: async (parts, { caller, params }) => answerWith(await move(parts, caller, { task: params.id })),
  }),
);

const context = defineRoute({
  method: 'PATCH',
  path: '/v1/tasks/{id}/context',
  auth: 'caller',
  summary: 'Merges into the context (RFC 7396, top level) and judges every live lease again; `dry_run` previews',
  params: taskParams,
  body: json(
    z.strictObject({
      context: userRecord,
      generation: z
        .int()
        .nonnegative()
        .optional()
        .meta({ description: 'The generation you know: 412 when it moved on' }),
      dry_run: z.boolean().default(false),
    }),
    { mediaTypes: ['application/json', 'application/merge-patch+json'] },
  ),
  reply: {
    200: z.strictObject({
      task: taskShape,
      preview: verdictsShape.optional(),
      warnings,
    }),
  },
  errors: [...ONE_TASK, 'generation_mismatch', 'task_over'],
  handle: async (parts, { caller, params, body }) => {
    const { task, preview, warnings } = await changeContext(parts, caller, {
      task: params.id,
      context: body.context,
      dryRun: body.dry_run,
      ...defined({ generation: body.generation }),
    });
    return {
      status: 200,
      body: defined({
        task: taskOnWire(task),
        preview: preview && verdictsOnWire(preview),
        warnings: warnings.length > 0 ? warnings : undefined,
      }),
    };
  },
});

const events = defineRoute({
  method: 'GET',
  path: '/v1/tasks/{id}/events',
  auth: 'caller',
  summary: 'What happens to a task, as it happens',
  params: taskParams,
  reply: { 200: EVENTS },
  errors: ['not_found'],
  handle: async (parts, { caller, params, signal }) => ({
    status: 200,
    events: {
      chunks: taskEventChunks(taskEvents(parts, caller, { task: params.id, signal: signal() })),
      endsAtMs: streamEnd(caller),
    },
  }),
});

function answerWith(task: TaskRecord): Reply {
  return { status: 200, body: taskOnWire(task), note: { taskId: task.id } };
}

export const tasks: readonly Route[] = [
  openTask,
  seeTasks,
  putTask,
  seeTask,
  ...endings,
  suspend,
  ...moving,
  context,
  events,
];
