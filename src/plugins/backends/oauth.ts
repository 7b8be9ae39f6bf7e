import { readFileSync } from 'node:fs';
import type { SecretData } from '../../core/credential.js';
import { Secret } from '../../core/secret.js';
import type { EpochMs } from '../../core/time.js';
import { definePlugin } from '../plugin.js';
import { boundsOf } from './bounds.js';
import { type Backend, type BackendDeps, BackendProblem, type Confirmation, type Credential } from './contract.js';
import { type OauthConfig, type OauthSettings, oauthConfig, oauthSettings } from './oauth/config.js';
import { UpstreamFetch } from './oauth/fetch.js';
import { type TokenAnswer, Upstream, unusable } from './oauth/upstream.js';

/** For taking back at once what may not be handed out: the time of the request itself may be over. */
const TAKE_BACK_MS = 2_000;

/**
 * An upstream authorization server: our token for theirs. It has no names for tokens and no list of them, so the token itself is given into keeping as
 * soon as it is known: nothing else can revoke it. Two words of the handle say the rest: `works_until`, the latest end of what may exist, is written
 * before anything is asked (a lease without it made nothing; an answer that was lost ends by then), and `confirmed_by`, whether the upstream is asked
 * about a token's death or only the clock.
 */
export const oauthBackend = definePlugin({
  kind: 'oauth' as const,
  config: oauthConfig,
  create(config: OauthConfig, deps: BackendDeps): Backend {
    const { clock } = deps;
    const upstream = new Upstream(config, deps, new UpstreamFetch(authorities(config)));
    const leewayMs = config.leeway_seconds * 1000;
    const isInstant = ({ tokens }: OauthSettings) => config.introspects && tokens !== 'jwt';

    /** The latest end of a token whose answer does not come back: asked for at the last moment, living as long as may be. */
    const longestEndMs = (deadlineMs: EpochMs, settings: OauthSettings) =>
      deadlineMs + (config.assertion_ttl_seconds + settings.token_ttl_seconds_max) * 1000 + leewayMs;

    async function takeBack(tokens: SecretData, signal: AbortSignal): Promise<void> {
      // The longer-lived one first.
      for (const hint of ['refresh_token', 'access_token'] as const) {
        if (tokens[hint] !== undefined) await upstream.revoke(String(tokens[hint]), hint, signal);
      }
    }

    return {
      name: deps.name,
      kind: 'oauth',
      bounds: boundsOf(config),
      secretSettings: oauthSettings,

      revocability(settings) {
        const own = oauthSettings.parse(settings);
        if (isInstant(own)) return { kind: 'instant' };
        return { kind: 'expiry-only', ttlMsMax: own.token_ttl_seconds_max * 1000 + leewayMs };
      },

      plan: ({ settings }) => ({
        confirmed_by: isInstant(oauthSettings.parse(settings)) ? 'introspection' : 'expiry',
      }),

      async issue({ leaseId, settings: given, agent, taskId, onBehalfOf, deadlineMs, expiresAtMs, note, signal }) {
        const settings = oauthSettings.parse(given);
        const leftMs = deadlineMs - clock.now();
        if (leftMs <= 0) throw tooLate();
        await note({ works_until: iso(longestEndMs(deadlineMs, settings)) });
        const answer = await upstream.askToken({
          settings,
          subject: agent,
          leaseId,
          claims: { task: taskId, ...(onBehalfOf !== undefined && { on_behalf_of: onBehalfOf }) },
          signal: AbortSignal.any([signal, AbortSignal.timeout(leftMs)]),
        });
        const keep = tokensOf(answer);
        const endMs = endOf(answer, clock.now());
        const worksUntil = { works_until: endMs === undefined ? 'unknown' : iso(endMs + leewayMs) };
        try {
          await note(worksUntil, new Secret(keep));
        } catch (error) {
          // Nobody will come for it: the lease is over, or has another token.
          await takeBack(keep, AbortSignal.timeout(TAKE_BACK_MS)).catch(() => undefined);
          throw error;
        }
        const problem = problemWith(answer, settings, isInstant(settings));
        if (problem) throw problem;
        const ownEndMs = endMs as EpochMs;
        return {
          data: new Secret({
            access_token: keep['access_token'] as string,
            token_type: 'Bearer',
            ...(answer.scope !== undefined && { scope: answer.scope }),
          }),
          handle: {},
          expiresAtMs: Math.min(ownEndMs, expiresAtMs),
          renewable: false,
          ...(!isInstant(settings) && {
            warnings: [`Nothing but its own end stops this token: it may work until ${worksUntil.works_until}.`],
          }),
        };
      },

      async revoke({ handle, kept }, signal) {
        if (kept && !isOver(untilOf(handle), clock.now())) await takeBack(kept.expose(), signal);
      },

      async confirm({ handle, kept }: Credential, signal): Promise<Confirmation> {
        if (handle['works_until'] === undefined) return { state: 'gone' };
        const untilMs = untilOf(handle);
        const unknowable = { state: 'unknowable' as const, ...(untilMs !== undefined && { untilMs }) };
        if (!kept || handle['confirmed_by'] !== 'introspection' || !config.introspects) return unknowable;
        try {
          for (const token of Object.values(kept.expose())) {
            if (await upstream.isActive(String(token), signal)) {
              return { state: 'there', detail: 'introspection says that it is active' };
            }
          }
          return { state: 'gone' };
        } catch (error) {
          // An upstream that never comes back keeps no lease open past the end that it gave itself.
          if (isOver(untilMs, clock.now())) return unknowable;
          throw error;
        }
      },

      check: async ({ settings }, signal) => {
        const own = oauthSettings.parse(settings);
        try {
          const missing = await upstream.missing(signal);
          return missing.length > 0 ? missing : await canary(own, signal);
        } catch (error) {
          if (error instanceof BackendProblem && TO_BE_MENDED.has(error.kind)) return [error.message];
          throw error;
        }
      },

      close: () => upstream.close(),
    };

    /** A token is asked for and taken back, and the upstream is asked about it before and after: `inactive` alone may mean that we may not ask. */
    async function canary(settings: OauthSettings, signal: AbortSignal): Promise<string[]> {
      const answer = await upstream.askToken({
        settings,
        subject: settings.canary_subject ?? config.client_id,
        signal,
      });
      const tokens = tokensOf(answer);
      const problems: string[] = [];
      try {
        const problem = problemWith(answer, settings, isInstant(settings));
        if (problem) problems.push(problem.message);
        if (isInstant(settings) && !(await upstream.isActive(tokens['access_token'] as string, signal))) {
          problems.push('introspection calls a token inactive that was just given: our client may not introspect it');
        }
      } finally {
        await takeBack(tokens, signal);
      }
      if (isInstant(settings) && (await upstream.isActive(tokens['access_token'] as string, signal))) {
        problems.push('introspection calls a token active that was just revoked: leave `introspects` out');
      }
      return problems;
    }
  },
});

const LIFE_SECONDS_MAX = 100 * 365 * 86_400;
const TO_BE_MENDED = new Set(['forbidden', 'misconfigured', 'failed']);

/** Why a token that was given may not be handed out. */
function problemWith(answer: TokenAnswer, settings: OauthSettings, isInstant: boolean): BackendProblem | undefined {
  if (answer.problem) return answer.problem;
  if (answer.refreshToken) return unusable('comes with a refresh token; turn those off for our client');
  if (answer.expiresInSeconds === undefined) return unusable('has no end (no expires_in)');
  if (answer.expiresInSeconds < 1) return unusable('is over already');
  if (answer.expiresInSeconds > settings.token_ttl_seconds_max) {
    return unusable(
      `lives ${Math.ceil(answer.expiresInSeconds)} s; token_ttl_seconds_max is ${settings.token_ttl_seconds_max}`,
    );
  }
  if (isInstant && settings.tokens === 'opaque' && isJwt(answer.accessToken.expose())) {
    return unusable(
      'is a JWT, which APIs believe without asking; say tokens: jwt, or jwt-introspected if all of them ask',
    );
  }
  return undefined;
}

/** Undefined: the answer does not say, or says more than anybody lives. */
function endOf({ expiresInSeconds }: TokenAnswer, nowMs: EpochMs): EpochMs | undefined {
  if (expiresInSeconds === undefined || expiresInSeconds > LIFE_SECONDS_MAX) return undefined;
  return nowMs + expiresInSeconds * 1000;
}

function tokensOf({ accessToken, refreshToken }: TokenAnswer): SecretData {
  return { access_token: accessToken.expose(), ...(refreshToken && { refresh_token: refreshToken.expose() }) };
}

const isJwt = (token: string) => /^eyJ[\w-]*\.[\w-]+\.[\w-]*$/.test(token);

const iso = (ms: EpochMs) => new Date(Math.ceil(ms)).toISOString();

/** Undefined: it has no end that is known. */
function untilOf({ works_until: until = '' }: Readonly<Record<string, string>>): EpochMs | undefined {
  const ms = Date.parse(until);
  return Number.isNaN(ms) ? undefined : ms;
}

function isOver(untilMs: EpochMs | undefined, nowMs: EpochMs): boolean {
  return untilMs !== undefined && nowMs >= untilMs;
}

function tooLate(): BackendProblem {
  return new BackendProblem('too_late', 'the deadline of the intent has passed', { isSure: true });
}

function authorities({ ca_file: file }: OauthConfig): string | undefined {
  return file === undefined ? undefined : readFileSync(file, 'utf8');
}
