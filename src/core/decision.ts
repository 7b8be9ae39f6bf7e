/** What policy may limit a grant by. Several permitting policies: the strictest of each wins. */
export interface Limits {
  ttlMsMax?: number;
  binding?: 'dpop' | 'mtls' | 'any';
  callsMax?: number;
  /** Issue credentials only from backends that revoke at least this well. */
  revocability?: 'instant' | 'eventual' | 'expiry-only' | 'rotate-only';
  /** `<role>:<how many>`, several joined by `,` (all are needed); a decision with one is an *ask*. */
  approval?: string;
}

/** What a policy engine said to one question under one bundle. */
export interface Decision {
  effect: 'allow' | 'deny' | 'ask';
  /** The policies that determined it: permitting ones for allow and ask, forbidding ones for deny; empty when nothing permitted. */
  policyIds: string[];
  limits: Limits;
  /** Evaluation errors; any of them makes the decision a deny. */
  errors: string[];
  /** The digest of the bundle it was made under. */
  bundle: string;
  /** True when the decision read time, counts, budgets or approvals: never remembered, and it puts `call` in the token when about single calls. */
  volatile: boolean;
}

/** One question to policy: who, does what, to what, under which circumstances. Plain JSON values only. */
export interface PolicyQuestion {
  principal: PolicyEntity;
  action: PolicyAction;
  resource: PolicyEntity;
  context: Record<string, unknown>;
}

/** `ToolOwner` is the workload that enforces (a principal), `Tool` is what it offers (a resource of policy), `Api` the audience it belongs to. */
export type EntityType =
  | 'Agent'
  | 'Orchestrator'
  | 'ToolOwner'
  | 'Person'
  | 'Task'
  | 'TaskType'
  | 'Api'
  | 'Tool'
  | 'Secret'
  | 'Installation';

export interface PolicyEntity {
  type: EntityType;
  id: string;
  attributes: Record<string, unknown>;
}

/** `open` a task, `mint` a token, `delegate` one, `call` a tool, `read` a secret; the rest are what operators do. */
export type PolicyAction =
  | 'open'
  | 'mint'
  | 'delegate'
  | 'call'
  | 'read'
  | 'view'
  | 'control'
  | 'revoke'
  | 'lock'
  | 'lift'
  | 'abandon'
  | 'activate'
  | 'rotate'
  | 'recover'
  | 'audit';
