import { Command } from 'commander';
import { systemClock } from '../../core/time.js';
import { connect } from './connection.js';
import { checkField, type OutputFlags, type Row, say, show } from './output.js';

type Flags = OutputFlags & { as?: string };

/** `mayfly bundle ls|diff|preview|activate` */
export function bundleCommand(): Command {
  const bundle = new Command('bundle').description(
    'policies, agents, task types and resources, as one version for all brokers',
  );
  bundle
    .command('ls')
    .description('versions that were active')
    .action(async (_: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { mayfly } = await connect(flags);
      show((await mayfly.bundle.get()).history as unknown as Row[], flags, ['digest', 'activated_at', 'active']);
    });
  bundle
    .command('diff [dir]')
    .description('files that differ from the active version (default: config)')
    .action(async (dir: string | undefined, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { mayfly } = await connect(flags);
      const { changesOf } = await import('../../broker/activate-bundle.js');
      const active = await mayfly.bundle.get();
      show({ ...changesOf(active.files, await filesOf(dir)) }, flags);
    });
  bundle
    .command('preview [dir]')
    .description('what a version would change, and which live tokens would die of it')
    .action(async (dir: string | undefined, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { mayfly } = await connect(flags);
      show((await mayfly.bundle.preview(await filesOf(dir))) as unknown as Row, flags);
    });
  bundle
    .command('activate [dir]')
    .description('make a version the active one; everything live is judged by it within a minute')
    .action(async (dir: string | undefined, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      checkField(flags, ['digest', 'previous', 'changed']);
      const { mayfly } = await connect(flags);
      show((await mayfly.bundle.activate(await filesOf(dir))) as unknown as Row, flags);
    });
  return bundle;
}

async function filesOf(dir = 'config'): Promise<Record<string, string>> {
  const { readBundle } = await import('../read-bundle.js');
  return readBundle(dir);
}

/** `mayfly policy test`: runs the tests of a bundle, here, without a broker. Exit 0: all pass, 1: not. */
export function policyCommand(): Command {
  const policy = new Command('policy').description('work on policies');
  policy
    .command('test [dir]')
    .description('run policies/*.test.yaml of a bundle (default: config)')
    .action(async (dir: string | undefined, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { bundleFormat } = await import('../../plugins/policy/bundle.js');
      const { cedar } = await import('../../plugins/policy/cedar.js');
      const { runPolicyTests } = await import('../../plugins/policy/policy-tests.js');
      const engine = await cedar.create(cedar.config.parse({}), { clock: systemClock });
      const results = await runPolicyTests(bundleFormat.parse(await filesOf(dir)), engine);
      const failed = results.filter(({ passed }) => !passed);
      if (flags.output === 'json' || flags.field !== undefined) show(results as unknown as Row[], flags);
      else
        for (const { file, name, message } of failed)
          process.stdout.write(`FAILED ${file}: ${name}\n  ${message ?? ''}\n`);
      say(`${results.length - failed.length} passed, ${failed.length} failed`);
      if (failed.length > 0 || results.length === 0) process.exitCode = 1;
    });
  return policy;
}
