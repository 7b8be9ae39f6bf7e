import { ERRORS, type ErrorCode } from '../../../src/core/errors.js';

/** What is frozen: clients read these. Status under `/v1`, name and status at the OAuth endpoints, exit code of the command line. */
const FROZEN: Partial<Record<ErrorCode, [status: number, oauth: string, oauthStatus: number, exit: number]>> = {
  invalid_request: [400, 'invalid_request', 400, 1],
  identity_rejected: [401, 'invalid_client', 401, 3],
  subject_rejected: [400, 'invalid_request', 400, 3],
  grant_rejected: [400, 'invalid_grant', 400, 3],
  denied: [403, 'access_denied', 400, 3],
  not_found: [404, 'invalid_authorization_details', 400, 2],
  task_over: [409, 'invalid_authorization_details', 400, 3],
  task_suspended: [409, 'invalid_authorization_details', 400, 3],
  scope_invalid: [400, 'invalid_scope', 400, 3],
  target_invalid: [400, 'invalid_target', 400, 3],
  dpop_invalid: [401, 'invalid_dpop_proof', 400, 3],
  token_refused: [401, 'invalid_token', 401, 3],
  scope_insufficient: [403, 'insufficient_scope', 403, 3],
  approval_pending: [202, 'authorization_pending', 400, 4],
  generation_mismatch: [412, 'invalid_request', 400, 2],
  key_reused: [422, 'invalid_request', 400, 2],
  quota_exceeded: [429, 'temporarily_unavailable', 429, 2],
  too_large: [413, 'invalid_request', 413, 1],
  unavailable: [503, 'temporarily_unavailable', 503, 2],
  internal: [500, 'server_error', 500, 2],
};

describe('the table of errors', () => {
  it.each(Object.entries(FROZEN))('%s is what clients were promised', (code, row) => {
    const { status, oauth, oauthStatus, exit } = ERRORS[code as ErrorCode];
    expect([status, oauth, oauthStatus, exit]).toEqual(row);
  });

  it('has no row whose numbers mean something else', () => {
    for (const [code, { status, oauthStatus, exit }] of Object.entries(ERRORS)) {
      const retry = status === 429 || status >= 500;
      expect({ code, exitIsServer: exit === 2 || !retry }).toEqual({ code, exitIsServer: true });
      // RFC 6749 section 5.2: 400 unless the client could not be authenticated, or it is no fault of the request.
      expect([400, 401, 403, 404, 405, 413, 415, 429, 500, 503]).toContain(oauthStatus);
      expect(oauthStatus === 401).toBe(['identity_rejected', 'token_refused'].includes(code));
    }
  });
});
