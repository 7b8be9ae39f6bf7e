import { readFileSync } from 'node:fs';
import type { Handle, Revocability, SecretData } from '../../core/credential.js';
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
  type Issued,
  type IssueOrder,
  type Order,
} from './contract.js';
import { type OauthConfig, type OauthSettings, oauthConfig, oauthSettings } from './oauth/config.js';
import { UpstreamFetch } from './oauth/fetch.js';
import { endOf, tokensOf, whyUnfit } from './oauth/tokens.js';
import { Upstream } from './oauth/upstream.js';

/** For taking back at once what may not be handed out: the time of the request itself may be over. */
const TAKE_BACK_MS = 2_000;

/** For `works_until`, where the upstream said no. */
const NOTHING = 'nothing';

const TO_BE_MENDED = new Set(['forbidden', 'misconfigured', 'failed']);

/** An upstream authorization server: our token for theirs. */
export const oauthBackend = definePlugin({
  kind: 'oauth' as const,
  config: oauthConfig,
  create: (config: OauthConfig, deps: BackendDeps): Backend => new OauthBackend(config, deps),
});

/**
 * An upstream has no names for tokens and no list of them: the token itself is given into keeping as soon as it is known, since nothing else can
 * revoke it. Two words of the handle say the rest. `works_until`, the latest end of what may exist, is written before anything is asked: a lease
 * without it made nothing, and an answer that was lost ends by then. `confirmed_by` is whether a token's death is asked of the upstream, or only of
 * the clock.
 */
class OauthBackend implements Backend {
  readonly kind = 'oauth';
  readonly name: string;
  readonly bounds: Bounds;
  readonly secretSettings = oauthSettings;
  readonly #config: OauthConfig;
  readonly #deps: BackendDeps;
  readonly #upstream: Upstream;

  constructor(config: OauthConfig, deps: BackendDeps) {
    this.name = deps.name;
    this.bounds = boundsOf(config);
    this.#config = config;
    this.#deps = deps;
    this.#upstream = new Upstream(config, deps, new UpstreamFetch(authorities(config)));
  }

  revocability(settings: Record<string, unknown>): Revocability {
    const own = oauthSettings.parse(settings);
    if (this.#isInstant(own)) return { kind: 'instant' };
    return { kind: 'expiry-only', ttlMsMax: own.token_ttl_seconds_max * 1000 + this.#leewayMs };
  }

  plan({ settings }: Order): Handle {
    return { confirmed_by: this.#isInstant(oauthSettings.parse(settings)) ? 'introspection' : 'expiry' };
  }

  async issue(order: IssueOrder): Promise<Issued> {
    const settings = oauthSettings.parse(order.settings);
    const answer = await this.#ask(order, settings);
    const ownEndMs = endOf(answer, this.#deps.clock.now());
    const until = ownEndMs === undefined ? 'unknown' : iso(ownEndMs + this.#leewayMs);
    const tokens = tokensOf(answer);
    try {
      await order.note({ works_until: until }, new Secret(tokens));
    } catch (error) {
      // Nobody will come for it: the lease is over, or has another token.
      await this.#takeBack(tokens, AbortSignal.timeout(TAKE_BACK_MS)).catch(() => undefined);
      throw error;
    }
    const unfit = whyUnfit(answer, settings, this.#isInstant(settings));
    if (unfit) throw unfit;
    return {
      data: new Secret({
        access_token: tokens['access_token'] as string,
        token_type: 'Bearer',
        ...(answer.scope !== undefined && { scope: answer.scope }),
      }),
      handle: {},
      expiresAtMs: Math.min(ownEndMs as EpochMs, order.expiresAtMs),
      renewable: false,
      ...(!this.#isInstant(settings) && {
        warnings: [`Nothing but its own end stops this token: it may work until ${until}.`],
      }),
    };
  }

  async revoke({ handle, kept }: Credential, signal: AbortSignal): Promise<void> {
    if (kept && !this.#isOver(untilOf(handle))) await this.#takeBack(kept.expose(), signal);
  }

  async confirm({ handle, kept }: Credential, signal: AbortSignal): Promise<Confirmation> {
    if ((handle['works_until'] ?? NOTHING) === NOTHING) return { state: 'gone' };
    const untilMs = untilOf(handle);
    const unknowable = { state: 'unknowable' as const, ...(untilMs !== undefined && { untilMs }) };
    if (!kept || handle['confirmed_by'] !== 'introspection' || !this.#config.introspects) return unknowable;
    try {
      for (const token of Object.values(kept.expose())) {
        const isActive = await this.#upstream.isActive(String(token), signal);
        if (isActive) return { state: 'there', detail: 'introspection says that it is active' };
      }
      return { state: 'gone' };
    } catch (error) {
      // An upstream that never comes back keeps no lease open past the end that it gave itself.
      if (this.#isOver(untilMs)) return unknowable;
      throw error;
    }
  }

  async check({ settings }: { settings: Record<string, unknown> }, signal: AbortSignal): Promise<string[]> {
    try {
      const missing = await this.#upstream.missing(signal);
      return missing.length > 0 ? missing : await this.#tryCanary(oauthSettings.parse(settings), signal);
    } catch (error) {
      if (error instanceof BackendProblem && TO_BE_MENDED.has(error.kind)) return [error.message];
      throw error;
    }
  }

  close(): Promise<void> {
    return this.#upstream.close();
  }

  /** Asks for a token, once the latest end of whatever comes of it is written down. */
  async #ask({ leaseId, agent, taskId, onBehalfOf, deadlineMs, note, signal }: IssueOrder, settings: OauthSettings) {
    const leftMs = deadlineMs - this.#deps.clock.now();
    if (leftMs <= 0) throw new BackendProblem('too_late', 'the deadline of the intent has passed', { isSure: true });
    const { assertion_ttl_seconds: assertionSeconds } = this.#config;
    const longestMs = (assertionSeconds + settings.token_ttl_seconds_max) * 1000 + this.#leewayMs;
    await note({ works_until: iso(deadlineMs + longestMs) });
    try {
      return await this.#upstream.askToken({
        settings,
        subject: agent,
        leaseId,
        claims: { task: taskId, ...(onBehalfOf !== undefined && { on_behalf_of: onBehalfOf }) },
        signal: AbortSignal.any([signal, AbortSignal.timeout(leftMs)]),
      });
    } catch (error) {
      // A plain no made nothing; should this note fail, the end that was noted before stands.
      const isSure = error instanceof BackendProblem && error.isSure;
      if (isSure) await note({ works_until: NOTHING }).catch(() => undefined);
      throw error;
    }
  }

  /** The longer-lived one first. */
  async #takeBack(tokens: SecretData, signal: AbortSignal): Promise<void> {
    for (const hint of ['refresh_token', 'access_token'] as const) {
      if (tokens[hint] !== undefined) await this.#upstream.revoke(String(tokens[hint]), hint, signal);
    }
  }

  /** A token is asked for and taken back, and the upstream is asked about it before and after: `inactive` alone may mean that we may not ask. */
  async #tryCanary(settings: OauthSettings, signal: AbortSignal): Promise<string[]> {
    const subject = settings.canary_subject ?? this.#config.client_id;
    const answer = await this.#upstream.askToken({ settings, subject, signal });
    const isActive = () => this.#upstream.isActive(answer.accessToken.expose(), signal);
    const isInstant = this.#isInstant(settings);
    const problems: string[] = [];
    try {
      const unfit = whyUnfit(answer, settings, isInstant);
      if (unfit) problems.push(unfit.message);
      if (isInstant && !(await isActive())) {
        problems.push('introspection calls a token inactive that was just given: our client may not introspect it');
      }
    } finally {
      await this.#takeBack(tokensOf(answer), signal);
    }
    if (isInstant && (await isActive())) {
      problems.push('introspection calls a token active that was just revoked: leave `introspects` out');
    }
    return problems;
  }

  #isInstant({ tokens }: OauthSettings): boolean {
    return this.#config.introspects && tokens !== 'jwt';
  }

  #isOver(untilMs: EpochMs | undefined): boolean {
    return untilMs !== undefined && this.#deps.clock.now() >= untilMs;
  }

  get #leewayMs(): number {
    return this.#config.leeway_seconds * 1000;
  }
}

const iso = (ms: EpochMs) => new Date(Math.ceil(ms)).toISOString();

/** Undefined: it has no end that is known. */
function untilOf({ works_until: until = '' }: Handle): EpochMs | undefined {
  const ms = Date.parse(until);
  return Number.isNaN(ms) ? undefined : ms;
}

function authorities({ ca_file: file }: OauthConfig): string | undefined {
  return file === undefined ? undefined : readFileSync(file, 'utf8');
}
