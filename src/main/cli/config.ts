import { Command } from 'commander';
import { stringify } from 'yaml';
import { type OutputFlags, type Row, say, show } from './output.js';

/** `mayfly config print|check` */
export function configCommand(): Command {
  const config = new Command('config').description('the configuration of a broker');
  config
    .command('check <file>')
    .description('say everything that is wrong with a configuration, without starting')
    .action(async (file: string) => {
      const { loadConfig } = await import('../config.js');
      loadConfig({ file, env: process.env });
      say(`${file} is good.`);
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
