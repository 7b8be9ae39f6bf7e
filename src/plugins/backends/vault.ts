import { randomBytes } from 'node:crypto';
import type { z } from 'zod';
import { credentialName, type Handle, type Revocability } from '../../core/credential.js';
import { Secret } from '../../core/secret.js';
import { shortest } from '../../core/time.js';
import { definePlugin } from '../plugin.js';
import { boundsOf } from './bounds.js';
import {
  type Backend,
  type BackendDeps,
  BackendProblem,
  type Confirmation,
  type Credential,
  type Issued,
  type IssueOrder,
} from './contract.js';
import { checkSecret } from './vault/check.js';
import { VaultClient } from './vault/client.js';
import { vaultConfig } from './vault/config.js';
import { engineOf, type SecretSettings, secretSettings, type Taken } from './vault/engines.js';
import { Places } from './vault/find.js';
import { VaultLeases } from './vault/leases.js';
import { logIn } from './vault/login.js';
import { probeDatabase } from './vault/probe.js';
import { VaultSession } from './vault/session.js';

/** How much longer than its lease a token lives: it is the Vault's own end to what we could not revoke. */
const TOKEN_EXTRA_MS = 60_000;

/** How long its neighbours' clocks may be off, when a lease is looked for by its time. */
const SKEW_MS = 60_000;

export const vault = definePlugin({
  kind: 'vault' as const,
  config: vaultConfig,
  create: (options, deps: BackendDeps): Backend => new VaultBackend(options, deps),
});

class VaultBackend implements Backend {
  readonly kind = 'vault';
  readonly name: string;
  readonly bounds;
  readonly secretSettings = secretSettings as z.ZodType<Record<string, unknown>>;
  readonly #deps: BackendDeps;
  readonly #tokenRole: string;
  readonly #client: VaultClient;
  readonly #session: VaultSession;
  readonly #leases: VaultLeases;
  readonly #places: Places;

  constructor(options: z.output<typeof vaultConfig>, deps: BackendDeps) {
    const { address, namespace, auth, ca_file, cert_file, key_file } = options;
    this.name = deps.name;
    this.bounds = boundsOf(options);
    this.#deps = deps;
    this.#tokenRole = options.token_role;
    const timeoutMs = Math.max(this.bounds.issueTimeoutMs, this.bounds.revokeTimeoutMs);
    const tls = { ca_file, cert_file, key_file };
    this.#client = new VaultClient({ address, namespace, tls, timeoutMs, connectionsMax: options.connections_max });
    this.#session = new VaultSession(this.#client, {
      ...deps,
      logIn: (signal) => logIn(this.#client, auth, deps, signal),
      isOurs: auth.method !== 'token',
      timeoutMs,
    });
    this.#leases = new VaultLeases(this.#client, this.#session);
    this.#places = new Places(this.#leases, deps);
  }

  revocability(settings: Record<string, unknown>) {
    const own = settings as SecretSettings;
    return engineOf(own).revocability(own);
  }

  plan({ leaseId, settings }: { leaseId: string; settings: Record<string, unknown> }): Handle {
    const own = settings as SecretSettings;
    this.#places.know(own);
    return {
      name: credentialName(this.#deps.installation, leaseId),
      engine: own.engine,
      place: engineOf(own).question(own, 0).path,
      token_role: own.token_role ?? this.#tokenRole,
      ...wordsOf(engineOf(own).revocability(own)),
      ...(own.engine === 'database' && own.probe && { probe: own.probe.tls ? 'tls' : 'plain' }),
      ...(own.engine === 'database' && own.probe?.ca_file !== undefined && { probe_ca_file: own.probe.ca_file }),
    };
  }

  /**
   * First the token, whose accessor goes into the lease: from then on a crash leaves something that can be found. Then the secret, with that token. A token
   * that nobody noted has nothing and dies by itself; that one is taken back here, since nobody else knows it.
   */
  async issue(order: IssueOrder): Promise<Issued> {
    const settings = order.settings as SecretSettings;
    const { clock } = this.#deps;
    const startMs = clock.now();
    this.#refuseLate(order, { isSure: true });
    const token = await this.#leases.makeToken(this.#tokenOrder(order, settings, startMs), order.signal);
    try {
      await order.note({
        [`${ACCESSOR}${randomBytes(3).toString('hex')}`]: token.accessor,
        asked_at: new Date(startMs).toISOString(),
        renewable_until: new Date(startMs + settings.renewable_seconds_max * 1000).toISOString(),
      });
    } catch (error) {
      await this.#leases.revokeToken(token.accessor, AbortSignal.timeout(this.bounds.revokeTimeoutMs)).catch(() => {});
      throw error;
    }
    this.#refuseLate(order, { isSure: false });
    const ttlSeconds = Math.max(1, Math.floor((order.expiresAtMs - clock.now()) / 1000));
    const engine = engineOf(settings);
    const askedMs = clock.now();
    const reply = await this.#leases.read(engine.question(settings, ttlSeconds), token.token, order.signal);
    const isLeased = reply.lease_id !== '';
    if (settings.engine === 'path' && settings.revoke === 'lease' && !isLeased) {
      throw new BackendProblem('misconfigured', `${settings.path} gave no lease, though it is to be revoked by one`);
    }
    if (isLeased) this.#places.name(reply.lease_id, order.leaseId);
    const taken = takenFrom(() => engine.take(reply, settings));
    return {
      data: new Secret(taken.data),
      handle: { ...taken.handle, ...(isLeased && { lease: reply.lease_id }) },
      expiresAtMs: shortest(
        order.expiresAtMs,
        startMs + token.ttlMs,
        isLeased ? askedMs + reply.lease_duration * 1000 : undefined,
        taken.expiresAtMs,
      ),
      renewable: isLeased && reply.renewable && settings.renewable_seconds_max > 0,
      ...(taken.warnings && { warnings: taken.warnings }),
    };
  }

  /** By the lease until the Vault says that it is done, then its token. Without a known lease the token, which queues what hangs on it. */
  async revoke({ handle }: Credential, signal: AbortSignal): Promise<void> {
    const { lease, pki, serial } = handle;
    if (lease !== undefined) await this.#leases.revokeLease(lease, signal);
    else if (pki !== undefined && serial !== undefined) await this.#leases.revokeCertificate(pki, serial, signal);
    for (const accessor of accessorsOf(handle)) await this.#leases.revokeToken(accessor, signal);
  }

  async confirm(credential: Credential, signal: AbortSignal): Promise<Confirmation> {
    const { handle } = credential;
    const { lease, revocability, pki, serial } = handle;
    if (lease === undefined && accessorsOf(handle).length === 0) return { state: 'gone' };
    if (revocability === 'expiry-only') return { state: 'unknowable', untilMs: this.#endOf(credential) };
    if (revocability === 'rotate-only') return await this.#confirmRotation(handle, signal);
    if (lease !== undefined) {
      const found = await this.#leases.lookUpLease(lease, signal);
      if (found !== undefined) return { state: 'there', detail: 'its lease is still there' };
    }
    if (pki !== undefined && serial !== undefined)
      return await this.#confirmCertificate(pki, serial, credential, signal);
    if (lease === undefined) return await this.#confirmByToken(credential, signal);
    return { state: 'gone' };
  }

  /** The longest life is kept here: an OpenBao forgets a token's `explicit_max_ttl` when it is renewed (its token role's own it keeps). */
  async renew({ handle }: Credential, expiresAtMs: number, signal: AbortSignal): Promise<{ expiresAtMs: number }> {
    const { lease, renewable_until } = handle;
    const [accessor] = accessorsOf(handle);
    if (lease === undefined || accessor === undefined || renewable_until === undefined) {
      throw new BackendProblem('failed', 'it has no lease to renew', { isSure: true });
    }
    const nowMs = this.#deps.clock.now();
    const wishedMs = Math.min(expiresAtMs, Date.parse(renewable_until));
    const ttlSeconds = Math.floor((wishedMs - nowMs) / 1000);
    if (!(ttlSeconds >= 1)) throw new BackendProblem('failed', 'its longest life is over', { isSure: true });
    // The token first: when it ends, the Vault ends the lease with it.
    const token = await this.#leases.renewToken(accessor, ttlSeconds + TOKEN_EXTRA_MS / 1000, signal);
    const renewed = await this.#leases.renewLease(lease, Math.min(ttlSeconds, Math.floor(token.ttlMs / 1000)), signal);
    return { expiresAtMs: shortest(wishedMs, nowMs + token.ttlMs, nowMs + renewed.ttlMs) };
  }

  find(signal: AbortSignal) {
    return this.#places.find(signal);
  }

  covers({ handle }: Credential): boolean {
    return this.#places.covers(handle);
  }

  async probe(credential: Credential, data: Secret<Record<string, string | number>>, signal: AbortSignal) {
    return await probeDatabase(this.#leases, this.#deps.installation, credential.handle, data, signal);
  }

  async check(
    { settings }: { name: string; settings: Record<string, unknown> },
    signal: AbortSignal,
  ): Promise<string[]> {
    const own = settings as SecretSettings;
    this.#places.know(own);
    return await checkSecret(
      this.#leases,
      { settings: own, tokenRole: own.token_role ?? this.#tokenRole, installation: this.#deps.installation },
      signal,
    );
  }

  async close(): Promise<void> {
    await this.#session.close();
    await this.#client.close();
  }

  #refuseLate({ deadlineMs }: IssueOrder, { isSure }: { isSure: boolean }): void {
    if (this.#deps.clock.now() < deadlineMs) return;
    throw new BackendProblem('too_late', 'the deadline of the intent has passed', { isSure });
  }

  #tokenOrder(order: IssueOrder, settings: SecretSettings, nowMs: number) {
    const ttlSeconds = Math.ceil((order.expiresAtMs - nowMs + TOKEN_EXTRA_MS) / 1000);
    return {
      role: order.handle['token_role'] as string,
      displayName: order.handle['name'] as string,
      ttlSeconds,
      ttlSecondsMax: Math.max(ttlSeconds, settings.renewable_seconds_max + TOKEN_EXTRA_MS / 1000),
      meta: { mayfly_lease: order.leaseId, mayfly_task: order.taskId, mayfly_agent: order.agent },
    };
  }

  /** As ordered, or by the longest life that was declared for what cannot be told when to end. */
  #endOf({ handle, expiresAtMs }: Credential): number {
    const { engine, asked_at: askedAt = '', lives_ms_max: livesMs } = handle;
    if (engine !== 'path' || livesMs === undefined) return expiresAtMs;
    return Math.max(expiresAtMs, Date.parse(askedAt) + this.bounds.issueTimeoutMs + Number(livesMs));
  }

  /** Its version is known from the commit on: without one it never left the broker. A newer one is the word of whoever wrote it that this is dead. */
  async #confirmRotation(handle: Handle, signal: AbortSignal): Promise<Confirmation> {
    const { version, place = '', engine } = handle;
    if (engine !== 'kv') return { state: 'unknowable' };
    if (version !== undefined) {
      const current = await this.#leases.versionOf(place, signal);
      return current !== undefined && current > Number(version) ? { state: 'gone' } : { state: 'unknowable' };
    }
    if (await this.#hasToken(handle, signal)) return { state: 'there', detail: 'its token is still there' };
    return { state: 'gone' };
  }

  async #hasToken(handle: Handle, signal: AbortSignal): Promise<boolean> {
    for (const accessor of accessorsOf(handle)) if (await this.#leases.isTokenThere(accessor, signal)) return true;
    return false;
  }

  async #confirmCertificate(
    pki: string,
    serial: string,
    credential: Credential,
    signal: AbortSignal,
  ): Promise<Confirmation> {
    const revokedAt = await this.#leases.certificateRevokedAt(pki, serial, signal);
    if (revokedAt === 0) return { state: 'there', detail: 'its certificate is not revoked' };
    if (revokedAt === undefined && credential.expiresAtMs > this.#deps.clock.now()) {
      return {
        state: 'there',
        detail: 'the engine does not have its certificate, so nobody is told that it is revoked',
      };
    }
    return { state: 'gone' };
  }

  /**
   * Which lease was its own is not known: the answer was lost. Once its token is gone, a lease of that time which has no life left and is there all the same
   * may be it, still waiting. (One that came into being after its token had gone keeps its life; `find` shows that as nobody's.)
   */
  async #confirmByToken(credential: Credential, signal: AbortSignal): Promise<Confirmation> {
    const { handle } = credential;
    const { place, asked_at } = handle as Record<'place' | 'asked_at', string>;
    if (await this.#hasToken(handle, signal)) return { state: 'there', detail: 'its token is still there' };
    // Nothing lists the certificates of a time, and nothing else leads to one whose number is not known.
    if (handle['engine'] === 'pki') return { state: 'unknowable', untilMs: this.#endOf(credential) };
    const askedMs = Date.parse(asked_at);
    for (const id of await this.#leases.list(place, signal)) {
      const found = await this.#leases.lookUpLease(id, signal);
      if (found === undefined || found.ttlMs > 0 || Math.abs(found.issuedAtMs - askedMs) > SKEW_MS) continue;
      return { state: 'there', detail: 'a lease of its time and place is still waiting to be revoked' };
    }
    return { state: 'gone' };
  }
}

/** For the handle: the declaration may be gone when it counts. */
function wordsOf(revocability: Revocability): Handle {
  const { kind } = revocability;
  return { revocability: kind, ...(kind === 'expiry-only' && { lives_ms_max: String(revocability.ttlMsMax) }) };
}

/** Each issue notes its token under a name of its own: should two run for one lease, neither hides the other's. */
const ACCESSOR = 'accessor_';

function accessorsOf(handle: Handle): string[] {
  return Object.entries(handle).flatMap(([name, accessor]) => (name.startsWith(ACCESSOR) ? [accessor] : []));
}

function takenFrom(take: () => Taken): Taken {
  try {
    return take();
  } catch {
    // The error of the schema would quote the answer.
    throw new BackendProblem('failed', 'the engine’s answer has not what this kind of secret needs');
  }
}
