import type { WorkloadDeclaration } from './agent.js';

/** The order of a context key's values, from loose to tight; or a set that may only grow; or fixed by the first task that sets it. */
export type ContextOrder = { kind: 'ordered'; values: string[] } | { kind: 'add-only' } | { kind: 'fixed' };

/** `config/tasks/*.yaml`: what a kind of work may need. */
export interface TaskType {
  type: string;
  description: string;
  params: Record<string, TaskParam>;
  tools: string[];
  resources: string[];
  secrets: string[];
  ttlMsMax: number;
  risk: 'low' | 'medium' | 'high';
  /** Context keys and how they may change (a key not listed is `fixed`). */
  context: Record<string, ContextOrder>;
  /** Context keys an agent of the task may tighten. */
  agentSettable: string[];
}

export interface TaskParam {
  type: 'string' | 'integer' | 'boolean';
  required: boolean;
  /** Anchored pattern for strings. */
  pattern?: string;
  values?: string[];
  minimum?: number;
  maximum?: number;
}

/** `config/resources/*.yaml`: an audience, who owns it, and how a revocation reaches it. */
export interface Resource {
  /** Absolute URI without fragment: the `resource` of RFC 8707 and the `aud` of tokens. */
  resource: string;
  description: string;
  /** SPIFFE IDs of the workloads that may introspect it, decide for it, read its feed and acknowledge. */
  owners: string[];
  tools: string[];
  enforcement: 'feed' | 'introspection' | 'gateway' | 'expiry-only';
  sensitivity: 'public' | 'internal' | 'confidential' | 'restricted';
}

/** `config/secrets/*.yaml`: declared here, issued by a backend. */
export interface SecretDeclaration {
  name: string;
  backend: string;
  sensitivity: 'public' | 'internal' | 'confidential' | 'restricted';
  ttlMsMax: number;
  settings: Record<string, unknown>;
}

/** Everything that policy decides by, content-addressed: one version for all brokers. */
export interface Bundle {
  /** `sha256:<hex>` over the sorted files: path, NUL, length, NUL, content. */
  digest: string;
  workloads: WorkloadDeclaration[];
  taskTypes: Map<string, TaskType>;
  resources: Map<string, Resource>;
  secrets: Map<string, SecretDeclaration>;
  /** Cedar text by file. */
  policies: Map<string, string>;
  /** As written: path below `config/` to content. What Redis holds and other brokers load. */
  files: Record<string, string>;
}
