import { createHash } from 'node:crypto';
import type { Caller } from '../../broker/caller.js';
import type { Parts } from '../../broker/parts.js';
import { BrokerError } from '../../core/errors.js';
import type { Reply, Request } from './route.js';

const KEY = /^[\x21-\x7e]{1,255}$/;

type KeyedRequest = Request<unknown, unknown, unknown, Caller>;

interface Once {
  /** What is done the first time. */
  first(): Promise<Reply>;
  /** Throws when the caller may no longer see what the kept answer says. */
  mayStillSee(body: Record<string, unknown>): Promise<void>;
}

/**
 * `Idempotency-Key`: per caller and route, for 24 h, a repeat of the same body gets the first answer, and another body is `key_reused`.
 * Authority is asked for again before a kept answer is given. A request that failed gives its key back.
 */
export async function onlyOnce(
  parts: Parts,
  request: KeyedRequest,
  route: string,
  { first, mayStillSee }: Once,
): Promise<Reply> {
  const sent = request.header('idempotency-key');
  if (sent === undefined) return first();
  if (!KEY.test(sent)) {
    throw new BrokerError('invalid_request', 'An Idempotency-Key is 1 to 255 visible characters.', {
      field: 'idempotency-key',
    });
  }
  const key = createHash('sha256')
    .update(JSON.stringify([request.caller.name, route, sent]))
    .digest('base64url');
  const claim = await parts.replayGuard.claim(key, request.bodyDigest(), parts.clock.now());
  switch (claim.outcome) {
    case 'other_body':
      throw new BrokerError('key_reused', 'This Idempotency-Key came with another body before.', {
        field: 'idempotency-key',
      });
    case 'in_progress':
      throw new BrokerError('conflict', 'The first request with this Idempotency-Key is not answered yet.', {
        field: 'idempotency-key',
        retryAfterSeconds: 1,
      });
    case 'answered': {
      const kept = JSON.parse(claim.answer) as Reply;
      await mayStillSee(kept.body as Record<string, unknown>);
      return { ...kept, headers: { ...kept.headers, 'idempotent-replayed': 'true' } };
    }
    case 'new':
      return claimed(parts, key, first);
  }
}

async function claimed(parts: Parts, key: string, first: Once['first']): Promise<Reply> {
  let reply: Reply;
  try {
    reply = await first();
  } catch (error) {
    // A claim that cannot be given back runs out by itself; what went wrong first is what the caller needs to know.
    await parts.replayGuard.release(key).catch(() => {});
    throw error;
  }
  const { status, headers, body } = reply;
  // What was done is done: without its kept answer a repeat waits for the claim to run out instead of doing it twice.
  await parts.replayGuard.answer(key, JSON.stringify({ status, headers, body }), parts.clock.now()).catch(() => {});
  return reply;
}
