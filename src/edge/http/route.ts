import type { z } from 'zod';
import type { Caller, Evidence } from '../../broker/caller.js';
import type { Parts } from '../../broker/parts.js';
import type { ErrorCode } from '../../core/errors.js';
import type { EpochMs } from '../../core/time.js';

/**
 * A route is a value: what it takes, who may come in, what it answers, and the function between. It sees neither
 * Express nor `node:http`. Its schemas check the request, check the reply (where replies are checked) and write the
 * API document (openapi.ts).
 */
export interface Route {
  method: Method;
  /** Segments, those in braces being parameters: `/v1/tasks/{id}/complete`. */
  path: string;
  summary: string;
  /** Asked for so often that it is looked up before Express. */
  hot?: true;
  auth: Auth;
  body?: Body;
  query?: z.ZodObject;
  /** Whatever query comes is let in and ignored. Only where the answer is always no. */
  anyQuery?: true;
  params?: z.ZodObject;
  /** Status to schema; `NOTHING` where there is no body, `EVENTS` for a stream. */
  reply: Record<number, z.ZodType>;
  /** What it may refuse with, beyond what every route may. */
  errors: readonly ErrorCode[];
  handle(parts: Parts, request: Request<unknown, unknown, unknown, Caller | undefined>): Promise<Reply> | Reply;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/**
 * `none`: anybody, whatever they bring (a token endpoint reads the evidence itself). `caller`: a proven identity, so that an
 * unproven one never gets a body read. `bound`: a proven identity bound to a key of the connection or request.
 */
export type Auth = 'none' | 'caller' | 'bound';

export interface JsonBody<Schema extends z.ZodType = z.ZodType> {
  kind: 'json';
  schema: Schema;
  bytesMax: number;
  mediaTypes: readonly string[];
  /** No body at all counts as `{}`. */
  optional: boolean;
}

export interface FormBody<Schema extends z.ZodObject = z.ZodObject> {
  kind: 'form';
  /** Members that are arrays may be repeated; every other one may not. */
  schema: Schema;
  bytesMax: number;
}

export type Body = JsonBody | FormBody;

export const BODY_BYTES_MAX = 64 * 1024;

export function json<Schema extends z.ZodType>(
  schema: Schema,
  { bytesMax = BODY_BYTES_MAX, mediaTypes = ['application/json'], optional = false }: Partial<JsonBody> = {},
): JsonBody<Schema> {
  return { kind: 'json', schema, bytesMax, mediaTypes, optional };
}

export function form<Schema extends z.ZodObject>(schema: Schema): FormBody<Schema> {
  return { kind: 'form', schema, bytesMax: BODY_BYTES_MAX };
}

/** A request as a route sees it: parsed, checked, and its sender proven where the route asks for that. */
export interface Request<Body, Query, Params, Who> {
  body: Body;
  query: Query;
  params: Params;
  caller: Who;
  /** What the request brought to show who is asking. Throws `identity_rejected` for an Authorization that is neither Bearer nor DPoP. */
  evidence(): Evidence;
  /** A header by its lower-case name; it came at most once. */
  header(name: string): string | undefined;
  /** SHA-256 of the body's bytes, base64url. */
  bodyDigest(): string;
  requestId: string;
  /** Aborts when the client is gone or the door closes. */
  signal(): AbortSignal;
}

export interface Reply {
  status: number;
  /** Serialised as JSON; a Buffer goes out as it is. */
  body?: unknown;
  /** Names in lower case. `cache-control: no-store` unless said otherwise. */
  headers?: Record<string, string>;
  events?: EventStream;
  /** What the wide line of this request says beside the usual. */
  note?: Record<string, unknown>;
}

/** A stream of server-sent events, already in bytes. */
export interface EventStream {
  chunks: AsyncIterable<EventChunk>;
  /** The stream ends here at the latest: its reader's identity does. */
  endsAtMs: EpochMs;
}

export interface EventChunk {
  /** Shared by all readers: never written to. */
  bytes: Buffer;
  /** `reader`: wait until the reader has taken it. `sender`: go on, and cut the reader off when it falls too far behind. */
  pace: 'reader' | 'sender';
}

type Infer<Schema, Otherwise> = Schema extends z.ZodType ? z.output<Schema> : Otherwise;
type WhoOf<A extends Auth> = A extends 'none' ? undefined : Caller;

interface Definition<
  A extends Auth,
  B extends Body | undefined,
  Q extends z.ZodObject | undefined,
  P extends z.ZodObject | undefined,
> extends Omit<Route, 'auth' | 'body' | 'query' | 'params' | 'handle'> {
  auth: A;
  body?: B;
  query?: Q;
  params?: P;
  handle(
    parts: Parts,
    request: Request<
      B extends Body ? z.output<B['schema']> : undefined,
      Infer<Q, undefined>,
      Infer<P, undefined>,
      WhoOf<A>
    >,
  ): Promise<Reply> | Reply;
}

/** Ties the types of a route's schemas to its `handle`. */
export function defineRoute<
  A extends Auth,
  B extends Body | undefined = undefined,
  Q extends z.ZodObject | undefined = undefined,
  P extends z.ZodObject | undefined = undefined,
>(definition: Definition<A, B, Q, P>): Route {
  return definition as unknown as Route;
}
