import type { WorkloadDeclaration } from './agent.js';
import { didYouMean } from './did-you-mean.js';
import type { SpiffeId } from './spiffe-id.js';

/** The order of a context key's values, from loose to tight; or a set that may only grow; or set once, by whoever sets it first. */
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
  /** Context keys and how they may change (one not listed is `fixed` for everything below the task that sets it). */
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
  /** Names of its tools; a tool belongs to one resource. */
  tools: string[];
  /** What the calls of a tool carry, for those tools that declare it. */
  toolArguments: Map<string, ToolArguments>;
  enforcement: 'feed' | 'introspection' | 'gateway' | 'expiry-only';
  sensitivity: 'public' | 'internal' | 'confidential' | 'restricted';
}

/**
 * The arguments of a tool's calls that policy may read. `any` is let through and not shown to policy. What is not declared is
 * refused, or let through unseen where `others` says so; a tool without a declaration takes anything, and policy sees none of it.
 */
export interface ToolArguments {
  declared: Record<string, ArgumentType>;
  others: 'refuse' | 'allow';
}

export type ArgumentType = 'string' | 'integer' | 'boolean' | 'strings' | 'any';

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

interface BundleIndex {
  exact: Map<string, WorkloadDeclaration>;
  /** By what stands before the `*`, the slash included. */
  patterns: Map<string, WorkloadDeclaration>;
  resourcesByOwner: Map<string, string[]>;
  resourceByTool: Map<string, Resource>;
}

/** A bundle never changes, so what is looked up in it is indexed once, and goes with it. */
const indexes = new WeakMap<Bundle, BundleIndex>();

function indexOf(bundle: Bundle): BundleIndex {
  const known = indexes.get(bundle);
  if (known) return known;
  const index: BundleIndex = {
    exact: new Map(),
    patterns: new Map(),
    resourcesByOwner: new Map(),
    resourceByTool: new Map(),
  };
  for (const workload of bundle.workloads) {
    const isPattern = workload.spiffeId.endsWith('/*');
    if (isPattern) index.patterns.set(workload.spiffeId.slice(0, -1), workload);
    else index.exact.set(workload.spiffeId, workload);
  }
  for (const resource of bundle.resources.values()) {
    for (const tool of resource.tools) index.resourceByTool.set(tool, resource);
    for (const owner of resource.owners) {
      const owned = index.resourcesByOwner.get(owner);
      if (owned) owned.push(resource.resource);
      else index.resourcesByOwner.set(owner, [resource.resource]);
    }
  }
  indexes.set(bundle, index);
  return index;
}

/**
 * What the bundle declares about a workload: its exact SPIFFE ID first, then the pattern that differs in the last segment only
 * (`…/agent/*` holds `…/agent/a`, neither `…/agent` nor `…/agent/a/b`). Undefined: not declared, and nobody's.
 */
export function findWorkload(bundle: Bundle, spiffeId: SpiffeId): WorkloadDeclaration | undefined {
  const index = indexOf(bundle);
  return index.exact.get(spiffeId) ?? index.patterns.get(spiffeId.slice(0, spiffeId.lastIndexOf('/') + 1));
}

/** The audiences a workload owns; empty when it owns none. */
export function resourcesOwnedBy(bundle: Bundle, spiffeId: SpiffeId): string[] {
  return indexOf(bundle).resourcesByOwner.get(spiffeId) ?? [];
}

/** The resource a tool belongs to. */
export function resourceOfTool(bundle: Bundle, tool: string): Resource | undefined {
  return indexOf(bundle).resourceByTool.get(tool);
}

/** The exact SPIFFE IDs that are declared, patterns excluded. */
export function declaredWorkloads(bundle: Bundle): Iterable<string> {
  return indexOf(bundle).exact.keys();
}

/** The declared SPIFFE ID that an undeclared one most resembles, or whose end it is: for those who mistyped it or left its beginning out. */
export function nearestWorkload(bundle: Bundle, spiffeId: string): string | undefined {
  const end = `/${spiffeId.replace(/^\//, '')}`;
  for (const declared of declaredWorkloads(bundle)) if (declared.endsWith(end)) return declared;
  return didYouMean(spiffeId, declaredWorkloads(bundle));
}
