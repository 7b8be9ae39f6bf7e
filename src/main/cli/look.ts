import { Command } from 'commander';
import { type Mayfly, Unavailable } from '../../client/mayfly.js';
import { agentOption } from './agent-option.js';
import { connect } from './connection.js';
import { checkField, type OutputFlags, type Row, say, show } from './output.js';
import { inPages, type PageFlags, pageOf, showPage } from './page.js';

type Flags = OutputFlags & { as?: string };

/** `fields`: all that the answer can have, where something is done. */
async function asked<Own>(
  command: Command,
  act: (mayfly: Mayfly, flags: Flags & Own) => Promise<void>,
  fields?: string[],
): Promise<void> {
  const flags = command.optsWithGlobals<Flags & Own>();
  if (fields) checkField(flags, fields);
  const { mayfly } = await connect(flags);
  await act(mayfly, flags);
}

/** `mayfly lock ls|lift` */
export function lockCommand(): Command {
  const lock = new Command('lock').description('look at and lift locks');
  lock
    .command('ls')
    .description('locks that hold')
    .action((_: unknown, command: Command) =>
      asked(command, async (mayfly, flags) =>
        show((await mayfly.locks.list()).items as unknown as Row[], flags, [
          'id',
          'selector',
          'reason',
          'by',
          'created_at',
          'expires_at',
          'lift_requested_by',
        ]),
      ),
    );
  lock
    .command('lift <lock>')
    .description('lift a lock; a second person repeats it within 15 minutes')
    .action((id: string, _: unknown, command: Command) =>
      asked(
        command,
        async (mayfly, flags) => {
          const state = await mayfly.locks.lift(id);
          if (state === 'requested') say('Asked for. A second person has to repeat it within 15 minutes.');
          show({ lock: id, state }, flags);
        },
        ['lock', 'state'],
      ),
    );
  return lock;
}

/** `mayfly feed status` */
export function feedCommand(): Command {
  const feed = new Command('feed').description('enforcement points and how far they are');
  feed
    .command('status')
    .description('who follows the feed, and up to where each has acknowledged')
    .action((_: unknown, command: Command) =>
      asked(command, async (mayfly, flags) =>
        show((await mayfly.feed.readers()).items as unknown as Row[], flags, [
          'name',
          'resources',
          'position',
          'acknowledged_at',
        ]),
      ),
    );
  return feed;
}

/** `mayfly audit` */
export function auditCommand(): Command {
  return inPages(
    new Command('audit')
      .description('the audit log, newest first')
      .addOption(agentOption('records of an agent'))
      .option('--task <task>', 'records of a task')
      .option('--lease <lease>', 'records of a lease')
      .option('--type <type>', 'records of a kind')
      .option('--from <time>', 'RFC 3339')
      .option('--to <time>', 'RFC 3339'),
  ).action((_: unknown, command: Command) =>
    asked<Record<string, string | undefined> & PageFlags>(command, async (mayfly, flags) => {
      const { agent, task, lease, type, from, to } = flags;
      const query = Object.fromEntries(
        Object.entries({ agent, task, lease, type, from, to }).filter(([, value]) => value !== undefined),
      );
      const page = await mayfly.audit({ ...query, ...pageOf(flags) });
      showPage(page, flags, ['at', 'id', 'type', 'actor', 'task', 'lease', 'effect']);
    }),
  );
}

/** `mayfly why ID|TOKEN|TASK` */
export function whyCommand(): Command {
  return new Command('why')
    .description('why something is as it is: a decision, a lease, a task, a lock, a revocation or a token')
    .argument('<about>', 'dec_…, lse_…, tsk_…, ref:…, lck_…, rev_… or a token')
    .action((about: string, _: unknown, command: Command) =>
      asked(command, async (mayfly, flags) => {
        const explanation = await mayfly.why(about);
        if (flags.output !== 'json' && flags.field === undefined) {
          for (const line of (explanation['because'] as string[] | undefined) ?? []) process.stdout.write(`${line}\n`);
          const { record, lease, task, lock, revocation } = explanation;
          const shown = (record ?? lease ?? task ?? lock ?? revocation) as Row | undefined;
          if (shown) show(shown, flags);
        } else show(explanation, flags);
      }),
    );
}

/** `mayfly recover` */
export function recoverCommand(): Command {
  return new Command('recover')
    .description('raise the epoch after a restore: every earlier token is dead')
    .requiredOption('--reason <text>', 'goes into the record')
    .action((_: unknown, command: Command) =>
      asked<{ reason: string }>(
        command,
        async (mayfly, flags) => show({ ...(await mayfly.recover(flags.reason)) }, flags),
        ['epoch'],
      ),
    );
}

/** While the store does not answer nobody can sign in, who would be told more; the checks' names say at least where to look. */
async function tellReadiness(mayfly: Mayfly, error: unknown): Promise<never> {
  const readiness = error instanceof Unavailable ? await mayfly.readiness().catch(() => undefined) : undefined;
  const bad = readiness?.checks.filter(({ ok }) => !ok) ?? [];
  if (bad.length > 0)
    say(`The broker is there and is not ready. What is wrong: ${bad.map(({ name }) => name).join(', ')}.`);
  throw error;
}

/** `mayfly doctor`: exit 0 when everything that is there is well, 2 when not. */
export function doctorCommand(): Command {
  return new Command('doctor').description('is everything as it has to be?').action((_: unknown, command: Command) =>
    asked(command, async (mayfly, flags) => {
      const health = await mayfly.health().catch((error: unknown) => tellReadiness(mayfly, error));
      const isOpen = health.grants_closed === undefined;
      const isWell = isOpen && health.checks.every(({ ok, absent }) => ok || absent);
      if (flags.output === 'json' || flags.field !== undefined) show(health as unknown as Row, flags);
      else {
        for (const { name, ok, detail, advice, absent } of health.checks) {
          const mark = ok ? 'ok  ' : absent ? 'none' : 'BAD ';
          process.stdout.write(`${mark} ${name.padEnd(16)} ${detail}${advice === undefined ? '' : `  → ${advice}`}\n`);
        }
        process.stdout.write(isOpen ? 'Grants are open.\n' : `Grants are closed: ${health.grants_closed}\n`);
        if (isWell && health.checks.some(({ absent }) => absent)) {
          process.stdout.write('What is marked "none" was never set up here; everything else is well.\n');
        }
      }
      if (!isWell) process.exitCode = 2;
    }),
  );
}
