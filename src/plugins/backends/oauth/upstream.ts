import { readFile } from 'node:fs/promises';
import * as oauth from 'oauth4webapi';
import { Secret } from '../../../core/secret.js';
import { type BackendDeps, BackendProblem } from '../contract.js';
import type { OauthConfig, OauthSettings } from './config.js';
import type { UpstreamFetch } from './fetch.js';
import { isUnsupportedType, refusalOf } from './problems.js';
import { type TokenAnswer, unfit } from './tokens.js';

const METADATA_LIFE_MS = 600_000;
const JWT_TYPE = 'urn:ietf:params:oauth:token-type:jwt';
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token';
const CLIENT_ASSERTION_TYPE = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer';
const GRANTS = {
  'token-exchange': 'urn:ietf:params:oauth:grant-type:token-exchange',
  'jwt-bearer': 'urn:ietf:params:oauth:grant-type:jwt-bearer',
  'client-credentials': 'client_credentials',
} as const;

export interface TokenOrder {
  settings: OauthSettings;
  /** In whose name; unused by client-credentials. */
  subject: string;
  leaseId?: string;
  claims?: Readonly<Record<string, unknown>>;
  signal: AbortSignal;
}

/** One authorization server, as a client of it. All calls go where configuration or metadata says, as they are known then, and nowhere else. */
export class Upstream {
  readonly #config: OauthConfig;
  readonly #deps: BackendDeps;
  readonly #fetch: UpstreamFetch;
  readonly #client: oauth.Client;
  #known: { server: oauth.AuthorizationServer; atMs: number } | undefined;

  constructor(config: OauthConfig, deps: BackendDeps, fetch: UpstreamFetch) {
    this.#config = config;
    this.#deps = deps;
    this.#fetch = fetch;
    this.#client = { client_id: config.client_id };
  }

  async askToken(order: TokenOrder): Promise<TokenAnswer> {
    const server = await this.#server(order.signal);
    const url = endpointOf(server, 'token_endpoint');
    const parameters = await this.#parameters(order);
    const grant = GRANTS[order.settings.grant];
    const options = this.#options(url, order.signal);
    try {
      const response = await oauth.genericTokenEndpointRequest(
        server,
        this.#client,
        this.#authenticate,
        grant,
        parameters,
        options,
      );
      return await this.#readTokens(server, response);
    } catch (error) {
      throw refusalOf(error, 'to give a token');
    }
  }

  /** RFC 7009. False when there is no way to revoke this kind of token there. */
  async revoke(token: string, hint: 'access_token' | 'refresh_token', signal: AbortSignal): Promise<boolean> {
    const server = await this.#server(signal);
    if (server.revocation_endpoint === undefined) return false;
    const options = {
      ...this.#options(server.revocation_endpoint, signal),
      additionalParameters: { token_type_hint: hint },
    };
    try {
      await oauth.processRevocationResponse(
        await oauth.revocationRequest(server, this.#client, this.#authenticate, token, options),
      );
      return true;
    } catch (error) {
      if (isUnsupportedType(error)) return false;
      throw refusalOf(error, 'to revoke');
    }
  }

  /** RFC 7662. */
  async isActive(token: string, signal: AbortSignal): Promise<boolean> {
    const server = await this.#server(signal);
    const options = this.#options(endpointOf(server, 'introspection_endpoint'), signal);
    try {
      const response = await oauth.introspectionRequest(server, this.#client, this.#authenticate, token, options);
      return (await oauth.processIntrospectionResponse(server, this.#client, response)).active;
    } catch (error) {
      throw refusalOf(error, 'to introspect');
    }
  }

  /** What of the endpoints is missing for what is promised. */
  async missing(signal: AbortSignal): Promise<string[]> {
    const server = await this.#server(signal);
    const wanted = ['token', ...(this.#config.introspects ? (['revocation', 'introspection'] as const) : [])] as const;
    return wanted
      .filter((name) => server[`${name}_endpoint`] === undefined)
      .map((name) => `the upstream has no ${name} endpoint in its metadata; add endpoints.${name}`);
  }

  close(): Promise<void> {
    return this.#fetch.close();
  }

  /** Metadata is read again after ten minutes, by one caller; while it cannot be, what was known goes on: it names the issuer's own origin only. */
  async #server(signal: AbortSignal): Promise<oauth.AuthorizationServer> {
    const nowMs = this.#deps.clock.now();
    const known = this.#known;
    if (known && nowMs < known.atMs + METADATA_LIFE_MS) return known.server;
    if (known) this.#known = { ...known, atMs: nowMs };
    try {
      const server = { ...(await this.#metadata(signal)), ...this.#configured() };
      this.#known = { server, atMs: nowMs };
      return server;
    } catch (error) {
      if (known) return known.server;
      throw refusalOf(error, 'to show its metadata');
    }
  }

  async #metadata(signal: AbortSignal): Promise<oauth.AuthorizationServer> {
    const { issuer, metadata } = this.#config;
    if (metadata === 'none') return { issuer };
    const { origin } = new URL(issuer);
    const response = await oauth.discoveryRequest(new URL(issuer), {
      algorithm: metadata === 'oauth' ? 'oauth2' : 'oidc',
      [oauth.allowInsecureRequests]: true,
      [oauth.customFetch]: (url, { method, headers }) =>
        this.#fetch.call(url, new URL(url).origin === origin ? url : '', { method, headers, signal }),
    });
    const found = await oauth.processDiscoveryResponse(new URL(issuer), response);
    if (found.issuer !== issuer) throw wrongMetadata('is of another issuer');
    const server: Record<string, string> = {};
    for (const name of ['token_endpoint', 'revocation_endpoint', 'introspection_endpoint'] as const) {
      const url: unknown = found[name];
      if (url === undefined || this.#configured()[name] !== undefined) continue;
      if (typeof url !== 'string' || !URL.canParse(url) || new URL(url).origin !== origin || url.includes('@')) {
        throw wrongMetadata(`names a ${name} at another origin; if that is right, write it into endpoints`);
      }
      server[name] = new URL(url).href;
    }
    return { issuer, ...server };
  }

  #configured(): Partial<oauth.AuthorizationServer> {
    const { token, revocation, introspection } = this.#config.endpoints;
    return {
      ...(token !== undefined && { token_endpoint: new URL(token).href }),
      ...(revocation !== undefined && { revocation_endpoint: new URL(revocation).href }),
      ...(introspection !== undefined && { introspection_endpoint: new URL(introspection).href }),
    };
  }

  async #parameters({ settings, subject, leaseId, claims }: TokenOrder): Promise<URLSearchParams> {
    const { scope, resource, audience } = settings;
    const parameters = new URLSearchParams({
      ...(scope !== undefined && { scope }),
      ...(resource !== undefined && { resource }),
      ...(audience !== undefined && { audience }),
    });
    if (settings.grant === 'client-credentials') return parameters;
    const assertion = await this.#deps.assertion({
      subject,
      audience: this.#config.issuer,
      ttlMs: this.#config.assertion_ttl_seconds * 1000,
      ...(leaseId !== undefined && { id: leaseId }),
      ...(claims && { claims }),
    });
    if (settings.grant === 'jwt-bearer') {
      parameters.set('assertion', assertion.expose());
      return parameters;
    }
    parameters.set('subject_token', assertion.expose());
    parameters.set('subject_token_type', JWT_TYPE);
    parameters.set('requested_token_type', ACCESS_TOKEN_TYPE);
    return parameters;
  }

  readonly #authenticate: oauth.ClientAuth = async (server, client, body, headers) => {
    const { authentication, client_id: id, issuer, assertion_ttl_seconds: ttlSeconds } = this.#config;
    if (authentication.method === 'none') return oauth.None()(server, client, body, headers);
    if (authentication.method === 'private_key_jwt') {
      const assertion = await this.#deps.assertion({
        issuer: id,
        subject: id,
        audience: issuer,
        ttlMs: ttlSeconds * 1000,
      });
      body.set('client_id', id);
      body.set('client_assertion_type', CLIENT_ASSERTION_TYPE);
      body.set('client_assertion', assertion.expose());
      return;
    }
    const secret = await readSecret(authentication.secret_file);
    const method = authentication.method === 'client_secret_basic' ? oauth.ClientSecretBasic : oauth.ClientSecretPost;
    return method(secret)(server, client, body, headers);
  };

  #options(url: string, signal: AbortSignal) {
    return {
      // Which addresses may be plain http was checked with the configuration.
      [oauth.allowInsecureRequests]: true,
      [oauth.customFetch]: (
        address: string,
        { method, headers, body }: oauth.CustomFetchOptions<'POST', URLSearchParams>,
      ) => this.#fetch.call(address, url, { method, headers, body: body.toString(), signal }),
    } as const;
  }

  async #readTokens(server: oauth.AuthorizationServer, response: Response): Promise<TokenAnswer> {
    const given = await tokensIn(response);
    try {
      const answer = await oauth.processGenericTokenEndpointResponse(server, this.#client, response);
      if (!given) throw new BackendProblem('failed', 'the upstream’s answer has no token');
      const { expires_in: expiresInSeconds, scope, token_type: type } = answer;
      return {
        ...given,
        ...(expiresInSeconds !== undefined && { expiresInSeconds }),
        ...(scope !== undefined && { scope }),
        ...(type !== 'bearer' && { problem: unfit('is bound to a key that no agent has') }),
      };
    } catch (error) {
      if (!given) throw error;
      return { ...given, problem: refusalOf(error, 'to give a token') };
    }
  }
}

/** Every token of an answer, however wrong the rest of it is. */
async function tokensIn(response: Response): Promise<Pick<TokenAnswer, 'accessToken' | 'refreshToken'> | undefined> {
  if (response.status !== 200) return undefined;
  let answer: unknown;
  try {
    answer = await response.clone().json();
  } catch {
    return undefined;
  }
  const { access_token: access, refresh_token: refresh } = Object(answer) as Record<string, unknown>;
  if (typeof access !== 'string' || access === '') return undefined;
  const hasRefresh = typeof refresh === 'string' && refresh !== '';
  return { accessToken: new Secret(access), ...(hasRefresh && { refreshToken: new Secret(refresh) }) };
}

function wrongMetadata(what: string): BackendProblem {
  return new BackendProblem('misconfigured', `the metadata of the upstream ${what}`, { isSure: true });
}

function endpointOf(server: oauth.AuthorizationServer, name: 'token_endpoint' | 'introspection_endpoint'): string {
  const url = server[name];
  if (url === undefined) throw wrongMetadata(`has no ${name}`);
  return url;
}

async function readSecret(path: string): Promise<string> {
  const problem = (what: string) =>
    new BackendProblem('misconfigured', `authentication.secret_file ${what}`, { isSure: true });
  let secret: string;
  try {
    secret = (await readFile(path, 'utf8')).trim();
  } catch {
    throw problem('cannot be read');
  }
  if (secret === '' || secret.length > 4_096) throw problem('has to hold one secret of at most 4096 characters');
  return secret;
}
