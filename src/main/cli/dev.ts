import { resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { BrokerError } from '../../core/errors.js';
import type { DevBroker } from '../dev/dev-broker.js';
import type { Running } from '../server.js';

/** A broker that is gone is waited for ten seconds. */
const GRANTS_WITHIN_MS = 20_000;

const SAMPLE_BUNDLE = fileURLToPath(new URL('../../../config', import.meta.url));

interface DevFlags {
  port: number;
  data: string;
  bundle: string;
  backends?: string;
  story: boolean;
  fetch: boolean;
  logLevel: string;
  dryRun: boolean;
  own: boolean;
}

/** `mayfly dev`: everything on this machine, to look at and to develop against. */
export function devCommand(): Command {
  // A warning is for who operates: a laptop that was busy for a moment is no news to who tries it out. --own is for `npm start`, which goes on in
  // this very process.
  return new Command('dev')
    .description('start a development broker with its own Redis, identities and sample bundle, and show what it does')
    .option('--port <n>', 'port for http; mTLS is on the next one; 0: any free ones', port, 7117)
    .option('--data <dir>', 'folder for data and development keys', path, process.env['MAYFLY_DATA'] || '.data')
    .option('--bundle <dir>', 'folder with the bundle', path, SAMPLE_BUNDLE)
    .option('--backends <file>', 'YAML file that says where credentials come from: a name, and what is behind it', path)
    .option('--no-story', 'do not play the story at start')
    .option('--no-fetch', 'do not fetch a Redis when this machine has none')
    .addOption(
      new Option('--log-level <level>', 'how much is logged')
        .choices(['debug', 'info', 'warn', 'error', 'silent'])
        .default('error'),
    )
    .option(
      '--dry-run',
      'only say what is in the way of a start (options, folder, bundle, ports), and make nothing',
      false,
    )
    .addOption(
      new Option('--own', 'as --dry-run, and own the folder until this process ends').default(false).hideHelp(),
    )
    .action(run);
}

async function run(flags: DevFlags): Promise<void> {
  if (flags.dryRun || flags.own) {
    const { mayStart } = await import('../dev/may-start.js');
    const { ownFolder } = await import('../dev/folder-owner.js');
    const dataDir = resolve(flags.data);
    await mayStart({ ...brokerOf(flags), dataDir });
    if (flags.own) ownFolder(dataDir);
    else process.stdout.write(`Nothing is in the way of a start: ${whereOf(flags)}. Nothing was made or started.\n`);
    return;
  }
  const { startDevBroker } = await import('../dev/dev-broker.js');
  const say = (line: string) => process.stdout.write(`${line}\n`);
  const stopping = new AbortController();
  // A terminal that is closed sends SIGHUP.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stopping.abort());
  const starting = startDevBroker({
    ...brokerOf(flags),
    allowFetch: flags.fetch,
    logLevel: flags.logLevel,
    say,
    signal: stopping.signal,
  });
  const broker = await starting.catch((error: unknown) => {
    if (!stopping.signal.aborted) throw error;
  });
  if (!broker) {
    say('\nStopped before it was up.');
    return;
  }
  try {
    say(
      `Mayfly is up: ${broker.url}  (mTLS: ${broker.mtlsUrl}; metrics: ${broker.opsUrl}/metrics; store: ${broker.redis})\n`,
    );
    const withDatabase = hasDatabase(broker.running.parts);
    if (flags.story && !stopping.signal.aborted) {
      const { playStory } = await import('../dev/story.js');
      await grants(broker.running, say, stopping.signal);
      const { url, trustDomain } = broker;
      // What was done here by hand (a lock) may be in the way of the story: the broker is there all the same, to undo it.
      await playStory({ url, trustDomain, withDatabase, say }).catch((error: Error) =>
        say(`The story ends here: ${error.message}\n(npm start -- --no-story leaves it out.)`),
      );
    }
    say(invitation(broker.url, flags.data, withDatabase));
    await new Promise<void>((done) => {
      if (stopping.signal.aborted) done();
      stopping.signal.addEventListener('abort', () => done());
    });
    say('\nStopping; the data stays.');
  } finally {
    await broker.stop();
  }
}

function brokerOf({ port, data, bundle, backends }: DevFlags) {
  return { port, dataDir: data, bundleDir: bundle, ...(backends !== undefined && { backendsFile: backends }) };
}

function whereOf({ port, data }: DevFlags): string {
  return `folder ${resolve(data)}, ${port === 0 ? 'any free ports' : `ports ${port} and ${port + 1}`}`;
}

/** A store that was taken up a moment ago may still wait for another broker to confirm it: the story waits as well, and says for what. */
async function grants({ parts }: Running, say: (line: string) => void, signal: AbortSignal): Promise<void> {
  const endMs = Date.now() + GRANTS_WITHIN_MS;
  let told: string | undefined;
  for (let why = parts.health.grantsClosed(); why !== undefined; why = parts.health.grantsClosed()) {
    if (Date.now() > endMs) throw new BrokerError('unavailable', `Nothing can be granted: ${why}.`);
    if (why !== told) say(`waiting: ${why}`);
    told = why;
    await delay(100, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
  }
}

function invitation(url: string, dataDir: string, withDatabase: boolean): string {
  const data = dataDir === '.data' ? '' : `export MAYFLY_DATA=${dataDir}\n`;
  return `
Do it by hand, in another terminal in this folder:

${data}T=$(npx mayfly task start --type refund --param order_id=42 --agent /agent/refunds --tool orders.read --resource https://orders.example --ttl 5m --field id)
K=$(npx mayfly token --as /agent/refunds --task $T --resource https://orders.example --field access_token)
npx mayfly verify --as /tool/orders --audience https://orders.example $K
${withDatabase ? 'npx mayfly secret get orders-db --as /agent/refunds --task $T -o json\n' : ''}npx mayfly task complete $T
npx mayfly verify --as /tool/orders --audience https://orders.example $K

The API: ${url}/openapi.json    Stop with Ctrl-C.`;
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65_534) throw new InvalidArgumentError('a port is 0 to 65534.');
  return value;
}

/** Whether something stands behind the sample secret. */
function hasDatabase({ secretChecks, backends }: DevBroker['running']['parts']): boolean {
  const secret = secretChecks.status().find(({ name }) => name === 'orders-db');
  return secret !== undefined && backends.get(secret.backend) !== undefined;
}

/** Whoever forgets the value of an option would otherwise get a folder with the name of the next one. */
function path(text: string): string {
  if (/^(-.*)?$/.test(text))
    throw new InvalidArgumentError('a path stands here; one that begins with a dash is written ./-…');
  return text;
}
