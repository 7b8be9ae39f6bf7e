import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { z } from 'zod';
import { authenticate } from '../../broker/authenticate.js';
import type { Caller, Evidence } from '../../broker/caller.js';
import type { Parts } from '../../broker/parts.js';
import { recordingRefusals } from '../../broker/refusal.js';
import { assert, BrokerError } from '../../core/errors.js';
import { parseFormBody, parseJsonBody, parseParameters, readBody } from './request-body.js';
import { authorizationOf, type RequestHead } from './request-head.js';
import type { EventStream, Reply, Request, Route } from './route.js';
import { checkShape } from './shape-check.js';

/** What the listener knows about a request beyond its bytes. */
export interface Arrival {
  incoming: IncomingMessage;
  head: RequestHead;
  /** Path parameters, decoded. */
  params: Record<string, string>;
  peer?: Evidence['peer'];
  /** The address of this listener as clients know it, without a trailing slash. */
  baseUrl: string;
  signal(): AbortSignal;
}

const NO_MEMBERS = z.strictObject({});
const NO_BODY_DIGEST = digestOf(Buffer.alloc(0));

/**
 * One request through one route, in this order: shape of query and path, who is asking, body, the route, its reply. Hot routes and
 * those behind Express come through here alike. The identity is proven before the body is read, so that nobody unknown makes us
 * hold or parse one; the OAuth endpoints read their form first, because the client's assertion is in it.
 */
export async function answer(parts: Parts, route: Route, arrival: Arrival, checkReplies: boolean): Promise<Reply> {
  const { incoming, head } = arrival;
  const isBare = head.query === '' && route.query === undefined;
  const query =
    route.anyQuery || isBare ? {} : checkShape(route.query ?? NO_MEMBERS, parseParameters(head.query), 'query');
  const params = route.params ? checkShape(route.params, arrival.params, 'path') : undefined;
  const isForm = route.body?.kind === 'form';
  let caller = isForm ? undefined : await callerOf(parts, route, arrival);
  const bytes = route.body ? await readBody(incoming, route.body.bytesMax) : noBody(incoming);
  const body = bodyOf(route, bytes, incoming.headers['content-type']);
  if (isForm) caller = await callerOf(parts, route, arrival, body as Record<string, unknown>);
  const request: Request<unknown, unknown, unknown, Caller | undefined> = {
    body,
    query,
    params,
    caller,
    evidence: () => evidenceOf(arrival),
    header: (name) => singleHeader(incoming, name),
    bodyDigest: () => (bytes.length === 0 ? NO_BODY_DIGEST : digestOf(bytes)),
    requestId: head.requestId,
    signal: arrival.signal,
  };
  const made = await route.handle(parts, request);
  if (checkReplies) checkReply(route, made);
  const reply = made.events ? { ...made, events: await primed(made.events) } : made;
  return caller ? { ...reply, note: { caller: caller.name, ...reply.note } } : reply;
}

function bodyOf(route: Route, bytes: Buffer, contentType: string | undefined): unknown {
  if (!route.body) return undefined;
  const value =
    route.body.kind === 'form'
      ? parseFormBody(bytes, contentType, route.body)
      : parseJsonBody(bytes, contentType, route.body);
  return checkShape(route.body.schema, value, 'body');
}

/** Who is asking, where the route wants to know. Never from a header about a certificate: only from our own TLS layer. */
async function callerOf(
  parts: Parts,
  route: Route,
  arrival: Arrival,
  formMembers?: Record<string, unknown>,
): Promise<Caller | undefined> {
  if (route.auth === 'none') return undefined;
  const caller = await authenticate(parts, withAssertion(evidenceOf(arrival), formMembers));
  if (route.auth === 'bound' && !caller.bound) await refuseUnbound(parts, route, caller);
  return caller;
}

/** A refusal like any other: recorded, with its decision's id. */
function refuseUnbound(parts: Parts, route: Route, caller: Caller): Promise<never> {
  return recordingRefusals(parts, caller, { action: `${route.method} ${route.path}` }, () => {
    throw new BrokerError('denied', 'This needs an identity that is bound to a key.', {
      reason: 'the identity is a bearer token',
      hint: "Connect with a client certificate (mTLS), or exchange a person's token for an operator token with DPoP.",
    });
  });
}

const JWT_SPIFFE_ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe';

/** Client authentication by assertion (RFC 7521 section 4.2) is a JWT like any other proof; two proofs in one request are refused (RFC 6749 section 2.3). */
function withAssertion(evidence: Evidence, form?: Record<string, unknown>): Evidence {
  const assertion = form?.['client_assertion'];
  const type = form?.['client_assertion_type'];
  if (assertion === undefined && type === undefined) return evidence;
  if (typeof assertion !== 'string' || typeof type !== 'string') {
    throw new BrokerError('invalid_request', 'client_assertion and client_assertion_type belong together.', {
      field: 'client_assertion_type',
    });
  }
  if (evidence.authorization) {
    throw new BrokerError('invalid_request', 'There is one client authentication per request.', {
      field: 'client_assertion',
    });
  }
  if (type !== JWT_SPIFFE_ASSERTION) {
    throw new BrokerError('identity_rejected', 'The client was not authenticated.', {
      field: 'client_assertion_type',
      hint: `Send ${JWT_SPIFFE_ASSERTION}.`,
    });
  }
  return { ...evidence, authorization: { scheme: 'Bearer', token: assertion } };
}

function evidenceOf({ incoming, head, peer, baseUrl }: Arrival): Evidence {
  const authorization = authorizationOf(incoming);
  const dpop = singleHeader(incoming, 'dpop');
  return {
    method: head.method,
    url: baseUrl + head.path,
    requestId: head.requestId,
    ...(authorization && { authorization }),
    ...(peer && { peer }),
    ...(dpop !== undefined && { dpop }),
    ...(head.traceId !== undefined && { traceId: head.traceId }),
  };
}

function singleHeader(incoming: IncomingMessage, name: string): string | undefined {
  const value = incoming.headers[name];
  return typeof value === 'string' ? value : undefined;
}

/** A body where none belongs would be left on the connection for the next reader. */
function noBody(incoming: IncomingMessage): Buffer {
  const { 'content-length': length, 'transfer-encoding': coding } = incoming.headers;
  if (coding === undefined && (length === undefined || Number(length) === 0)) return Buffer.alloc(0);
  throw new BrokerError('invalid_request', 'This takes no body.');
}

function digestOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('base64url');
}

/** A stream whose first event is already here: what goes wrong before it is still an ordinary error reply. */
async function primed(events: EventStream): Promise<EventStream> {
  const source = events.chunks[Symbol.asyncIterator]();
  const first = await source.next();
  async function* chunks() {
    try {
      for (let next = first; !next.done; next = await source.next()) yield next.value;
    } finally {
      await source.return?.(undefined);
    }
  }
  return { ...events, chunks: chunks() };
}

/** A reply that is not as declared is our mistake, and fails loudly. Checked in tests and in development. */
function checkReply(route: Route, reply: Reply): void {
  const schema = route.reply[reply.status];
  assert(schema, `${route.method} ${route.path} declares no status ${reply.status}`);
  if (reply.events || Buffer.isBuffer(reply.body)) return;
  // What goes out is the JSON of it: without undefined members, and with toJSON applied.
  const sent = reply.body === undefined ? undefined : JSON.parse(JSON.stringify(reply.body));
  const result = schema.safeParse(sent);
  assert(result.success, `${route.method} ${route.path} ${reply.status}: ${result.error?.message}`);
}
