import { Command } from 'commander';
import { stringify } from 'yaml';
import { BrokerError } from '../../core/errors.js';
import { type OutputFlags, type Row, say, show } from './output.js';

/** `mayfly config print|check` */
export function configCommand(): Command {
  const config = new Command('config').description('the configuration of a broker');
  config
    .command('check <file>')
    .description(
      'say everything that is wrong with a configuration and the files that it names, without starting or connecting',
    )
    .option('--form-only', 'leave the files alone, for a machine that does not have them')
    .action(async (file: string, { formOnly }: { formOnly?: boolean }) => {
      const { loadConfig } = await import('../config.js');
      const config = loadConfig({ file, env: process.env });
      if (formOnly) {
        say(`${file} is good in form; the files that it names were not looked at.`);
        return;
      }
      const { fileProblems } = await import('../config-files.js');
      const problems = await fileProblems(config);
      if (problems.length > 0)
        throw new BrokerError('invalid_request', 'The files that the configuration names are not as they have to be.', {
          problems,
        });
      say(`${file} is good, and so are the files that it names; no server was asked (mayfly doctor does).`);
    });
  config
    .command('print <file>')
    .description(
      'the configuration as it would be used, defaults and environment included; it holds no secrets, only where they are',
    )
    .action(async (file: string, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<OutputFlags>();
      const { loadConfig } = await import('../config.js');
      const loaded = loadConfig({ file, env: process.env });
      if (flags.output === 'json' || flags.field !== undefined) show(loaded as unknown as Row, flags);
      else process.stdout.write(stringify(loaded));
    });
  return config;
}
