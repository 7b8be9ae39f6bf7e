import { idTimeMs } from '../../../core/ids.js';
import { type BackendDeps, BackendProblem, type Confirmation } from '../contract.js';
import { Batches } from './batches.js';
import type { FoundRole, Sought } from './catalogue.js';
import type { PostgresConfig } from './config.js';
import { logIn, passwordOf } from './connect.js';
import { lookFor } from './look.js';
import { probeLogins, type Trial, type Tried } from './probe.js';
import { problemOf } from './problems.js';
import { RoleRetirer } from './retire-roles.js';
import { RoleMaker } from './role-maker.js';
import { IN_FLIGHT_MAX, Sessions } from './sessions.js';
import { untie } from './untie.js';

const LOCK_MS_MAX = 1_000;
const LOOKS_MAX = 100;
/** Logins at a time: each takes a place at the server. */
const PROBES_MAX = 8;
const PROBES_COLLECT = { collectMs: 8, collectMsMax: 8 };
/** Nothing waits for a look but the record of it: it may wait for company where there is some. */
const LOOKS_COLLECT = { collectMs: 6, collectMsMax: 25 };
/** Past it a manager is slow (docs/plugins/backends/postgres.md), and somebody should be told. */
const LEASES_WELL = 300;

export type Manager = PostgresConfig['managers'][number];

/**
 * One manager with its sessions. PostgreSQL makes the manager a member of every role that it makes, and each thing it does costs in proportion to
 * how many these are: so there are several, each with some 300 live leases. What one made, only the same one can drop. Issues and
 * revocations have sessions of their own, so that neither waits for the other.
 */
export class Lane {
  readonly manager: Manager;
  readonly issuing: Sessions;
  readonly revoking: Sessions;
  readonly maker: RoleMaker;
  readonly retirer: RoleRetirer;
  readonly #looks: Batches<Sought, Confirmation>;
  readonly #probes: Batches<Trial, Tried>;
  readonly #deps: BackendDeps;
  readonly #leasesMax: number;
  /** Live roles as last counted. */
  #live = 0;

  constructor(config: PostgresConfig, manager: Manager, deps: BackendDeps) {
    this.manager = manager;
    this.#deps = deps;
    this.#leasesMax = config.lane_leases_max;
    this.issuing = sessionsOf(config, manager, config.issue_timeout_seconds);
    this.revoking = sessionsOf(config, manager, config.revoke_timeout_seconds, true);
    const onResidue = (role: FoundRole, reason: string) =>
      deps.observe({ event: 'backend.residue', level: 'warn', backend: deps.name, role: role.name, reason });
    this.maker = new RoleMaker(this.issuing, {
      clock: deps.clock,
      statements: config.statements,
      onCounted: (live) => this.#counted(live),
    });
    this.retirer = new RoleRetirer(this.revoking, {
      revocation: config.statements.revocation,
      untie: (role, ties) => untie({ config, manager, sessions: this.revoking, onResidue }, role, ties),
      onResidue,
    });
    this.#looks = new Batches({
      max: LOOKS_MAX,
      ...LOOKS_COLLECT,
      inFlightMax: IN_FLIGHT_MAX,
      run: (items) => lookFor(this.revoking, items),
      mayBeOne: () => false,
    });
    // A login costs more than all the rest of a revocation: one control for all that are tried in its moment.
    this.#probes = new Batches({
      max: PROBES_MAX,
      ...PROBES_COLLECT,
      inFlightMax: 1,
      run: (trials) => probeLogins(config, manager, trials, deps.clock),
      mayBeOne: () => false,
    });
  }

  /** Throws `busy` when this manager has as many leases as it can carry. */
  refuseWhenFull(): void {
    if (this.#live < this.#leasesMax) return;
    throw new BackendProblem(
      'busy',
      `The manager ${this.manager.user} has ${this.#live} live roles: add managers to the backend ${this.#deps.name}`,
      { isSure: true },
    );
  }

  async confirm(sought: Sought): Promise<Confirmation> {
    try {
      return await this.#looks.add(sought);
    } catch (error) {
      throw problemOf(error, 'look for a role');
    }
  }

  probe(trial: Trial): Promise<Tried> {
    return this.#probes.add(trial);
  }

  close(): void {
    this.issuing.close();
    this.revoking.close();
  }

  #counted(live: number): void {
    if (live > LEASES_WELL && this.#live <= LEASES_WELL) {
      const { name, observe } = this.#deps;
      observe({ event: 'backend.lane_full', level: 'warn', backend: name, manager: this.manager.user, live });
    }
    this.#live = live;
  }
}

/** Leases that come within this time are made, and revoked, by the same manager: in one batch, that is. */
const TOGETHER_MS = 250;

/** The lane of a lease, by its id alone, which holds when it was opened: whoever plans it again plans the same, and each lane has its turn. */
export function laneFor(leaseId: string, lanes: readonly Lane[]): Lane {
  return lanes[Math.floor(idTimeMs(leaseId) / TOGETHER_MS) % lanes.length] as Lane;
}

function sessionsOf(config: PostgresConfig, manager: Manager, timeoutSeconds: number, keepsOne = false): Sessions {
  const timeoutMs = Math.round(timeoutSeconds * 1000);
  const limits = { statementMs: timeoutMs, lockMs: Math.min(LOCK_MS_MAX, timeoutMs) };
  return new Sessions({
    max: IN_FLIGHT_MAX,
    timeoutMs,
    keepsOne,
    open: async () =>
      logIn(config, { user: manager.user, database: config.database, password: await passwordOf(manager) }, limits),
  });
}
