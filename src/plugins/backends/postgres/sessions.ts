import type { Socket } from 'node:net';
import type pg from 'pg';
import { BackendProblem } from '../contract.js';
import { ask, cut, type Prepared } from './connect.js';
import { problemOf, sqlStateOf } from './problems.js';

/** So many batches of one lane and purpose are in flight at a time, and so many sessions it has for them. */
export const IN_FLIGHT_MAX = 3;

const IDLE_MS = 30_000;
/** Passwords, certificates and clocks change: no session is older than this, unless the server has no place for a newer one. */
const AGE_MS_MAX = 300_000;
const REOPEN_MS_MIN = 500;
const REOPEN_MS_MAX = 10_000;
const NO_PLACE = '53300';

interface Session {
  client: pg.Client;
  /** What the server's clock said when we heard its answer: never later than it is. */
  serverMs: number;
  heardAtMs: number;
}

/** What the server answered, and the clock it had. */
export type Rows = Record<string, unknown>[];

interface Idle {
  session: Session;
  timer: NodeJS.Timeout;
}

/**
 * At most so many sessions of one login; opened when needed, closed when idle or broken. With `keepsOne` one of them stays, once there was one:
 * whoever fills the server up keeps no other out than the second. Its successor is there before it goes, and when it is lost another is opened.
 */
export class Sessions {
  readonly #max: number;
  readonly #timeoutMs: number;
  readonly #open: () => Promise<pg.Client>;
  readonly #keepsOne: boolean;
  readonly #idleMs: number;
  readonly #ageMsMax: number;
  readonly #idle: Idle[] = [];
  readonly #waiting: (() => void)[] = [];
  #taken = 0;
  #isClosed = false;
  #holding: Promise<void> | undefined;
  #reopen: NodeJS.Timeout | undefined;

  constructor(settings: {
    max: number;
    timeoutMs: number;
    open: () => Promise<pg.Client>;
    keepsOne?: boolean;
    idleMs?: number;
    ageMsMax?: number;
  }) {
    this.#keepsOne = settings.keepsOne ?? false;
    this.#idleMs = settings.idleMs ?? IDLE_MS;
    this.#ageMsMax = settings.ageMsMax ?? AGE_MS_MAX;
    this.#max = settings.max;
    this.#timeoutMs = settings.timeoutMs;
    this.#open = settings.open;
  }

  /**
   * Asks in one message. `sql` is told what the server's clock shows at least now, so that ends and deadlines are in its time, and on the early side.
   * Throws what pg throws: whoever asks knows what it was about.
   */
  async ask(sql: string | Prepared | ((serverMs: number) => string)): Promise<Rows[]> {
    const session = await this.#take();
    let isUsable = false;
    try {
      const now = session.serverMs + (performance.now() - session.heardAtMs);
      const rows = await ask(session.client, typeof sql === 'function' ? sql(now) : sql, this.#timeoutMs);
      isUsable = true;
      return rows;
    } catch (error) {
      // What the server refused left a transaction to end; anything else leaves nothing to rely on.
      if (sqlStateOf(error) !== undefined) isUsable = await endsTransaction(session.client, this.#timeoutMs);
      throw error;
    } finally {
      this.#give(session, isUsable);
    }
  }

  /** Opens the one that stays, when there is none. Whoever makes what has to be revoked waits for it. */
  async hold(): Promise<void> {
    if (this.#isClosed || this.#idle.length + this.#taken > 0) return;
    this.#holding ??= this.#make()
      .then((session) => this.#park(session))
      .finally(() => {
        this.#holding = undefined;
      });
    await this.#holding.catch(failedLogin);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#reopen);
    for (const { session, timer } of this.#idle.splice(0)) {
      clearTimeout(timer);
      cut(session.client);
    }
  }

  async #take(): Promise<Session> {
    while (this.#taken >= this.#max) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#isClosed) throw new BackendProblem('unreachable', 'This broker is closing', { isSure: true });
    this.#taken++;
    try {
      for (;;) {
        const idle = this.#idle.pop();
        if (!idle) return await this.#makeOrWait();
        clearTimeout(idle.timer);
        const { session } = idle;
        const isSound = isAlive(session.client);
        if (isSound && this.#isYoung(session)) return inUse(session);
        const isLast = this.#keepsOne && this.#idle.length === 0;
        if (isSound && isLast) return await this.#renewed(session);
        cut(session.client);
      }
    } catch (error) {
      this.#release();
      return failedLogin(error);
    }
  }

  /** While the server has no place for another one, those that there are have to do. */
  async #makeOrWait(): Promise<Session> {
    for (;;) {
      try {
        return await this.#make();
      } catch (error) {
        if (!this.#keepsOne || sqlStateOf(error) !== NO_PLACE) throw error;
        const idle = this.#idle.pop();
        if (idle) {
          clearTimeout(idle.timer);
          if (isAlive(idle.session.client)) return inUse(idle.session);
          cut(idle.session.client);
        } else if (this.#taken > 1) {
          // Somebody else has one, and will give it back.
          this.#taken--;
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
          this.#taken++;
        } else throw error;
      }
    }
  }

  /** A new one in the place of an old one, which goes only then. */
  async #renewed(old: Session): Promise<Session> {
    try {
      const session = await this.#make();
      cut(old.client);
      return session;
    } catch (error) {
      if (sqlStateOf(error) === NO_PLACE && isAlive(old.client)) return inUse(old);
      cut(old.client);
      throw error;
    }
  }

  #isYoung(session: Session): boolean {
    return performance.now() - session.heardAtMs < this.#ageMsMax;
  }

  async #make(): Promise<Session> {
    const client = await this.#open();
    try {
      const [rows] = await ask(
        client,
        'SELECT pg_backend_pid() AS pid, extract(epoch FROM clock_timestamp()) * 1000 AS ms',
        this.#timeoutMs,
      );
      const heardAtMs = performance.now();
      const { pid, ms } = rows?.[0] ?? {};
      // A pooler hands out its own keys, and puts one client's settings and transactions on another's session.
      if (pid !== (client as unknown as { processID: number }).processID) {
        throw new BackendProblem(
          'misconfigured',
          'There is a pooler before PostgreSQL: name the server itself as host',
        );
      }
      const session = { client, serverMs: Number(ms), heardAtMs };
      client.once('end', () => this.#lost(session));
      return session;
    } catch (error) {
      cut(client);
      throw error;
    }
  }

  #give(session: Session, isUsable: boolean): void {
    if (isUsable && isAlive(session.client)) this.#park(session);
    else cut(session.client);
    this.#release();
    if (this.#idle.length === 0) this.#keepOne();
  }

  #park(session: Session): void {
    if (this.#isClosed) {
      cut(session.client);
      return;
    }
    // One that waits keeps no process from ending.
    streamOf(session.client).unref();
    const entry: Idle = { session, timer: setTimeout(() => void this.#rested(entry), this.#idleMs) };
    entry.timer.unref();
    this.#idle.push(entry);
  }

  async #rested(entry: Idle): Promise<void> {
    if (this.#keepsOne && this.#idle.length === 1) {
      entry.timer.refresh();
      if (this.#isYoung(entry.session)) return;
      const next = await this.#make().catch(() => undefined);
      if (!next) return;
      this.#park(next);
    }
    if (this.#unpark(entry.session)) cut(entry.session.client);
  }

  #lost(session: Session): void {
    if (this.#unpark(session) && this.#idle.length === 0) this.#keepOne();
  }

  /** Takes it out of those that wait; false when it is not among them. */
  #unpark(session: Session): boolean {
    const at = this.#idle.findIndex((one) => one.session === session);
    if (at < 0) return false;
    clearTimeout(this.#idle[at]?.timer);
    this.#idle.splice(at, 1);
    return true;
  }

  /** Opens one again, and goes on trying: nobody may ask for it before it is too late. */
  #keepOne(waitMs = 0): void {
    if (!this.#keepsOne || this.#isClosed || this.#reopen) return;
    this.#reopen = setTimeout(async () => {
      const isOpen = await this.hold().then(
        () => true,
        () => false,
      );
      this.#reopen = undefined;
      if (!isOpen) this.#keepOne(Math.min(Math.max(2 * waitMs, REOPEN_MS_MIN), REOPEN_MS_MAX));
    }, waitMs);
    this.#reopen.unref();
  }

  #release(): void {
    this.#taken--;
    this.#waiting.shift()?.();
  }
}

function inUse(session: Session): Session {
  streamOf(session.client).ref();
  return session;
}

/** Nothing was sent yet. */
function failedLogin(error: unknown): never {
  const problem = problemOf(error, 'log in as a manager');
  throw new BackendProblem(problem.kind, problem.message, { isSure: true });
}

function isAlive(client: pg.Client): boolean {
  const stream = streamOf(client);
  return stream.readable && stream.writable;
}

function streamOf(client: pg.Client): Socket {
  return (client as unknown as { connection: { stream: Socket } }).connection.stream;
}

async function endsTransaction(client: pg.Client, timeoutMs: number): Promise<boolean> {
  try {
    await ask(client, 'ROLLBACK', timeoutMs);
    return true;
  } catch {
    return false;
  }
}
