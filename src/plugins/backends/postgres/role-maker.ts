import { setTimeout as delay } from 'node:timers/promises';
import type { Clock, EpochMs } from '../../../core/time.js';
import { BackendProblem } from '../contract.js';
import { Batches } from './batches.js';
import { findRoles, readRoles, type Sought } from './catalogue.js';
import type { PostgresConfig } from './config.js';
import { COUNT_OWN_ROLES, makeRoles, renewRole } from './make-roles.js';
import { isTransient, problemOf, sqlStateOf } from './problems.js';
import { IN_FLIGHT_MAX, type Sessions } from './sessions.js';
import { TOO_LATE } from './sql.js';

/** Roles of one transaction. */
export const BATCH_MAX = 16;
const COLLECT = { collectMs: 2, collectMsMax: 2 };
const COUNT_EVERY_MS = 1_000;
const BACK_OFF_MS = 10;
/** duplicate_object, unique_violation. */
const NAME_TAKEN = new Set(['42710', '23505']);

/** A role to make. Times are this broker's. */
export interface RoleOrder {
  name: string;
  verifier: string;
  groups: readonly string[];
  database: string;
  connectionLimit?: number | undefined;
  expiresAtMs: EpochMs;
  deadlineMs: EpochMs;
  signal: AbortSignal;
}

/** Makes roles, many in one transaction. */
export class RoleMaker {
  readonly #sessions: Sessions;
  readonly #clock: Clock;
  readonly #statements: PostgresConfig['statements'];
  readonly #onCounted: (live: number) => void;
  #countedAtMs = Number.NEGATIVE_INFINITY;
  readonly #batches: Batches<RoleOrder, string | BackendProblem>;

  constructor(
    sessions: Sessions,
    settings: { clock: Clock; statements: PostgresConfig['statements']; onCounted: (live: number) => void },
  ) {
    this.#sessions = sessions;
    this.#clock = settings.clock;
    this.#statements = settings.statements;
    this.#onCounted = settings.onCounted;
    this.#batches = new Batches({
      max: BATCH_MAX,
      ...COLLECT,
      inFlightMax: IN_FLIGHT_MAX,
      run: (orders) => this.#makeInTime(orders),
      mayBeOne: (error) => sqlStateOf(error) !== undefined,
    });
  }

  /** Returns the role's oid. A problem is sure only when certainly no role was made. */
  async make(order: RoleOrder): Promise<string> {
    try {
      const made = await this.#batches.add(order);
      if (typeof made === 'string') return made;
      throw made;
    } catch (error) {
      if (sqlStateOf(error) === TOO_LATE) throw tooLate();
      const problem = problemOf(error, 'make a role');
      // Another call for the same lease made a role of that name, or was about to when this one came (unique_violation of the catalogue's index).
      if (!NAME_TAKEN.has(sqlStateOf(error) ?? '')) throw problem;
      throw new BackendProblem(problem.kind, problem.message);
    }
  }

  async renew(role: Sought & { database: string }, expiresAtMs: EpochMs): Promise<void> {
    try {
      const [rows] = await this.#sessions.ask(findRoles([role]));
      const [found] = readRoles(rows ?? [], [role]);
      if (!found?.mayLogIn) throw new BackendProblem('failed', 'The role is gone or being revoked', { isSure: true });
      await this.#sessions.ask((serverMs) => {
        const validUntilMs = serverMs + (expiresAtMs - this.#clock.now());
        return renewRole({ name: found.name, database: role.database, validUntilMs }, this.#statements.renewal);
      });
    } catch (error) {
      throw problemOf(error, 'renew a role');
    }
  }

  /** Those that are still wanted when their turn comes. */
  async #makeInTime(orders: RoleOrder[]): Promise<(string | BackendProblem)[]> {
    const wanted = orders.filter((order) => this.#lateness(order) === undefined);
    const oids = wanted.length > 0 ? await this.#make(wanted) : new Map<string, string>();
    return orders.map((order) => oids.get(order.name) ?? this.#lateness(order) ?? tooLate());
  }

  async #make(orders: RoleOrder[]): Promise<Map<string, string>> {
    for (let attempt = 1; ; attempt++) {
      try {
        const answers = await this.#sessions.ask((serverMs) => this.#sql(orders, serverMs));
        // After it come the deadline again, and COMMIT.
        const made = answers.at(-3);
        if (performance.now() - this.#countedAtMs > COUNT_EVERY_MS) void this.#count().catch(() => undefined);
        return new Map((made ?? []).map((row) => [row['rolname'] as string, row['oid'] as string]));
      } catch (error) {
        const late = orders.some((order) => this.#lateness(order) !== undefined);
        if (!isTransient(error) || orders.length > 1 || late) throw error;
        await delay(BACK_OFF_MS * Math.random() * attempt);
      }
    }
  }

  #sql(orders: RoleOrder[], serverMs: EpochMs): string {
    const nowMs = this.#clock.now();
    const deadlineMs = Math.min(...orders.map((order) => order.deadlineMs));
    const roles = orders.map((order) => ({ ...order, validUntilMs: serverMs + (order.expiresAtMs - nowMs) }));
    return makeRoles(roles, serverMs + (deadlineMs - nowMs), this.#statements.creation);
  }

  #lateness({ deadlineMs, signal }: RoleOrder): BackendProblem | undefined {
    return signal.aborted || this.#clock.now() >= deadlineMs ? tooLate() : undefined;
  }

  /** How many roles this manager has: now and then, since asking costs as much as making one. */
  async #count(): Promise<void> {
    this.#countedAtMs = performance.now();
    const [rows] = await this.#sessions.ask(COUNT_OWN_ROLES);
    this.#onCounted(Number(rows?.[0]?.['live'] ?? 0));
  }
}

function tooLate(): BackendProblem {
  return new BackendProblem('too_late', 'The time for making the role was over', { isSure: true });
}
