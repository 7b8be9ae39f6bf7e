import { setTimeout as delay } from 'node:timers/promises';
import { BackendProblem } from '../contract.js';
import { Batches } from './batches.js';
import {
  cutRoles,
  dropRoles,
  type FoundRole,
  findLocked,
  findRemains,
  findRoles,
  type Remains,
  readRemains,
  readRoles,
  type Sought,
  type Tie,
} from './catalogue.js';
import { isTransient, problemOf, sqlStateOf } from './problems.js';
import { IN_FLIGHT_MAX, type Rows, type Sessions } from './sessions.js';
import { identifier, text } from './sql.js';
import { fillTemplate } from './templates.js';

const BATCH_MAX = 100;
const PROMPT = { collectMs: 2, collectMsMax: 2 };
/** Once nothing of the role can do anything, its end may wait for more company where there is some. */
const PATIENT = { collectMs: 6, collectMsMax: 25 };
/** A login that passed its check before the role was barred shows up within this time. */
const SCAN_GAP_MS = 200;
/** A session that was told to end is gone in about this time. */
const ENDING_MS = 20;
/** One session of the lane at most waits for locks: those that cut are never kept from it. */
const DROPS_IN_FLIGHT_MAX = 1;
/** Once it is dead, clearing it away is waited for so long. */
const CLEARING_MS_MAX = 1_000;
const LOCKED = '55P03';
const ATTEMPTS_MAX = 8;
const BACK_OFF_MS = 15;

/**
 * A holder can keep any role from being dropped, without a right to anything: a transaction that names it in a grant holds a lock on it. So nothing
 * that has to happen waits for a drop, and what is locked is left for later.
 *
 * Takes roles away, by the steps that leave nothing alive: bar the login and the groups; end sessions, by oid, until two looks apart find none; drop
 * what it owns where it owns something; drop the role; look again by oid, because a session outlives its role. Each step is done for many at a time.
 */
export class RoleRetirer {
  readonly #sessions: Sessions;
  readonly #untie: (role: FoundRole, ties: Tie[]) => Promise<boolean>;
  readonly #onResidue: (role: FoundRole, reason: string) => void;
  readonly #cuts: Batches<Sought, { role?: FoundRole; sessions: number }>;
  readonly #scans: Batches<string, Remains>;
  readonly #drops: Batches<FoundRole, { sessions: number }>;
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
    const batches = <Item, Result>(
      run: (items: Item[]) => Promise<Result[]>,
      collect = PROMPT,
      inFlightMax = IN_FLIGHT_MAX,
    ) =>
      new Batches<Item, Result>({
        max: BATCH_MAX,
        ...collect,
        inFlightMax,
        run: (items) => this.#again(() => run(items), items.length === 1),
        mayBeOne: (error) => sqlStateOf(error) !== undefined,
      });
    this.#cuts = batches((items) => this.#cut(items));
    this.#scans = batches((items) => this.#scan(items), PATIENT);
    this.#drops = batches((items) => this.#drop(items), PATIENT, DROPS_IN_FLIGHT_MAX);
  }

  /** Does nothing when there is nothing. What cannot be dropped, but can do nothing any more, is left: whoever confirms will see it. */
  async retire(sought: Sought, signal: AbortSignal): Promise<void> {
    try {
      const { role, sessions } = await this.#cuts.add(sought);
      const oid = role?.oid ?? sought.oid;
      if (oid === undefined) return;
      const ties = await this.#untilNoSession(oid, sessions, signal);
      const left = role && (await inTime(this.#clear(role, ties), CLEARING_MS_MAX));
      if (left && left.sessions > 0) await this.#untilNoSession(oid, left.sessions, signal);
    } catch (error) {
      throw problemOf(error, 'revoke a role');
    }
  }

  /** Undefined when something of it is left. */
  async #clear(role: FoundRole, ties: Tie[]): Promise<{ sessions: number } | undefined> {
    if (ties.length > 0 && !(await this.#untie(role, ties))) return undefined;
    return this.#drops.add(role);
  }

  async #cut(sought: Sought[]): Promise<{ role?: FoundRole; sessions: number }[]> {
    const [rows] = await this.#sessions.ask(findRoles(sought));
    const roles = readRoles(rows ?? [], sought);
    const alive = roles.filter(
      (role) => role !== undefined && (role.mayLogIn || role.groups.length > 0),
    ) as FoundRole[];
    const sessions = alive.length > 0 ? await this.#cutAlive(alive) : new Map<string, number>();
    // Of a role that was cut before, and of one that is gone, nothing is known yet: as good as one session.
    return roles.map((role) => (role ? { role, sessions: sessions.get(role.oid) ?? 1 } : { sessions: 1 }));
  }

  async #cutAlive(roles: FoundRole[]): Promise<Map<string, number>> {
    let answers: Rows[];
    try {
      answers = await this.#sessions.ask(cutRoles(roles));
    } catch (error) {
      const [only, ...others] = roles;
      if (!only || others.length > 0 || sqlStateOf(error) !== LOCKED) throw error;
      // Its sessions are ended, so what still holds a lock on the role itself is a transaction that it prepared.
      const [remains] = await this.#scan([only.oid]);
      const prepared = remains?.ties.filter((tie) => tie.prepared !== undefined) ?? [];
      if (prepared.length === 0 || !(await this.#untie(only, prepared))) throw error;
      answers = await this.#sessions.ask(cutRoles(roles));
    }
    return countsOf(answers, roles);
  }

  /** Until two looks apart find none; `sessions` is what the first found. Returns what else the last one found. */
  async #untilNoSession(oid: string, sessions: number, signal: AbortSignal): Promise<Tie[]> {
    let last: Remains = { sessions, ties: [] };
    for (let empty = sessions > 0 ? 0 : 1; empty < 2; ) {
      if (signal.aborted) throw new BackendProblem('timeout', 'The role’s sessions did not end in time');
      await delay(last.sessions > 0 ? ENDING_MS : SCAN_GAP_MS);
      last = await this.#scans.add(oid);
      empty = last.sessions > 0 ? 0 : empty + 1;
    }
    return last.ties;
  }

  async #scan(oids: string[]): Promise<Remains[]> {
    const [rows] = await this.#sessions.ask(findRemains(oids, { end: true }));
    return readRemains(rows ?? [], oids);
  }

  async #drop(roles: FoundRole[], isAgain = false): Promise<{ sessions: number }[]> {
    const before = roles.flatMap(({ name }) =>
      this.#revocation.map((template) => fillTemplate(template, { role: identifier(name), role_text: text(name) })),
    );
    try {
      const sessions = countsOf(await this.#sessions.ask(dropRoles(roles, before)), roles);
      return roles.map(({ oid }) => ({ sessions: sessions.get(oid) ?? 0 }));
    } catch (error) {
      if (sqlStateOf(error) === LOCKED) return await this.#dropUnlocked(roles, error, isAgain);
      const [only, ...others] = roles;
      if (!only || others.length > 0 || isTransient(error) || sqlStateOf(error) === undefined) throw error;
      this.#onResidue(only, problemOf(error, 'drop a role').message);
      return [{ sessions: 0 }];
    }
  }

  /** Leaves those that somebody holds a lock on; all of them when that does not help. */
  async #dropUnlocked(roles: FoundRole[], error: unknown, isAgain: boolean): Promise<{ sessions: number }[]> {
    const [rows] = isAgain ? [] : await this.#sessions.ask(findLocked(roles.map(({ oid }) => oid)));
    const locked = new Set(rows?.map((row) => row['oid'] as string));
    const free = roles.filter(({ oid }) => locked.size > 0 && !locked.has(oid));
    const dropped = free.length > 0 ? await this.#drop(free, true) : [];
    return roles.map((role) => {
      const at = free.indexOf(role);
      if (at < 0) this.#onResidue(role, problemOf(error, 'drop a role').message);
      return dropped[at] ?? { sessions: 0 };
    });
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

/** Undefined when it is not done by then; it goes on, and whoever looks again finds what came of it. */
async function inTime<T>(work: Promise<T>, withinMs: number): Promise<T | undefined> {
  const limit = new AbortController();
  const late = delay(withinMs, undefined, { signal: limit.signal }).catch(() => undefined);
  try {
    return await Promise.race([work, late]);
  } finally {
    limit.abort();
    work.catch(() => undefined);
  }
}

/** The last answer counts the sessions of these roles. */
function countsOf(answers: Rows[], roles: readonly FoundRole[]): Map<string, number> {
  const counts = new Map(roles.map(({ oid }) => [oid, 0]));
  for (const { oid, sessions } of answers.at(-1) ?? []) counts.set(oid as string, sessions as number);
  return counts;
}
