import { z } from 'zod';
import { NAME } from '../../core/as-recorded.js';
import { parseSpiffeId } from '../../core/spiffe-id.js';
import { parseDurationMs } from '../../core/time.js';

/** Keys that users choose and policies read: a letter first, so none is a reserved word of JSON or of the engine. */
const KEY = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
const UNTYPED = 'untyped';

const name = z.string().regex(NAME, 'must be 1 to 64 letters, digits, "_", "." or "-"');
const key = z.string().regex(KEY, 'must be a letter and up to 63 letters, digits, "_", "." or "-"');
const text = z.string().min(1, 'must not be empty').max(1_000, 'must not be longer than 1000 characters');
const word = z.string().min(1, 'must not be empty').max(128, 'must not be longer than 128 characters');
const date = z
  .string()
  .refine((value) => /^\d{4}-\d{2}-\d{2}$/.test(value) && isDate(value), 'must be a date such as 2027-06-30');
const list = <T extends z.ZodType>(item: T, max = 500) => z.array(item).max(max, `must not list more than ${max}`);
const sensitivity = z.enum(['public', 'internal', 'confidential', 'restricted']);

const spiffeId = z
  .string()
  .refine(
    (value) => parseSpiffeId(value) !== undefined,
    'must be a SPIFFE ID such as spiffe://prod.example/agent/refunds',
  );
const spiffeIdOrPattern = z
  .string()
  .refine(
    (value) => parseSpiffeId(value.endsWith('/*') ? `${value.slice(0, -1)}x` : value) !== undefined,
    'must be a SPIFFE ID such as spiffe://prod.example/agent/refunds, or one whose last segment is "*"',
  );

const resourceUri = z.string().max(512, 'must not be longer than 512 characters').refine(isResourceUri, {
  message: 'must be an absolute URI without a fragment, such as https://orders.example',
});

/** A duration as people write it, `5m`; milliseconds inside. */
const duration = (maxMs: number, maxText: string) =>
  z.union([z.string(), z.number()]).transform((value, context) => {
    const ms = parseDurationMs(String(value));
    if (ms !== undefined && ms >= 1_000 && ms <= maxMs) return ms;
    context.addIssue({ code: 'custom', message: `must be a duration between 1s and ${maxText}, such as 5m` });
    return z.NEVER;
  });

const DAY_MS = 86_400_000;

const workloadShape = {
  spiffe_id: spiffeIdOrPattern,
  owner: word,
  team: word,
  risk_tier: z.union([z.literal(1), z.literal(2), z.literal(3), z.literal(4)], 'must be 1, 2, 3 or 4'),
  environment: word,
  model: word.optional(),
  tools: list(name, 2_000).default([]),
  labels: z.record(key, z.string().max(256)).default({}),
  review_by: date.optional(),
  retired: z.boolean().default(false),
};

const standingException = z.strictObject({ secret: name, reason: text, until: date, owner: word });

export const agent = z.strictObject({ ...workloadShape, standing_exceptions: list(standingException, 20).default([]) });
export const orchestrator = z.strictObject(workloadShape);

export const param = z.union([
  z.enum(['string', 'integer', 'boolean']).transform((type) => ({ type, required: false })),
  z.strictObject({
    type: z.enum(['string', 'integer', 'boolean']),
    required: z.boolean().default(false),
    pattern: z.string().max(200).optional(),
    values: list(z.string().max(256), 200).optional(),
    minimum: z.int().optional(),
    maximum: z.int().optional(),
  }),
]);

/** A list is an order from loose to tight. */
export const contextOrder = z.union(
  [
    list(word, 20).min(2, 'must list at least two values, from loose to tight'),
    z.literal('add-only'),
    z.literal('fixed'),
  ],
  'must be a list of values from loose to tight, "add-only" or "fixed"',
);

export const taskType = z.strictObject({
  type: name.refine(
    (value) => value !== UNTYPED,
    'must not be "untyped", which is what tasks without a type are called',
  ),
  description: text,
  params: z.record(key, param).default({}),
  tools: list(name).default([]),
  resources: list(resourceUri).default([]),
  secrets: list(name).default([]),
  ttl_max: duration(30 * DAY_MS, '30d'),
  risk: z.enum(['low', 'medium', 'high']),
  context: z.record(key, contextOrder).default({}),
  agent_settable: list(key, 50).default([]),
});

const argumentType = z.enum(['string', 'integer', 'boolean', 'strings', 'any']);
const tool = z.union([
  name.transform((value) => ({ name: value, arguments: undefined, other_arguments: 'refuse' as const })),
  z.strictObject({
    name,
    arguments: z.record(key, argumentType).optional(),
    other_arguments: z.enum(['refuse', 'allow']).default('refuse'),
  }),
]);

export const resource = z.strictObject({
  resource: resourceUri,
  description: text,
  owners: list(spiffeId, 50).min(1, 'must name at least one owner: the workload that enforces'),
  tools: list(tool).default([]),
  enforcement: z.enum(['feed', 'introspection', 'gateway', 'expiry-only']),
  sensitivity,
});

export const secret = z.strictObject({
  name,
  backend: name,
  sensitivity,
  ttl_max: duration(30 * DAY_MS, '30d'),
  settings: z.record(z.string(), z.unknown()).default({}),
});

/** The folders of a bundle and what their files hold. */
export const SHAPES = {
  agents: agent,
  orchestrators: orchestrator,
  tasks: taskType,
  resources: resource,
  secrets: secret,
} as const;

export type Folder = keyof typeof SHAPES;
/** A declaration and where it stands, so that a problem can say so. */
export type Placed<F extends Folder> = { at: string; value: z.output<(typeof SHAPES)[F]> };
export type Declarations = { [F in Folder]: Placed<F>[] };

function isResourceUri(value: string): boolean {
  // The audience is compared as bytes, so a spelling that any parser would change is refused.
  return /^[a-z][a-z0-9+.-]*:[\x21\x24-\x3b\x3d\x3f-\x5a\x5f\x61-\x7a\x7e]+$/.test(value) && URL.canParse(value);
}

function isDate(value: string): boolean {
  const at = new Date(`${value}T00:00:00Z`);
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(value);
}
