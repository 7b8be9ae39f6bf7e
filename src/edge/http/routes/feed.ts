import { z } from 'zod';
import { acknowledge, feedReaders, followFeed } from '../../../broker/follow-feed.js';
import { BrokerError } from '../../../core/errors.js';
import { isPosition } from '../../../core/position.js';
import { feedChunks } from '../feed-chunks.js';
import { defineRoute, json, type Route } from '../route.js';
import { streamEnd } from '../sse.js';
import { EVENTS, instant, NOTHING } from '../wire.js';
import { moment, texts } from './shapes.js';

const position = z.string().refine(isPosition, { message: 'must be a position: <epoch>-<ms>-<seq>' });

export const feed: readonly Route[] = [
  defineRoute({
    method: 'GET',
    path: '/v1/feed',
    auth: 'caller',
    summary: 'The feed of revocations: a snapshot, then every entry as it happens. For the owners of audiences',
    reply: { 200: EVENTS },
    errors: ['denied'],
    handle: async (parts, { caller, header, signal }) => {
      const from = header('last-event-id');
      if (from !== undefined && !isPosition(from)) {
        throw new BrokerError('invalid_request', 'Last-Event-ID is the position of the last entry you have.', {
          field: 'last-event-id',
        });
      }
      const frames = await followFeed(parts, caller, { signal, ...(from !== undefined && { from }) });
      return { status: 200, events: { chunks: feedChunks(frames), endsAtMs: streamEnd(caller) } };
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
