import { setImmediate } from 'node:timers/promises';
import type { ValidationAnswer } from '@cedar-policy/cedar-wasm/nodejs';
import { z } from 'zod';
import type { Bundle } from '../../core/bundle.js';
import type { Decision, PolicyQuestion } from '../../core/decision.js';
import { strictest } from '../../core/limits.js';
import type { Clock } from '../../core/time.js';
import { definePlugin } from '../plugin.js';
import { invalid } from './bundle-problems.js';
import type { PolicyEngine, PreparedPolicy } from './contract.js';
import { withEngine } from './engine.js';
import { isDeclared, nearestMiss, undeclaredWorkload } from './nearest-miss.js';
import { Place, type Slice, textsOf } from './place.js';
import { type Policy, readPolicies } from './policy-text.js';
import { type EngineQuestion, toEngine } from './question.js';
import { type ReadPath, touches } from './reads.js';
import { DecisionMemory, keyOf, QuestionMemory } from './remember.js';
import { cedarSchema, declaredAttributes } from './schema.js';
import { sliceBy } from './slices.js';

export interface CedarDeps {
  /** What policies see as `context.now` when the question does not say. */
  clock: Clock;
  /** Told of an evaluation that took longer than `slow_ms`. It cannot be interrupted; Cedar has no loops, so it always ends. */
  onSlow?(event: { action: string; elapsedMs: number; policies: number }): void;
}

const config = z.strictObject({
  kind: z.literal('cedar').default('cedar').describe('Policies in Cedar, evaluated in the process.'),
  decisions_remembered_max: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(20_000)
    .describe('How many decisions are remembered by all of their inputs, for each prepared bundle.'),
  slow_ms: z.int().min(1).max(10_000).default(50).describe('An evaluation that takes longer is reported.'),
});

/** Cedar in the process (docs/plugins/policy/cedar.md). */
export const cedar = definePlugin({
  kind: 'cedar',
  config,
  create: (settings: z.output<typeof config>, deps: CedarDeps): PolicyEngine => ({
    prepare: (bundle) => prepare(bundle, settings, deps),
  }),
});

const VALIDATED_AT_ONCE = 50;
const ASKED_AS_WHOLE_SHARE = 8;

/** What changes from one question to the next without anybody changing it. */
const VOLATILE: ReadPath[] = [
  ['context', 'now'],
  ['context', 'calls'],
];
const OF_ONE_CALL: ReadPath[] = [...VOLATILE, ['context', 'arguments']];

async function prepare(bundle: Bundle, settings: z.output<typeof config>, deps: CedarDeps): Promise<PreparedPolicy> {
  const problems: string[] = [];
  const policies = readPolicies(bundle.policies, problems);
  const declared = declaredAttributes(bundle);
  const schema = cedarSchema(declared);
  for (let at = 0; at < policies.length; at += VALIDATED_AT_ONCE) {
    // A large bundle takes seconds, and feeds and revocations go on meanwhile.
    await setImmediate();
    problems.push(...validate(schema, policies.slice(at, at + VALIDATED_AT_ONCE)));
  }
  if (problems.length > 0) throw invalid(problems);

  let slices = 0;
  const toolsIn = (api: string) => bundle.resources.get(api)?.tools ?? [];
  const divided = sliceBy(policies, toolsIn, (members) => toSlice(slices++, members));
  const place = new Place(schema);
  place.take();
  const memory = new DecisionMemory(settings.decisions_remembered_max);
  // In front of it, what was asked in the very same words. It keeps whole questions, so it is smaller.
  const asWhole = new QuestionMemory(Math.ceil(settings.decisions_remembered_max / ASKED_AS_WHOLE_SHARE));
  const byId = new Map(policies.map((policy) => [policy.id, policy]));

  const deny = (errors: string[]): Decision =>
    frozen({ effect: 'deny', policyIds: [], limits: {}, errors, bundle: bundle.digest, volatile: false });

  const evaluate = (slice: Slice, asked: EngineQuestion): Decision => {
    const fromMs = performance.now();
    const answer = place.ask(slice, asked);
    const elapsedMs = performance.now() - fromMs;
    if (elapsedMs > settings.slow_ms) {
      deps.onSlow?.({ action: asked.action.id, elapsedMs, policies: slice.policies.length });
    }
    if (answer.type !== 'success') return deny(answer.errors.map((error) => spoken(error.message)));
    const { decision, diagnostics } = answer.response;
    // The engine skips a policy that fails, a forbid too: any failure is a deny.
    const errors = diagnostics.errors.map((each) => `policy ${each.policyId}: ${each.error.message}`);
    const policyIds = [...diagnostics.reason].sort();
    const about = { policyIds, errors, bundle: bundle.digest, volatile: slice.volatile };
    if (errors.length > 0 || decision !== 'allow') return frozen({ effect: 'deny', limits: {}, ...about });
    const limits = strictest(policyIds.map((id) => byId.get(id)?.limits ?? {}));
    if (limits === undefined) {
      return deny([`policies ${policyIds.join(', ')} ask for bindings that exclude each other`]);
    }
    return frozen({ effect: limits.approval === undefined ? 'allow' : 'ask', limits, ...about });
  };

  const consider = (question: PolicyQuestion): Decision => {
    try {
      const slice = divided.of(question);
      if (slice === undefined) {
        return deny([
          `${question.action} of ${question.resource.type} is not something ${question.principal.type} can ask`,
        ]);
      }
      // Unknown agents get nothing, whatever policies say of agents.
      if (!isDeclared(question.principal, bundle)) return deny([undeclaredWorkload(bundle, question.principal.id)]);
      const { asked, errors } = toEngine(question, bundle, declared, deps.clock.now());
      if (errors.length > 0) return deny(errors);
      if (slice.volatile) return evaluate(slice, asked);
      return memory.recall(keyOf(slice.serial, asked, slice.reads), () => evaluate(slice, asked));
    } catch (cause) {
      return deny([`the policy engine failed: ${spoken(String((cause as Error)?.message ?? cause))}`]);
    }
  };

  const decide = (question: PolicyQuestion): Decision => asWhole.recall(question, () => consider(question));

  return {
    bundle,
    decide,
    nearestMiss(question) {
      const known = { bundle, policies, declared, applicable: divided.applicable, nowMs: deps.clock.now() };
      try {
        return nearestMiss(question, decide(question), known);
      } catch {
        return 'the question cannot be explained, because it is not complete';
      }
    },
    constrainsCalls(question) {
      const call: PolicyQuestion = { ...question, action: 'call' };
      try {
        return divided.of(call)?.limitsCalls ?? true;
      } catch {
        return true;
      }
    },
  };
}

/** Remembered decisions are handed out more than once. */
function frozen(decision: Decision): Decision {
  for (const part of [decision.policyIds, decision.limits, decision.errors]) Object.freeze(part);
  return Object.freeze(decision);
}

function toSlice(serial: number, policies: Policy[]): Slice {
  const reads = policies.flatMap((policy) => policy.reads);
  return {
    serial,
    policies,
    reads: unique(reads),
    volatile: VOLATILE.some((path) => touches(reads, path)),
    limitsCalls: policies.some(limitsCalls),
  };
}

function unique(paths: ReadPath[]): ReadPath[] {
  return [...new Map(paths.map((path) => [JSON.stringify(path), path])).values()];
}

function limitsCalls(policy: Policy): boolean {
  const { callsMax, approval } = policy.limits;
  return callsMax !== undefined || approval !== undefined || OF_ONE_CALL.some((path) => touches(policy.reads, path));
}

/** The engine's own complaints, by policy; its warnings too, since a policy that can never apply is a mistake. */
function validate(schema: string, policies: Policy[]): string[] {
  const byId = new Map(policies.map((policy) => [policy.id, policy]));
  let answer: ValidationAnswer;
  try {
    const set = { staticPolicies: textsOf(policies) };
    answer = withEngine((engine) => engine.validate({ schema, policies: set, validationSettings: { mode: 'strict' } }));
  } catch {
    return ['policies/: are too much for the policy engine; divide the longest ones'];
  }
  if (answer.type === 'failure') return answer.errors.map((error) => `policies/: ${error.message}`);
  const wrong = new Set(answer.validationErrors.map(({ policyId }) => policyId));
  const warnings = answer.validationWarnings.filter(({ policyId }) => !wrong.has(policyId));
  return [...answer.validationErrors, ...warnings].map(({ policyId, error }) => {
    const help = error.help ? ` (${error.help})` : '';
    return `${byId.get(policyId)?.file ?? 'policies/'}: policy ${policyId}: ${error.message.replace(`for policy \`${policyId}\`, `, '')}${help}`;
  });
}

/** The engine quotes whole contexts, and a context holds what callers wrote. */
function spoken(message: string): string {
  return /^context `/.test(message)
    ? 'the context does not have the shape that the schema asks for'
    : message.slice(0, 500);
}
