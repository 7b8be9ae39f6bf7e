import { z } from 'zod';
import { ERRORS, type ErrorCode } from '../../core/errors.js';
import { surfaceOf } from './error-response.js';
import type { Route } from './route.js';

type JsonObject = Record<string, unknown>;

/** What any route may answer: malformed, and what only we can be blamed for. */
const EVERY_ROUTE: readonly ErrorCode[] = ['invalid_request', 'internal'];
const PROVEN_CALLER: readonly ErrorCode[] = ['identity_rejected', 'unavailable'];
const BODY: readonly ErrorCode[] = ['too_large', 'unsupported_media_type'];

/** The routes as an OpenAPI 3.1 document, made of the schemas that check the requests. The same routes give the same bytes. */
export function openApiDocument(routes: readonly Route[]): JsonObject {
  const paths: Record<string, JsonObject> = {};
  for (const route of routes) {
    const item = paths[route.path] ?? {};
    item[route.method.toLowerCase()] = operationOf(route);
    paths[route.path] = item;
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Mayfly',
      version: '1',
      description:
        'Just-in-time credentials for AI agents. Moments are RFC 3339 in UTC, durations are whole seconds. Errors are RFC 9457 problems, at the OAuth endpoints RFC 6749 errors.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: {
      schemas: { Problem: problemSchema(), OAuthError: oauthErrorSchema() },
      securitySchemes: {
        bearer: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'JWT',
          description: 'A JWT-SVID, a registered OIDC token, or a token of ours for the issuer.',
        },
        dpop: { type: 'http', scheme: 'dpop', description: 'An operator token bound to a key (RFC 9449).' },
        mtls: { type: 'mutualTLS', description: 'An X.509-SVID.' },
      },
    },
  };
}

function operationOf(route: Route): JsonObject {
  const operation: JsonObject = { operationId: operationId(route), summary: route.summary, tags: [tagOf(route)] };
  const parameters = [...parametersOf('path', route.params), ...parametersOf('query', route.query)];
  if (parameters.length > 0) operation['parameters'] = parameters;
  if (route.body) operation['requestBody'] = requestBodyOf(route.body);
  operation['responses'] = responsesOf(route);
  if (route.auth === 'caller') operation['security'] = [{ bearer: [] }, { dpop: [] }, { mtls: [] }];
  if (route.auth === 'bound') operation['security'] = [{ dpop: [] }, { mtls: [] }];
  return operation;
}

function operationId({ method, path }: Route): string {
  const words = path.split('/').filter((segment) => segment !== '' && segment !== 'v1');
  const named = words.map((word) => (word.startsWith('{') ? `by-${word.slice(1, -1)}` : word.replace(/^\./, '')));
  return [method.toLowerCase(), ...(named.length > 0 ? named : ['root'])].join('-').replace(/[^A-Za-z0-9]+/g, '-');
}

function tagOf({ path }: Route): string {
  const [first = '', second = ''] = path.split('/').slice(1);
  if (first === 'v1') return second;
  return first === 'oauth2' || first === '.well-known' ? 'oauth' : 'operations';
}

function parametersOf(place: 'path' | 'query', schema: z.ZodObject | undefined): JsonObject[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = jsonSchemaOf(schema, 'input') as {
    properties?: Record<string, JsonObject>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...rest }]) => ({
    name,
    in: place,
    required: place === 'path' || required.includes(name),
    ...(description === undefined ? {} : { description }),
    schema: rest,
  }));
}

function requestBodyOf(body: NonNullable<Route['body']>): JsonObject {
  const schema = jsonSchemaOf(body.schema, 'input');
  const mediaTypes = body.kind === 'form' ? ['application/x-www-form-urlencoded'] : body.mediaTypes;
  return {
    required: body.kind === 'form' || !body.optional,
    content: Object.fromEntries(mediaTypes.map((mediaType) => [mediaType, { schema }])),
  };
}

function responsesOf(route: Route): JsonObject {
  const responses: Record<string, JsonObject> = {};
  for (const [status, schema] of Object.entries(route.reply)) responses[status] = responseOf(schema);
  const isOAuth = surfaceOf(route.path) === 'oauth';
  const refusals = new Map<number, ErrorCode[]>();
  for (const code of errorsOf(route)) {
    const status = isOAuth ? ERRORS[code].oauthStatus : ERRORS[code].status;
    refusals.set(status, [...(refusals.get(status) ?? []), code]);
  }
  for (const [status, codes] of [...refusals].sort(([a], [b]) => a - b)) {
    const mediaType = isOAuth ? 'application/json' : 'application/problem+json';
    const schema = { $ref: `#/components/schemas/${isOAuth ? 'OAuthError' : 'Problem'}` };
    const description = codes.map((code) => `\`${code}\`: ${ERRORS[code].title}.`).join(' ');
    // A status may be an answer and a refusal (202: kept, or waiting for a human): the answer's shape stays.
    responses[status] ??= { description, content: { [mediaType]: { schema } } };
  }
  return responses;
}

function errorsOf(route: Route): ErrorCode[] {
  return [
    ...new Set([
      ...EVERY_ROUTE,
      ...(route.auth === 'none' ? [] : PROVEN_CALLER),
      ...(route.auth === 'bound' ? (['denied'] as const) : []),
      ...(route.body ? BODY : []),
      ...route.errors,
    ]),
  ];
}

function responseOf(schema: z.ZodType): JsonObject {
  const description = schema.meta()?.description;
  if (description === 'text/event-stream') {
    return {
      description: 'A stream of server-sent events.',
      content: { 'text/event-stream': { schema: { type: 'string' } } },
    };
  }
  if (schema instanceof z.ZodVoid) return { description: 'Done; no body.' };
  return {
    description: description ?? 'As asked.',
    content: { 'application/json': { schema: jsonSchemaOf(schema, 'output') } },
  };
}

function jsonSchemaOf(schema: z.ZodType, io: 'input' | 'output'): JsonObject {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' }) as JsonObject;
  return rest;
}

const explained: JsonObject = {
  code: { type: 'string', enum: Object.keys(ERRORS), description: 'What happened, for programs.' },
  request_id: { type: 'string' },
  decision_id: { type: 'string', description: 'The recorded decision: `mayfly why` explains it.' },
  policy_ids: { type: 'array', items: { type: 'string' } },
  hint: { type: 'string', description: 'What can be done about it.' },
  field: { type: 'string', description: 'The field that is wrong.' },
  problems: { type: 'array', items: { type: 'string' } },
};

function problemSchema(): JsonObject {
  return {
    type: 'object',
    description: 'RFC 9457',
    required: ['type', 'title', 'status', 'detail', 'code', 'request_id'],
    properties: {
      type: { type: 'string', format: 'uri' },
      title: { type: 'string' },
      status: { type: 'integer' },
      detail: { type: 'string', description: 'What happened, for people.' },
      ...explained,
    },
  };
}

function oauthErrorSchema(): JsonObject {
  return {
    type: 'object',
    description: 'RFC 6749 section 5.2',
    required: ['error', 'error_description', 'code', 'request_id'],
    properties: { error: { type: 'string' }, error_description: { type: 'string' }, ...explained },
  };
}
