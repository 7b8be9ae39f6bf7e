import { Command } from 'commander';
import type { KeptEnd, Mayfly, OpenedReply, TaskReply, VerdictsReply } from '../../client/mayfly.js';
import { counted } from '../../core/counted.js';
import { agentsOption } from './agent-option.js';
import { collect, connect } from './connection.js';
import { pairsOf, secondsOf } from './option-values.js';
import { checkField, type OutputFlags, type Row, say, show } from './output.js';
import { inPages, type PageFlags, pageOf, showPage } from './page.js';
import { sayShorterTask } from './shorter.js';
import { toldOfType } from './untyped.js';

type Flags = OutputFlags & { as?: string };

interface StartFlags extends Flags {
  type?: string;
  param?: string[];
  purpose?: string;
  ref?: string;
  agent?: string[];
  tool?: string[];
  resource?: string[];
  context?: string[];
  ttl?: string;
  heartbeat?: string;
  parent?: string;
}

/** Every member of what these commands answer with; `kept` of the end of a ref that was not opened yet. */
const FIELDS = Object.keys({
  id: 1,
  ref: 1,
  type: 1,
  params: 1,
  purpose: 1,
  risk: 1,
  path: 1,
  parent: 1,
  state: 1,
  generation: 1,
  opener: 1,
  opener_kind: 1,
  self_opened: 1,
  on_behalf_of: 1,
  agents: 1,
  scope: 1,
  context: 1,
  created_at: 1,
  deadline: 1,
  heartbeat_seconds: 1,
  last_heartbeat_at: 1,
  on_silence: 1,
  on_context_change: 1,
  bundle: 1,
  ended_at: 1,
  ended_by: 1,
  end_reason: 1,
  warnings: 1,
  kept: 1,
} satisfies Record<keyof OpenedReply | keyof KeptEnd, 1>);

const COLUMNS = ['id', 'type', 'state', 'purpose', 'opener', 'deadline'];

/** `mayfly task …` */
export function taskCommand(): Command {
  const task = new Command('task').description('open, look at and end tasks');
  task
    .command('start')
    .description('open a task')
    .option('--type <type>', 'a declared task type')
    .option('--param <name=value>', 'a parameter; name:=json for other values than the type would read', collect)
    .option('--purpose <text>', 'one line for whoever reads the record')
    .option('--ref <ref>', 'your own id for it; repeating the same brings the same task')
    .addOption(agentsOption('an agent of the task'))
    .option('--tool <name>', 'narrow the tools', collect)
    .option('--resource <uri>', 'narrow the resources', collect)
    .option('--context <name=value>', 'a context key', collect)
    .option('--ttl <duration>', 'such as 5m')
    .option('--heartbeat <duration>', 'declare a heartbeat')
    .option('--parent <task>', 'open it below another task')
    .action(start);
  task
    .command('get <task>')
    .description('one task, by id or ref:…')
    .action((id: string, _: unknown, command: Command) => withTask(command, (mayfly) => mayfly.tasks.get(id)));
  inPages(
    task.command('ls').description('tasks, newest first').option('--live', 'only those that are not over'),
  ).action(async (_: unknown, command: Command) => {
    const flags = command.optsWithGlobals<Flags & PageFlags & { live?: boolean }>();
    const { mayfly } = await connect(flags);
    const page = await mayfly.tasks.list({ ...pageOf(flags), ...(flags.live && { live: true }) });
    showPage(page, flags, COLUMNS);
  });
  task.command('watch <task>').description('follow a task until it is over').action(watch);
  for (const [name, ending, description] of [
    ['complete', 'completed', 'done: everything given for it is dead'],
    ['fail', 'failed', 'given up'],
    ['cancel', 'cancelled', 'called off'],
  ] as const) {
    task
      .command(`${name} <task>`)
      .description(description)
      .option('--reason <text>', 'goes into the record')
      .action((id: string, own: { reason?: string }, command: Command) =>
        withTask(command, (mayfly) => mayfly.tasks[name](id, own.reason), ending),
      );
  }
  task
    .command('suspend <task>')
    .description('everything given for it is dead, but it can go on')
    .option('--reason <text>', 'goes into the record')
    .action((id: string, own: { reason?: string }, command: Command) =>
      withTask(command, (mayfly) => mayfly.tasks.suspend(id, own.reason)),
    );
  task
    .command('resume <task>')
    .description('a suspended task goes on; everything is given anew')
    .action((id: string, _: unknown, command: Command) => withTask(command, (mayfly) => mayfly.tasks.resume(id)));
  task
    .command('context <task> <name=value...>')
    .description('change the context; live tokens are judged again (name= removes a key)')
    .option('--generation <n>', 'only if the task is still at it')
    .option('--dry-run', 'say what would die, and change nothing')
    .action(context);
  return task;
}

/** `ending`: the state that the task ought to be in after it. */
async function withTask(command: Command, act: (mayfly: Mayfly) => Promise<unknown>, ending?: string): Promise<void> {
  const flags = command.optsWithGlobals<Flags>();
  checkField(flags, FIELDS);
  const { mayfly } = await connect(flags);
  const reply = (await act(mayfly)) as Row;
  const state = reply['state'];
  if (ending !== undefined && state !== undefined && state !== ending) {
    const by = reply['ended_by'] === undefined ? '' : ` by ${reply['ended_by']}`;
    const why = reply['end_reason'] === undefined ? '' : `: ${reply['end_reason']}`;
    say(`The task was over already, ${state}${by}${why}; the first end stands.`);
  }
  shown(reply, flags, `The task is ${reply['state'] ?? 'not opened yet: its end is kept'}.`);
}

async function start(_: unknown, command: Command): Promise<void> {
  const flags = command.optsWithGlobals<StartFlags>();
  checkField(flags, FIELDS);
  const { mayfly } = await connect(flags);
  const scope = { ...(flags.tool && { tools: flags.tool }), ...(flags.resource && { resources: flags.resource }) };
  const params = pairsOf(flags.param, 'param');
  const ttlSeconds = flags.ttl === undefined ? undefined : secondsOf(flags.ttl, 'ttl');
  const task = await mayfly.tasks
    .start({
      ...(flags.type !== undefined && { type: flags.type }),
      params,
      purpose: flags.purpose ?? [flags.type ?? 'by hand', ...(flags.param ?? [])].join(' '),
      ...(flags.ref !== undefined && { ref: flags.ref }),
      agents: flags.agent ?? [],
      ...(Object.keys(scope).length > 0 && { scope }),
      context: pairsOf(flags.context, 'context'),
      ...(ttlSeconds !== undefined && { ttl_seconds: ttlSeconds }),
      ...(flags.heartbeat !== undefined && { heartbeat_seconds: secondsOf(flags.heartbeat, 'heartbeat') }),
      ...(flags.parent !== undefined && { parent: flags.parent }),
    })
    .catch((error: unknown) => toldOfType(mayfly, flags.type, error));
  for (const warning of task.warnings ?? []) say(`Warning: ${warning}`);
  sayShorterTask({ createdAtMs: Date.parse(task.created_at), deadlineMs: Date.parse(task.deadline) }, flags.ttl);
  shown(task as unknown as Row, flags, `The task was opened: ${task.id}`);
}

/** A field that this task happens not to have is an error after the fact: `done` says what is the case all the same. */
function shown(reply: Row, flags: Flags, done: string): void {
  try {
    show(reply, flags);
  } catch (error) {
    say(done);
    throw error;
  }
}

async function watch(id: string, _: unknown, command: Command): Promise<void> {
  const flags = command.optsWithGlobals<Flags>();
  const { mayfly } = await connect(flags);
  for await (const { kind, task } of mayfly.tasks.events(id)) {
    if (flags.output === 'json') process.stdout.write(`${JSON.stringify({ kind, task })}\n`);
    else process.stdout.write(`${new Date().toISOString()}  ${kind}  ${task.state}  generation ${task.generation}\n`);
  }
}

async function context(
  id: string,
  pairs: string[],
  own: { generation?: string; dryRun?: boolean },
  command: Command,
): Promise<void> {
  const flags = command.optsWithGlobals<Flags>();
  if (!own.dryRun) checkField(flags, FIELDS);
  const patch = pairsOf(pairs, 'context', null);
  const { mayfly } = await connect(flags);
  // The change itself is answered before everything is judged by it.
  const before = own.dryRun ? undefined : await mayfly.tasks.setContext(id, patch, { dryRun: true });
  const reply = await mayfly.tasks.setContext(id, patch, {
    ...(own.generation !== undefined && { generation: Number(own.generation) }),
    ...(own.dryRun && { dryRun: true }),
  });
  for (const warning of reply.warnings ?? []) say(`Warning: ${warning}`);
  if (before?.preview) sayDying(reply.task, before.preview);
  if (reply.preview) show({ ...reply.preview } as Row, flags);
  else shown(reply.task as unknown as Row, flags, `The context was changed: generation ${reply.task.generation}.`);
  if (own.dryRun) say('Nothing was changed.');
}

/** What a change of the context lets die, as far as it was known right before. */
function sayDying(
  { on_context_change: onChange }: TaskReply,
  { dying, revoked, at_least: atLeast }: VerdictsReply,
): void {
  if (onChange === 'revoke') {
    say('Everything given for the task before is dead: it was opened so.');
    return;
  }
  say(`${atLeast ? 'At least ' : ''}${counted(dying, 'lease')} of the task ${dying === 1 ? 'dies' : 'die'} of it.`);
  for (const { lease, agent, reason } of revoked.slice(0, DYING_SHOWN_MAX)) say(`  ${lease} of ${agent}: ${reason}`);
  if (dying > DYING_SHOWN_MAX) say(`  … and ${dying - DYING_SHOWN_MAX} more`);
}

const DYING_SHOWN_MAX = 10;
