import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import type { Mayfly, Task, TaskSecret } from '../../client/mayfly.js';
import { agentsOption } from './agent-option.js';
import { collect, connect } from './connection.js';
import { HandOver, readTarget, type Target } from './hand-over.js';
import { LeftBehind } from './left-behind.js';
import { pairsOf, secondsOf } from './option-values.js';
import { type OutputFlags, report, say, UsageError } from './output.js';
import { explained } from './secret.js';
import { sayShorterTask } from './shorter.js';
import { toldOfType } from './untyped.js';

interface RunFlags extends OutputFlags {
  as?: string;
  task?: string;
  type?: string;
  param?: string[];
  purpose?: string;
  agent?: string[];
  ttl?: string;
  heartbeat: string;
  leaseTtl: string;
  secret?: string[];
}

const SIGNALS = ['SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGINT'] as const;
/** How long a command has to stop by itself when what it was given is dead. */
const STOP_GRACE_MS = 10_000;
const REVOKED_EXIT_CODE = 3;
/** As shells count it. */
const NOT_FOUND_EXIT_CODE = 127;
const NOT_EXECUTABLE_EXIT_CODE = 126;
const WHERE_OPTIONS_STAND = 'Options of the command that is run stand after --: mayfly run … -- COMMAND …';

/**
 * `mayfly run`: a command with secrets for as long as it runs. A task that is opened here has a heartbeat and ends with its silence, and in a
 * task that is joined the credentials are short and renewed: whatever becomes of this process, nothing stays. A file that it leaves when it is
 * killed is removed by the next run.
 */
export function runCommand(): Command {
  return new Command('run')
    .description('run a command with secrets for one task; they die with it')
    .argument('<command...>', 'what to run, after --')
    .configureOutput({
      outputError: (text, write) =>
        write(/^error: unknown option (?![\s\S]*Did you mean)/.test(text) ? `${text}${WHERE_OPTIONS_STAND}\n` : text),
    })
    .option('--task <task>', 'join this task instead of opening one')
    .option('--type <type>', 'open a task of this type')
    .option('--param <name=value>', 'a parameter of the task', collect)
    .option('--purpose <text>', 'one line for whoever reads the record; default: the command')
    .addOption(agentsOption('an agent of the task; default: ourselves'))
    .option('--ttl <duration>', 'longest life of a task that is opened here')
    .option('--heartbeat <duration>', 'a task that is opened here ends after this long without us', '15s')
    .option('--lease-ttl <duration>', 'life of each credential in a task that is joined; renewed at its half', '60s')
    .option('--secret <name=where>', 'name=ENV, name=./file, name:field=ENV or name:field=./file', collect)
    .action(async (words: string[], _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<RunFlags>();
      const targets = (flags.secret ?? []).map(readTarget);
      for (const line of new LeftBehind().clear()) say(line);
      const { mayfly } = await connect(flags);
      process.exitCode = await runIn(mayfly, words, flags, targets);
    });
}

async function runIn(mayfly: Mayfly, words: string[], flags: RunFlags, targets: Target[]): Promise<number> {
  const isOurs = flags.task === undefined;
  const task = isOurs ? await open(mayfly, words, flags) : await mayfly.join(flags.task as string);
  if (isOurs) sayShorterTask(task, flags.ttl);
  const handOver = new HandOver();
  const secrets: TaskSecret[] = [];
  let end: { code: number; problem?: string } = { code: 1, problem: 'the command was not started' };
  try {
    for (const name of new Set(targets.map(({ secret }) => secret))) {
      const ttlSeconds = isOurs ? undefined : secondsOf(flags.leaseTtl, 'lease-ttl');
      const secret = await task.secret(name, ttlSeconds === undefined ? {} : { ttlSeconds }).catch((error: unknown) => {
        say(`The secret ${name} was not given, and nothing was run.`);
        return explained(mayfly, name, error);
      });
      secrets.push(secret);
      if (!secret.reply.renewable) say(`${name} cannot be renewed; it lives for ${secret.reply.lease_duration} s.`);
      for (const target of targets.filter((one) => one.secret === name)) handOver.put(target, secret.expose());
    }
    end = await watch(words, handOver.variables, [task.signal, ...secrets.map(({ signal }) => signal)]);
  } finally {
    for (const problem of handOver.clear()) say(problem);
    await giveBack(task, isOurs, secrets, end);
  }
  return end.code;
}

function open(mayfly: Mayfly, words: string[], flags: RunFlags): Promise<Task> {
  if (flags.type === undefined && flags.param) throw new UsageError('--param: parameters belong to a --type.');
  return mayfly
    .task({
      ...(flags.type !== undefined && { type: flags.type, params: pairsOf(flags.param, 'param') }),
      purpose: flags.purpose ?? `run ${words[0]}`,
      ...(flags.agent && { agents: flags.agent }),
      ...(flags.ttl !== undefined && { ttl: flags.ttl }),
      heartbeatSeconds: secondsOf(flags.heartbeat, 'heartbeat'),
      onSilence: 'end',
    })
    .catch((error: unknown) => toldOfType(mayfly, flags.type, error));
}

/** The command's own status, or why it was stopped: its task or one of its secrets is dead. */
async function watch(
  words: string[],
  variables: Record<string, string>,
  signals: AbortSignal[],
): Promise<{ code: number; problem?: string }> {
  const dead = AbortSignal.any(signals);
  dead.throwIfAborted();
  const child = spawn(words[0] as string, words.slice(1), { stdio: 'inherit', env: { ...process.env, ...variables } });
  const forwarding = SIGNALS.map((name) => {
    // A terminal has told the command of its Ctrl-C already.
    const forward = () => (name === 'SIGINT' && process.stdin.isTTY ? undefined : child.kill(name));
    process.on(name, forward);
    return () => process.off(name, forward);
  });
  let isStopped = false;
  const stop = () => {
    isStopped = true;
    say(`Stopping: ${dead.reason instanceof Error ? dead.reason.message : 'what was given is dead.'}`);
    void terminate(child);
  };
  dead.addEventListener('abort', stop, { once: true });
  try {
    const status = await exitOf(child);
    if ('error' in status) return notStarted(words[0] as string, status.error);
    if (isStopped) return { code: REVOKED_EXIT_CODE, problem: 'revoked while it ran' };
    if (status.code === 0) return { code: 0 };
    if (status.signal === null) return { code: status.code ?? 1, problem: `exit status ${status.code}` };
    return { code: 128 + constants.signals[status.signal], problem: `ended by ${status.signal}` };
  } finally {
    dead.removeEventListener('abort', stop);
    for (const undo of forwarding) undo();
  }
}

type Exit = { code: number | null; signal: NodeJS.Signals | null } | { error: NodeJS.ErrnoException };

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    // Once it runs, an error is that a signal did not reach it.
    child.on('error', (error) => child.pid === undefined && resolve({ error }));
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
}

function notStarted(command: string, { code, message }: NodeJS.ErrnoException): { code: number; problem: string } {
  if (code === 'ENOENT') {
    const isThere = command.includes('/') && existsSync(command);
    say(
      isThere
        ? `Error: What the first line of ${command} names to run it is not there.`
        : `Error: The command ${command} is not found: write its path, or put its folder into PATH.`,
    );
    return { code: NOT_FOUND_EXIT_CODE, problem: 'the command was not found' };
  }
  say(`Error: The command ${command} cannot be executed (${code ?? message}): name a program that this user may run.`);
  return { code: NOT_EXECUTABLE_EXIT_CODE, problem: 'the command cannot be executed' };
}

async function terminate(child: ChildProcess): Promise<void> {
  child.kill('SIGTERM');
  await delay(STOP_GRACE_MS, undefined, { ref: false });
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
}

/** A task of ours ends as the command did; in somebody else's only the credentials are given back. */
async function giveBack(
  task: Task,
  isOurs: boolean,
  secrets: TaskSecret[],
  { problem }: { problem?: string },
): Promise<void> {
  try {
    if (isOurs) await (problem === undefined ? task.complete() : task.fail(problem));
    else await Promise.all(secrets.filter(({ signal }) => !signal.aborted).map((secret) => secret.revoke()));
  } catch (error) {
    report(error);
    say(isOurs ? 'The task ends by itself when its heartbeat is missed.' : 'The credentials end by themselves.');
  }
  if (!isOurs) task.leave();
}
