import type { Expr, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';
import { LRUCache } from 'lru-cache';
import type { EntityType, PolicyAction, PolicyQuestion } from '../../core/decision.js';
import type { Policy } from './policy-text.js';
import { APPLIES } from './schema.js';

/** By who, by what, by the type of the task: where a policy can name the only values that it is about. */
const DIMENSIONS = ['principal', 'resource', 'taskType'] as const;
type Dimension = (typeof DIMENSIONS)[number];

/** Different sets of policies kept in mind; more than this and the one used longest ago is made again when it is wanted. */
export const SLICES_MAX = 2_000;
const SITUATIONS_MAX = 20_000;

/** The policies about one action by one type of principal on one type of resource. */
interface Group {
  members: [Policy, Head][];
  /** The values that some policy names; all others are alike. */
  named: Record<Dimension, Set<string>>;
}

interface Head {
  actions: Set<string> | undefined;
  principalType: string | undefined;
  resourceTypes: Set<string> | undefined;
  /** The only values a policy can apply to; a dimension that is not there is not restricted. */
  pins: Partial<Record<Dimension, string[]>>;
}

/**
 * Divides policies so that each question meets only those that could speak to it: evaluating costs in proportion to their
 * number. A policy is left out of a slice only where its head, or a condition that must hold, excludes it for certain, so a
 * slice decides exactly as the whole set would. Slices are made when first asked for, by `make`, once for each different set of
 * policies. Nobody can ask what a group does not exist for.
 */
export function sliceBy<Slice extends object>(
  policies: Policy[],
  toolsOf: (api: string) => string[],
  make: (members: Policy[]) => Slice,
): { of(question: PolicyQuestion): Slice | undefined; applicable(question: PolicyQuestion): Policy[] } {
  const heads = policies.map((policy): [Policy, Head] => [policy, headOf(policy.json, toolsOf)]);
  const groups = groupsOf(heads);
  const groupOf = ({ action, principal, resource }: PolicyQuestion) =>
    groups.get(groupKey(action, principal.type, resource.type));
  const bySituation = new LRUCache<string, Slice>({ max: SITUATIONS_MAX });
  const byMembers = new LRUCache<string, Slice>({ max: SLICES_MAX });

  const applicable = (question: PolicyQuestion): Policy[] =>
    (groupOf(question)?.members ?? [])
      .filter(([, head]) =>
        DIMENSIONS.every((dimension) => head.pins[dimension]?.includes(valueIn(dimension, question)) ?? true),
      )
      .map(([policy]) => policy);

  const sliceOf = (members: Policy[]): Slice => {
    const key = members.map((policy) => policy.id).join(' ');
    const slice = byMembers.get(key) ?? make(members);
    byMembers.set(key, slice);
    return slice;
  };

  return {
    applicable,
    of(question) {
      const group = groupOf(question);
      if (group === undefined) return undefined;
      const values = DIMENSIONS.map((dimension) => {
        const value = valueIn(dimension, question);
        return group.named[dimension].has(value) ? value : null;
      });
      const key = JSON.stringify([question.action, question.principal.type, question.resource.type, values]);
      const slice = bySituation.get(key) ?? sliceOf(applicable(question));
      bySituation.set(key, slice);
      return slice;
    },
  };
}

function groupsOf(heads: [Policy, Head][]): Map<string, Group> {
  const groups = new Map<string, Group>();
  for (const action of Object.keys(APPLIES) as PolicyAction[]) {
    for (const principal of APPLIES[action].principals) {
      for (const resource of APPLIES[action].resources) {
        const members = heads.filter(([, head]) => couldApply(head, action, principal, resource));
        const namedIn = (dimension: Dimension) => new Set(members.flatMap(([, head]) => head.pins[dimension] ?? []));
        const named = { principal: namedIn('principal'), resource: namedIn('resource'), taskType: namedIn('taskType') };
        groups.set(groupKey(action, principal, resource), { members, named });
      }
    }
  }
  return groups;
}

function groupKey(action: string, principal: EntityType, resource: EntityType): string {
  return `${action} ${principal} ${resource}`;
}

function couldApply(head: Head, action: string, principal: EntityType, resource: EntityType): boolean {
  return (
    (head.actions?.has(action) ?? true) &&
    (head.principalType ?? principal) === principal &&
    (head.resourceTypes?.has(resource) ?? true)
  );
}

function valueIn(dimension: Dimension, question: PolicyQuestion): string {
  if (dimension !== 'taskType') return question[dimension].id;
  const task = question.context['task'] as { type?: unknown } | undefined;
  return String(task?.type);
}

function headOf(json: PolicyJson, toolsOf: (api: string) => string[]): Head {
  const head: Head = { actions: undefined, principalType: undefined, resourceTypes: undefined, pins: {} };
  if (json.action.op === '==' && 'entity' in json.action) head.actions = new Set([uid(json.action.entity).id]);
  if (json.action.op === 'in') {
    const entities = 'entities' in json.action ? json.action.entities : [json.action.entity];
    head.actions = new Set(entities.map((each) => uid(each).id));
  }
  if (json.principal.op === 'is') head.principalType = json.principal.entity_type;
  if (json.principal.op === '==' && 'entity' in json.principal) {
    const { type, id } = uid(json.principal.entity);
    head.principalType = type;
    head.pins.principal = [id];
  }
  if (json.resource.op === 'is') head.resourceTypes = new Set([json.resource.entity_type]);
  if (json.resource.op === '==' && 'entity' in json.resource) {
    const { type, id } = uid(json.resource.entity);
    head.resourceTypes = new Set([type]);
    head.pins.resource = [id];
  }
  const above = json.resource.op === 'in' ? json.resource : json.resource.op === 'is' ? json.resource.in : undefined;
  if (above && 'entity' in above) {
    const { type, id } = uid(above.entity);
    if (type === 'Api') {
      // An entity is in itself, so the audience counts beside its tools.
      if (json.resource.op === 'in') head.resourceTypes = new Set(['Api', 'Tool']);
      head.pins.resource = [id, ...toolsOf(id)];
    }
  }
  for (const condition of json.conditions) {
    if (condition.kind !== 'when') continue;
    for (const conjunct of conjunctsOf(condition.body)) {
      const type = taskTypeIn(conjunct);
      if (type !== undefined) head.pins.taskType = [type];
    }
  }
  return head;
}

/** `a && b && c` as its parts, all of which must hold. */
export function conjunctsOf(body: Expr): Expr[] {
  if (!('&&' in body)) return [body];
  const { left, right } = body['&&'] as { left: Expr; right: Expr };
  return [...conjunctsOf(left), ...conjunctsOf(right)];
}

const TASK_TYPE = JSON.stringify({ '.': { left: { '.': { left: { Var: 'context' }, attr: 'task' } }, attr: 'type' } });

/** The literal of `context.task.type == "refund"`. */
function taskTypeIn(conjunct: Expr): string | undefined {
  if (!('==' in conjunct)) return undefined;
  const { left, right } = conjunct['=='] as { left: Expr; right: Expr };
  const [variable, literal] = 'Value' in right ? [left, right] : [right, left];
  if (JSON.stringify(variable) !== TASK_TYPE || !('Value' in literal)) return undefined;
  return typeof literal.Value === 'string' ? literal.Value : undefined;
}

export function uid(entity: { __entity: { type: string; id: string } } | { type: string; id: string }): {
  type: string;
  id: string;
} {
  return '__entity' in entity ? entity.__entity : entity;
}
