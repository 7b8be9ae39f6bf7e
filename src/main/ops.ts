import type { Parts } from '../broker/parts.js';
import { BrokerError } from '../core/errors.js';
import { openOpsDoor } from '../edge/ops/ops.js';
import { Metrics } from './metrics.js';
import type { Role } from './server.js';
import { storeMetrics } from './store-metrics.js';
import { ownVersion } from './version.js';

/** The metrics of this process and the door to them: there before the broker is, and until it is gone. */
export interface Ops {
  metrics: Metrics;
  url: string;
  started(parts: Parts, role: Role): void;
  leaving(): void;
  close(): Promise<void>;
}

export async function openOps(at: { host: string; port: number }): Promise<Ops> {
  const metrics = new Metrics({ version: ownVersion(), process: true });
  let refresh = () => Promise.resolve();
  const door = await openOpsDoor({
    ...at,
    metrics: async () => {
      await refresh();
      return metrics.text();
    },
  }).catch((cause: unknown) => {
    const { code } = Object(cause) as { code?: string };
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw cause;
    const problem = code === 'EACCES' ? 'may not be used by this user' : 'is taken';
    throw new BrokerError(
      'invalid_request',
      `ops.port: port ${at.port} at ${at.host} ${problem}. Choose another, or 0 for any free one.`,
      { cause },
    );
  });
  const host = door.host.includes(':') ? `[${door.host}]` : door.host;
  return {
    metrics,
    url: `http://${host}:${door.port}`,
    started(parts, role) {
      refresh = storeMetrics(parts, metrics, { counts: role !== 'api' });
      door.started(parts);
    },
    leaving: () => door.leaving(),
    close: () => door.close(),
  };
}
