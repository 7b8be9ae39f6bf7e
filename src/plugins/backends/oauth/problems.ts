import { ResponseBodyError } from 'oauth4webapi';
import { BackendProblem, type BackendProblemKind } from '../contract.js';

/** What the error codes of RFC 6749, 7009, 8693 and 8707 mean to us. Any other code is shown as none: a code is text from outside. */
const KINDS: Record<string, BackendProblemKind> = {
  invalid_request: 'misconfigured',
  invalid_client: 'forbidden',
  invalid_grant: 'failed',
  invalid_scope: 'misconfigured',
  invalid_target: 'misconfigured',
  unauthorized_client: 'forbidden',
  access_denied: 'forbidden',
  unsupported_grant_type: 'misconfigured',
  unsupported_token_type: 'misconfigured',
  server_error: 'failed',
  temporarily_unavailable: 'busy',
};

/**
 * What an answer of the upstream means, in our own words: its error texts may quote the token that was sent, and stay where they are. A refusal as
 * OAuth has it means that nothing was made.
 */
export function refusalOf(error: unknown, what: string): BackendProblem {
  if (error instanceof BackendProblem) return error;
  if (error instanceof ResponseBodyError) {
    const known = Object.hasOwn(KINDS, error.error) ? error.error : undefined;
    const kind = error.status === 429 ? 'busy' : known === undefined ? 'failed' : (KINDS[known] as BackendProblemKind);
    return new BackendProblem(
      kind,
      `the upstream refused ${what}: ${known ?? `an error of its own (${error.status})`}`,
      {
        isSure: kind !== 'busy' && known !== 'server_error',
      },
    );
  }
  const status = statusOf(error);
  if (status === undefined) return new BackendProblem('failed', `the upstream’s answer to ${what} makes no sense`);
  return new BackendProblem(kindOfStatus(status), `the upstream answered ${status} to ${what}`, {
    isSure: REFUSED.has(status),
  });
}

/** Whoever answers so has made nothing. */
const REFUSED = new Set([401, 403, 404, 405]);

function kindOfStatus(status: number): BackendProblemKind {
  if (status === 401 || status === 403) return 'forbidden';
  if (status === 404 || status === 405) return 'misconfigured';
  if (status === 408 || status === 429) return 'busy';
  return status === 502 || status === 503 || status === 504 ? 'unreachable' : 'failed';
}

/** oauth4webapi leaves the response itself as the cause of an answer that is not as the specification has it. */
function statusOf(error: unknown): number | undefined {
  const { cause } = Object(error) as { cause?: unknown };
  return cause instanceof Response && cause.status !== 200 ? cause.status : undefined;
}

/** True for an upstream that cannot revoke this kind of token (RFC 7009 section 2.2.1). */
export function isUnsupportedType(error: unknown): boolean {
  return error instanceof ResponseBodyError && error.error === 'unsupported_token_type';
}
