import { credentialName, type Handle, leaseIdOfName, type Revocability } from '../../core/credential.js';
import { Secret } from '../../core/secret.js';
import type { EpochMs } from '../../core/time.js';
import { definePlugin } from '../plugin.js';
import { boundsOf } from './bounds.js';
import {
  type Backend,
  type BackendDeps,
  BackendProblem,
  type Bounds,
  type Confirmation,
  type Credential,
  type Found,
  type Issued,
  type IssueOrder,
  type Order,
  type Probeable,
} from './contract.js';
import { listRoles, type Sought } from './postgres/catalogue.js';
import { checkSecret } from './postgres/check.js';
import { type PostgresConfig, postgresConfig, postgresSettings } from './postgres/config.js';
import { Lane, laneFor } from './postgres/lane.js';
import { problemOf } from './postgres/problems.js';
import { isOid } from './postgres/sql.js';
import { Verifiers } from './postgres/verifiers.js';

/** PostgreSQL 16 or later: a role for each lease, named after it, made and dropped by managers that are no superusers. */
export const postgres = definePlugin({
  kind: 'postgres',
  config: postgresConfig,
  create: (config, deps: BackendDeps): Backend => new PostgresBackend(config, deps),
});

/**
 * A handle is `{role, manager, database}`, and `oid` once the role was made: a session outlives its role, and is then found by that alone.
 */
class PostgresBackend implements Backend {
  readonly kind = 'postgres';
  readonly name: string;
  readonly bounds: Bounds;
  readonly secretSettings = postgresSettings;
  readonly #config: PostgresConfig;
  readonly #deps: BackendDeps;
  readonly #lanes: readonly Lane[];
  readonly #verifiers: Verifiers;

  constructor(config: PostgresConfig, deps: BackendDeps) {
    this.name = deps.name;
    this.bounds = boundsOf(config);
    this.#config = config;
    this.#deps = deps;
    this.#lanes = config.managers.map((manager) => new Lane(config, manager, deps));
    this.#verifiers = new Verifiers(config.scram_iterations);
  }

  revocability(): Revocability {
    return { kind: 'instant' };
  }

  plan({ leaseId, settings }: Order): Handle {
    return {
      role: credentialName(this.#deps.installation, leaseId),
      manager: laneFor(leaseId, this.#lanes).manager.user,
      database: postgresSettings.parse(settings).database,
    };
  }

  async issue({ leaseId, handle, settings, expiresAtMs, deadlineMs, signal }: IssueOrder): Promise<Issued> {
    const lane = this.#laneOf(handle);
    const role = this.#roleOf({ leaseId, handle });
    lane.refuseWhenFull();
    // A holder may take every place that the server has: the session that ends it is there before it is.
    await untilAborted(lane.revoking.hold(), signal);
    const { database, groups, connection_limit } = postgresSettings.parse(settings);
    const { password, verifier } = await this.#verifiers.take();
    const oid = await untilAborted(
      lane.maker.make({
        name: role.name,
        verifier,
        groups,
        database,
        connectionLimit: connection_limit,
        expiresAtMs,
        deadlineMs,
        signal,
      }),
      signal,
    );
    const { host, port = this.#config.port } = this.#config.agents ?? this.#config;
    return {
      data: new Secret({ host, port, database, username: role.name, password: password.expose() }),
      handle: { ...handle, oid },
      expiresAtMs,
      renewable: true,
    };
  }

  async renew(
    { leaseId, handle }: Credential,
    expiresAtMs: EpochMs,
    signal: AbortSignal,
  ): Promise<{ expiresAtMs: EpochMs }> {
    const role = { ...this.#roleOf({ leaseId, handle }), database: handle['database'] ?? '' };
    await untilAborted(this.#laneOf(handle).maker.renew(role, expiresAtMs), signal);
    return { expiresAtMs };
  }

  async revoke(credential: Credential, signal: AbortSignal): Promise<void> {
    await untilAborted(this.#laneOf(credential.handle).retirer.retire(this.#roleOf(credential), signal), signal);
  }

  confirm(credential: Credential, signal: AbortSignal): Promise<Confirmation> {
    return untilAborted(this.#laneOf(credential.handle).confirm(this.#roleOf(credential)), signal);
  }

  async *find(signal: AbortSignal): AsyncIterable<Found> {
    const { installation } = this.#deps;
    const managers = this.#lanes.map(({ manager }) => manager.user);
    for (const row of await untilAborted(this.#askAny(listRoles(`mayfly_${installation}_`, managers)), signal)) {
      const role = row['rolname'] as string;
      const leaseId = leaseIdOfName(installation, role);
      if (leaseId === undefined) continue;
      const manager = row['manager'] as string | null;
      yield { leaseId, handle: { role, oid: row['oid'] as string, ...(manager !== null && { manager }) } };
    }
  }

  probe(credential: Credential, data: Parameters<Probeable['probe']>[1], signal: AbortSignal) {
    return untilAborted(this.#laneOf(credential.handle).probe({ role: this.#roleOf(credential), data }), signal);
  }

  check({ settings }: { settings: Record<string, unknown> }, signal: AbortSignal): Promise<string[]> {
    const parts = {
      config: this.#config,
      deps: this.#deps,
      lanes: this.#lanes,
      makePassword: () => this.#verifiers.take(),
    };
    return untilAborted(checkSecret(parts, postgresSettings.parse(settings), signal), signal);
  }

  async close(): Promise<void> {
    for (const lane of this.#lanes) lane.close();
    this.#verifiers.close();
  }

  #laneOf(handle: Handle): Lane {
    const user = handle['manager'];
    const lane = this.#lanes.find(({ manager }) => manager.user === user);
    if (lane) return lane;
    throw new BackendProblem(
      'misconfigured',
      user === undefined
        ? `The role ${handle['role'] ?? ''} was made by none of the managers of ${this.name}: drop it as whoever made it`
        : `The manager ${user} made this role and is no longer one of ${this.name}: add it again until its leases are gone`,
      { isSure: true },
    );
  }

  #roleOf({ leaseId, handle }: Pick<Credential, 'leaseId' | 'handle'>): Sought {
    const { role, oid } = handle;
    return {
      name: role ?? credentialName(this.#deps.installation, leaseId),
      ...(isOid(oid) && { oid }),
    };
  }

  /** Any manager can read the catalogue: one whose password is wrong keeps nobody from it. */
  async #askAny(sql: string): Promise<Record<string, unknown>[]> {
    let problem: unknown;
    for (const lane of this.#lanes) {
      try {
        const [rows] = await lane.revoking.ask(sql);
        return rows ?? [];
      } catch (error) {
        problem = error;
      }
    }
    throw problemOf(problem, 'list the roles');
  }
}

/** Gives up waiting; what was sent may still happen, and the server's own limits end it. */
async function untilAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(new BackendProblem('timeout', 'PostgreSQL did not answer in time'));
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (onAbort) signal.removeEventListener('abort', onAbort);
  }
}
