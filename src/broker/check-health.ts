import type { HealthLine } from '../state/stores.js';
import type { Parts } from './parts.js';

/** Everything that has to be in order before this broker can grant, one line each: the store, who is believed, keys, policies. */
export async function checkHealth(parts: Parts): Promise<HealthLine[]> {
  return [
    ...(await parts.health.check()),
    ...trustLines(parts),
    keysLine(parts),
    policiesLine(parts),
    ...secretLines(parts),
  ];
}

const HEALTH_FRESH_MS = 500;
const lastLooks = new WeakMap<Parts, { atMs: number; lines: Promise<HealthLine[]> }>();

/** The same for probes, which come often and from anybody: one look serves all that ask while it is fresh. */
export function recentHealth(parts: Parts): Promise<HealthLine[]> {
  const nowMs = parts.clock.now();
  const last = lastLooks.get(parts);
  if (last && nowMs >= last.atMs && nowMs - last.atMs < HEALTH_FRESH_MS) return last.lines;
  const lines = checkHealth(parts);
  lastLooks.set(parts, { atMs: nowMs, lines });
  return lines;
}

/** A source that cannot be reached is no reason to stop: the keys that were fetched go on, and only a domain without any is closed. */
function trustLines(parts: Parts): HealthLine[] {
  return parts.trustBundles.status().map(({ name, source, ok, problem, keys }) => ({
    name: `trust ${name}`,
    ok: ok || keys > 0,
    detail: ok ? `${keys} keys from ${source}` : `${keys} keys, not refreshed: ${problem ?? 'unknown'}`,
    ...(!ok && { advice: `Look whether ${source} answers this broker.` }),
  }));
}

function keysLine(parts: Parts): HealthLine {
  const keys = parts.keys.all();
  const active = keys.find((key) => key.state === 'active');
  return {
    name: 'signing keys',
    ok: active !== undefined,
    detail: active ? `${active.kid} signs, ${keys.length} in the ring` : 'no key signs',
    ...(!active && { advice: 'mayfly key prepare, then mayfly key activate KID.' }),
    vital: true,
  };
}

function policiesLine(parts: Parts): HealthLine {
  const policy = parts.policies.current();
  return {
    name: 'policies',
    ok: policy !== undefined,
    detail: policy
      ? `bundle ${policy.bundle.digest}, ${policy.bundle.workloads.length} workloads`
      : 'no bundle is loaded',
    ...(!policy && { advice: 'mayfly bundle activate DIR.' }),
    vital: true,
  };
}

/** One line per backend that is used. A secret that cannot be had is no reason to take a broker out: everything else can. */
function secretLines(parts: Parts): HealthLine[] {
  const status = parts.secretChecks.status();
  return [...new Set(status.map(({ backend }) => backend))].map((backend) => {
    const own = status.filter((one) => one.backend === backend);
    const closed = own.filter(({ problem }) => problem !== undefined);
    const isAbsent = parts.backends.get(backend) === undefined;
    const advice = isAbsent
      ? `Configure backends.${backend} where they are wanted.`
      : closed.length > 0 && `mayfly backend check ${backend}`;
    return {
      name: `secrets of ${backend}`,
      ok: closed.length === 0,
      detail:
        closed.length === 0
          ? `${own.length} can be had`
          : closed.map(({ name, problem }) => `${name} cannot be had: ${problem}`).join('; '),
      ...(advice && { advice }),
      ...(isAbsent && { absent: true as const }),
      optional: true,
    };
  });
}
