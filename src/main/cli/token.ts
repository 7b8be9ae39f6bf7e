import { Command, Option } from 'commander';
import { isPerson } from '../../client/identity.js';
import type { TokenReply } from '../../client/mayfly.js';
import { TokenRefusal, type TokenRefusalReason } from '../../client/token-refusal.js';
import { createVerifier } from '../../client/verifier.js';
import { collect, connect } from './connection.js';
import { checkField, NotTaken, type OutputFlags, type Row, show, UsageError } from './output.js';
import { printOrGiveBack } from './print-or-give-back.js';
import { verdictOn } from './verdict.js';

interface TokenFlags extends OutputFlags {
  as?: string;
  task?: string;
  resource: string;
  tool?: string[];
  binding: 'none' | 'dpop';
}

const FIELDS = [
  'access_token',
  'issued_token_type',
  'token_type',
  'expires_in',
  'scope',
  'authorization_details',
  'lease_id',
] as const satisfies readonly (keyof TokenReply)[];

/** `mayfly token`: a task token for a development agent, or for whoever the environment says we are. */
export function tokenCommand(): Command {
  return new Command('token')
    .description('get a task token')
    .requiredOption('--task <task>', 'task id or ref:…')
    .requiredOption('--resource <uri>', 'the one place the token is for')
    .option('--tool <name>', 'narrow the tools', collect)
    .addOption(
      new Option('--binding <kind>', 'bind it to a key made for this call').choices(['none', 'dpop']).default('none'),
    )
    .action(async (_: unknown, command: Command) => {
      const flags = command.optsWithGlobals<TokenFlags>();
      checkField(flags, FIELDS);
      const { mayfly } = await connect(flags);
      const token = await mayfly.token({
        task: flags.task as string,
        resource: flags.resource,
        ...(flags.tool && { tools: flags.tool }),
        ...(flags.binding === 'dpop' && { binding: 'dpop' as const }),
      });
      await printOrGiveBack(mayfly, { what: 'token', lease: token.reply.lease_id }, () =>
        show({ access_token: token.accessToken.expose(), ...token.reply }, flags),
      );
    });
}

interface VerifyFlags extends OutputFlags {
  as?: string;
  audience: string;
  tool?: string;
}

const FEED_TIMEOUT_MS = 10_000;
const FOR_GOOD = /^the broker answered 4\d\d /;

/** What the broker can say more about. Of a token that is refused for another reason it would say that it lives, and by whom it was given. */
const DEAD: ReadonlySet<TokenRefusalReason> = new Set<TokenRefusalReason>(['revoked', 'expired']);

/** `mayfly verify`: checks a token as the tool would: locally, with the feed of revocations. Exit 0: taken, 3: refused, 2: nothing could be checked. */
export function verifyCommand(): Command {
  return new Command('verify')
    .description('check a token as a tool would: signature, audience, times, revocation')
    .argument('<token>', 'the token, or - for standard input')
    .requiredOption('--audience <uri>', 'who the token has to be for')
    .option('--tool <name>', 'a tool that has to be in its scope')
    .action(async (given: string, _: unknown, command: Command) => {
      const flags = command.optsWithGlobals<VerifyFlags>();
      const { url, issuer, identity } = await connect(flags);
      if (isPerson(identity)) throw new UsageError('A tool verifies: add --as /tool/…, an owner of the audience.');
      const token = given === '-' ? await standardInput() : given;
      let giveUp = (_: TokenRefusal): void => undefined;
      const refusedFeed = new Promise<never>((_, reject) => {
        giveUp = reject;
      });
      const verifier = createVerifier({
        issuer,
        url,
        audience: flags.audience,
        identity,
        onWarning: () => {
          // Who may not read the feed may not in ten seconds either.
          const { lastProblem = '' } = verifier.status().feed;
          if (FOR_GOOD.test(lastProblem)) giveUp(new TokenRefusal('unavailable', 'not-ready', lastProblem));
        },
        // What each call may do is for the tool to say; the row says that it has to.
        decisionPoint: async () => true,
      });
      try {
        await Promise.race([verifier.ready(FEED_TIMEOUT_MS), refusedFeed]);
        const task = await verifier.verify(token, flags.tool === undefined ? {} : { tool: flags.tool });
        show(
          {
            agent: task.agent,
            task: task.taskId,
            tools: task.tools,
            lease: task.claims.jti,
            on_behalf_of: task.claims.sub === task.agent ? undefined : task.claims.sub,
            calls: task.claims.mayfly.call ? 'each needs the decision point of the tool' : undefined,
            expires_at: new Date(task.expiresAtMs).toISOString(),
          } as Row,
          flags,
        );
      } catch (error) {
        if (!(error instanceof TokenRefusal)) throw error;
        const as = flags.as ?? 'this identity';
        throw new NotTaken(verdictOn(error, { ...flags, token, issuer, as }), {
          exitCode: error.code === 'unavailable' ? 2 : 3,
          because: DEAD.has(error.reason) ? await becauseOf(token) : [],
        });
      } finally {
        await verifier.close();
      }
    });
}

/** A tool learns that a token is dead, an operator also learns why. Where nobody may know, the refusal stands alone. */
async function becauseOf(token: string): Promise<string[]> {
  try {
    const { mayfly } = await connect({});
    const { because } = (await mayfly.why(token)) as { because?: string[] };
    return because ?? [];
  } catch {
    // Nothing more is known to whoever asks.
    return [];
  }
}

async function standardInput(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin) text += String(chunk);
  return text.trim();
}
