import { setTimeout as delay } from 'node:timers/promises';
import { Command, Option } from 'commander';
import { BrokerError } from '../../core/errors.js';
import type { Observe } from '../../core/observe.js';
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
  const { loadConfig, readRootKey, redisAddress } = await import('../config.js');
  const { openOps } = await import('../ops.js');
  const { readBundle } = await import('../read-bundle.js');
  const { startBroker } = await import('../server.js');
  const { logTo } = await import('../telemetry.js');
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopping.abort());
  const config = loadConfig({ ...(flags.config !== undefined && { file: flags.config }), env: process.env });
  const ops = await openOps(config.ops);
  const log = logTo(config.log.level);
  const observe: Observe = (event) => {
    ops.metrics.observe(event);
    log(event);
  };
  try {
    const bundleFiles = await readBundle(config.bundle.dir);
    const running = await whenStoreAnswers(observe, stopping.signal, () =>
      startBroker({
        config,
        role: flags.role,
        rootKey: readRootKey(config.root_key_file),
        redisUrl: redisAddress(config),
        bundleFiles,
        observe,
        metrics: ops.metrics,
      }),
    );
    if (!running) return;
    ops.started(running.parts, flags.role);
    observe({
      event: 'started',
      role: flags.role,
      issuer: config.issuer,
      ops: ops.url,
      bundle: running.bundle.active ?? running.bundle.digest,
    });
    await aborted(stopping.signal);
    // First nobody new is sent here, then nobody new is let in, then everybody who is here is served.
    ops.leaving();
    running.leave();
    observe({ event: 'stopping', leavingMs: config.ops.leaving_seconds * 1_000, graceMs: GRACE_MS });
    await delay(config.ops.leaving_seconds * 1_000);
    await running.stop(GRACE_MS);
    observe({ event: 'stopped' });
  } finally {
    await ops.close();
  }
}

/**
 * A store that is not there yet, or does not answer in time, is waited for: processes of one deployment start in any order. Undefined when told to
 * stop meanwhile.
 */
async function whenStoreAnswers<Made>(
  observe: Observe,
  stopping: AbortSignal,
  start: () => Promise<Made>,
): Promise<Made | undefined> {
  for (let tries = 1; !stopping.aborted; tries++) {
    try {
      return await start();
    } catch (error) {
      if (!(error instanceof BrokerError) || error.code !== 'unavailable' || tries === TRIES_MAX) throw error;
      observe({ event: 'start.waits', level: 'warn', reason: error.detail.reason ?? error.message, tries });
      await delay(1_000, undefined, { signal: stopping }).catch(() => {});
    }
  }
  return undefined;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
