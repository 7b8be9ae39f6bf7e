import type { Metric } from 'prom-client';
import type { MetricRow } from './metric-table.js';

type Labels = Record<string, string>;

interface Row {
  labels: Labels;
  /** A counter's value; a histogram's sum. */
  value: number;
  count: number;
  /** Of a histogram: how many fell into each bucket, and beyond the last. */
  buckets: number[];
}

/**
 * A counter or histogram that is moved on every request: one look in a map. (prom-client's own hashes the labels each time: three to five
 * times the cost, measured.) It is registered like any other, and written by prom-client.
 */
export class Tally {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly #labels: readonly string[];
  readonly #ends: readonly number[];
  readonly #rows = new Map<string, Row>();

  constructor(name: string, { type, help, labels, buckets = [] }: MetricRow) {
    this.name = name;
    this.help = help;
    this.type = type;
    this.#labels = labels;
    this.#ends = buckets;
  }

  add(labels: Labels, by: number): void {
    this.#rowOf(labels).value += by;
  }

  observe(labels: Labels, value: number): void {
    const row = this.#rowOf(labels);
    row.value += value;
    row.count += 1;
    const ends = this.#ends;
    let at = 0;
    while (at < ends.length && value > (ends[at] as number)) at += 1;
    row.buckets[at] = (row.buckets[at] as number) + 1;
  }

  /** As prom-client's registry asks for it. */
  async get(): Promise<object> {
    const values = [...this.#rows.values()].flatMap((row) =>
      this.type === 'counter' ? [{ labels: row.labels, value: row.value }] : this.#histogram(row),
    );
    return { name: this.name, help: this.help, type: this.type, values, aggregator: 'sum' };
  }

  /** The registry takes whatever has a name and can be asked. */
  asMetric(): Metric {
    return this as unknown as Metric;
  }

  #histogram({ labels, value, count, buckets }: Row): object[] {
    let below = 0;
    const rows = this.#ends.map((end, at) => {
      below += buckets[at] as number;
      return { labels: { le: end, ...labels }, value: below, metricName: `${this.name}_bucket` };
    });
    return [
      ...rows,
      { labels: { le: '+Inf', ...labels }, value: count, metricName: `${this.name}_bucket` },
      { labels, value, metricName: `${this.name}_sum` },
      { labels, value: count, metricName: `${this.name}_count` },
    ];
  }

  #rowOf(labels: Labels): Row {
    let key = '';
    for (const label of this.#labels) key += `${labels[label]}\n`;
    let row = this.#rows.get(key);
    if (!row) {
      row = {
        labels: Object.fromEntries(this.#labels.map((label) => [label, labels[label] as string])),
        value: 0,
        count: 0,
        buckets: new Array<number>(this.#ends.length + 1).fill(0),
      };
      this.#rows.set(key, row);
    }
    return row;
  }
}
