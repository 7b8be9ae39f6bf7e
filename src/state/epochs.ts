import { randomBytes } from 'node:crypto';
import type { AuditRecord } from '../core/audit.js';
import { newId } from '../core/ids.js';
import { type Cell, SKEW_MS } from './cell.js';
import type { Head, HeadFile } from './head-file.js';
import { unavailable } from './redis.js';
import { compareStreamIds } from './stream-id.js';

const BEAT_EVERY_MS = 1_000;
/** A last beat older than this that nobody saw may be the last beat of another, older store. */
const BEAT_SEEN_MS = 10_000;
const RAISES_MAX = 5;

/** What the cell says of itself, and which process really answers. */
interface Store {
  epoch: number;
  run: string;
  server: string;
  beat: string;
  beatAtMs: number;
  info: Map<string, string>;
}

/** Why a cell has its first epoch. */
const FIRST_START = 'first start';

/** What a broker does when the epoch is another than it knew: forget what it believed, repeat what it acknowledged. */
export type EnterEpoch = (epoch: number) => Promise<void>;

/** Repeats what this broker acknowledged lately; answers how much of it the store had forgotten. */
export type RepeatAcknowledged = () => Promise<number>;

/**
 * Watches that the store is the one this broker knows, and raises the epoch when it may have forgotten something (docs/architecture.md, "Epoch"): another
 * master, a restart that may have lost writes, a write that was seen and is gone, a beat that nobody left has seen. Raising kills every
 * token of earlier epochs; grants stay closed in the whole cell until every broker that beat lately has confirmed the new one.
 */
export class Epochs {
  readonly #cell: Cell;
  readonly #file: HeadFile;
  readonly #enter: EnterEpoch;
  readonly #repeat: RepeatAcknowledged;
  /** This broker's name among the others of the cell, new with each start. */
  readonly broker = `b${randomBytes(6).toString('hex')}`;
  #beats = 0;
  #head: Head | undefined;
  /** The epoch and the run of the server that this broker has settled with, `<epoch>:<run>`. */
  #confirmed = '';
  #closed: string | undefined = 'the broker is starting';
  /** Who beat on this head file before: this process has read what it remembered, and speaks for it. */
  #predecessors: string[] = [];
  #watching: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> | undefined;
  #lastBeatAtMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor(cell: Cell, file: HeadFile, enter: EnterEpoch, repeat: RepeatAcknowledged) {
    this.#cell = cell;
    this.#file = file;
    this.#enter = enter;
    this.#repeat = repeat;
    cell.line.onEstranged(() => void this.#look().catch(() => {}));
    // Whatever answers after the connection was lost may be another server: the beat that finds out is made at once.
    cell.line.client.on('ready', () => {
      if (this.#timer === undefined || this.#stopped) return;
      this.#closed ??= 'the store is being compared with what is known of it';
      this.#tick();
    });
  }

  /** The epoch this broker works in. */
  get epoch(): number {
    return this.#head?.epoch ?? 0;
  }

  /** Why the whole cell grants nothing, as the last beat said. */
  get closed(): string | undefined {
    if (this.#closed) return this.#closed;
    if (this.#cell.line.client.status !== 'ready') return 'Redis is not connected';
    return performance.now() - this.#lastBeatAtMs > BEAT_SEEN_MS ? 'Redis has not answered for ten seconds' : undefined;
  }

  /** Makes sure of the store, beats once, and goes on beating. */
  async start(): Promise<void> {
    await this.#cell.line.syncClock();
    this.#head = this.#file.read();
    this.#predecessors = [...new Set((this.#head?.beats ?? []).map(brokerOf))].filter((name) => name !== '');
    await this.#look({ starting: true });
    await this.beat();
    if (this.#closed) await this.beat();
    this.#timer = setInterval(() => this.#tick(), BEAT_EVERY_MS);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#beating?.catch(() => {});
    await this.#watching?.catch(() => {});
  }

  /** One beat: says that this broker lives and which epoch it has confirmed, and compares what it has seen with what the store holds. */
  async beat(): Promise<void> {
    const head = this.#head;
    if (!head) throw unavailable('the epoch is not known yet');
    const beat = `${this.broker}-${++this.#beats}`;
    // Written before the beat, so that a broker that dies right after it has still seen it.
    this.#keep({ ...head, beats: [head.beats.at(-1) ?? '', beat] });
    const { line, keys } = this.#cell;
    const reply = (await line.run(
      'beat',
      [keys.named('beats'), keys.named('confirmed')],
      [this.broker, beat, this.#confirmed, head.lastWrite, head.epoch, ...this.#predecessors],
    )) as string[];
    if (reply[0] === 'newer') return this.#enterEpoch(Number(reply[1]), head, reply[2] as string);
    if (reply[0] === 'forgot') return this.#look({ forgot: true });
    const [, epoch, , lastWrite, redisMs, closed, run] = reply;
    if (this.#confirmed !== '') this.#predecessors = [];
    line.setClock(Number(redisMs));
    this.#lastBeatAtMs = performance.now();
    this.#closed = closed || undefined;
    // Another broker took up a restarted server: what was acknowledged here is repeated before it is confirmed.
    if (this.#confirmed !== `${epoch}:${run}`) return this.#look();
    this.#cell.memory.forget(this.#cell.clock.now());
    if (this.#head?.epoch === Number(epoch)) this.#keep({ ...this.#head, lastWrite: lastWrite as string });
  }

  /** Raises the epoch by hand. */
  async recover(audit: AuditRecord): Promise<number> {
    for (let at = 0; at < RAISES_MAX; at++) {
      const there = await this.#there();
      const [outcome, epoch] = await this.#raise(there, false, audit);
      if (outcome !== 'raised') continue;
      await this.#enterEpoch(Number(epoch), this.#head, there.server);
      await this.beat();
      return Number(epoch);
    }
    throw unavailable('the epoch keeps changing');
  }

  #tick(): void {
    this.#beating ??= this.beat()
      .catch((error: unknown) => this.#tell('state.beat_failed', error))
      .finally(() => {
        this.#beating = undefined;
      });
  }

  /**
   * Compares the store with what is known of it, raises the epoch or adopts the new process. One at a time. Until the beat that follows, which
   * comes at once, nobody knows whether the cell grants.
   */
  #look(options: { starting?: boolean; forgot?: boolean } = {}): Promise<void> {
    this.#closed ??= 'the store is being compared with what is known of it';
    this.#watching ??= this.#lookOnce(options)
      .finally(() => {
        this.#watching = undefined;
      })
      .then(() => {
        if (this.#timer !== undefined && !this.#stopped) setImmediate(() => this.#tick());
      });
    return this.#watching;
  }

  async #lookOnce(options: { starting?: boolean; forgot?: boolean }): Promise<void> {
    for (let at = 0; at < RAISES_MAX && !this.#stopped; at++) {
      const there = await this.#there();
      const known = this.#head;
      if (!options.starting && there.epoch > (known?.epoch ?? 0) && there.run === there.server) {
        return this.#enterEpoch(there.epoch, known, there.server);
      }
      const why = await this.#whyRaise(there, known, options);
      if (why === undefined && there.run === there.server) {
        if (this.#confirmed.startsWith(`${there.epoch}:`) && !this.#confirmed.endsWith(`:${there.server}`)) {
          if ((await this.#repeat()) > 0) return this.#lookOnce({ forgot: true });
        }
        return this.#enterEpoch(there.epoch, known, there.server);
      }
      const audit = this.#audit(why ?? 'the same server after a restart that lost nothing');
      const [outcome, epoch] = await this.#raise(there, why === undefined, audit);
      if (outcome === 'moved_on') continue;
      this.#cell.observe({
        event: 'state.epoch',
        // The first epoch of a new cell is no news to worry about.
        level: outcome === 'raised' && why !== FIRST_START ? 'warn' : 'info',
        outcome,
        epoch: Number(epoch),
        because: why,
      });
      // What was acknowledged since the last beat is in no beat: a store put back from seconds ago shows by having forgotten it.
      if (outcome === 'adopted' && (await this.#repeat()) > 0) return this.#lookOnce({ forgot: true });
      return this.#enterEpoch(Number(epoch), known, there.server);
    }
    throw unavailable('the epoch keeps changing');
  }

  /** What the cell says of itself, and which process really answers. */
  async #there(): Promise<Store> {
    const { line, keys } = this.#cell;
    const [epoch, run, beat, beatAt] = await line.ask((client) =>
      client.hmget(keys.named('cell'), 'epoch', 'run', 'beat', 'beatat'),
    );
    const info = await line.info();
    return {
      epoch: Number(epoch ?? 0),
      run: run ?? '',
      server: info.get('run_id') ?? '',
      beat: beat ?? '',
      beatAtMs: Number(beatAt ?? 0),
      info,
    };
  }

  /** Why the store may have forgotten something; undefined when it cannot. */
  async #whyRaise(
    there: Store,
    known: Head | undefined,
    options: { starting?: boolean; forgot?: boolean },
  ): Promise<string | undefined> {
    if (there.epoch === 0) return known ? 'the store is empty' : FIRST_START;
    if (options.forgot) return 'a write that was seen is not in the store';
    if (known && (known.epoch > there.epoch || !(await this.#holds(known.lastWrite)))) {
      return 'a write that was seen is not in the store';
    }
    if (options.starting && !known?.beats.includes(there.beat)) {
      await this.#cell.line.syncClock();
      if (this.#cell.line.redisNowMs() - there.beatAtMs > BEAT_SEEN_MS) return 'nobody is left that saw the last beat';
    }
    if (there.run !== there.server && !(await this.#keptAll(there.info)))
      return 'another master, or a restart that may have lost writes';
    return undefined;
  }

  /** Whether a write that was seen is still there, or was there when it was trimmed. */
  async #holds(lastWrite: string): Promise<boolean> {
    if (lastWrite === '' || lastWrite === '0-0') return true;
    const { line, keys } = this.#cell;
    const held = await line.ask((client) => client.xrange(keys.named('audit'), lastWrite, lastWrite));
    if (held.length > 0) return true;
    const trimmed = await line.ask((client) => client.hget(keys.named('cell'), 'trimmed'));
    return trimmed !== null && compareStreamIds(trimmed, lastWrite) >= 0;
  }

  /** True for a lone master that came back with `appendfsync always`: it had nothing to lose and nobody took its place. */
  async #keptAll(info: Map<string, string>): Promise<boolean> {
    const isLone =
      info.get('role') === 'master' &&
      info.get('connected_slaves') === '0' &&
      /^0*$/.test(info.get('master_replid2') ?? '0') &&
      info.get('aof_enabled') === '1';
    return isLone && (await this.#cell.line.appendFsync()) === 'always';
  }

  async #raise(there: Store, adopt: boolean, audit: AuditRecord): Promise<[outcome: string, epoch: string]> {
    const { line, keys, clock, limits } = this.#cell;
    return (await line.run(
      'raise-epoch',
      [keys.named('beats'), keys.named('confirmed')],
      [
        there.run,
        there.server,
        this.#head?.epoch ?? 0,
        clock.now() + limits.tokenTtlMsMax + SKEW_MS,
        adopt ? '1' : '',
        there.epoch === 0 ? '' : there.epoch,
      ],
      { audit },
    )) as [string, string];
  }

  async #enterEpoch(epoch: number, known: Head | undefined, run: string): Promise<void> {
    if (known?.epoch !== epoch || !this.#confirmed.startsWith(`${epoch}:`)) {
      this.#keep({ epoch, lastWrite: '', beats: known?.beats ?? [] });
      this.#cell.tasks.forget();
      await this.#enter(epoch);
    }
    this.#confirmed = `${epoch}:${run}`;
  }

  #keep(head: Head): void {
    this.#head = head;
    this.#file.write(head);
  }

  #audit(reason: string): AuditRecord {
    const nowMs = this.#cell.clock.now();
    return {
      id: newId('dec', this.#cell.keys.cell, nowMs),
      atMs: nowMs,
      type: 'epoch.raised',
      actor: {},
      reasons: [reason],
    };
  }

  #tell(event: string, error: unknown): void {
    const reason = error instanceof Error ? error.message : String(error);
    this.#cell.observe({ event, level: 'warn', problem: reason });
  }
}

/** A beat is named `<broker>-<number>`. */
function brokerOf(beat: string): string {
  return beat.slice(0, Math.max(0, beat.lastIndexOf('-')));
}
