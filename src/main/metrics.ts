import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { Observe, OperationalEvent } from '../core/observe.js';
import type { PolicyEngine } from '../plugins/policy/contract.js';
import { METRICS, type MetricName, type MetricRow } from './metric-table.js';
import { Tally } from './tally.js';

type NamesOf<Type extends MetricRow['type']> = {
  [Name in MetricName]: (typeof METRICS)[Name]['type'] extends Type ? Name : never;
}[MetricName];

type Labels<Name extends MetricName> = Record<(typeof METRICS)[Name]['labels'][number], string>;

/** The numbers of one process: counters from the stream of operational events, gauges from whoever reads the store. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #tallies = new Map<string, Tally>();
  readonly #gauges = new Map<string, Gauge>();

  /** `process`: also what every Node process shows (`process_…`, `nodejs_…`). */
  constructor(options: { version: string; process?: boolean }) {
    for (const [name, row] of Object.entries<MetricRow>(METRICS)) this.#register(name, row);
    if (options.process) collectDefaultMetrics({ register: this.#registry });
    this.set('mayfly_build_info', { version: options.version, node: process.versions.node }, 1);
  }

  readonly observe: Observe = (event) => {
    if (event.level === 'warn' || event.level === 'error') {
      this.count('mayfly_problems_total', { event: event.event, level: event.level });
    }
    REACTIONS[event.event]?.(this, event);
  };

  count<Name extends NamesOf<'counter'>>(name: Name, labels: Labels<Name>, by = 1): void {
    this.#tallies.get(name)?.add(labels, by);
  }

  set<Name extends NamesOf<'gauge'>>(name: Name, labels: Labels<Name>, value: number): void {
    this.#gauges.get(name)?.set(labels, value);
  }

  /** What cannot be read any more is not shown, rather than shown as it was. */
  forget(...names: NamesOf<'gauge'>[]): void {
    for (const name of names) {
      const gauge = this.#gauges.get(name);
      gauge?.reset();
      // Without labels a reset leaves a zero, which would be a number that nobody read.
      if (METRICS[name].labels.length === 0) gauge?.remove();
    }
  }

  time<Name extends NamesOf<'histogram'>>(name: Name, labels: Labels<Name>, ms: number): void {
    this.#tallies.get(name)?.observe(labels, ms / 1_000);
  }

  async text(): Promise<{ contentType: string; text: string }> {
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
  }

  #register(name: string, row: MetricRow): void {
    const { type, help, labels } = row;
    if (type === 'gauge') {
      const gauge = new Gauge({ name, help, labelNames: [...labels], registers: [this.#registry] });
      this.#gauges.set(name, emptied(gauge, labels));
      return;
    }
    const tally = new Tally(name, row);
    this.#tallies.set(name, tally);
    this.#registry.registerMetric(tally.asMetric());
  }
}

function emptied(gauge: Gauge, labels: readonly string[]): Gauge {
  if (labels.length === 0) gauge.remove();
  return gauge;
}

/** What each operational event counts as. A member that is not there counts as nothing. */
const REACTIONS: Record<string, (metrics: Metrics, event: OperationalEvent) => void> = {
  'http.request': (metrics, event) => {
    const { route, method, status, code } = event;
    const labels = { route: String(route), method: String(method), status: String(status) };
    metrics.count('mayfly_http_requests_total', labels);
    if (!event['stream']) metrics.time('mayfly_http_request_duration_seconds', { route: labels.route }, ms(event));
    if (route === '/oauth2/token') {
      metrics.count('mayfly_tokens_minted_total', { result: status === 200 ? 'granted' : String(code ?? 'internal') });
    }
  },
  'job.done': (metrics, event) => jobOver(metrics, event, 'done'),
  'job.failed': (metrics, event) => jobOver(metrics, event, 'failed'),
  'redis.connection': (metrics, { kind }) => {
    metrics.count('mayfly_redis_connection_errors_total', { kind: String(kind) });
  },
  'credential.issued': (metrics, event) => {
    metrics.count('mayfly_credentials_issued_total', backendOf(event));
    metrics.time('mayfly_credential_issue_duration_seconds', backendOf(event), number(event['ms']));
  },
  'credential.closed': (metrics, event) => {
    metrics.count('mayfly_credentials_closed_total', { ...backendOf(event), evidence: String(event['evidence']) });
    metrics.time('mayfly_revocation_lag_seconds', backendOf(event), number(event['lagMs']));
  },
  'credential.attempt_failed': (metrics, event) => {
    const problem = String(event['problem'] ?? event['kind'] ?? 'failed');
    metrics.count('mayfly_revocation_attempts_failed_total', { ...backendOf(event), problem });
  },
  'backend.breaker': (metrics, event) => {
    metrics.set('mayfly_backend_breaker_open', backendOf(event), event['state'] === 'closed' ? 0 : 1);
  },
  'reconcile.done': (metrics, event) => {
    const backend = backendOf(event);
    metrics.count('mayfly_orphans_found_total', backend, number(event['orphans']));
    metrics.count('mayfly_credentials_lost_total', backend, number(event['lost']));
    metrics.time('mayfly_reconcile_duration_seconds', backend, number(event['ms']));
    metrics.set('mayfly_reconciled_timestamp_seconds', backend, Date.now() / 1_000);
  },
};

function jobOver(metrics: Metrics, event: OperationalEvent, result: 'done' | 'failed'): void {
  const job = String(event['job']);
  metrics.count('mayfly_jobs_total', { job, result });
  metrics.time('mayfly_job_duration_seconds', { job }, ms(event));
}

function ms(event: OperationalEvent): number {
  return event.durationMs ?? 0;
}

function backendOf(event: OperationalEvent): { backend: string } {
  return { backend: String(event['backend']) };
}

function number(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? value : 0;
}

/** The same engine, each of its decisions timed. */
export function timed(engine: PolicyEngine, name: string, metrics: Metrics): PolicyEngine {
  return {
    prepare: async (bundle) => {
      const prepared = await engine.prepare(bundle);
      return {
        bundle: prepared.bundle,
        nearestMiss: (question) => prepared.nearestMiss(question),
        constrainsCalls: (question) => prepared.constrainsCalls(question),
        decide: (question) => {
          const startedAtMs = performance.now();
          const decision = prepared.decide(question);
          const tookMs = performance.now() - startedAtMs;
          metrics.time('mayfly_policy_decision_duration_seconds', { engine: name, decision: decision.effect }, tookMs);
          return decision;
        },
      };
    },
  };
}
