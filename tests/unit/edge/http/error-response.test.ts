import { describe, expect, it } from '@jest/globals';
import { BrokerError, ERRORS, type ErrorCode } from '../../../../src/core/errors.js';
import { type ErrorContext, errorReply } from '../../../../src/edge/http/error-response.js';

const context: ErrorContext = { surface: 'api', requestId: 'req-1', issuer: 'https://mayfly.example' };
const oauth: ErrorContext = { ...context, surface: 'oauth' };
const codes = Object.keys(ERRORS) as ErrorCode[];

describe('an error as a reply', () => {
  it.each(codes)('%s: the status of its row on both surfaces, never cached, with its request id', (code) => {
    const error = new BrokerError(code, 'Said.', { reason: 'unsaid', cause: new Error('unsaid too') });
    for (const [at, status] of [
      [context, ERRORS[code].status],
      [oauth, ERRORS[code].oauthStatus],
    ] as const) {
      const reply = errorReply(error, at);
      expect(reply.status).toBe(status);
      expect(reply.headers).toMatchObject({ 'cache-control': 'no-store' });
      expect(reply.headers?.['www-authenticate'] !== undefined).toBe(status === 401);
      expect(reply.body).toMatchObject({ code, request_id: 'req-1' });
      expect(JSON.stringify(reply.body)).not.toContain('unsaid');
    }
  });

  it.each([new TypeError('secret'), 'secret', undefined, null, { code: 'denied', message: 'secret' }])(
    'what is not ours is a 500 in a fixed text: %p',
    (thrown) => {
      const reply = errorReply(thrown, context);
      expect(reply.status).toBe(500);
      expect(JSON.stringify(reply.body)).not.toContain('secret');
      expect(reply.body).toMatchObject({ code: 'internal', detail: 'Something went wrong inside.' });
    },
  );

  it('says when to come again, on every 429 and 503', () => {
    const retry = (code: ErrorCode, seconds?: number) =>
      errorReply(new BrokerError(code, 'x', seconds === undefined ? {} : { retryAfterSeconds: seconds }), context)
        .headers?.['retry-after'];
    expect([retry('unavailable'), retry('quota_exceeded'), retry('unavailable', 9)]).toEqual(['1', '1', '9']);
    expect(retry('denied')).toBeUndefined();
  });

  it('challenges say what is wrong with what was tried, and nothing when nothing was', () => {
    const challenge = (code: ErrorCode, authorization?: ErrorContext['authorization']) =>
      errorReply(new BrokerError(code, 'x'), { ...context, ...(authorization && { authorization }) }).headers?.[
        'www-authenticate'
      ];
    const metadata = 'resource_metadata="https://mayfly.example/.well-known/oauth-protected-resource"';
    expect(challenge('identity_rejected')).toMatch(
      new RegExp(`^Bearer realm="mayfly", ${metadata}, DPoP algs="[^"]+", ${metadata}$`),
    );
    expect(challenge('token_refused', 'Bearer')).toContain('Bearer realm="mayfly", error="invalid_token"');
    expect(challenge('token_refused', 'DPoP')).toContain('DPoP error="invalid_token"');
    expect(challenge('dpop_invalid', 'DPoP')).toContain('DPoP error="invalid_dpop_proof"');
    expect(challenge('identity_rejected', 'other')).not.toContain('error=');
  });

  it('an OAuth description keeps to its alphabet', () => {
    const reply = errorReply(new BrokerError('denied', 'That person’s “token” \\ is\n"old"…'), oauth);
    expect(reply.body).toMatchObject({ error_description: "That person's 'token' / is?'old'..." });
  });

  it('a body that was too large ends the connection', () => {
    expect(errorReply(new BrokerError('too_large', 'x'), context).headers?.['connection']).toBe('close');
  });
});
