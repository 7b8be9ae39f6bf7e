import type pg from 'pg';
import { BackendProblem } from '../contract.js';
import { ask, cut, type Prepared } from './connect.js';
import { problemOf, sqlStateOf } from './problems.js';

/** So many batches of one lane and purpose are in flight at a time, and so many sessions it has for them. */
export const IN_FLIGHT_MAX = 3;

const IDLE_MS = 30_000;
/** Passwords, certificates and clocks change: no session is older than this. */
const AGE_MS_MAX = 300_000;

interface Session {
  client: pg.Client;
  /** What the server's clock said when we heard its answer: never later than it is. */
  serverMs: number;
  heardAtMs: number;
}

/** What the server answered, and the clock it had. */
export type Rows = Record<string, unknown>[];

/** At most so many sessions of one login; opened when needed, closed when idle or broken. */
export class Sessions {
  readonly #max: number;
  readonly #timeoutMs: number;
  readonly #open: () => Promise<pg.Client>;
  readonly #idle: { session: Session; timer: NodeJS.Timeout }[] = [];
  readonly #waiting: (() => void)[] = [];
  #taken = 0;
  #isClosed = false;

  constructor(settings: { max: number; timeoutMs: number; open: () => Promise<pg.Client> }) {
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

  close(): void {
    this.#isClosed = true;
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
        if (!idle) return await this.#make();
        clearTimeout(idle.timer);
        const isYoung = performance.now() - idle.session.heardAtMs < AGE_MS_MAX;
        if (isYoung && isAlive(idle.session.client)) return idle.session;
        cut(idle.session.client);
      }
    } catch (error) {
      this.#release();
      const problem = problemOf(error, 'log in as a manager');
      // Nothing was sent yet.
      throw new BackendProblem(problem.kind, problem.message, { isSure: true });
    }
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
      return { client, serverMs: Number(ms), heardAtMs };
    } catch (error) {
      cut(client);
      throw error;
    }
  }

  #give(session: Session, isUsable: boolean): void {
    if (isUsable && !this.#isClosed && isAlive(session.client)) {
      const entry = { session, timer: setTimeout(() => this.#drop(session), IDLE_MS) };
      entry.timer.unref();
      this.#idle.push(entry);
    } else {
      cut(session.client);
    }
    this.#release();
  }

  #drop(session: Session): void {
    const at = this.#idle.findIndex((one) => one.session === session);
    if (at >= 0) this.#idle.splice(at, 1);
    cut(session.client);
  }

  #release(): void {
    this.#taken--;
    this.#waiting.shift()?.();
  }
}

function isAlive(client: pg.Client): boolean {
  const { stream } = (client as unknown as { connection: { stream: { readable: boolean; writable: boolean } } })
    .connection;
  return stream.readable && stream.writable;
}

async function endsTransaction(client: pg.Client, timeoutMs: number): Promise<boolean> {
  try {
    await ask(client, 'ROLLBACK', timeoutMs);
    return true;
  } catch {
    return false;
  }
}
