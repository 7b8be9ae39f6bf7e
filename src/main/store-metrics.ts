import type { Parts } from '../broker/parts.js';
import type { Metrics } from './metrics.js';

/** However many scrapers there are, and however often they come. */
const FRESH_MS = 5_000;
/** An enforcement point acknowledges every fifteen seconds, news or not. */
const SILENT_MS = 60_000;

/**
 * Brings the gauges that only the store knows up to date: once for all who ask within five seconds, and never in the way of the other numbers. What
 * cannot be read is left out. `counts`: also how many credentials there are, which is work, and enough if workers do it.
 */
export function storeMetrics(parts: Parts, metrics: Metrics, options: { counts: boolean }): () => Promise<void> {
  let readAtMs = Number.NEGATIVE_INFINITY;
  let reading: Promise<void> | undefined;
  const read = async () => {
    readFigures(parts, metrics);
    await Promise.all([
      leftOutIfUnreadable(
        () => readReaders(parts, metrics),
        () => metrics.forget('mayfly_feed_readers', 'mayfly_feed_readers_silent', 'mayfly_feed_reader_lag_seconds'),
      ),
      options.counts &&
        leftOutIfUnreadable(
          () => readCounts(parts, metrics),
          () => metrics.forget('mayfly_credentials', 'mayfly_credentials_stuck'),
        ),
    ]);
  };
  return () => {
    if (performance.now() - readAtMs < FRESH_MS) return Promise.resolve();
    reading ??= read().finally(() => {
      readAtMs = performance.now();
      reading = undefined;
    });
    return reading;
  };
}

async function leftOutIfUnreadable(read: () => Promise<void>, leaveOut: () => void): Promise<void> {
  try {
    await read();
  } catch {
    leaveOut();
  }
}

function readFigures(parts: Parts, metrics: Metrics): void {
  metrics.set('mayfly_grants_closed', {}, parts.health.grantsClosed() === undefined ? 0 : 1);
  metrics.forget('mayfly_bundle_info');
  const digest = parts.policies.current()?.bundle.digest;
  if (digest !== undefined) metrics.set('mayfly_bundle_info', { digest }, 1);
  const figures = parts.health.figures();
  if (!figures) {
    metrics.forget(
      'mayfly_redis_memory_used_bytes',
      'mayfly_redis_memory_limit_bytes',
      'mayfly_audit_backlog_seconds',
      'mayfly_work_overdue',
      'mayfly_work_overdue_seconds',
      'mayfly_clock_skew_seconds',
      'mayfly_epoch',
    );
    return;
  }
  metrics.set('mayfly_redis_memory_used_bytes', {}, figures.memoryUsedBytes);
  metrics.set('mayfly_redis_memory_limit_bytes', {}, figures.memoryLimitBytes);
  metrics.set('mayfly_audit_backlog_seconds', {}, figures.auditBacklogMs / 1_000);
  metrics.set('mayfly_work_overdue', {}, figures.overdue);
  metrics.set('mayfly_work_overdue_seconds', {}, figures.overdueMs / 1_000);
  metrics.set('mayfly_clock_skew_seconds', {}, figures.clockSkewMs / 1_000);
  metrics.set('mayfly_epoch', {}, figures.epoch);
}

async function readReaders(parts: Parts, metrics: Metrics): Promise<void> {
  const nowMs = parts.clock.now();
  const silentMs = (await parts.feed.readers()).map(({ acknowledgedAtMs }) => Math.max(nowMs - acknowledgedAtMs, 0));
  metrics.set('mayfly_feed_readers', {}, silentMs.length);
  metrics.set('mayfly_feed_readers_silent', {}, silentMs.filter((ms) => ms > SILENT_MS).length);
  metrics.set('mayfly_feed_reader_lag_seconds', {}, Math.max(0, ...silentMs) / 1_000);
}

async function readCounts(parts: Parts, metrics: Metrics): Promise<void> {
  const counts = await parts.views.credentialCounts();
  metrics.forget('mayfly_credentials', 'mayfly_credentials_stuck');
  const stuck = new Map<string, number>();
  for (const { backend, state, count, stuck: some } of counts) {
    metrics.set('mayfly_credentials', { backend, state }, count);
    stuck.set(backend, (stuck.get(backend) ?? 0) + some);
  }
  for (const [backend, count] of stuck) metrics.set('mayfly_credentials_stuck', { backend }, count);
}
