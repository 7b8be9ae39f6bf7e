import type { ArgumentType, Bundle, ContextOrder, TaskParam } from '../../core/bundle.js';
import type { EntityType, PolicyAction } from '../../core/decision.js';

const OPERATORS: EntityType[] = ['Agent', 'Orchestrator', 'ToolOwner', 'Person'];
const OPERATOR_ACTION = { principals: OPERATORS, resources: ['Task', 'Installation'] as EntityType[] };

/** Who may ask which action of what; anything else is denied before a policy is looked at. */
export const APPLIES: Record<PolicyAction, { principals: EntityType[]; resources: EntityType[] }> = {
  open: { principals: ['Agent', 'Orchestrator', 'Person'], resources: ['TaskType'] },
  mint: { principals: ['Agent', 'Orchestrator'], resources: ['Tool', 'Api'] },
  delegate: { principals: ['Agent'], resources: ['Tool', 'Api'] },
  call: { principals: ['Agent', 'Orchestrator'], resources: ['Tool'] },
  read: { principals: ['Agent', 'Orchestrator'], resources: ['Secret'] },
  view: OPERATOR_ACTION,
  control: OPERATOR_ACTION,
  revoke: OPERATOR_ACTION,
  lock: OPERATOR_ACTION,
  lift: OPERATOR_ACTION,
  abandon: OPERATOR_ACTION,
  activate: OPERATOR_ACTION,
  rotate: OPERATOR_ACTION,
  recover: OPERATOR_ACTION,
  audit: OPERATOR_ACTION,
};

/** What a policy can read of one value. */
export type AttributeType = 'String' | 'Long' | 'Bool' | 'Set<String>';

/** The attributes a bundle adds to the schema: what task types and tools declare. Every one of them is optional to a policy. */
export interface DeclaredAttributes {
  params: Map<string, AttributeType>;
  taskContext: Map<string, AttributeType>;
  arguments: Map<string, AttributeType>;
}

const PARAM_TYPES: Record<TaskParam['type'], AttributeType> = { string: 'String', integer: 'Long', boolean: 'Bool' };
const ARGUMENT_TYPES: Record<Exclude<ArgumentType, 'any'>, AttributeType> = {
  string: 'String',
  integer: 'Long',
  boolean: 'Bool',
  strings: 'Set<String>',
};
const CONTEXT_TYPES: Record<ContextOrder['kind'], AttributeType> = {
  ordered: 'String',
  fixed: 'String',
  'add-only': 'Set<String>',
};

/** The union over all task types and tools; that a name has one type everywhere was checked when the bundle was read. */
export function declaredAttributes(bundle: Bundle): DeclaredAttributes {
  const declared: DeclaredAttributes = { params: new Map(), taskContext: new Map(), arguments: new Map() };
  for (const type of bundle.taskTypes.values()) {
    for (const [name, param] of Object.entries(type.params)) declared.params.set(name, PARAM_TYPES[param.type]);
    for (const [key, order] of Object.entries(type.context)) declared.taskContext.set(key, CONTEXT_TYPES[order.kind]);
  }
  for (const resource of bundle.resources.values()) {
    for (const tool of resource.toolArguments.values()) {
      for (const [name, type] of Object.entries(tool.declared)) {
        if (type !== 'any') declared.arguments.set(name, ARGUMENT_TYPES[type]);
      }
    }
  }
  return declared;
}

/** What is the same for everything that is given out. */
const SITUATION = `"task": LiveTask, "environment": String, "dataSensitivity": String, "proof": String, "binding": String,
    "onBehalfOf"?: OnBehalfOf, "now": datetime`;
const AUDIENCE = `"audience": String, "enforcement": String`;

/**
 * The schema that policies are validated against and every question is checked against, in Cedar's own notation.
 * `Params`, `TaskContext` and `Arguments` come from the bundle, everything else is the same in every installation.
 */
export function cedarSchema(declared: DeclaredAttributes): string {
  return `// What policies can ask about. Params, TaskContext and Arguments are made from the bundle's task types and tools.
type Params = ${record(declared.params)};
type TaskContext = ${record(declared.taskContext)};
type Arguments = ${record(declared.arguments)};
type OnBehalfOf = { "subject": String, "proven": Bool };
type Delegator = { "agent": String, "tools": Set<String> };

// The task that somebody wants to open.
type NewTask = {
  "type": String, "params": Params, "purpose": String,
  "tools": Set<String>, "resources": Set<String>, "secrets": Set<String>, "agents": Set<String>,
  "ttlSeconds": Long, "context": TaskContext, "onBehalfOf"?: OnBehalfOf,
};

// The task that somebody works on. Its tools and agents are those it was opened with.
type LiveTask = {
  "id": String, "type": String, "params": Params, "purpose": String, "risk": String,
  "tools": Set<String>, "agents": Set<String>,
  "generation": Long, "selfOpened": Bool, "opener": String, "depth": Long, "context": TaskContext,
};

// Principals. Labels are tags: principal.hasTag("pii") && principal.getTag("pii") == "yes".
entity Agent, Orchestrator = {
  "spiffeId": String, "path": String, "trustDomain": String, "owner": String, "team": String, "riskTier": Long,
  "environment": String, "model"?: String, "tools": Set<String>, "reviewOverdue": Bool, "retired": Bool,
} tags String;
entity ToolOwner = { "spiffeId": String, "path": String, "trustDomain": String, "resources": Set<String> };
entity Person = { "issuer": String, "subject": String, "roles": Set<String> };

// Resources.
entity Installation;
entity TaskType = {
  "type": String, "risk": String, "tools": Set<String>, "resources": Set<String>, "secrets": Set<String>, "ttlSecondsMax": Long,
};
entity Task = { "type": String, "risk": String, "opener": String, "agents": Set<String> };
entity Api = { "resource": String, "sensitivity": String, "enforcement": String };
entity Tool in [Api] = { "name": String, "api": String, "sensitivity": String };
entity Secret = { "name": String, "backend": String, "sensitivity": String, "revocability": String };

${actions()}`;
}

function record(attributes: Map<string, AttributeType>): string {
  const lines = [...attributes].sort().map(([name, type]) => `${JSON.stringify(name)}?: ${type}`);
  return lines.length === 0 ? '{}' : `{ ${lines.join(', ')} }`;
}

/** The context of each action; those of operators have one in common. */
const CONTEXTS: Partial<Record<PolicyAction, string>> = {
  open: '"task": NewTask, "parent"?: LiveTask, "selfOpened": Bool, "now": datetime',
  mint: `${SITUATION},\n    ${AUDIENCE}, "ttlSecondsRequested": Long`,
  delegate: `${SITUATION},\n    ${AUDIENCE}, "ttlSecondsRequested": Long, "delegator": Delegator`,
  call: `${SITUATION},\n    ${AUDIENCE}, "delegator"?: Delegator, "arguments": Arguments, "calls": Long`,
  read: `${SITUATION},\n    "ttlSecondsRequested": Long`,
};
const OPERATOR_CONTEXT = '"secondPerson": Bool, "bound": Bool, "now": datetime';

/** Actions that ask alike are written together. */
function actions(): string {
  const alike = new Map<string, string[]>();
  for (const action of Object.keys(APPLIES) as PolicyAction[]) {
    const { principals, resources } = APPLIES[action];
    const body = `appliesTo {
  principal: [${principals.join(', ')}], resource: [${resources.join(', ')}],
  context: { ${CONTEXTS[action] ?? OPERATOR_CONTEXT} },
};`;
    alike.set(body, [...(alike.get(body) ?? []), JSON.stringify(action)]);
  }
  return [...alike].map(([body, names]) => `action ${names.join(', ')} ${body}\n`).join('');
}
