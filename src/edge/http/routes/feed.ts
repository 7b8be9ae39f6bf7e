import { z } from 'zod';
import { authenticate } from '../../../broker/authenticate.js';
import type { Evidence } from '../../../broker/caller.js';
import { acknowledge, feedReaders, followFeed } from '../../../broker/follow-feed.js';
import type { Parts } from '../../../broker/parts.js';
import { BrokerError } from '../../../core/errors.js';
import { isPosition } from '../../../core/position.js';
import { feedChunks, whileProven } from '../feed-chunks.js';
import { defineRoute, json, type Route } from '../route.js';
import { streamEnd } from '../sse.js';
import { EVENTS, instant, NOTHING } from '../wire.js';
import { moment, texts } from './shapes.js';

/** A broker that cannot tell right now goes on: what it sends only ever takes away. */
async function isStillReader(parts: Parts, evidence: Evidence): Promise<boolean> {
  try {
    const { principal } = await authenticate(parts, evidence);
    return principal.kind === 'tool';
  } catch (error) {
    return error instanceof BrokerError && error.code === 'unavailable';
  }
}

const position = z.string().refine(isPosition, { message: 'must be a position: <epoch>-<ms>-<seq>' });

export const feed: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/feed',
    auth: 'caller',
    summary: 'The feed of revocations: a snapshot, then every entry as it happens. For the owners of audiences',
    reply: { 200: EVENTS },
    errors: ['denied'],
    handle: async (parts, { caller, header, signal, evidence }) => {
      const from = header('last-event-id');
      if (from !== undefined && !isPosition(from)) {
        throw new BrokerError('invalid_request', 'Last-Event-ID is the position of the last entry you have.', {
          field: 'last-event-id',
        });
      }
      const frames = await followFeed(parts, caller, { signal: signal(), ...(from !== undefined && { from }) });
      return {
        status: 200,
        events: {
          chunks: feedChunks(whileProven(frames, parts.clock, () => isStillReader(parts, evidence()))),
          endsAtMs: streamEnd(caller),
        },
      };
    },
  }),
  defineRoute({
    method: 'POST',
    path: '/v1/feed/ack',
    auth: 'caller',
    summary: 'Says up to where your enforcement point refuses what was revoked',
    body: json(z.strictObject({ pos: position })),
    reply: { 204: NOTHING },
    errors: ['denied'],
    handle: async (parts, { caller, body }) => {
      await acknowledge(parts, caller, { position: body.pos });
      return { status: 204 };
    },
  }),
  defineRoute({
    method: 'GET',
    path: '/v1/feed/readers',
    auth: 'caller',
    summary: 'Who follows the feed, and up to where each has acknowledged',
    reply: {
      200: z.strictObject({
        items: z.array(
          z.strictObject({ name: z.string(), resources: texts, position: z.string(), acknowledged_at: moment }),
        ),
      }),
    },
    errors: ['denied'],
    handle: async (parts, { caller }) => ({
      status: 200,
      body: {
        items: (await feedReaders(parts, caller)).map(({ acknowledgedAtMs, ...reader }) => ({
          ...reader,
          acknowledged_at: instant(acknowledgedAtMs),
        })),
      },
    }),
  }),
];
