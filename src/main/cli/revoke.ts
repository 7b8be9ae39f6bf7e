import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import type { Mayfly, PreviewReply, RevocationReply } from '../../client/mayfly.js';
import { counted } from '../../core/counted.js';
import { SELECTOR_MEMBERS, type Selector } from '../../core/selector.js';
import { agentOf, spiffeIdOf } from './agent-option.js';
import { askPerson } from './ask-person.js';
import { connect } from './connection.js';
import { secondsOf } from './option-values.js';
import { checkField, type OutputFlags, type Row, say, show, UsageError } from './output.js';

interface Flags extends OutputFlags {
  as?: string;
  reason?: string;
  yes?: boolean;
  undeclared?: boolean;
  expires?: string;
}

/** Every member of what both answer with. */
const FIELDS = Object.keys({
  id: 1,
  selector: 1,
  reason: 1,
  by: 1,
  lock: 1,
  created_at: 1,
  position: 1,
  done: 1,
  finished_at: 1,
  found: 1,
  remains: 1,
  readers: 1,
  receipt: 1,
  warnings: 1,
} satisfies Record<keyof RevocationReply | 'warnings', 1>);

/** `mayfly stop`: revokes a selector and forbids new grants for it. `mayfly revoke`: only the first. */
export function stopCommand(): Command {
  return selectorCommand('stop', 'revoke everything a selector names, and forbid new grants until lifted')
    .option('--expires <duration>', 'lift it by itself after this time')
    .action((pairs: string[], _: unknown, command: Command) => act(pairs, command, 'stop'));
}

export function revokeCommand(): Command {
  return selectorCommand('revoke', 'revoke everything a selector names').action(
    (pairs: string[], _: unknown, command: Command) => act(pairs, command, 'revoke'),
  );
}

function selectorCommand(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .argument('<selector...>', `member=value, several together mean all of them: ${SELECTOR_MEMBERS.join(', ')}`)
    .option('--reason <text>', 'goes into the record')
    .option('--yes', 'act without asking')
    .option('--undeclared', 'with --yes: act although a name is not declared (any more) and nothing live has it');
}

async function act(pairs: string[], command: Command, verb: 'stop' | 'revoke'): Promise<void> {
  const flags = command.optsWithGlobals<Flags>();
  checkField(flags, FIELDS);
  const selector = selectorOf(pairs);
  const { mayfly } = await connect(flags);
  const api = verb === 'stop' ? mayfly.locks : mayfly.revocations;
  const dry = await api.preview(selector);
  sayPreview(dry.preview);
  const unknown = dry.unknown ?? [];
  for (const warning of dry.warnings) if (!unknown.includes(warning)) say(`Warning: ${warning}`);
  // Of a name that is mistyped it would say that all is stopped. What hits something live is not mistyped.
  if (flags.yes && !flags.undeclared && unknown.length > 0 && dry.preview.leases + dry.preview.credentials === 0) {
    throw new UsageError(`Nothing was done: ${unknown.join(' ')} Add --undeclared to ${verb} it all the same.`);
  }
  const warn = () => {
    for (const warning of unknown) say(`Warning: ${warning}`);
  };
  if (flags.yes || !process.stdin.isTTY) warn();
  if (!flags.yes && !process.stdin.isTTY) {
    throw new UsageError('Nothing was done: nobody is there to be asked. Add --yes to act.');
  }
  const reason = await consent(flags, verb, warn);
  if (reason === undefined) {
    say('Nothing was done.');
    return;
  }
  const made =
    verb === 'stop'
      ? await mayfly.locks.make(
          selector,
          reason,
          flags.expires === undefined ? {} : { expiresInSeconds: secondsOf(flags.expires, 'expires') },
        )
      : await mayfly.revocations.make(selector, reason);
  if (!made.revocation) throw new Error('the broker answered without a revocation');
  say(`Effective now${made.lock ? `; lock ${made.lock.id}` : ''}.`);
  const done = await followProgress(mayfly, made.revocation, made.preview);
  const whole = {
    ...done,
    ...(made.lock && { lock: made.lock.id }),
    ...(made.warnings.length > 0 && { warnings: made.warnings }),
  } as unknown as Row;
  // The receipt is for machines; a person asks for it with -o json or --field receipt.
  const { receipt, readers, ...short } = whole;
  show(flags.output === 'json' || flags.field !== undefined ? whole : short, flags);
}

/** The reason for the record; undefined when whoever was asked did not say yes. */
async function consent(flags: Flags, verb: 'stop' | 'revoke', warn: () => void): Promise<string | undefined> {
  const person = flags.yes && flags.reason !== undefined ? undefined : askPerson();
  try {
    const reason = flags.reason ?? (await person?.answer('Reason for the record: '));
    if (!reason) throw new UsageError('Nothing was done: a reason goes into the record: --reason TEXT.');
    if (flags.yes) return reason;
    // Right before the question, where it is read.
    warn();
    const answer = await person?.answer(`${verb === 'stop' ? 'Stop' : 'Revoke'} now? [y/N] `);
    return answer?.toLowerCase() === 'y' ? reason : undefined;
  } finally {
    person?.close();
  }
}

/** `agent=/agent/refunds`, `team=payments`: the members of a selector. */
export function selectorOf(pairs: string[]): Selector {
  const selector: Selector = {};
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    const member = SELECTOR_MEMBERS.find((name) => name === pair.slice(0, at).replaceAll('-', '_'));
    if (at < 1 || !member)
      throw new UsageError(`${pair}: not member=value; members are ${SELECTOR_MEMBERS.join(', ')}.`);
    if (selector[member] !== undefined) throw new UsageError(`${member} is named twice.`);
    const value = pair.slice(at + 1);
    if (value === '') throw new UsageError(`Nothing was done: ${member} is empty.`);
    if (member === 'agent' || member === 'opener') selector[member] = agentOf(value, member);
    else selector[member] = member === 'prefix' ? spiffeIdOf(value) : value;
  }
  return selector;
}

function sayPreview(preview: PreviewReply): void {
  const more = preview.at_least ? ' at least' : '';
  say(
    `This hits${more} ${counted(preview.leases, 'token')} and ${counted(preview.credentials, 'credential')} of ${counted(preview.agents.length, 'agent')} in ${counted(preview.tasks.length, 'task')}${preview.agents.length > 0 ? ':' : '.'}`,
  );
  for (const agent of preview.agents.slice(0, 10)) say(`  ${agent}`);
  if (preview.agents.length > 10) say(`  … and ${preview.agents.length - 10} more`);
  for (const one of preview.resources) {
    if (one.residual_seconds_max > 0) say(`  ${one.resource} only expires: up to ${one.residual_seconds_max} s remain`);
  }
}

const BAR_WIDTH = 20;

/** The enumeration behind it, which changes nothing about its being effective; measured by what the preview counted. */
async function followProgress(mayfly: Mayfly, made: RevocationReply, preview: PreviewReply): Promise<RevocationReply> {
  const whole = Math.max(1, preview.leases + preview.credentials);
  for (let waits = 0; ; waits++) {
    const now = await mayfly.revocations.get(made.id);
    const { leases = 0, credentials = 0, agents = 0 } = now.found ?? {};
    if (process.stderr.isTTY) {
      // Full only when it is: the preview may have stopped counting, and leases may have ended since.
      const filled = now.done
        ? BAR_WIDTH
        : Math.min(BAR_WIDTH - 1, Math.floor((BAR_WIDTH * (leases + credentials)) / whole));
      const bar = '#'.repeat(filled).padEnd(BAR_WIDTH);
      process.stderr.write(
        `\r[${bar}] ${counted(leases, 'token')}, ${counted(credentials, 'credential')}, ${counted(agents, 'agent')}`,
      );
    }
    if (now.done) {
      if (process.stderr.isTTY) process.stderr.write('\n');
      return now;
    }
    if (waits > 600) {
      say(`Still enumerating; it goes on by itself, and is effective already. (${made.id})`);
      return now;
    }
    await delay(100);
  }
}
