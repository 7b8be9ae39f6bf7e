import type { ProvenPerson, ProvenWorkload } from './identity.js';

/** A workload as its owner declared it in the bundle (`config/agents/*.yaml`, `config/orchestrators/*.yaml`). */
export interface WorkloadDeclaration {
  /** A SPIFFE ID, or a pattern whose last segment is `*` (whole segments: `…/agent/*`). */
  spiffeId: string;
  role: 'agent' | 'orchestrator';
  owner: string;
  team: string;
  /** 1 (harmless) to 4 (could hurt badly). Riskier tiers get shorter lives and narrower scopes, by policy. */
  riskTier: 1 | 2 | 3 | 4;
  environment: string;
  /** The model the agent runs, such as `claude-opus`: an attribute, never an identity. */
  model?: string;
  /** Tools this workload may ever be given; a task narrows them further. */
  tools: string[];
  labels: Record<string, string>;
  /** ISO date; past it, policy sees `reviewOverdue`. */
  reviewBy?: string;
  retired: boolean;
  /** A bounded exception where standing access is still needed. */
  standingExceptions: { secret: string; reason: string; until: string; owner: string }[];
}

/** Somebody known: proven identity plus what the bundle declares about it. */
export type Principal =
  | { kind: 'agent'; identity: ProvenWorkload; declaration: WorkloadDeclaration }
  | { kind: 'orchestrator'; identity: ProvenWorkload; declaration: WorkloadDeclaration }
  | { kind: 'tool'; identity: ProvenWorkload; resources: string[] }
  | { kind: 'person'; identity: ProvenPerson };
