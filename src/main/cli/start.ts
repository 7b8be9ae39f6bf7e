import { setTimeout as delay } from 'node:timers/promises';
import { Command, Option } from 'commander';
import type { Observe } from '../../core/observe.js';
import type { Role } from '../server.js';

const GRACE_MS = 10_000;

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
  const { whenStoreAnswers } = await import('../when-store-answers.js');
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
    const start = () =>
      startBroker({
        config,
        role: flags.role,
        rootKey: readRootKey(config.root_key_file),
        redisUrl: redisAddress(config),
        bundleFiles,
        observe,
        metrics: ops.metrics,
      });
    const running = await whenStoreAnswers(observe, start, stopping.signal).catch((error: unknown) => {
      if (!stopping.signal.aborted) throw error;
    });
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

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
