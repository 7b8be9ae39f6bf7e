import { METRICS, type MetricRow } from '../../../src/main/metric-table.js';
import { Metrics, timed } from '../../../src/main/metrics.js';
import { storeMetrics } from '../../../src/main/store-metrics.js';
import { fakeParts } from '../../fakes/parts.js';
import { fakeBundle } from '../../fakes/policy.js';

const AGENT = 'spiffe://dev.mayfly/agent/refunds';

async function lines(metrics: Metrics): Promise<string[]> {
  return (await metrics.text()).text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

const value = async (metrics: Metrics, start: string) =>
  (await lines(metrics)).find((line) => line.startsWith(`${start} `))?.slice(start.length + 1);

describe('the table of metrics', () => {
  it.each(Object.entries<MetricRow>(METRICS))('%s keeps to the conventions', (name, { type, labels, help }) => {
    expect(name).toMatch(/^mayfly_[a-z_]+$/);
    expect(name.endsWith('_total')).toBe(type === 'counter');
    if (type === 'histogram') expect(name).toMatch(/_seconds$/);
    expect(name).not.toMatch(/_(ms|millis|kb|mb|minutes|percent)$/);
    expect(help).toMatch(/\.$/);
    for (const label of labels) expect(['agent', 'task', 'lease', 'id', 'subject', 'spiffe_id']).not.toContain(label);
  });
});

describe('counting what happens', () => {
  let metrics: Metrics;
  beforeEach(() => {
    metrics = new Metrics({ version: '1.2.3' });
  });

  it('says what runs, and no number that nobody has read', async () => {
    expect(await lines(metrics)).toEqual([`mayfly_build_info{version="1.2.3",node="${process.versions.node}"} 1`]);
  });

  it('a request is counted by route, never by address, and its agent is not in it', async () => {
    metrics.observe({
      event: 'http.request',
      method: 'POST',
      route: '/v1/tasks/{id}/complete',
      status: 200,
      durationMs: 12,
      taskId: 'tsk_a_1',
      caller: AGENT,
    });
    const text = (await lines(metrics)).join('\n');
    expect(text).toContain('mayfly_http_requests_total{route="/v1/tasks/{id}/complete",method="POST",status="200"} 1');
    expect(text).toContain('mayfly_http_request_duration_seconds_sum{route="/v1/tasks/{id}/complete"} 0.012');
    expect(text).not.toMatch(/spiffe|tsk_/);
  });

  it('a stream of an hour is no slow request', async () => {
    metrics.observe({
      event: 'http.request',
      method: 'GET',
      route: '/v1/feed',
      status: 200,
      durationMs: 3.6e6,
      stream: true,
    });
    expect(await value(metrics, 'mayfly_http_request_duration_seconds_count{route="/v1/feed"}')).toBeUndefined();
    expect(await value(metrics, 'mayfly_http_requests_total{route="/v1/feed",method="GET",status="200"}')).toBe('1');
  });

  it.each([
    [{ status: 200 }, 'granted'],
    [{ status: 400, code: 'denied' }, 'denied'],
    [{ status: 503, code: 'unavailable' }, 'unavailable'],
    [{ status: 500 }, 'internal'],
  ])('tokens: %j is %s', async (reply, result) => {
    metrics.observe({ event: 'http.request', method: 'POST', route: '/oauth2/token', durationMs: 1, ...reply });
    expect(await value(metrics, `mayfly_tokens_minted_total{result="${result}"}`)).toBe('1');
  });

  it('the lag of a revocation is told in seconds, by backend', async () => {
    metrics.observe({
      event: 'credential.closed',
      backend: 'pg',
      evidence: 'verified-dead',
      lagMs: 1_500,
      attempts: 1,
    });
    metrics.observe({ event: 'credential.closed', backend: 'pg', evidence: 'confirmed', lagMs: 200, attempts: 1 });
    expect(await value(metrics, 'mayfly_revocation_lag_seconds_bucket{le="1",backend="pg"}')).toBe('1');
    expect(await value(metrics, 'mayfly_revocation_lag_seconds_sum{backend="pg"}')).toBe('1.7');
    expect(await value(metrics, 'mayfly_credentials_closed_total{backend="pg",evidence="verified-dead"}')).toBe('1');
  });

  it('a histogram counts each value into every bucket that holds it, and whatever a label says stays one line', async () => {
    for (const lagMs of [100, 101, 5_000, 1e9]) {
      metrics.observe({ event: 'credential.closed', backend: 'a"b\nc', evidence: 'confirmed', lagMs });
    }
    const of = '{le="LE",backend="a\\"b\\nc"}';
    const bucket = (le: string) => value(metrics, `mayfly_revocation_lag_seconds_bucket${of.replace('LE', le)}`);
    expect([
      await bucket('0.1'),
      await bucket('0.25'),
      await bucket('5'),
      await bucket('14400'),
      await bucket('+Inf'),
    ]).toEqual(['1', '2', '3', '3', '4']);
    expect(await value(metrics, 'mayfly_revocation_lag_seconds_count{backend="a\\"b\\nc"}')).toBe('4');
    const { text } = await metrics.text();
    expect(text).toContain('# TYPE mayfly_revocation_lag_seconds histogram');
    expect(text).toContain('# TYPE mayfly_credentials_closed_total counter');
  });

  it('a breaker is open until it is closed', async () => {
    const name = 'mayfly_backend_breaker_open{backend="pg"}';
    for (const [state, expected] of [
      ['open', '1'],
      ['half-open', '1'],
      ['closed', '0'],
    ]) {
      metrics.observe({ event: 'backend.breaker', level: 'info', backend: 'pg', state });
      expect(await value(metrics, name)).toBe(expected);
    }
  });

  it('orphans and losses add up', async () => {
    for (let round = 0; round < 3; round++) {
      metrics.observe({ event: 'reconcile.done', backend: 'pg', orphans: 2, lost: 1, ms: 40 });
    }
    expect(await value(metrics, 'mayfly_orphans_found_total{backend="pg"}')).toBe('6');
    expect(await value(metrics, 'mayfly_credentials_lost_total{backend="pg"}')).toBe('3');
    expect(Number(await value(metrics, 'mayfly_reconciled_timestamp_seconds{backend="pg"}'))).toBeGreaterThan(1.7e9);
  });

  it('warnings and errors are counted by name, whatever they are about', async () => {
    metrics.observe({ event: 'key.tainted_use', level: 'error', kid: 'k', lease: 'lse_a_1' });
    metrics.observe({ event: 'bundle.loaded', level: 'info' });
    expect(await value(metrics, 'mayfly_problems_total{event="key.tainted_use",level="error"}')).toBe('1');
    expect((await lines(metrics)).join('\n')).not.toMatch(/lse_|bundle\.loaded/);
  });

  it('members that are missing or odd make no number that is not one', async () => {
    metrics.observe({ event: 'reconcile.done', backend: 'pg' });
    metrics.observe({ event: 'credential.closed', backend: 'pg', lagMs: Number.NaN });
    metrics.observe({ event: 'credential.issued', backend: 'pg', ms: -5 });
    metrics.observe({ event: 'job.done', job: 'drain-task' });
    expect((await lines(metrics)).join('\n')).not.toMatch(/NaN| -/);
  });

  it('an engine decides as before, and is timed', async () => {
    const parts = fakeParts();
    const question = {
      principal: { type: 'Agent' as const, id: AGENT, attributes: {} },
      action: 'mint' as const,
      resource: { type: 'Tool' as const, id: 'orders.read', attributes: {} },
      context: {},
    };
    const bundle = fakeBundle('sample');
    const prepared = await timed(parts.policyEngine, 'cedar', metrics).prepare(bundle);
    expect(prepared.decide(question)).toEqual((await parts.policyEngine.prepare(bundle)).decide(question));
    expect(prepared.bundle).toBe(bundle);
    const count = 'mayfly_policy_decision_duration_seconds_count{engine="cedar",decision="allow"}';
    expect(await value(metrics, count)).toBe('1');
  });
});

describe('reading the store', () => {
  it('shows what the store says, credentials and readers too', async () => {
    const parts = fakeParts();
    const metrics = new Metrics({ version: '1' });
    await parts.feed.acknowledge('spiffe://dev.mayfly/tool/orders', [], await parts.feed.head(), parts.clock.now());
    parts.clock.advance(61_000);
    Object.assign(parts.views, {
      credentialCounts: async () => [
        { backend: 'pg', state: 'active', count: 7, stuck: 0 },
        { backend: 'pg', state: 'revoking', count: 3, stuck: 2 },
      ],
    });
    await storeMetrics(parts, metrics, { counts: true })();
    for (const [name, expected] of [
      ['mayfly_grants_closed', '0'],
      ['mayfly_redis_memory_limit_bytes', '10000'],
      ['mayfly_work_overdue', '0'],
      ['mayfly_credentials{backend="pg",state="active"}', '7'],
      ['mayfly_credentials_stuck{backend="pg"}', '2'],
      ['mayfly_feed_readers', '1'],
      ['mayfly_feed_readers_silent', '1'],
      ['mayfly_feed_reader_lag_seconds', '61'],
    ]) {
      expect([name, await value(metrics, name as string)]).toEqual([name, expected]);
    }
    expect((await lines(metrics)).join('\n')).not.toMatch(/spiffe/);
  });

  it('what cannot be read is left out, and grants are seen to be closed', async () => {
    const parts = fakeParts();
    const metrics = new Metrics({ version: '1' });
    await storeMetrics(parts, metrics, { counts: true })();
    expect(await value(metrics, 'mayfly_epoch')).toBe('1');
    parts.line.out = true;
    Object.assign(parts.views, { credentialCounts: () => Promise.reject(new Error('out')) });
    Object.assign(parts.feed, { readers: () => Promise.reject(new Error('out')) });
    await storeMetrics(parts, metrics, { counts: true })();
    const text = (await lines(metrics)).join('\n');
    expect(text).toContain('mayfly_grants_closed 1');
    expect(text).not.toMatch(/mayfly_(epoch|redis_memory|work|audit_backlog|feed_reader|credentials)/);
  });

  it('asks the store once for all who ask at the same time or soon after', async () => {
    const parts = fakeParts();
    let asked = 0;
    Object.assign(parts.views, {
      credentialCounts: async () => {
        asked += 1;
        return [];
      },
    });
    const refresh = storeMetrics(parts, new Metrics({ version: '1' }), { counts: true });
    await Promise.all([refresh(), refresh(), refresh()]);
    await refresh();
    expect(asked).toBe(1);
  });
});
