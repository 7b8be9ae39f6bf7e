import type { SecretData } from '../../../core/credential.js';
import type { Secret } from '../../../core/secret.js';
import type { EpochMs } from '../../../core/time.js';
import { BackendProblem } from '../contract.js';
import type { OauthSettings } from './config.js';

/** Tokens that were given, whatever else is wrong with the answer: what is there has to be taken back. */
export interface TokenAnswer {
  accessToken: Secret<string>;
  refreshToken?: Secret<string>;
  expiresInSeconds?: number;
  scope?: string;
  problem?: BackendProblem;
}

const LIFE_SECONDS_MAX = 100 * 365 * 86_400;

/** Why a token that was given may not be handed out; undefined when it may. */
export function whyUnfit(answer: TokenAnswer, settings: OauthSettings, isInstant: boolean): BackendProblem | undefined {
  const { problem, refreshToken, accessToken, expiresInSeconds: lifeSeconds } = answer;
  const maxSeconds = settings.token_ttl_seconds_max;
  if (problem) return problem;
  if (refreshToken) return unfit('comes with a refresh token; turn those off for our client');
  if (lifeSeconds === undefined) return unfit('has no end (no expires_in)');
  if (lifeSeconds < 1) return unfit('is over already');
  if (lifeSeconds > maxSeconds) {
    return unfit(`lives ${Math.ceil(lifeSeconds)} s; token_ttl_seconds_max is ${maxSeconds}`);
  }
  if (isInstant && settings.tokens === 'opaque' && isJwt(accessToken.expose())) {
    return unfit(
      'is a JWT, which APIs believe without asking; say tokens: jwt, or jwt-introspected if all of them ask',
    );
  }
  return undefined;
}

export function unfit(what: string): BackendProblem {
  return new BackendProblem('misconfigured', `the upstream’s token ${what}`);
}

/** What has to be taken back. */
export function tokensOf({ accessToken, refreshToken }: TokenAnswer): SecretData {
  return { access_token: accessToken.expose(), ...(refreshToken && { refresh_token: refreshToken.expose() }) };
}

/** Undefined: the answer does not say, or says more than anybody lives. */
export function endOf({ expiresInSeconds }: TokenAnswer, nowMs: EpochMs): EpochMs | undefined {
  if (expiresInSeconds === undefined || expiresInSeconds > LIFE_SECONDS_MAX) return undefined;
  return nowMs + expiresInSeconds * 1000;
}

const isJwt = (token: string) => /^eyJ[\w-]*\.[\w-]+\.[\w-]*$/.test(token);
