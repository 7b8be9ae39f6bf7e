import { setTimeout as delay } from 'node:timers/promises';
import { BackendProblem } from '../contract.js';
import { Batches } from './batches.js';
import {
  cutRoles,
  dropRoles,
  endSessions,
  type FoundRole,
  findRoles,
  findTies,
  readRoles,
  readTies,
  type Sought,
  type Tie,
} from './catalogue.js';
import { isTransient, problemOf, sqlStateOf } from './problems.js';
import { IN_FLIGHT_MAX, type Sessions } from './sessions.js';
import { identifier, text } from './sql.js';
import { fillTemplate } from './templates.js';

const BATCH_MAX = 100;
const COLLECT_MS = 2;
/** A login that passed its check before the role was barred shows up within this time. */
const SCAN_GAP_MS = 200;
/** A session that was told to end is gone in about this time. */
const ENDING_MS = 20;
const LOCKED = '55P03';
const ATTEMPTS_MAX = 8;
const BACK_OFF_MS = 15;

/**
 * Takes roles away, by the steps that leave nothing alive: bar the login and the groups; end sessions, by oid, until two looks apart find none; drop
 * what it owns where it owns something; drop the role; look again by oid, because a session outlives its role. Each step is done for many at a time.
 */
export class RoleRetirer {
  readonly #sessions: Sessions;
  readonly #untie: (role: FoundRole, ties: Tie[]) => Promise<boolean>;
  readonly #onResidue: (role: FoundRole, reason: string) => void;
  readonly #cuts: Batches<Sought, FoundRole | undefined>;
  readonly #scans: Batches<string, number>;
  readonly #drops: Batches<FoundRole, undefined>;
  readonly #revocation: readonly string[];

  constructor(
    sessions: Sessions,
    settings: {
      revocation: readonly string[];
      untie: (role: FoundRole, ties: Tie[]) => Promise<boolean>;
      onResidue: (role: FoundRole, reason: string) => void;
    },
  ) {
    this.#onResidue = settings.onResidue;
    this.#sessions = sessions;
    this.#untie = settings.untie;
    this.#revocation = settings.revocation;
    const batches = <Item, Result>(run: (items: Item[]) => Promise<Result[]>) =>
      new Batches<Item, Result>({
        max: BATCH_MAX,
        collectMs: COLLECT_MS,
        inFlightMax: IN_FLIGHT_MAX,
        run: (items) => this.#again(() => run(items), items.length === 1),
        mayBeOne: (error) => sqlStateOf(error) !== undefined,
      });
    this.#cuts = batches((items) => this.#cut(items));
    this.#scans = batches((items) => this.#scan(items));
    this.#drops = batches((items) => this.#drop(items));
  }

  /** Does nothing when there is nothing. What cannot be dropped, but can do nothing any more, is left: whoever confirms will see it. */
  async retire(sought: Sought, signal: AbortSignal): Promise<void> {
    try {
      const role = await this.#cuts.add(sought);
      const oid = role?.oid ?? sought.oid;
      if (oid === undefined) return;
      await this.#untilNoSession(oid, signal);
      if (!role) return;
      await this.#drops.add(role);
      if ((await this.#scans.add(oid)) > 0) await this.#untilNoSession(oid, signal);
    } catch (error) {
      throw problemOf(error, 'revoke a role');
    }
  }

  async #cut(sought: Sought[]): Promise<(FoundRole | undefined)[]> {
    const [rows] = await this.#sessions.ask(findRoles(sought));
    const roles = readRoles(rows ?? [], sought);
    const there = roles.filter((role) => role !== undefined);
    const alive = there.filter(({ mayLogIn, groups }) => mayLogIn || groups.length > 0);
    if (alive.length === 0) return roles;
    try {
      await this.#sessions.ask(cutRoles(alive));
    } catch (error) {
      const [only, ...others] = alive;
      if (!only || others.length > 0 || sqlStateOf(error) !== LOCKED) throw error;
      // Its sessions are ended, so what still holds a lock on the role itself is a transaction that it prepared.
      const [ties] = await this.#sessions.ask(findTies([only.oid]));
      const prepared =
        readTies(ties ?? [])
          .get(only.oid)
          ?.filter((tie) => tie.prepared !== undefined) ?? [];
      if (prepared.length === 0 || !(await this.#untie(only, prepared))) throw error;
      await this.#sessions.ask(cutRoles(alive));
    }
    return roles;
  }

  async #untilNoSession(oid: string, signal: AbortSignal): Promise<void> {
    for (let empty = 0; empty < 2; ) {
      if (signal.aborted) throw new BackendProblem('timeout', 'The role’s sessions did not end in time');
      const sessions = await this.#scans.add(oid);
      empty = sessions > 0 ? 0 : empty + 1;
      if (empty < 2) await delay(sessions > 0 ? ENDING_MS : SCAN_GAP_MS);
    }
  }

  /** Ends the sessions of many, and says for each how many it still had. */
  async #scan(oids: string[]): Promise<number[]> {
    const [rows] = await this.#sessions.ask(endSessions(oids));
    const counts = new Map((rows ?? []).map((row) => [row['oid'], row['sessions'] as number]));
    return oids.map((oid) => counts.get(oid) ?? 0);
  }

  async #drop(roles: FoundRole[]): Promise<undefined[]> {
    const [rows] = await this.#sessions.ask(findTies(roles.map(({ oid }) => oid)));
    const ties = readTies(rows ?? []);
    const free: FoundRole[] = [];
    for (const role of roles) {
      const own = ties.get(role.oid);
      if (!own || (await this.#untie(role, own))) free.push(role);
    }
    if (free.length > 0) {
      const before = free.flatMap(({ name }) =>
        this.#revocation.map((template) => fillTemplate(template, { role: identifier(name), role_text: text(name) })),
      );
      try {
        await this.#sessions.ask(
          dropRoles(
            free.map(({ name }) => name),
            before,
          ),
        );
      } catch (error) {
        if (roles.length > 1 || isTransient(error) || sqlStateOf(error) === undefined) throw error;
        this.#onResidue(free[0] as FoundRole, problemOf(error, 'drop a role').message);
      }
    }
    return roles.map(() => undefined);
  }

  /** What ran into another transaction is tried again; a batch only once, since its single items come next. */
  async #again<T>(work: () => Promise<T>, isSingle: boolean): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await work();
      } catch (error) {
        if (!isTransient(error) || attempt >= (isSingle ? ATTEMPTS_MAX : 2)) throw error;
        await delay(BACK_OFF_MS * Math.random() * attempt);
      }
    }
  }
}
