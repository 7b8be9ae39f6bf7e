import { Command, Option } from 'commander';
import type { Mayfly, RenewalReply } from '../../client/mayfly.js';
import { agentOption } from './agent-option.js';
import { connect } from './connection.js';
import { secondsOf } from './option-values.js';
import { checkField, type OutputFlags, type Row, say, show } from './output.js';
import { inPages, type PageFlags, pageOf, showPage } from './page.js';

type Flags = OutputFlags & { as?: string };

interface ListFlags extends PageFlags {
  task?: string;
  agent?: string;
  state?: string;
  all?: boolean;
}

const COLUMNS = ['id', 'task', 'agent', 'resource', 'tools', 'secret', 'state', 'expires_at'];
const STUCK_COLUMNS = [
  'id',
  'secret',
  'backend',
  'owner',
  'created_at',
  'attempts',
  'last_problem',
  'next_attempt_at',
  'residual',
];

const STATES = ['pending', 'active', 'revoking', 'stuck', 'revoked', 'abandoned'];

const RENEWED = ['request_id', 'lease_id', 'lease_duration', 'renewable'] satisfies (keyof RenewalReply)[];

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

/** `mayfly lease ls|get|renew|revoke|abandon` */
export function leaseCommand(): Command {
  const lease = new Command('lease').description('look at leases, and end them');
  inPages(
    lease
      .command('ls')
      .description('live leases of tasks')
      .option('--task <task>', 'of a task and everything below it')
      .addOption(agentOption('of an agent'))
      .addOption(new Option('--state <state>', 'stuck: not revoked after six attempts').choices(STATES))
      .option('--all', 'also revoked ones until their end, and operator tokens'),
  ).action((_: unknown, command: Command) =>
    asked<ListFlags>(command, async (mayfly, flags) => {
      const { task, agent, state, all } = flags;
      const page = await mayfly.leases.list({
        ...pageOf(flags),
        ...(task && { task }),
        ...(agent && { agent }),
        ...(state && { state }),
        // Whoever names a state gets what is in it. Every command of a person's is one operator token more.
        ...(!state && !all && { live: true, given_for: 'task' as const }),
      });
      showPage(page, flags, state === 'stuck' ? STUCK_COLUMNS : COLUMNS);
    }),
  );
  lease
    .command('get <lease>')
    .description('one lease, and why it is dead if it is')
    .action((id: string, _: unknown, command: Command) =>
      asked(command, async (mayfly, flags) => show((await mayfly.leases.get(id)) as unknown as Row, flags)),
    );
  lease
    .command('renew <lease>')
    .description('longer life for a credential, decided anew')
    .option('--increment <duration>', 'how much longer; default: as policy allows')
    .action((id: string, _: unknown, command: Command) =>
      asked<{ increment?: string }>(
        command,
        async (mayfly, flags) => {
          const seconds = flags.increment === undefined ? undefined : secondsOf(flags.increment, 'increment');
          show((await mayfly.leases.renew(id, seconds)) as unknown as Row, flags);
        },
        RENEWED,
      ),
    );
  lease
    .command('revoke <lease>')
    .description('give a credential back before its task is over')
    .action((id: string, _: unknown, command: Command) =>
      asked(command, async (mayfly, flags) => show(await mayfly.leases.revoke(id), flags), ['lease_id', 'state']),
    );
  lease
    .command('abandon <lease>')
    .description('stop trying to revoke a stuck credential; a second person repeats it within 15 minutes')
    .requiredOption('--reason <text>', 'goes into the record')
    .action((id: string, _: unknown, command: Command) =>
      asked<{ reason: string }>(
        command,
        async (mayfly, flags) => {
          const state = await mayfly.leases.abandon(id, flags.reason);
          if (state === 'requested') say('Asked for. A second person has to repeat it within 15 minutes.');
          show({ lease: id, state }, flags);
        },
        ['lease', 'state'],
      ),
    );
  return lease;
}
