import { DPOP_ALGORITHMS } from '../../core/dpop.js';
import { BrokerError, ERRORS, type ErrorCode } from '../../core/errors.js';
import type { Reply } from './route.js';
import { defined } from './wire.js';

/** Where a request came in decides the face of its errors: RFC 9457 under `/v1` and elsewhere, RFC 6749 at the OAuth endpoints. */
export type Surface = 'api' | 'oauth';

export interface ErrorContext {
  surface: Surface;
  requestId: string;
  issuer: string;
  /** The request brought something in `Authorization`: challenges then say what is wrong with it (RFC 6750 section 3.1). */
  authorization?: 'Bearer' | 'DPoP' | 'other';
  /** Methods that the path knows, for `Allow`. */
  allow?: readonly string[];
}

const RETRY_AFTER_SECONDS = 1;

export function surfaceOf(path: string): Surface {
  return path.startsWith('/oauth2/') ? 'oauth' : 'api';
}

/** The type URL of a problem: a page this broker serves. */
export function problemType(issuer: string, code: ErrorCode): string {
  return `${issuer}/errors/${code}`;
}

/**
 * The only place where an error becomes a reply. Whatever is not a BrokerError is a 500 with a fixed text: what went wrong
 * inside is for the log, not for the caller.
 */
export function errorReply(error: unknown, context: ErrorContext): Reply {
  const refusal = asBrokerError(error);
  const { code, detail } = refusal;
  const row = ERRORS[code];
  const isOAuth = context.surface === 'oauth';
  const status = isOAuth ? row.oauthStatus : row.status;
  const headers: Record<string, string> = {
    'cache-control': 'no-store',
    'content-type': isOAuth ? 'application/json' : 'application/problem+json',
  };
  if (status === 401) headers['www-authenticate'] = challenges(code, context);
  if (detail.dpopNonce !== undefined) headers['dpop-nonce'] = detail.dpopNonce;
  if (status === 503 || status === 429 || detail.retryAfterSeconds !== undefined) {
    headers['retry-after'] = String(detail.retryAfterSeconds ?? RETRY_AFTER_SECONDS);
  }
  if (context.allow) headers['allow'] = context.allow.join(', ');
  // Memory that a sender keeps filling, or framing that two readers may see differently, ends the connection.
  if (code === 'too_large') headers['connection'] = 'close';
  const explained = {
    code,
    request_id: context.requestId,
    decision_id: detail.decisionId,
    policy_ids: detail.policyIds,
    hint: detail.hint,
    field: detail.field,
    problems: detail.problems,
  };
  const face = isOAuth
    ? { error: row.oauth, error_description: describable(refusal.message), ...explained }
    : {
        type: problemType(context.issuer, code),
        title: row.title,
        status,
        detail: refusal.message,
        ...explained,
      };
  return { status, headers, body: defined(face), note: noteOf(error, code) };
}

function asBrokerError(error: unknown): BrokerError {
  if (error instanceof BrokerError) return error;
  return new BrokerError('internal', 'Something went wrong inside.', { cause: error });
}

function noteOf(error: unknown, code: ErrorCode): Record<string, unknown> {
  if (error instanceof BrokerError)
    return defined({ code, reason: error.detail.reason, decisionId: error.detail.decisionId });
  return { code, problem: error instanceof Error ? (error.stack ?? error.message) : 'not an Error was thrown' };
}

/** A challenge per scheme we take. `error` stands in the one that was tried, and in none when nothing was (RFC 6750 section 3). */
function challenges(code: ErrorCode, { authorization, issuer }: ErrorContext): string {
  const metadata = `resource_metadata="${issuer}/.well-known/oauth-protected-resource"`;
  const dpopError = ERRORS[code].oauth;
  const isAboutDpop = code === 'dpop_invalid' || code === 'dpop_nonce_required';
  const bearer = [
    'realm="mayfly"',
    ...(authorization === 'Bearer' && !isAboutDpop ? ['error="invalid_token"'] : []),
    metadata,
  ];
  const dpop = [
    ...(isAboutDpop ? [`error="${dpopError}"`] : authorization === 'DPoP' ? ['error="invalid_token"'] : []),
    `algs="${DPOP_ALGORITHMS.join(' ')}"`,
    metadata,
  ];
  return `Bearer ${bearer.join(', ')}, DPoP ${dpop.join(', ')}`;
}

/** What `error_description` may hold (RFC 6749 section 5.2): visible ASCII without `"` and `\`. */
function describable(text: string): string {
  return text
    .replace(/["\u2018\u2019\u201c\u201d]/g, "'")
    .replaceAll('\u2026', '...')
    .replaceAll('\\', '/')
    .replace(/[^\x20-\x7e]/g, '?');
}
