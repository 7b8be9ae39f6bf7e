import type { Expr, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';
import type { EntityType, PolicyAction, PolicyQuestion } from '../../core/decision.js';
import type { Policy } from './policy-text.js';
import { APPLIES } from './schema.js';

/** The dimensions in which the policies of an action are divided further: by who, by what, by the type of the task. */
const DIMENSIONS = ['principal', 'resource', 'taskType'] as const;
type Dimension = (typeof DIMENSIONS)[number];

interface Group<Slice> {
  dimension: Dimension;
  byValue: Map<string, Slice>;
  /** For values that no policy names. */
  rest: Slice;
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
 * slice decides exactly as the whole set would. `make` is called once for each different set of policies. `applicable` goes
 * through all policies in all dimensions, for questions asked rarely.
 */
export function sliceBy<Slice>(
  policies: Policy[],
  toolsOf: (api: string) => string[],
  make: (members: Policy[]) => Slice,
): { of(question: PolicyQuestion): Slice | undefined; applicable(question: PolicyQuestion): Policy[] } {
  const made = new Map<string, Slice>();
  const sliceOf = (members: Policy[]): Slice => {
    const key = members.map((policy) => policy.id).join(' ');
    const known = made.get(key);
    if (known !== undefined) return known;
    const fresh = make(members);
    made.set(key, fresh);
    return fresh;
  };

  const heads = policies.map((policy): [Policy, Head] => [policy, headOf(policy.json, toolsOf)]);
  const groups = new Map<string, Group<Slice>>();
  for (const action of Object.keys(APPLIES) as PolicyAction[]) {
    for (const principal of APPLIES[action].principals) {
      for (const resource of APPLIES[action].resources) {
        const members = heads.filter(([, head]) => couldApply(head, action, principal, resource));
        groups.set(groupKey(action, principal, resource), groupOf(members, sliceOf));
      }
    }
  }
  return {
    of(question) {
      const group = groups.get(groupKey(question.action, question.principal.type, question.resource.type));
      return group && (group.byValue.get(valueIn(group.dimension, question)) ?? group.rest);
    },
    applicable: (question) =>
      heads
        .filter(
          ([, head]) =>
            couldApply(head, question.action, question.principal.type, question.resource.type) &&
            DIMENSIONS.every((dimension) => head.pins[dimension]?.includes(valueIn(dimension, question)) ?? true),
        )
        .map(([policy]) => policy),
  };
}

function groupKey(action: string, principal: EntityType, resource: EntityType): string {
  return `${action} ${principal} ${resource}`;
}

/** Divides in the dimension that leaves the fewest policies in the largest slice. */
function groupOf<Slice>(members: [Policy, Head][], sliceOf: (members: Policy[]) => Slice): Group<Slice> {
  const divisions = DIMENSIONS.map((dimension) => {
    const values = new Set(members.flatMap(([, head]) => head.pins[dimension] ?? []));
    const forValue = (value: string | undefined): Policy[] =>
      members
        .filter(([, head]) => {
          const pinned = head.pins[dimension];
          return pinned === undefined || (value !== undefined && pinned.includes(value));
        })
        .map(([policy]) => policy);
    const byValue = new Map([...values].map((value) => [value, forValue(value)] as const));
    const rest = forValue(undefined);
    const largest = Math.max(rest.length, ...[...byValue.values()].map((each) => each.length));
    return { dimension, byValue, rest, largest };
  });
  const best = divisions.reduce((a, b) =>
    b.largest < a.largest || (b.largest === a.largest && b.rest.length < a.rest.length) ? b : a,
  );
  return {
    dimension: best.dimension,
    byValue: new Map([...best.byValue].map(([value, each]) => [value, sliceOf(each)])),
    rest: sliceOf(best.rest),
  };
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
