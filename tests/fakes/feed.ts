import { BrokerError } from '../../src/core/errors.js';
import { epochOf, isBefore, latest, type Position } from '../../src/core/position.js';
import { RevocationTable } from '../../src/core/revocations.js';
import type { Feed, FeedFrame, FeedReader } from '../../src/state/stores.js';
import type { Line } from './line.js';

/**
 * One broker's feed. Its own table is always at the head, unless `lag` is set: then it moves only by `catchUp` or when somebody waits for
 * a position; `cut` makes that wait fail, as a black hole does.
 */
export class FakeFeed implements Feed {
  readonly #line: Line;
  #table = new RevocationTable();
  lag = false;
  cut = false;

  constructor(line: Line) {
    this.#line = line;
    this.catchUp();
    line.subscribe(() => {
      if (!this.lag && !this.cut) this.catchUp();
    });
  }

  catchUp(): void {
    for (const entry of this.#line.state.entries) {
      // A store that lost its tail gives places out again: applying all of it once more changes nothing that is there.
      this.#table.apply(entry);
    }
    this.#table.advance(this.#line.head());
  }

  position(): Position {
    return this.#table.position;
  }

  table(): RevocationTable {
    return this.#table;
  }

  async reached(position: Position, _timeoutMs: number): Promise<void> {
    if (!isBefore(this.#table.position, position)) return;
    if (!this.cut) this.catchUp();
    if (isBefore(this.#table.position, position)) {
      throw new BrokerError('unavailable', 'Mayfly cannot decide right now.', { reason: 'the feed is behind' });
    }
  }

  async head(): Promise<Position> {
    if (this.#line.out) throw new BrokerError('unavailable', 'Mayfly cannot decide right now.');
    return this.#line.head();
  }

  async *follow(options: { from?: Position; signal: AbortSignal }): AsyncIterable<FeedFrame> {
    const line = this.#line;
    let wake: () => void = () => {};
    let woken = false;
    const notify = () => {
      woken = true;
      wake();
    };
    const unsubscribe = line.subscribe(notify);
    options.signal.addEventListener('abort', notify, { once: true });
    try {
      let at = options.from;
      if (at === undefined || isBefore(line.head(), at) || epochOf(at) !== line.state.epoch) {
        yield { kind: 'reset' };
        for (const entry of structuredClone(line.state.entries)) yield { kind: 'entry', entry };
        at = line.state.entries.at(-1)?.pos ?? '0-0-0';
      }
      while (!options.signal.aborted) {
        const since = at;
        const fresh = structuredClone(line.state.entries.filter((entry) => isBefore(since, entry.pos)));
        for (const entry of fresh) {
          yield { kind: 'entry', entry };
          at = latest(at, entry.pos);
        }
        yield { kind: 'head', position: line.head() };
        while (!woken && !options.signal.aborted) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        woken = false;
      }
    } finally {
      unsubscribe();
    }
  }

  async acknowledge(name: string, resources: string[], position: Position, nowMs: number): Promise<void> {
    this.#line.state.readers.set(name, { name, resources: [...resources], position, acknowledgedAtMs: nowMs });
  }

  async readers(): Promise<FeedReader[]> {
    return structuredClone([...this.#line.state.readers.values()]);
  }
}
