import { TASK_DETAIL_TYPE, type TaskClaims } from '../core/claims.js';
import { DPOP_ALGORITHMS } from '../core/dpop.js';
import { assert } from '../core/errors.js';
import { isToolName } from '../core/scope.js';
import { TokenRefusal, type TokenRefusalCode } from './token-refusal.js';

export { brokerFromEnv, type ToolBroker } from './environment.js';

import { createVerifier, type Presented, type VerifiedTask, type Verifier, type VerifierOptions } from './verifier.js';

/** The parts of Express' (and node's) request, response and next that are used here; no framework is imported. */
export interface TaskRequest {
  method: string;
  url: string;
  originalUrl?: string;
  rawHeaders: string[];
  socket: object;
  body?: unknown;
  task?: RequestTask;
}

export interface TaskResponse {
  statusCode: number;
  writableEnded?: boolean;
  setHeader(name: string, value: string): unknown;
  end(body?: string): unknown;
  on(event: 'close', listener: () => void): unknown;
}

declare global {
  /** How Express lets others say what they put into its requests. */
  namespace Express {
    interface Request {
      /** The task that `requireTask` let in. */
      task?: RequestTask;
    }
  }
}

export type Next = (error?: unknown) => void;
export type Middleware = (request: TaskRequest, response: TaskResponse, next: Next) => void;

/** What a handler behind `requireTask` finds in `req.task`. */
export interface RequestTask {
  claims: TaskClaims;
  /** SPIFFE ID of the agent. */
  agent: string;
  taskId: string | undefined;
  tools: string[];
  /** Aborts when the token expires or is revoked, or can no longer be checked, while the request is still being answered. */
  signal: AbortSignal;
}

interface GuardOptions {
  /** The tool that the route is; its name has to be in the token's scope. */
  tool?: string;
  /** What this server is called by its callers, such as `https://orders.example`: what DPoP proofs name. Default: the audience's origin. */
  publicUrl?: string;
  /** Whether `req.body` goes to the decision point as the call's arguments. */
  bodyAsArguments?: boolean;
  onRefused?: (refusal: TokenRefusal, request: TaskRequest) => void;
}

export type RequireTaskOptions = GuardOptions & ({ verifier: Verifier } | VerifierOptions);

/**
 * Lets a request through only with a task token for this audience that is good now, and puts the task into `req.task`. Everything else
 * is answered here: 401 with a challenge, 403 `insufficient_scope`, 503 while nothing can be checked, or where the
 * set-up lacks what the token needs (a decision point). Routes of one server share one
 * verifier: make it with `createVerifier` and pass it.
 */
export function requireTask(options: RequireTaskOptions): Middleware {
  const verifier = 'verifier' in options ? options.verifier : createVerifier(options);
  const { tool, onRefused } = options;
  assert(tool === undefined || isToolName(tool), 'the tool has the shape of a tool name');
  const publicUrl = options.publicUrl ?? originOf(verifier.audience);

  async function admit(request: TaskRequest, response: TaskResponse): Promise<void> {
    const credentials = credentialsOf(request.rawHeaders);
    const presented: Presented = {
      scheme: credentials.scheme,
      method: request.method,
      url: `${publicUrl}${request.originalUrl ?? request.url}`,
    };
    if (credentials.dpop !== undefined) presented.dpop = credentials.dpop;
    if (tool !== undefined) presented.tool = tool;
    if (options.bodyAsArguments) presented.arguments = request.body;
    const certificate = peerCertificateOf(request.socket);
    if (certificate) presented.peerCertificate = certificate;
    const task = await verifier.verify(credentials.token, presented);
    request.task = requestTask(verifier, task, response);
  }

  return (request, response, next) => {
    admit(request, response).then(
      () => next(),
      (error: unknown) => {
        if (!(error instanceof TokenRefusal)) return next(error);
        onRefused?.(error, request);
        refuse(response, error, { verifier, publicUrl, tool, authorized: hasAuthorization(request.rawHeaders) });
      },
    );
  };
}

export interface ProtectedResourceOptions {
  /** The audience: an absolute URL without fragment. */
  resource: string;
  issuer: string;
  tools?: string[];
  dpopRequired?: boolean;
}

/** RFC 9728: answers `/.well-known/oauth-protected-resource{/path}` of the resource, and passes on everything else. */
export function protectedResourceMetadata(options: ProtectedResourceOptions): Middleware {
  const path = metadataPath(options.resource);
  const document = JSON.stringify({
    resource: options.resource,
    authorization_servers: [options.issuer],
    bearer_methods_supported: ['header'],
    ...(options.tools && options.tools.length > 0 ? { scopes_supported: options.tools } : {}),
    dpop_signing_alg_values_supported: DPOP_ALGORITHMS,
    ...(options.dpopRequired ? { dpop_bound_access_tokens_required: true } : {}),
    tls_client_certificate_bound_access_tokens: true,
    authorization_details_types_supported: [TASK_DETAIL_TYPE],
  });
  return (request, response, next) => {
    const [asked] = (request.originalUrl ?? request.url).split('?');
    if (asked !== path || (request.method !== 'GET' && request.method !== 'HEAD')) return next();
    response.statusCode = 200;
    response.setHeader('content-type', 'application/json');
    response.setHeader('cache-control', 'public, max-age=300');
    response.end(request.method === 'HEAD' ? undefined : document);
  };
}

interface Credentials {
  scheme: 'Bearer' | 'DPoP';
  token: string;
  dpop?: string;
}

/** The one token of a request. Node drops a second Authorization in silence, so the raw headers are read. */
function credentialsOf(rawHeaders: string[]): Credentials {
  const authorizations = headersNamed(rawHeaders, 'authorization');
  const proofs = headersNamed(rawHeaders, 'dpop');
  if (authorizations.length > 1) {
    throw new TokenRefusal('invalid_request', 'two-tokens', 'more than one Authorization header');
  }
  if (proofs.length > 1) throw new TokenRefusal('dpop_invalid', 'dpop', 'more than one DPoP header');
  const [scheme, token, ...rest] = (authorizations[0] ?? '').split(' ');
  const name = scheme?.toLowerCase();
  if (name !== 'bearer' && name !== 'dpop') throw new TokenRefusal('token_missing', 'missing', 'no token came');
  if (token === undefined || token === '' || rest.length > 0) {
    throw new TokenRefusal('invalid_request', 'missing', 'the Authorization header holds no single token');
  }
  const [proof] = proofs;
  return { scheme: name === 'dpop' ? 'DPoP' : 'Bearer', token, ...(proof === undefined ? {} : { dpop: proof }) };
}

function headersNamed(rawHeaders: string[], name: string): string[] {
  return rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name);
}

function hasAuthorization(rawHeaders: string[]): boolean {
  return headersNamed(rawHeaders, 'authorization').length > 0;
}

/** What our own TLS layer saw; a header saying so is worth nothing. */
function peerCertificateOf(socket: object): Buffer | undefined {
  const { getPeerCertificate } = socket as { getPeerCertificate?: (detailed: boolean) => { raw?: Buffer } };
  return getPeerCertificate?.call(socket, false)?.raw;
}

function requestTask(verifier: Verifier, task: VerifiedTask, response: TaskResponse): RequestTask {
  let controller: AbortController | undefined;
  return {
    claims: task.claims,
    agent: task.agent,
    taskId: task.taskId,
    tools: task.tools,
    /** Made when it is first asked for: most handlers answer before anything could happen. */
    get signal() {
      if (!controller) {
        const watching = new AbortController();
        const end = verifier.watch(task, (reason) => watching.abort(reason));
        response.on('close', end);
        controller = watching;
      }
      return controller.signal;
    },
  };
}

const STATUS: Record<TokenRefusalCode, number> = {
  token_missing: 401,
  invalid_request: 400,
  token_refused: 401,
  dpop_invalid: 401,
  dpop_nonce_required: 401,
  scope_insufficient: 403,
  denied: 403,
  unavailable: 503,
  misconfigured: 503,
};

const ERROR: Record<TokenRefusalCode, string> = {
  token_missing: 'invalid_token',
  invalid_request: 'invalid_request',
  token_refused: 'invalid_token',
  dpop_invalid: 'invalid_dpop_proof',
  dpop_nonce_required: 'use_dpop_nonce',
  scope_insufficient: 'insufficient_scope',
  denied: 'access_denied',
  unavailable: 'temporarily_unavailable',
  misconfigured: 'server_error',
};

interface Place {
  verifier: Verifier;
  publicUrl: string;
  tool: string | undefined;
  /** An Authorization header came: a challenge then says what was wrong with it. */
  authorized: boolean;
}

function refuse(response: TaskResponse, refusal: TokenRefusal, place: Place): void {
  if (response.writableEnded) return;
  const status = STATUS[refusal.code];
  response.statusCode = status;
  response.setHeader('content-type', 'application/json');
  response.setHeader('cache-control', 'no-store');
  if (refusal.code === 'unavailable') response.setHeader('retry-after', '1');
  // A fault of the server's own is no challenge, and is not gone in a second.
  else if (refusal.code !== 'misconfigured') response.setHeader('www-authenticate', challenge(refusal, place));
  if (refusal.code === 'dpop_nonce_required') {
    const nonce = place.verifier.dpopNonce();
    if (nonce !== undefined) response.setHeader('dpop-nonce', nonce);
  }
  response.end(JSON.stringify({ error: ERROR[refusal.code], error_description: refusal.message }));
}

/** A challenge per scheme (RFC 6750 section 3, RFC 9449 section 7.1). Nothing is said to be wrong when nothing was sent. */
function challenge({ code, message }: TokenRefusal, { verifier, tool, authorized }: Place): string {
  const isProof = code === 'dpop_invalid' || code === 'dpop_nonce_required';
  const error =
    authorized && code !== 'token_missing' ? [`error="${ERROR[code]}"`, `error_description="${message}"`] : [];
  const shared = [
    ...(tool === undefined ? [] : [`scope="${tool}"`]),
    `resource_metadata="${originOf(verifier.audience)}${metadataPath(verifier.audience)}"`,
  ];
  const bearer = [...(isProof ? [] : error), ...shared];
  const dpop = [...error, `algs="${DPOP_ALGORITHMS.join(' ')}"`, ...shared];
  return `Bearer ${bearer.join(', ')}, DPoP ${dpop.join(', ')}`;
}

function originOf(resource: string): string {
  return new URL(resource).origin;
}

/** RFC 9728 section 3.1: the well-known part goes between host and path. */
function metadataPath(resource: string): string {
  const { pathname } = new URL(resource);
  return `/.well-known/oauth-protected-resource${pathname === '/' ? '' : pathname}`;
}
