import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'yaml';
import { METRICS, type MetricRow } from '../../src/main/metric-table.js';

interface Alert {
  alert: string;
  expr: string;
  for?: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

const { rules } = parse(readFileSync('helm/mayfly/files/alerts.yaml', 'utf8')) as { rules: Alert[] };
/** What Prometheus makes of a histogram. */
const baseOf = (name: string) => name.replace(/_(bucket|sum|count)$/, '');
const rowOf = (name: string): MetricRow | undefined =>
  (METRICS as Record<string, MetricRow>)[name] ?? (METRICS as Record<string, MetricRow>)[baseOf(name)];
const index = readFileSync('docs/runbooks/README.md', 'utf8');

describe('the alerts', () => {
  it('are there, each by a name of its own', () => {
    expect(rules.length).toBeGreaterThan(10);
    expect(new Set(rules.map(({ alert }) => alert)).size).toBe(rules.length);
  });

  it('cover what an operator has to hear of: lag, stuck, orphans, backends, store, audit, feed', () => {
    const asked = rules.map(({ expr }) => expr).join('\n');
    for (const name of [
      'mayfly_revocation_lag_seconds',
      'mayfly_credentials_stuck',
      'mayfly_orphans_found_total',
      'mayfly_backend_breaker_open',
      'mayfly_redis_memory_used_bytes',
      'mayfly_audit_backlog_seconds',
      'mayfly_feed_readers_silent',
      'mayfly_work_overdue_seconds',
      'mayfly_grants_closed',
    ]) {
      expect(asked).toContain(name);
    }
  });

  describe.each(rules.map((rule) => [rule.alert, rule] as const))('%s', (alert, { expr, labels, annotations }) => {
    it('asks for metrics that there are, by labels that they have', () => {
      const names = [...expr.matchAll(/mayfly_[a-z_]+/g)].map(([name]) => name);
      expect(names.length).toBeGreaterThan(0);
      for (const name of names) expect([name, rowOf(name) !== undefined]).toEqual([name, true]);
      const known = [...names.flatMap((name) => rowOf(name)?.labels ?? []), 'le'];
      const used = [
        ...[...expr.matchAll(/\{([^}]*)\}/g)].flatMap(([, inner]) => [...String(inner).matchAll(/([a-z_]+)\s*[=!]/g)]),
        ...[...expr.matchAll(/by \(([^)]*)\)/g)].flatMap(([, inner]) =>
          String(inner)
            .split(', ')
            .map((label) => ['', label]),
        ),
        ...[...String(annotations['summary']).matchAll(/\$labels\.([a-z_]+)/g)],
      ].map(([, label]) => label);
      for (const label of used) expect(known).toContain(label);
    });

    it('a counter is asked how it grows, and brackets close', () => {
      for (const [, before, name] of expr.matchAll(/([a-z_]*\(?)(mayfly_[a-z_]+_total)/g)) {
        expect([name, before]).toEqual([name, expect.stringMatching(/^(rate|increase)\($/)]);
      }
      for (const [open, close] of ['()', '{}', '[]']) {
        expect(expr.split(open as string).length).toBe(expr.split(close as string).length);
      }
    });

    it('says how bad it is, what it is, and where to read on', () => {
      expect(['warning', 'critical']).toContain(labels['severity']);
      expect(annotations['summary']).toMatch(/\.$/);
      const url = annotations['runbook_url'] as string;
      const path = join('docs', url);
      expect([path, existsSync(path)]).toEqual([path, true]);
      expect(readFileSync(path, 'utf8')).toContain(`Alert \`${alert}\``);
      expect(index).toContain(`(${url.slice('runbooks/'.length)}) | \`${alert}\``);
    });
  });

  it('every runbook belongs to an alert, and names no metric that is none', () => {
    const pages = readdirSync('docs/runbooks').filter((name) => name !== 'README.md');
    expect(pages.sort()).toEqual(
      rules.map(({ annotations }) => annotations['runbook_url']?.slice('runbooks/'.length)).sort(),
    );
    for (const page of pages) {
      for (const [name] of readFileSync(`docs/runbooks/${page}`, 'utf8').matchAll(/mayfly_[a-z_]+/g)) {
        expect([page, name, rowOf(name) !== undefined]).toEqual([page, name, true]);
      }
    }
  });
});
