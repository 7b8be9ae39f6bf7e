import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { BrokerError } from '../../core/errors.js';
import type { Observe } from '../../core/observe.js';
import type { Config } from '../config.js';
import type { Role } from '../server.js';

const GRACE_MS = 10_000;
const TRIES_MAX = 30;

/** `mayfly start`: one broker of a production deployment. No development code is reached from here. */
export function startCommand(): Command {
  return new Command('start')
    .description('start a broker with a configuration')
    .addOption(new Option('--role <role>', 'what this process does').choices(['all', 'api', 'worker']).default('all'))
    .option('--config <file>', 'YAML file; the environment (MAYFLY_…) wins over it')
    .action(run);
}

async function run(flags: { role: Role; config?: string }): Promise<void> {
  const { loadConfig, readRootKey } = await import('../config.js');
  const { readBundle } = await import('../read-bundle.js');
  const { startBroker } = await import('../server.js');
  const { logTo } = await import('../telemetry.js');
  const config = loadConfig({ ...(flags.config !== undefined && { file: flags.config }), env: process.env });
  const observe = logTo(config.log.level);
  const stopped = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => resolve());
  });
  const bundleFiles = await readBundle(config.bundle.dir);
  const running = await whenStoreAnswers(observe, () =>
    startBroker({
      config,
      role: flags.role,
      rootKey: readRootKey(config.root_key_file),
      redisUrl: redisUrl(config),
      bundleFiles,
      observe,
    }),
  );
  observe({
    event: 'started',
    role: flags.role,
    issuer: config.issuer,
    bundle: running.bundle.active ?? running.bundle.digest,
  });
  await stopped;
  observe({ event: 'stopping', graceMs: GRACE_MS });
  await running.stop(GRACE_MS);
}

/** A store that is not there yet, or does not answer in time, is waited for: processes of one deployment start in any order. */
async function whenStoreAnswers<Made>(observe: Observe, start: () => Promise<Made>): Promise<Made> {
  for (let tries = 1; ; tries++) {
    try {
      return await start();
    } catch (error) {
      if (!(error instanceof BrokerError) || error.code !== 'unavailable' || tries === TRIES_MAX) throw error;
      observe({ event: 'start.waits', level: 'warn', reason: error.detail.reason ?? error.message, tries });
      await delay(1_000);
    }
  }
}

function redisUrl({ redis }: Config): string | string[] {
  if (redis.cluster) return redis.cluster;
  return redis.url ?? readFileSync(redis.url_file as string, 'utf8').trim();
}
