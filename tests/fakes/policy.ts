import type { ActivePolicies } from '../../src/broker/parts.js';
import type { WorkloadDeclaration } from '../../src/core/agent.js';
import type { Bundle, Resource, SecretDeclaration, TaskType } from '../../src/core/bundle.js';
import type { Decision, PolicyQuestion } from '../../src/core/decision.js';
import { BrokerError } from '../../src/core/errors.js';
import type { BundleFormat, PolicyEngine, PreparedPolicy } from '../../src/plugins/policy/contract.js';
import type { Views } from '../../src/state/stores.js';

/** A policy as a function; what it leaves out of a decision is filled in. */
export type Rule = (question: PolicyQuestion) => Decision['effect'] | Partial<Decision>;

export const allowAll: Rule = () => 'allow';

/**
 * Policies that a test can flip: `rule` answers for every bundle that has none of its own in `rules`. Bundles are known by their digest;
 * one that was not `know`n, or was `forget`-ed, is `unavailable`, as on a broker that has not loaded it.
 */
export class FakePolicies implements ActivePolicies, PolicyEngine, BundleFormat {
  rule: Rule;
  /** Whether tokens are marked `call`. */
  constrains: (question: PolicyQuestion) => boolean = () => false;
  readonly rules = new Map<string, Rule>();
  readonly #bundles = new Map<string, Bundle>();
  readonly #views: Views;
  #current: string | undefined;

  constructor(views: Views, rule: Rule = allowAll) {
    this.#views = views;
    this.rule = rule;
  }

  know(bundle: Bundle, rule?: Rule): void {
    this.#bundles.set(bundle.digest, bundle);
    if (rule) this.rules.set(bundle.digest, rule);
    this.#current ??= bundle.digest;
  }

  forget(digest: string): void {
    this.#bundles.delete(digest);
    if (this.#current === digest) this.#current = undefined;
  }

  of(digest: string): PreparedPolicy {
    const bundle = this.#bundles.get(digest);
    if (!bundle) {
      throw new BrokerError('unavailable', 'Mayfly cannot decide right now.', {
        reason: `bundle ${digest} is not loaded`,
      });
    }
    return this.#prepared(bundle);
  }

  async refresh(): Promise<PreparedPolicy> {
    const active = await this.#views.activeBundle();
    if (!active) throw new BrokerError('unavailable', 'Mayfly cannot decide right now.', { reason: 'no bundle' });
    const policy = this.of(active.digest);
    this.#current = active.digest;
    return policy;
  }

  current(): PreparedPolicy | undefined {
    const bundle = this.#bundles.get(this.#current ?? '');
    return bundle && this.#prepared(bundle);
  }

  /** Bundles in tests are made by `fakeBundle`; their one file names them. */
  parse(files: Record<string, string>): Bundle {
    const name = files['name'];
    const known = [...this.#bundles.values()].find((bundle) => bundle.files['name'] === name);
    if (known) return known;
    throw new BrokerError('bundle_invalid', 'The bundle does not validate.', { problems: ['name: no such bundle'] });
  }

  async prepare(bundle: Bundle): Promise<PreparedPolicy> {
    this.know(bundle);
    return this.#prepared(bundle);
  }

  #prepared(bundle: Bundle): PreparedPolicy {
    return {
      bundle,
      decide: (question) => {
        const said = (this.rules.get(bundle.digest) ?? this.rule)(question);
        const partial = typeof said === 'string' ? { effect: said } : said;
        return {
          effect: 'allow',
          policyIds: ['rule'],
          limits: {},
          errors: [],
          bundle: bundle.digest,
          volatile: false,
          ...partial,
        };
      },
      nearestMiss: () => undefined,
      constrainsCalls: (question) => this.constrains(question),
    };
  }
}

export interface BundleParts {
  workloads?: Partial<WorkloadDeclaration>[];
  taskTypes?: Partial<TaskType>[];
  resources?: Partial<Resource>[];
  secrets?: Partial<SecretDeclaration>[];
}

/** A bundle whose digest is `sha256:` and its name in hex, padded, so that a failing test shows which one it was. */
export function fakeBundle(name: string, parts: BundleParts = SAMPLE): Bundle {
  return {
    digest: `sha256:${Buffer.from(name).toString('hex').padEnd(64, '0')}`,
    workloads: (parts.workloads ?? []).map((one) => ({ ...WORKLOAD, ...one })),
    taskTypes: new Map((parts.taskTypes ?? []).map((one) => [one.type ?? 'refund', { ...TASK_TYPE, ...one }])),
    resources: new Map(
      (parts.resources ?? []).map((one) => [one.resource ?? RESOURCE.resource, { ...RESOURCE, ...one }]),
    ),
    secrets: new Map((parts.secrets ?? []).map((one) => [one.name ?? SECRET.name, { ...SECRET, ...one }])),
    policies: new Map(),
    files: { name },
  };
}

export const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';
export const EMAILS = 'spiffe://dev.mayfly/agent/emails';
export const ORCHESTRATOR = 'spiffe://dev.mayfly/orchestrator/support';
export const ORDERS_TOOL = 'spiffe://dev.mayfly/tool/orders';
export const MAIL_TOOL = 'spiffe://dev.mayfly/tool/mail';
export const ORDERS = 'https://orders.example';
export const MAIL = 'https://mail.example';

const WORKLOAD: WorkloadDeclaration = {
  spiffeId: REFUNDS,
  role: 'agent',
  owner: 'payments@example.com',
  team: 'payments',
  riskTier: 2,
  environment: 'sandbox',
  model: 'claude-opus',
  tools: ['orders.read', 'orders.refund', 'mail.send'],
  labels: {},
  retired: false,
  standingExceptions: [],
};

const TASK_TYPE: TaskType = {
  type: 'refund',
  description: 'Refund one order',
  params: { order_id: { type: 'string', required: false } },
  tools: ['orders.read', 'orders.refund', 'mail.send'],
  resources: [ORDERS, MAIL],
  secrets: ['orders-db'],
  ttlMsMax: 3_600_000,
  risk: 'medium',
  context: {
    risk: { kind: 'ordered', values: ['low', 'medium', 'high'] },
    flags: { kind: 'add-only' },
    ticket: { kind: 'fixed' },
  },
  agentSettable: ['risk'],
};

const RESOURCE: Resource = {
  resource: ORDERS,
  description: 'The order system',
  owners: [ORDERS_TOOL],
  tools: ['orders.read', 'orders.refund'],
  toolArguments: new Map(),
  enforcement: 'feed',
  sensitivity: 'internal',
};

const SECRET: SecretDeclaration = {
  name: 'orders-db',
  backend: 'pg',
  sensitivity: 'internal',
  ttlMsMax: 600_000,
  settings: { role: 'readers' },
};

/** Two agents, an orchestrator, one task type, two audiences. */
const SAMPLE: BundleParts = {
  workloads: [
    { spiffeId: REFUNDS },
    { spiffeId: EMAILS, team: 'support', owner: 'support@example.com' },
    { spiffeId: ORCHESTRATOR, role: 'orchestrator', team: 'support', owner: 'support@example.com', tools: [] },
  ],
  taskTypes: [{}],
  secrets: [{}],
  resources: [{}, { resource: MAIL, owners: [MAIL_TOOL], tools: ['mail.send'] }],
};
