import type { EntityJson, EntityUidJson, TypeAndId } from '@cedar-policy/cedar-wasm/nodejs';
import { type Bundle, resourceOfTool } from '../../core/bundle.js';
import type { PolicyEntity, PolicyQuestion } from '../../core/decision.js';
import type { EpochMs } from '../../core/time.js';
import type { AttributeType, DeclaredAttributes } from './schema.js';

/** A question in the engine's form. */
export interface EngineQuestion {
  principal: TypeAndId;
  action: TypeAndId;
  resource: TypeAndId;
  context: Record<string, unknown>;
  entities: EntityJson[];
}

/**
 * Turns a question into the engine's form: fills in what the bundle knows of the resource, and keeps of what users wrote
 * (params, task context, arguments) what task types and tools declare, each checked against its declared type. A wrong type, or
 * an argument that a tool with declared arguments does not have, is an error and so a deny.
 */
export function toEngine(
  question: PolicyQuestion,
  bundle: Bundle,
  declared: DeclaredAttributes,
  nowMs: EpochMs,
): { asked: EngineQuestion; errors: string[] } {
  const errors: string[] = [];
  const principal = { type: question.principal.type, id: question.principal.id };
  const resource = { type: question.resource.type, id: question.resource.id };
  const context: Record<string, unknown> = { ...question.context };
  for (const name of ['task', 'parent']) {
    if (isRecord(context[name])) context[name] = taskOf(context[name], declared, errors);
  }
  if (question.action === 'call') {
    context['arguments'] = argumentsOf(question, bundle, declared, errors);
  }
  const now = context['now'] ?? nowMs;
  if (typeof now === 'number' && Number.isSafeInteger(now) && Math.abs(now) < 8.64e15)
    context['now'] = new Date(now).toISOString();
  const entities = [
    principalEntity(question.principal, principal),
    resourceEntity(question.resource, resource, bundle),
  ];
  const asked = { principal, action: { type: 'Action', id: question.action }, resource, context, entities };
  return { asked: clean(asked, 'the question', DEPTH_MAX, errors) as EngineQuestion, errors };
}

/** A task with those of its users' keys that task types declare. What is undefined is not there: nowhere in a question do the two differ. */
function taskOf(
  task: Record<string, unknown>,
  declared: DeclaredAttributes,
  errors: string[],
): Record<string, unknown> {
  return {
    ...task,
    ...(task['params'] !== undefined && { params: declaredOnly('param', task['params'], declared.params, errors) }),
    ...(task['context'] !== undefined && {
      context: declaredOnly('context', task['context'], declared.taskContext, errors),
    }),
  };
}

function principalEntity(entity: PolicyEntity, uid: EntityUidJson): EntityJson {
  const { labels, ...attributes } = entity.attributes;
  const attrs = attributes as EntityJson['attrs'];
  return isRecord(labels)
    ? { uid, attrs, parents: [], tags: labels as NonNullable<EntityJson['tags']> }
    : { uid, attrs, parents: [] };
}

/** What the bundle says of a thing stands for what the question leaves out. */
function resourceEntity(entity: PolicyEntity, uid: EntityUidJson, bundle: Bundle): EntityJson {
  const known = knownOf(entity, bundle);
  const attrs = { ...known, ...definedOf(entity.attributes) } as EntityJson['attrs'];
  const api = entity.type === 'Tool' ? attrs['api'] : undefined;
  return { uid, attrs, parents: typeof api === 'string' ? [{ type: 'Api', id: api }] : [] };
}

function knownOf(entity: PolicyEntity, bundle: Bundle): Record<string, unknown> {
  switch (entity.type) {
    case 'Tool': {
      const home = resourceOfTool(bundle, entity.id);
      return home ? { name: entity.id, api: home.resource, sensitivity: home.sensitivity } : {};
    }
    case 'Api': {
      const api = bundle.resources.get(entity.id);
      return api ? { resource: api.resource, sensitivity: api.sensitivity, enforcement: api.enforcement } : {};
    }
    case 'Secret': {
      const secret = bundle.secrets.get(entity.id);
      return secret ? { name: secret.name, backend: secret.backend, sensitivity: secret.sensitivity } : {};
    }
    case 'TaskType': {
      const type = bundle.taskTypes.get(entity.id);
      if (!type) return { type: entity.id, risk: 'high', tools: [], resources: [], secrets: [], ttlSecondsMax: 0 };
      const { tools, resources, secrets, risk } = type;
      return { type: type.type, risk, tools, resources, secrets, ttlSecondsMax: Math.floor(type.ttlMsMax / 1_000) };
    }
    default:
      return {};
  }
}

function argumentsOf(
  question: PolicyQuestion,
  bundle: Bundle,
  declared: DeclaredAttributes,
  errors: string[],
): Record<string, unknown> {
  const given = question.context['arguments'];
  const tool = resourceOfTool(bundle, question.resource.id)?.toolArguments.get(question.resource.id);
  if (!isRecord(given)) {
    errors.push('the arguments of the call must be a mapping');
    return {};
  }
  if (tool === undefined) return {};
  const readable = new Map<string, AttributeType>();
  for (const name of Object.keys(given)) {
    const type = Object.hasOwn(tool.declared, name) ? tool.declared[name] : undefined;
    if (type === undefined && tool.others === 'refuse') errors.push(`the tool declares no argument ${quoted(name)}`);
    const attribute = declared.arguments.get(name);
    if (type !== undefined && type !== 'any' && attribute !== undefined) readable.set(name, attribute);
  }
  return declaredOnly('argument', given, readable, errors);
}

function declaredOnly(
  what: string,
  given: unknown,
  declared: Map<string, AttributeType>,
  errors: string[],
): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  if (!isRecord(given)) {
    errors.push(`the ${what} values must be a mapping`);
    return kept;
  }
  for (const [name, value] of Object.entries(given)) {
    const type = declared.get(name);
    if (type === undefined || value === undefined) continue;
    if (fits(value, type)) kept[name] = value;
    else errors.push(`the ${what} ${quoted(name)} is not a ${SPOKEN[type]}`);
  }
  return kept;
}

const SPOKEN: Record<AttributeType, string> = {
  String: 'string',
  Long: 'whole number',
  Bool: 'boolean',
  'Set<String>': 'list of strings',
};

function fits(value: unknown, type: AttributeType): boolean {
  if (type === 'String') return typeof value === 'string';
  if (type === 'Bool') return typeof value === 'boolean';
  // Integers beyond 2^53 were already changed by whatever parsed them; a policy would judge another number.
  if (type === 'Long') return Number.isSafeInteger(value);
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}

/** Names come from callers: shortened, and unable to break a line of a record. */
function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 64));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function definedOf(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined));
}

const DEPTH_MAX = 10;
const LONE_SURROGATE = /\p{Surrogate}/u;

/**
 * A plain copy with nothing in it that the engine would choke on: text that is no Unicode, numbers that are no safe integers, null,
 * anything but JSON, too many levels, and keys that mean something to it (`__entity`, `__extn`).
 */
function clean(value: unknown, where: string, levels: number, errors: string[]): unknown {
  switch (typeof value) {
    case 'boolean':
      return value;
    case 'string':
      if (LONE_SURROGATE.test(value)) errors.push(`${where} is not well-formed text`);
      return value;
    case 'number':
      if (!Number.isSafeInteger(value)) errors.push(`${where} is not a whole number`);
      return value;
    case 'object':
      if (value === null || levels === 0) break;
      if (Array.isArray(value)) return value.map((each) => clean(each, where, levels - 1, errors));
      return cleanRecord(value as Record<string, unknown>, where, levels, errors);
  }
  errors.push(`${where} is nothing that a policy can read`);
  return undefined;
}

function cleanRecord(record: Record<string, unknown>, where: string, levels: number, errors: string[]): unknown {
  const copy: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(record)) {
    if (value === undefined) continue;
    if (name.startsWith('__') || LONE_SURROGATE.test(name))
      errors.push(`${where} has a name that policies cannot have`);
    else copy[name] = clean(value, name, levels - 1, errors);
  }
  return copy;
}
