import { z } from 'zod';
import { Secret } from '../../../core/secret.js';
import { BackendProblem } from '../contract.js';
import { problemOf, VaultAnswer } from './answers.js';
import type { VaultClient } from './client.js';
import { metadataOf, vaultFolder, vaultPath } from './path.js';
import type { VaultSession } from './session.js';

/** What is asked of an engine, with the token of the lease. */
export interface Question {
  method: 'GET' | 'POST';
  path: string;
  body?: Record<string, unknown>;
}

/** The answer of a secrets engine. `lease_id` is empty where it gave no lease. */
const reading = z.object({
  lease_id: z.string(),
  lease_duration: z.int().min(0),
  renewable: z.boolean(),
  data: z.record(z.string(), z.unknown()),
});

export type Reading = z.output<typeof reading>;

const nothing = z.unknown();

const madeToken = z.object({
  auth: z.object({
    client_token: z.string().min(1),
    accessor: z.string().min(1),
    policies: z.array(z.string()),
    lease_duration: z.int().min(0),
    token_type: z.string(),
    orphan: z.boolean(),
    num_uses: z.int().default(0),
  }),
});

const renewed = z.object({ auth: z.object({ lease_duration: z.int().min(0) }) });
const renewedLease = z.object({ lease_duration: z.int().min(0), renewable: z.boolean() });
const looked = z.object({ data: z.object({ issue_time: z.string(), expire_time: z.string(), ttl: z.int() }) });
const listed = z.object({ data: z.object({ keys: z.array(z.string()) }) });
const irrevocable = z.object({ data: z.object({ leases: z.array(z.object({ lease_id: z.string() })).nullish() }) });

export interface LeaseToken {
  token: Secret<string>;
  accessor: string;
  ttlMs: number;
}

export interface TokenOrder {
  role: string;
  displayName: string;
  ttlSeconds: number;
  /** The longest life, with renewals. */
  ttlSecondsMax: number;
  /** Stands in the Vault's own audit log and with the accessor. */
  meta: Record<string, string>;
}

/**
 * What there is to say to a Vault about one lease: its token, its secret, its end. Each answer is taken for what it was measured to
 * mean on OpenBao with a real database (docs/plugins/backends/vault.md).
 */
export class VaultLeases {
  readonly #client: VaultClient;
  readonly #session: VaultSession;

  constructor(client: VaultClient, session: VaultSession) {
    this.#client = client;
    this.#session = session;
  }

  /**
   * A token that lives on its own (it would die with the broker's otherwise), can be revoked (a batch token cannot) and is not used up by the one read that
   * it is for (its lease would be revoked at once). A token role that makes another kind is refused, and that token taken back.
   */
  async makeToken(order: TokenOrder, signal: AbortSignal): Promise<LeaseToken> {
    const { auth } = await this.#session.call({
      method: 'POST',
      path: vaultPath('auth/token/create', order.role),
      body: {
        display_name: order.displayName,
        ttl: `${order.ttlSeconds}s`,
        explicit_max_ttl: `${order.ttlSecondsMax}s`,
        renewable: order.ttlSecondsMax > order.ttlSeconds,
        no_default_policy: true,
        meta: order.meta,
      },
      reply: madeToken,
      signal,
      doing: `create a token by the role ${order.role}`,
    });
    const wrong = wrongToken(auth);
    if (wrong !== undefined) {
      await this.revokeToken(auth.accessor, signal);
      throw new BackendProblem('misconfigured', `the token role ${order.role} makes ${wrong}`);
    }
    return { token: new Secret(auth.client_token), accessor: auth.accessor, ttlMs: auth.lease_duration * 1000 };
  }

  /** The secret, read with the lease's own token. */
  async read({ method, path, body }: Question, token: Secret<string>, signal: AbortSignal): Promise<Reading> {
    return await this.#client.call({
      method,
      path: vaultPath(path),
      ...(body && { body }),
      token,
      reply: reading,
      signal,
      doing: `read ${path}`,
    });
  }

  /** Waits until the backend has done it. Done too when there is no such lease. A failed one is still alive, whatever else the answer says. */
  async revokeLease(id: string, signal: AbortSignal): Promise<void> {
    await this.#unless(['lease not found', 'invalid lease'], {
      path: 'sys/leases/revoke',
      body: { lease_id: id, sync: true },
      signal,
      doing: 'revoke its lease',
    });
  }

  /** Ends the token; its leases are then only *queued* for revocation. */
  async revokeToken(accessor: string, signal: AbortSignal): Promise<void> {
    // "token not found" is what the second of two at the same time is told.
    await this.#unless(['invalid accessor', 'token not found'], {
      path: 'auth/token/revoke-accessor',
      body: { accessor },
      signal,
      doing: 'revoke its token',
    });
  }

  async revokeCertificate(mount: string, serial: string, signal: AbortSignal): Promise<void> {
    await this.#session.call({
      method: 'POST',
      path: vaultPath(mount, 'revoke'),
      body: { serial_number: serial },
      reply: nothing,
      signal,
      doing: 'revoke its certificate',
    });
  }

  /** Undefined: no such lease, said by the Vault. `ageMs` is by the Vault's own clock, to a second. */
  async lookUpLease(
    id: string,
    signal: AbortSignal,
  ): Promise<{ issuedAtMs: number; ttlMs: number; ageMs: number } | undefined> {
    const call = { path: 'sys/leases/lookup', body: { lease_id: id }, signal, doing: 'look its lease up' };
    const found = await this.#unless(['invalid lease'], call, looked);
    if (found === undefined) return undefined;
    const issuedAtMs = Date.parse(found.data.issue_time);
    const ttlMs = found.data.ttl * 1000;
    return { issuedAtMs, ttlMs, ageMs: Date.parse(found.data.expire_time) - ttlMs - issuedAtMs };
  }

  async isTokenThere(accessor: string, signal: AbortSignal): Promise<boolean> {
    const call = { path: 'auth/token/lookup-accessor', body: { accessor }, signal, doing: 'look its token up' };
    return (await this.#unless(['invalid accessor'], call, z.object({}))) !== undefined;
  }

  /** The newest version of a KV value, by the path it is read at; undefined when nothing is there. */
  async versionOf(place: string, signal: AbortSignal): Promise<number | undefined> {
    const doing = 'look at the versions of a value';
    try {
      const { data } = await this.#session.ask({
        method: 'GET',
        path: vaultPath(metadataOf(place)),
        reply: z.object({ data: z.object({ current_version: z.int().min(0) }) }),
        signal,
        doing,
      });
      return data.current_version;
    } catch (error) {
      if (error instanceof VaultAnswer && error.status === 404) return undefined;
      throw problemOf(error, doing);
    }
  }

  /** When the certificate was revoked, in seconds; 0: it was not; undefined: the engine does not have it. */
  async certificateRevokedAt(mount: string, serial: string, signal: AbortSignal): Promise<number | undefined> {
    const certificate = z.object({ data: z.object({ revocation_time: z.int().min(0) }) });
    try {
      const { data } = await this.#session.ask({
        method: 'GET',
        path: vaultPath(mount, 'cert', serial.replaceAll(':', '-')),
        reply: certificate,
        signal,
        doing: 'look its certificate up',
      });
      return data.revocation_time;
    } catch (error) {
      if (error instanceof VaultAnswer && error.status === 404) return undefined;
      throw problemOf(error, 'look its certificate up');
    }
  }

  async renewToken(accessor: string, ttlSeconds: number, signal: AbortSignal): Promise<{ ttlMs: number }> {
    const { auth } = await this.#session.call({
      method: 'POST',
      path: vaultPath('auth/token/renew-accessor'),
      body: { accessor, increment: ttlSeconds },
      reply: renewed,
      signal,
      doing: 'renew its token',
    });
    return { ttlMs: auth.lease_duration * 1000 };
  }

  async renewLease(id: string, ttlSeconds: number, signal: AbortSignal): Promise<{ ttlMs: number }> {
    const given = await this.#session.call({
      method: 'POST',
      path: vaultPath('sys/leases/renew'),
      body: { lease_id: id, increment: ttlSeconds },
      reply: renewedLease,
      signal,
      doing: 'renew its lease',
    });
    return { ttlMs: given.lease_duration * 1000 };
  }

  /** Ids of the leases at a place. An empty list is answered with 404. */
  async list(place: string, signal: AbortSignal): Promise<string[]> {
    try {
      const { data } = await this.#session.ask({
        method: 'LIST',
        path: vaultFolder('sys/leases/lookup', place),
        reply: listed,
        signal,
        doing: `list the leases of ${place}`,
      });
      return data.keys.filter((key) => !key.endsWith('/')).map((key) => `${place}/${key}`);
    } catch (error) {
      if (error instanceof VaultAnswer && error.status === 404) return [];
      throw problemOf(error, `list the leases of ${place}`);
    }
  }

  /** Ids of the leases, whosever, that the Vault has given up on. */
  async givenUp(signal: AbortSignal): Promise<string[]> {
    const { data } = await this.#session.call({
      method: 'GET',
      path: `${vaultPath('sys/leases')}?type=irrevocable&limit=none`,
      reply: irrevocable,
      signal,
      doing: 'list the leases that cannot be revoked',
    });
    return (data.leases ?? []).map((lease) => lease.lease_id);
  }

  /** What the broker's own token may do on a path. */
  async capabilities(paths: string[], signal: AbortSignal): Promise<(path: string) => string[]> {
    const { data } = await this.#session.call({
      method: 'POST',
      path: vaultPath('sys/capabilities-self'),
      body: { paths },
      reply: z.object({ data: z.record(z.string(), z.unknown()) }),
      signal,
      doing: 'ask for the rights of this broker',
    });
    const list = z.array(z.string());
    return (path) => list.safeParse(data[path]).data ?? [];
  }

  /** POSTs; undefined when the answer is one of these refusals. */
  async #unless<Reply = unknown>(
    refusals: string[],
    call: { path: string; body: Record<string, unknown>; signal: AbortSignal; doing: string },
    reply: z.ZodType<Reply> = nothing as z.ZodType<Reply>,
  ): Promise<Reply | undefined> {
    try {
      return await this.#session.ask({ ...call, method: 'POST', path: vaultPath(call.path), reply });
    } catch (error) {
      if (
        error instanceof VaultAnswer &&
        refusals.some((refusal) => error.says(refusal)) &&
        !error.says('failed to revoke entry')
      ) {
        return undefined;
      }
      throw problemOf(error, call.doing);
    }
  }
}

function wrongToken(auth: z.output<typeof madeToken>['auth']): string | undefined {
  if (!auth.orphan) return 'tokens that die with the broker’s own: set orphan=true';
  if (auth.token_type !== 'service')
    return `${auth.token_type} tokens, which cannot be revoked: set token_type=service`;
  if (auth.num_uses !== 0)
    return 'tokens with a number of uses, whose last one revokes its lease: set token_num_uses=0';
  if (auth.policies.includes('root')) return 'root tokens';
  return undefined;
}
