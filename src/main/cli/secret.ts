import { Command } from 'commander';
import { isPerson } from '../../client/identity.js';
import { type Mayfly, NotFound, type SecretReply, Unavailable } from '../../client/mayfly.js';
import { didYouMean, suggestion } from '../../core/did-you-mean.js';
import { connect } from './connection.js';
import { encryptCommand } from './encrypt-secret.js';
import { secondsOf } from './option-values.js';
import { checkField, type OutputFlags, type Row, say, show, UsageError } from './output.js';
import { inPages, type PageFlags, pageOf, showPage } from './page.js';
import { printOrGiveBack } from './print-or-give-back.js';
import { sayShorterSecret } from './shorter.js';

type Flags = OutputFlags & { as?: string };

const FIELDS = [
  'data',
  'lease_id',
  'lease_duration',
  'renewable',
  'task',
  'revocability',
  'warnings',
  'replaces',
  'request_id',
] as const satisfies readonly (keyof SecretReply)[];

const LISTED_MAX = 200;

/** A refusal as it is, after what the secrets that this caller may list tell about it: a name that is near, or a backend that is not open. */
export async function explained(mayfly: Mayfly, name: string, error: unknown): Promise<never> {
  if (error instanceof NotFound || error instanceof Unavailable) {
    try {
      const { items } = await mayfly.secrets.list({ limit: LISTED_MAX });
      const found = items.find((one) => one.name === name);
      const meant = found
        ? undefined
        : didYouMean(
            name,
            items.map((one) => one.name),
          );
      if (meant !== undefined) say(`There is no secret ${name} here; did you mean ${meant}?`);
      if (found && error instanceof Unavailable) {
        say(
          `${name} comes from the backend ${found.backend}, which is ${found.open ? 'open' : 'closed'} for it${found.problem ? `: ${found.problem}` : ''}.`,
        );
      }
    } catch {
      // Nothing more is known to whoever asks.
    }
  }
  throw error;
}

/** `password` is `data.password`, as with other tools; what is near to a field on top is that one mistyped. */
function dataField(field: string): string {
  const first = field.split('.', 1)[0] as string;
  if (FIELDS.some((one) => one.startsWith(first))) return field;
  return suggestion(first, FIELDS) === '' ? `data.${field}` : field;
}

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
      if (flags.field !== undefined) flags.field = dataField(flags.field);
      checkField(flags, FIELDS);
      const { mayfly, identity } = await connect(flags);
      if (isPerson(identity)) {
        const who = flags.as ?? 'operator-1 where nothing else is said';
        throw new UsageError(`A secret is for an agent of its task, and you are a person (${who}): add --as /agent/x.`);
      }
      const { task, ttl } = flags;
      const askedAtMs = Date.now();
      const reply = await mayfly.secrets
        .get(name, { task, ...(ttl !== undefined && { ttl_seconds: secondsOf(ttl, 'ttl') }) })
        .catch((error: unknown) => explained(mayfly, name, error));
      const answeredAtMs = Date.now();
      for (const warning of reply.warnings ?? []) say(`Warning: ${warning}`);
      await printOrGiveBack(mayfly, { what: 'credential', lease: reply.lease_id }, () =>
        show(reply as unknown as Row, flags),
      );
      await sayShorterSecret(mayfly, reply, { ttl, askedAtMs, answeredAtMs });
    });
  inPages(
    secret.command('ls').description('declared secrets, and whether they can be had now'),
    String(LISTED_MAX),
  ).action(async (_: unknown, command: Command) => {
    const flags = command.optsWithGlobals<Flags & PageFlags>();
    const { mayfly } = await connect(flags);
    const page = await mayfly.secrets.list(pageOf(flags));
    showPage(page, flags, ['name', 'backend', 'kind', 'sensitivity', 'open', 'problem']);
  });
  secret.addCommand(encryptCommand());
  return secret;
}
