import type { TaskClaims } from '../core/claims.js';
import { readFeedFrame } from '../core/feed-frames.js';
import {
  comparePlaces,
  comparePositions,
  isBefore,
  ORIGIN,
  type Place,
  type Position,
  placeOf,
} from '../core/position.js';
import { type FeedEntry, matches, RevocationTable } from '../core/revocations.js';
import { reasonOf } from './reason.js';
import { serverSentEvents } from './server-sent-events.js';
import type { SteadyClock } from './steady-clock.js';
import { chunksOf, type Fetch, textOf } from './transport.js';

export interface FeedFollowerOptions {
  /** Where the broker is, without a trailing slash. */
  url: string;
  fetch: Fetch;
  /** The reader's own identity, asked again for each connection; undefined when mTLS shows it. */
  authorization?: () => Promise<string>;
  clock: SteadyClock;
  /** Without any frame for this long the connection counts as dead (a black hole sends no FIN). */
  silenceMsMax?: number;
  /** The wait before connecting again: at first, and at most. Jittered by half. */
  retryMs?: { first: number; most: number };
  /** A place is acknowledged again after this long, so that the broker sees a live enforcement point. */
  acknowledgeEveryMs?: number;
  onEntry?: (entry: FeedEntry) => void;
  /** Why a connection ended or could not be made, each time. */
  onProblem?: (problem: string) => void;
  /** Everything up to the broker's head was applied. */
  onCaughtUp?: () => void;
}

export interface FeedStatus {
  /** True once a snapshot was complete: before that nobody can say what is revoked. */
  complete: boolean;
  connected: boolean;
  /** The last place applied. */
  position: Position;
  /** Since everything up to the broker's head was applied; undefined before the first time. */
  ageMs: number | undefined;
  entries: number;
  /** Why the last connection ended or could not be made. */
  lastProblem?: string;
}

const ACK_BYTES_MAX = 16 * 1024;
/** To whoever is nobody the broker says no more than that. */
const WHO_READS = 'Is the SVID alive, and of an owner that a resource in the bundle (resources/*.yaml) names?';
const REFUSAL_BYTES_MAX = 16 * 1024;
const EXPIRE_EVERY_MS = 10_000;

/**
 * Follows the feed of revocations over SSE, for ever, and keeps its table (docs/architecture.md, path 3). Its position is the last entry it applied,
 * never a heartbeat's head; a head that is not that place is a gap or a step back, and both are answered by a new snapshot. A
 * snapshot is laid over what is there, so nothing is un-revoked while it arrives or by what it lacks.
 */
export class FeedFollower {
  readonly table = new RevocationTable();
  readonly #options: FeedFollowerOptions;
  readonly #closing = new AbortController();
  readonly #waiting = new Set<() => void>();
  readonly #watched = new Set<Watched>();
  #position: Position = ORIGIN;
  #place: Place = placeOf(ORIGIN);
  #complete = false;
  #connected = false;
  /** The next connection asks for a snapshot. */
  #needsSnapshot = true;
  #caughtUpAtMs: number | undefined;
  #lastProblem: string | undefined;
  #attempts = 0;
  #expireAtMs = 0;
  #acknowledged: { position: Position; atMs: number } | undefined;
  #acknowledging = false;
  readonly #running: Promise<void>;

  constructor(options: FeedFollowerOptions) {
    this.#options = options;
    this.#running = this.#run();
  }

  status(): FeedStatus {
    return {
      complete: this.#complete,
      connected: this.#connected,
      position: this.#position,
      ageMs: this.ageMs(),
      entries: this.table.size,
      ...(this.#lastProblem === undefined ? {} : { lastProblem: this.#lastProblem }),
    };
  }

  get complete(): boolean {
    return this.#complete;
  }

  get position(): Position {
    return this.#position;
  }

  /** Whether everything up to this place has been applied. */
  hasReached(place: Place): boolean {
    return comparePlaces(place, this.#place) <= 0;
  }

  ageMs(): number | undefined {
    return this.#caughtUpAtMs === undefined ? undefined : this.#options.clock.elapsedMs() - this.#caughtUpAtMs;
  }

  /** Resolves with true as soon as `condition` holds (looked at after each frame), with false after `timeoutMs`. */
  async until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
    if (condition()) return true;
    return new Promise((resolve) => {
      const finish = (holds: boolean) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(holds);
      };
      const look = () => {
        if (condition()) finish(true);
        else if (this.#closing.signal.aborted) finish(false);
      };
      const timer = setTimeout(finish, timeoutMs, false);
      this.#waiting.add(look);
    });
  }

  /** Calls `onDead` once when a later entry kills the token; the returned function ends the watch. */
  watch(claims: TaskClaims, kid: string, onDead: (entry: FeedEntry) => void): () => void {
    const watched: Watched = { claims, kid, onDead };
    this.#watched.add(watched);
    return () => this.#watched.delete(watched);
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#tell();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        await this.#follow();
        this.#lastProblem = 'the broker ended the stream';
      } catch (error) {
        this.#lastProblem = reasonOf(error);
      }
      this.#connected = false;
      if (signal.aborted) break;
      this.#options.onProblem?.(this.#lastProblem);
      const { first, most } = this.#options.retryMs ?? { first: 100, most: 5_000 };
      const waitMs = Math.min(most, first * 2 ** Math.min(this.#attempts++, 16)) * (0.5 + Math.random() / 2);
      await pause(waitMs, signal);
    }
  }

  /** One connection, from the request to its end. */
  async #follow(): Promise<void> {
    const connection = new AbortController();
    const signal = AbortSignal.any([connection.signal, this.#closing.signal]);
    const silenceMsMax = this.#options.silenceMsMax ?? 5_000;
    const watchdog = setTimeout(() => connection.abort(new Error('the feed is silent')), silenceMsMax);
    try {
      const resumes = !this.#needsSnapshot;
      const headers: Record<string, string> = {
        accept: 'text/event-stream',
        ...(await orAborted(this.#identity(), signal)),
      };
      if (resumes) headers['last-event-id'] = this.#position;
      const response = await this.#options.fetch(`${this.#options.url}/v1/feed`, {
        headers,
        signal,
        redirect: 'error',
      });
      if (response.status !== 200) {
        const words = wordsOf(await textOf(response, REFUSAL_BYTES_MAX), response.status);
        throw new Error(`the broker answered ${response.status} to the feed's reader: ${words}`);
      }
      this.#connected = true;
      const reading: Reading = { snapshot: !resumes, last: resumes ? this.#position : undefined };
      for await (const { event, data } of serverSentEvents(chunksOf(response))) {
        signal.throwIfAborted();
        watchdog.refresh();
        this.#take(event, data, reading);
      }
    } catch (error) {
      throw connection.signal.aborted ? connection.signal.reason : error;
    } finally {
      clearTimeout(watchdog);
      connection.abort();
    }
  }

  #take(event: string, data: string, reading: Reading): void {
    const frame = readFeedFrame(event, data);
    if (!frame) return;
    if (frame.kind === 'reset') {
      reading.snapshot = true;
      reading.last = undefined;
      return;
    }
    if (frame.kind === 'entry') {
      this.#apply(frame.entry, reading);
      return;
    }
    this.#reach(frame.position, reading);
    this.#attempts = 0;
    this.#lastProblem = undefined;
    this.#caughtUpAtMs = this.#options.clock.elapsedMs();
    this.#forget();
    this.#options.onCaughtUp?.();
    this.#tell();
    this.#acknowledge();
  }

  #apply(entry: FeedEntry, reading: Reading): void {
    this.table.apply(entry);
    if (reading.last === undefined || isBefore(reading.last, entry.pos)) reading.last = entry.pos;
    // While a snapshot arrives, a place in it says nothing about the places before it.
    if (!reading.snapshot && isBefore(this.#position, entry.pos)) this.#moveTo(entry.pos);
    this.#options.onEntry?.(entry);
    for (const watched of [...this.#watched]) {
      const { claims, kid, onDead } = watched;
      const older = entry.match.key !== undefined || isBefore(claims.mayfly.pos, entry.pos);
      if (!older || !matches(entry.match, claims, kid)) continue;
      this.#watched.delete(watched);
      onDead(entry);
    }
    if (!reading.snapshot) this.#tell();
  }

  /** Everything up to this head has been sent: is it what we have? */
  #reach(head: Position, reading: Reading): void {
    if (reading.snapshot) {
      if (reading.last !== undefined && isBefore(head, reading.last))
        this.#startOver('the head is behind its snapshot');
      if (this.#complete && isBefore(head, this.#position)) this.#startOver('the snapshot is older than what is known');
      // Entries before the head that are gone have nothing left to kill: the snapshot reaches the head.
      reading.snapshot = false;
      reading.last = head;
      this.#moveTo(head);
      this.table.advance(head);
      this.#complete = true;
      this.#needsSnapshot = false;
      return;
    }
    if (head === reading.last) return;
    this.#startOver(comparePositions(head, this.#position) > 0 ? 'a gap in the feed' : 'the head went back');
  }

  #moveTo(position: Position): void {
    this.#position = position;
    this.#place = placeOf(position);
  }

  #startOver(problem: string): never {
    this.#needsSnapshot = true;
    throw new Error(problem);
  }

  #forget(): void {
    const nowMs = this.#options.clock.now();
    if (nowMs < this.#expireAtMs) return;
    this.#expireAtMs = nowMs + EXPIRE_EVERY_MS;
    this.table.expire(nowMs);
  }

  #tell(): void {
    for (const look of [...this.#waiting]) look();
  }

  /** Best effort and one at a time; what was applied meanwhile is acknowledged next. */
  #acknowledge(): void {
    const nowMs = this.#options.clock.elapsedMs();
    const position = this.#position;
    const known = this.#acknowledged;
    const isFresh = known?.position === position && nowMs - known.atMs < (this.#options.acknowledgeEveryMs ?? 15_000);
    if (this.#acknowledging || isFresh) return;
    this.#acknowledging = true;
    void this.#post(position)
      .catch(() => false)
      .then((taken) => {
        this.#acknowledging = false;
        if (!taken) return;
        this.#acknowledged = { position, atMs: nowMs };
        if (this.#position !== position) this.#acknowledge();
      });
  }

  async #post(position: Position): Promise<boolean> {
    const response = await this.#options.fetch(`${this.#options.url}/v1/feed/ack`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...(await this.#identity()) },
      body: JSON.stringify({ pos: position }),
      signal: AbortSignal.any([this.#closing.signal, AbortSignal.timeout(5_000)]),
      redirect: 'error',
    });
    await textOf(response, ACK_BYTES_MAX);
    return response.ok;
  }

  async #identity(): Promise<Record<string, string>> {
    const { authorization } = this.#options;
    return authorization ? { authorization: `Bearer ${await authorization()}` } : {};
  }
}

/** What one connection has sent so far. */
interface Reading {
  snapshot: boolean;
  last: Position | undefined;
}

interface Watched {
  claims: TaskClaims;
  kid: string;
  onDead: (entry: FeedEntry) => void;
}

/** What a refusal says of itself (RFC 9457), and what a stranger's does not. */
function wordsOf(body: string, status: number): string {
  try {
    const { detail, hint } = Object(JSON.parse(body)) as Record<string, unknown>;
    const words = [detail, hint ?? (status === 401 ? WHO_READS : undefined)].filter((text) => typeof text === 'string');
    if (words.length > 0) return words.join(' ');
  } catch {
    // Said below.
  }
  return 'nothing that a Mayfly says.';
}

/** Somebody else's promise, given up when the signal aborts. */
function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(signal.reason);
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
  });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const finish = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener('abort', finish, { once: true });
  });
}
