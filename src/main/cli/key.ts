import { setTimeout as delay } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { PUBLISHED_BEFORE_USE_MS } from '../../broker/rotate-keys.js';
import type { KeyReply } from '../../client/mayfly.js';
import { connect } from './connection.js';
import { checkField, type OutputFlags, type Row, say, show } from './output.js';

type Flags = OutputFlags & { as?: string };

const COLUMNS = ['kid', 'alg', 'state', 'created_at', 'activated_at', 'retired_at'];

/** Every member of a key. */
const FIELDS = Object.keys({
  kid: 1,
  alg: 1,
  state: 1,
  created_at: 1,
  activated_at: 1,
  retired_at: 1,
  public_jwk: 1,
} satisfies Record<keyof KeyReply, 1>);

/** `mayfly key ls|prepare|activate|rotate|taint` */
export function keyCommand(): Command {
  const key = new Command('key').description('the keys that sign tokens');
  key
    .command('ls')
    .description('the key ring')
    .action(async (_: unknown, command: Command) => {
      const flags = command.optsWithGlobals<Flags>();
      const { mayfly } = await connect(flags);
      show((await mayfly.keys.list()).items as unknown as Row[], flags, COLUMNS);
    });
  const alg = () => new Option('--alg <alg>', 'of the new key').choices(['ES256', 'RS256']).default('ES256');
  key
    .command('prepare')
    .description('make a key and publish it; it does not sign yet')
    .addOption(alg())
    .action((own: { alg: 'ES256' | 'RS256' }, command: Command) =>
      moved(command, (mayfly) => mayfly.keys.prepare(own.alg)),
    );
  key
    .command('activate <kid>')
    .description('let a published key sign; the one before goes on verifying until its last token ended')
    .action((kid: string, _: unknown, command: Command) => moved(command, (mayfly) => mayfly.keys.activate(kid)));
  key
    .command('rotate')
    .description(`prepare a key, wait ${PUBLISHED_BEFORE_USE_MS / 1000} s until everybody has it, activate it`)
    .addOption(alg())
    .action((own: { alg: 'ES256' | 'RS256' }, command: Command) =>
      moved(command, async (mayfly) => {
        const { kid } = await mayfly.keys.prepare(own.alg);
        say(
          `Prepared ${kid}; waiting ${PUBLISHED_BEFORE_USE_MS / 1000} s until it is known everywhere. (Stopped here, go on with: mayfly key activate ${kid})`,
        );
        await delay(PUBLISHED_BEFORE_USE_MS + 1_000);
        return mayfly.keys.activate(kid);
      }),
    );
  key
    .command('taint <kid>')
    .description('compromised: every token it signed is dead at once, for good')
    .requiredOption('--reason <text>', 'goes into the record')
    .action((kid: string, own: { reason: string }, command: Command) =>
      moved(command, (mayfly) => mayfly.keys.taint(kid, own.reason)),
    );
  return key;
}

async function moved(
  command: Command,
  move: (mayfly: Awaited<ReturnType<typeof connect>>['mayfly']) => Promise<KeyReply>,
): Promise<void> {
  const flags = command.optsWithGlobals<Flags>();
  checkField(flags, FIELDS);
  const { mayfly } = await connect(flags);
  show((await move(mayfly)) as unknown as Row, flags);
}
