import { setTimeout as delay } from 'node:timers/promises';
import { activateOwnBundle } from '../broker/activate-bundle.js';
import type { Parts } from '../broker/parts.js';
import { takeBackAgain, takeBackTheRest } from '../broker/take-back.js';
import type { Observe } from '../core/observe.js';
import type { Clock } from '../core/time.js';
import { routes } from '../edge/http/routes/index.js';
import { type HttpDoor, openHttpDoor } from '../edge/http/server.js';
import { keepBooks, takeJobs } from '../edge/jobs/jobs.js';
import { readPair } from './certificate-pair.js';
import { compose } from './compose.js';
import type { Config } from './config.js';
import { followTrust } from './follow-trust.js';
import type { Metrics } from './metrics.js';

export type Role = 'all' | 'api' | 'worker';

export interface StartOptions {
  config: Config;
  role: Role;
  rootKey: Uint8Array;
  redisUrl: string | string[];
  /** The bundle as this process has it; undefined: only what Redis names active counts. */
  bundleFiles?: Record<string, string>;
  /** Take up a valid bundle even when it was active before (`mayfly dev`). */
  bundleAgain?: boolean;
  observe: Observe;
  /** Where decisions are timed. */
  metrics?: Metrics;
  clock?: Clock;
  /** PEM texts instead of the configured files (`mayfly dev`). */
  mtlsCertificate?: { cert: string; key: string };
}

export interface Running {
  parts: Parts;
  door?: HttpDoor;
  bundle: { outcome: string; digest?: string; active?: string };
  /** Every connection ends with its next reply; new ones are still taken. */
  leave(): void;
  /** Stops taking work, lets what runs finish for `graceMs`, closes everything. */
  stop(graceMs: number): Promise<void>;
}

/** How often the certificate files are looked at: an SVID of an hour is renewed at half its life. */
const RENEW_MS = 10_000;

/** How often a broker looks whether another one moved keys or bundles. */
const FOLLOW_MS = 1_000;

/** How long a start waits for the declared secrets to be tried. */
const FIRST_CHECK_MS = 5_000;

/** Starts one broker: parts, bundle, listeners (api), jobs (worker). What was opened is closed again when a later step fails. */
export async function startBroker(options: StartOptions): Promise<Running> {
  const { config, role, observe } = options;
  const composed = await compose(config, {
    redisUrl: options.redisUrl,
    rootKey: options.rootKey,
    observe,
    role,
    ...(options.metrics && { metrics: options.metrics }),
    ...(options.clock && { clock: options.clock }),
  });
  const { parts } = composed;
  const timers: NodeJS.Timeout[] = [];
  let door: HttpDoor | undefined;
  let trust: ReturnType<typeof followTrust> | undefined;
  const leaving = new AbortController();
  // Requests and jobs end at the same time, and use the stores until they have.
  const stop = async (graceMs: number) => {
    for (const timer of timers) clearInterval(timer);
    leaving.abort();
    const untilMs = performance.now() + graceMs;
    await Promise.all([door?.close(graceMs), within(graceMs, parts.schedule.stop())]);
    await takeBackTheRest(parts, untilMs - performance.now());
    await trust?.close();
    await composed.close();
  };
  try {
    const bundle = await takeUpBundle(parts, options);
    trust = followTrust(parts);
    timers.push(setInterval(() => void followOthers(parts), FOLLOW_MS));
    // Workers too: what they cannot reach they cannot revoke at, and their readiness says so.
    timers.push(setInterval(() => void parts.secretChecks.tick(), FOLLOW_MS));
    if (role !== 'api') {
      await takeJobs(parts);
      timers.push(...keepBooks(parts, leaving.signal));
    }
    if (role !== 'worker') {
      // What can be had is known before anybody asks; a backend that is slow to answer holds nobody up.
      await within(FIRST_CHECK_MS, parts.secretChecks.tick());
      timers.push(setInterval(() => void takeBackAgain(parts), FOLLOW_MS));
      door = await openHttpDoor(parts, { ...listeners(config, options.mtlsCertificate), routes });
      timers.push(setInterval(certificateRenewal(door, options), RENEW_MS));
    }
    return { parts, ...(door && { door }), bundle, leave: () => door?.leave(), stop };
  } catch (error) {
    await stop(0);
    throw error;
  }
}

/** A job that does not end is left to the sweeper of whoever comes next. */
async function within(ms: number, ending: Promise<void>): Promise<void> {
  await Promise.race([ending.catch(() => {}), delay(ms, undefined, { ref: false })]);
}

async function takeUpBundle(parts: Parts, options: StartOptions): Promise<Running['bundle']> {
  const { bundleFiles } = options;
  if (!bundleFiles) {
    await parts.policies.refresh();
    return { outcome: 'followed' };
  }
  const taken = await activateOwnBundle(parts, bundleFiles, { again: options.bundleAgain ?? false });
  if (taken.outcome === 'seen') {
    parts.observe({
      event: 'bundle.seen_before',
      level: 'warn',
      own: taken.digest,
      active: taken.active,
      advice:
        'The bundle in this configuration was active before and is not taken up again by a restart. To do so: mayfly bundle activate',
    });
  }
  return taken;
}

async function followOthers(parts: Parts): Promise<void> {
  try {
    await Promise.all([parts.keys.refresh(), parts.policies.refresh()]);
  } catch (error) {
    parts.observe({
      event: 'follow.failed',
      level: 'warn',
      problem: error instanceof Error ? error.message : 'unknown',
    });
  }
}

/** Looks at the certificate files: what changed serves new connections; a pair that cannot be used leaves the one before, loudly. */
function certificateRenewal(door: HttpDoor, { config, mtlsCertificate, observe }: StartOptions): () => void {
  const read = () => {
    const { plain, mtls } = listeners(config, mtlsCertificate);
    return { ...(plain.tls && { plain: plain.tls }), ...(mtls && { mtls: mtls.tls }) };
  };
  let served = JSON.stringify(read());
  return () => {
    try {
      const certificates = read();
      if (JSON.stringify(certificates) === served) return;
      door.renewCertificates(certificates);
      served = JSON.stringify(certificates);
      observe({ event: 'certificates.renewed' });
    } catch (error) {
      const problem = error instanceof Error ? error.message : 'unknown';
      observe({ event: 'certificates.not_renewed', level: 'error', problem });
    }
  };
}

function listeners(config: Config, mtlsCertificate: StartOptions['mtlsCertificate']) {
  const { listen, mtls } = config;
  const tls = listen.tls && readPair('listen.tls', listen.tls);
  return {
    plain: { host: listen.host, port: listen.port, ...(tls && { tls }) },
    ...(mtls && {
      mtls: {
        host: mtls.host,
        port: mtls.port,
        tls: mtlsCertificate ?? readPair('mtls', mtls),
      },
    }),
  };
}
