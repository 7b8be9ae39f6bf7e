import { Command } from 'commander';
import { connect } from './connection.js';
import { encryptCommand } from './encrypt-secret.js';
import { type OutputFlags, type Row, say, show, UsageError } from './output.js';
import { secondsOf } from './task.js';

type Flags = OutputFlags & { as?: string };

/** `mayfly secret get|ls|encrypt` */
export function secretCommand(): Command {
  const secret = new Command('secret').description('secrets for a task');
  secret
    .command('get <name>')
    .description('a credential made for a task; it dies with the task')
    .option('--task <task>', 'task id or ref:…')
    .option('--ttl <duration>', 'its life; default: as long as policy and task allow')
    .action(async (name: string, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags & { task?: string; ttl?: string }>();
      if (flags.task === undefined) throw new UsageError('A secret is for a task: add --task.');
      const { mayfly } = await connect(flags);
      const reply = await mayfly.secrets.get(name, {
        task: flags.task,
        ...(flags.ttl !== undefined && { ttl_seconds: secondsOf(flags.ttl, 'ttl') }),
      });
      for (const warning of reply.warnings ?? []) say(`Warning: ${warning}`);
      show(reply as unknown as Row, flags);
    });
  secret
    .command('ls')
    .description('declared secrets, and whether they can be had now')
    .option('--limit <n>', 'how many', '200')
    .action(async (_: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags & { limit: string }>();
      const { mayfly } = await connect(flags);
      const page = await mayfly.secrets.list({ limit: Number(flags.limit) });
      show(page.items as unknown as Row[], flags, ['name', 'backend', 'kind', 'sensitivity', 'open', 'problem']);
    });
  secret.addCommand(encryptCommand());
  return secret;
}
