import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Bundle } from '../../../../src/core/bundle.js';
import type { PolicyQuestion } from '../../../../src/core/decision.js';
import { BrokerError } from '../../../../src/core/errors.js';
import { bundleFormat, isBundleFile } from '../../../../src/plugins/policy/bundle.js';
import { type CedarDeps, cedar } from '../../../../src/plugins/policy/cedar.js';
import type { PolicyEngine } from '../../../../src/plugins/policy/contract.js';

const CONFIG = join(import.meta.dirname, '../../../../config');

/** The sample bundle's files, as a reader of `config/` would hand them over. */
export function sampleFiles(): Record<string, string> {
  const files: Record<string, string> = {};
  for (const entry of readdirSync(CONFIG, { recursive: true, encoding: 'utf8' })) {
    if (isBundleFile(entry)) files[entry] = readFileSync(join(CONFIG, entry), 'utf8');
  }
  return files;
}

/** The sample's declarations under other policies. */
export function sampleWith(policies: Record<string, string>, more: Record<string, string> = {}): Bundle {
  const files = Object.fromEntries(Object.entries(sampleFiles()).filter(([path]) => !path.startsWith('policies/')));
  for (const [name, text] of Object.entries(policies)) files[`policies/${name}.cedar`] = text;
  return bundleFormat.parse({ ...files, ...more });
}

export const NOW_MS = Date.parse('2030-01-15T12:00:00Z');

export function cedarEngine(deps: Partial<CedarDeps> = {}, settings: object = {}): PolicyEngine {
  return cedar.create(cedar.config.parse(settings), { clock: { now: () => NOW_MS }, ...deps }) as PolicyEngine;
}

/** What a bundle or an engine refuses, in its own words. */
export async function problemsOf(refused: () => unknown): Promise<string[]> {
  try {
    await refused();
  } catch (error) {
    if (error instanceof BrokerError && error.code === 'bundle_invalid') return error.detail.problems ?? [];
    throw error;
  }
  throw new Error('it was accepted');
}

export const REFUNDS = 'spiffe://dev.mayfly/agent/refunds';

/** The refund agent asks for a token for `orders.read` in the refund of order 42. */
export function mintQuestion(
  change: { tool?: string; context?: object; task?: object; principal?: object } = {},
): PolicyQuestion {
  return {
    principal: {
      type: 'Agent',
      id: REFUNDS,
      attributes: {
        spiffeId: REFUNDS,
        path: '/agent/refunds',
        trustDomain: 'dev.mayfly',
        owner: 'payments@dev.example',
        team: 'payments',
        riskTier: 2,
        environment: 'production',
        tools: ['orders.read', 'orders.refund'],
        labels: { handles: 'money' },
        reviewOverdue: false,
        retired: false,
        ...change.principal,
      },
    },
    action: 'mint',
    resource: { type: 'Tool', id: change.tool ?? 'orders.read', attributes: {} },
    context: {
      task: {
        id: 'tsk_a_01h455vb4pex5vsknk084sn02q',
        type: 'refund',
        params: { order_id: 42 },
        purpose: 'a test',
        risk: 'medium',
        tools: ['orders.read', 'orders.refund'],
        agents: [REFUNDS],
        generation: 0,
        selfOpened: false,
        opener: 'spiffe://dev.mayfly/orchestrator/workflow',
        depth: 1,
        context: {},
        ...change.task,
      },
      environment: 'production',
      dataSensitivity: 'confidential',
      proof: 'jwt-svid',
      binding: 'none',
      audience: 'https://orders.example',
      enforcement: 'feed',
      ttlSecondsRequested: 300,
      ...change.context,
    },
  };
}

/** The same agent calls a tool with arguments. */
export function callQuestion(
  given: unknown,
  change: { tool?: string; context?: object; task?: object } = {},
): PolicyQuestion {
  const minted = mintQuestion({ tool: 'orders.refund', ...change });
  const { ttlSecondsRequested, ...context } = minted.context;
  void ttlSecondsRequested;
  return { ...minted, action: 'call', context: { ...context, arguments: given, calls: 0, ...change.context } };
}
