import { Command, CommanderError, Option } from 'commander';
import { ownVersion } from '../version.js';
import { backendCommand } from './backend.js';
import { bundleCommand, policyCommand } from './bundle.js';
import { configCommand } from './config.js';
import { devCommand } from './dev.js';
import { checkIds } from './empty-id.js';
import { svidCommand } from './identity.js';
import { keyCommand } from './key.js';
import { leaseCommand } from './lease.js';
import { auditCommand, doctorCommand, feedCommand, lockCommand, recoverCommand, whyCommand } from './look.js';
import { report } from './output.js';
import { revokeCommand, stopCommand } from './revoke.js';
import { runCommand } from './run.js';
import { secretCommand } from './secret.js';
import { startCommand } from './start.js';
import { sayWhoWasMeant } from './stranger.js';
import { taskCommand } from './task.js';
import { tokenCommand, verifyCommand } from './token.js';

/** The whole command line, one table. */
export function program(): Command {
  const mayfly = new Command('mayfly')
    .description('Short-lived tokens for AI agents, one task each, dead the moment the task ends.')
    .version(ownVersion())
    .showHelpAfterError('(mayfly --help says how)')
    .hook('preAction', (_, command) => checkIds(command));
  common(mayfly);
  const dev = devCommand().addCommand(svidCommand());
  const commands = [
    dev,
    startCommand(),
    taskCommand(),
    tokenCommand(),
    secretCommand(),
    runCommand(),
    verifyCommand(),
    leaseCommand(),
    stopCommand(),
    revokeCommand(),
    lockCommand(),
    backendCommand(),
    feedCommand(),
    auditCommand(),
    whyCommand(),
    bundleCommand(),
    policyCommand(),
    keyCommand(),
    recoverCommand(),
    configCommand(),
    doctorCommand(),
  ];
  for (const command of commands) mayfly.addCommand(inherit(command));
  return mayfly;
}

/** The common options may stand behind the command too, where everybody writes them. */
function inherit(command: Command): Command {
  command.showHelpAfterError('(--help says how)').exitOverride();
  for (const below of command.commands) inherit(below);
  if (command.commands.length === 0) common(command);
  return command;
}

function common(command: Command): void {
  command
    .addOption(new Option('-o, --output <format>', 'how data is printed').choices(['table', 'json']))
    .option('--field <name>', 'print one bare value')
    .option('--as <who>', 'act as a development identity: /agent/x, operator-2, auditor-1');
}

/** Runs a command line; the exit code is 0 ok, 1 usage, 2 server, 3 denied, 4 waiting. */
export async function run(argv: readonly string[]): Promise<void> {
  let as: string | undefined;
  try {
    await program()
      .hook('preAction', (_, command) => {
        as = command.optsWithGlobals<{ as?: string }>().as;
      })
      .exitOverride()
      .parseAsync([...argv]);
  } catch (error) {
    if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 1;
    else {
      process.exitCode = report(error);
      await sayWhoWasMeant(as, error);
    }
  }
}
