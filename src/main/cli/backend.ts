import { Command } from 'commander';
import { connect } from './connection.js';
import { type OutputFlags, type Row, show } from './output.js';

type Flags = OutputFlags & { as?: string };

/** `mayfly backend ls|check` */
export function backendCommand(): Command {
  const backend = new Command('backend').description('the systems that issue credentials');
  backend
    .command('ls')
    .description(
      'backends: whether they answer, what is under way there, what was found that was nobody’s, and when it was looked for',
    )
    .action(async (_: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { mayfly } = await connect(flags);
      const { items } = await mayfly.backends.list();
      const columns = [
        'name',
        'kind',
        'state',
        'active',
        'revoking',
        'stuck',
        'orphans_ever',
        'reconciled_at',
        'problem',
      ];
      show(items as unknown as Row[], flags, columns);
    });
  backend
    .command('check [name]')
    .description('try every secret on the real thing now: exit 0 when all can be had, 2 when not')
    .action(async (name: string | undefined, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { mayfly } = await connect(flags);
      const names = name === undefined ? (await mayfly.backends.list()).items.map((one) => one.name) : [name];
      const checked = [];
      for (const each of names) checked.push(await mayfly.backends.check(each));
      if (flags.output === 'json' || flags.field !== undefined) show(checked as unknown as Row[], flags);
      else {
        for (const { name: of, kind, state, problem, secrets } of checked) {
          process.stdout.write(
            `${state === 'up' ? 'ok  ' : 'BAD '} ${of} (${kind})${problem ? `  → ${problem}` : ''}\n`,
          );
          for (const { name: secret, open, problem: why } of secrets) {
            process.stdout.write(`  ${open ? 'ok  ' : 'BAD '} ${secret}${why ? `  → ${why}` : ''}\n`);
          }
        }
      }
      const isGood = checked.every(({ state, secrets }) => state === 'up' && secrets.every(({ open }) => open));
      if (!isGood) process.exitCode = 2;
    });
  return backend;
}
