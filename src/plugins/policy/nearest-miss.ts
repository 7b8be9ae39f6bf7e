import type { Clause, Context, Expr, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs';
import { type Bundle, findWorkload, nearestWorkload, resourceOfTool } from '../../core/bundle.js';
import type { Decision, PolicyEntity, PolicyQuestion } from '../../core/decision.js';
import { suggestion } from '../../core/did-you-mean.js';
import { parseSpiffeId, pathOf } from '../../core/spiffe-id.js';
import type { EpochMs } from '../../core/time.js';
import { withEngine } from './engine.js';
import type { Policy } from './policy-text.js';
import { type EngineQuestion, toEngine } from './question.js';
import type { DeclaredAttributes } from './schema.js';
import { conjunctsOf } from './slices.js';

/** Explaining is for people who ask why, one question at a time; it stays small all the same. */
const POLICIES_MAX = 40;
const CONDITIONS_MAX = 12;
const MISSES_SPOKEN_MAX = 3;

interface Known {
  bundle: Bundle;
  policies: Policy[];
  declared: DeclaredAttributes;
  nowMs: EpochMs;
  applicable(question: PolicyQuestion): Policy[];
}

interface Miss {
  policy: Policy;
  /** Conditions that do not hold, in words. */
  words: string[];
}

/**
 * What stood between a question and a yes, in one sentence: who is not declared, which policy forbids, or which permitting
 * policy had the fewest conditions unmet, and which. Undefined when it was not denied.
 */
export function nearestMiss(question: PolicyQuestion, decision: Decision, known: Known): string | undefined {
  if (decision.effect !== 'deny') return undefined;
  const undeclared = undeclaredThing(question, known.bundle);
  if (undeclared) return undeclared;
  if (decision.errors.length > 0) return decision.errors[0];

  if (decision.policyIds.length > 0) {
    const forbidding = known.policies.filter((policy) => decision.policyIds.includes(policy.id));
    return forbidding.map(forbiddenWords).join('; ');
  }
  const permitting = known.applicable(question).filter((policy) => policy.effect === 'permit');
  if (permitting.length === 0) return nobodyWords(question, known.policies);
  const { asked } = toEngine(question, known.bundle, known.declared, known.nowMs);
  const misses = permitting.slice(0, POLICIES_MAX).map((policy) => missOf(policy, asked));
  const nearest = misses.reduce((a, b) => (b.words.length < a.words.length ? b : a));
  return nearestWords(nearest);
}

function undeclaredThing({ principal, resource }: PolicyQuestion, bundle: Bundle): string | undefined {
  if (!isDeclared(principal, bundle)) return undeclaredWorkload(bundle, principal.id);
  if (resource.type === 'Tool' && resourceOfTool(bundle, resource.id) === undefined) {
    const tools = [...bundle.resources.values()].flatMap((each) => each.tools);
    return `tool ${resource.id} is not declared in any resource${suggestion(resource.id, tools)}`;
  }
  return undefined;
}

/** False for an agent or orchestrator that the bundle does not know in that role. Nobody else is declared in a bundle. */
export function isDeclared(principal: PolicyEntity, bundle: Bundle): boolean {
  if (principal.type !== 'Agent' && principal.type !== 'Orchestrator') return true;
  const id = parseSpiffeId(principal.id);
  const workload = id && findWorkload(bundle, id);
  return workload !== undefined && workload.role === (principal.type === 'Agent' ? 'agent' : 'orchestrator');
}

/** What to tell somebody whose workload no bundle declares: `agent not listed; did you mean /agent/refunds?` */
export function undeclaredWorkload(bundle: Bundle, spiffeId: string): string {
  const near = nearestWorkload(bundle, spiffeId);
  const id = parseSpiffeId(spiffeId);
  const nearId = parseSpiffeId(near);
  if (near === undefined || id === undefined || nearId === undefined) return 'agent not listed';
  const sameDomain = spiffeId.slice(0, -pathOf(id).length) === near.slice(0, -pathOf(nearId).length);
  return `agent not listed; did you mean ${sameDomain ? pathOf(nearId) : near}?`;
}

function forbiddenWords(policy: Policy): string {
  const conditions = policy.json.conditions
    .filter((clause) => clause.kind === 'when')
    .flatMap((clause) => conjunctsOf(clause.body))
    .slice(0, CONDITIONS_MAX);
  const because = conditions.length === 0 ? '' : ` because ${conditions.map(textOf).join(' and ')}`;
  const unless = policy.json.conditions
    .filter((clause) => clause.kind === 'unless')
    .map((clause) => textOf(clause.body));
  const way = unless.length === 0 ? '' : `; it would not if ${unless.join(' or ')}`;
  return `policy ${policy.id} forbids it${because}${way}`;
}

function nobodyWords(question: PolicyQuestion, policies: Policy[]): string {
  const named = policies.filter((policy) => policy.effect === 'permit' && policy.json.principal.op === '==');
  const ids = named.flatMap(({ json }) => {
    if (json.principal.op !== '==' || !('entity' in json.principal)) return [];
    const { entity } = json.principal;
    return ['__entity' in entity ? entity.__entity.id : entity.id];
  });
  return `no policy lets ${article(question.principal.type)} ${question.action} ${article(question.resource.type)} like this one${suggestion(question.principal.id, ids)}`;
}

function article(type: string): string {
  return `${/^[AEIOU]/.test(type) ? 'an' : 'a'} ${type}`;
}

function missOf(policy: Policy, asked: EngineQuestion): Miss {
  const words: string[] = [];
  for (const clause of policy.json.conditions) {
    const conditions = clause.kind === 'when' ? conjunctsOf(clause.body) : [clause.body];
    for (const condition of conditions.slice(0, CONDITIONS_MAX)) {
      // A condition that cannot be evaluated alone depends on a `has` before it, which is the one to name.
      if (holds({ kind: clause.kind, body: condition }, asked) === false)
        words.push(spokenCondition(clause.kind, condition, asked));
    }
  }
  return { policy, words };
}

function nearestWords({ policy, words }: Miss): string {
  if (words.length === 0) return `policy ${policy.id} is nearest, but one of its conditions cannot be evaluated here`;
  const only = words.length === 1 ? words[0] : undefined;
  if (only?.startsWith('tool ') || only?.startsWith('this agent ')) return `${only} (policy ${policy.id})`;
  const spoken = words
    .slice(0, MISSES_SPOKEN_MAX)
    .map((each) => (each.startsWith('tool ') || each.startsWith('this agent ') ? `not: ${each}` : each));
  const more = words.length > spoken.length ? ` and ${words.length - spoken.length} more` : '';
  return `policy ${policy.id} would permit it if ${spoken.join(' and ')}${more}`;
}

/** True or false, or undefined when the engine cannot evaluate it on its own. */
function holds(clause: Clause, asked: EngineQuestion): boolean | undefined {
  const policies = { staticPolicies: { one: { ...ANYTHING, conditions: [clause] } } };
  try {
    const answer = withEngine((engine) =>
      engine.isAuthorized({ ...asked, context: asked.context as Context, policies }),
    );
    if (answer.type === 'failure' || answer.response.diagnostics.errors.length > 0) return undefined;
    return answer.response.decision === 'allow';
  } catch {
    return undefined;
  }
}

const ANYTHING: PolicyJson = {
  effect: 'permit',
  principal: { op: 'All' },
  action: { op: 'All' },
  resource: { op: 'All' },
  conditions: [],
};

function spokenCondition(kind: 'when' | 'unless', condition: Expr, asked: EngineQuestion): string {
  const text = textOf(condition);
  if (kind === 'unless') return `not (${text})`;
  if (text === 'principal.tools.contains(resource.name)')
    return `tool ${asked.resource.id} is not in this agent's declaration`;
  if (text === 'context.task.tools.contains(resource.name)')
    return `tool ${asked.resource.id} is not among the tools of the task`;
  if (text === 'context.task.agents.contains(principal.spiffeId)') return 'this agent is not named in the task';
  const equal = /^\(?([\w.]+) == ("[^"]*"|-?\d+|true|false)\)?$/.exec(text);
  return equal ? `${equal[1]} were ${equal[2]}` : text;
}

/** An expression in Cedar's own notation. */
function textOf(body: Expr): string {
  const written = inCedar({ ...ANYTHING, conditions: [{ kind: 'when', body }] });
  const text = /when \{\s*([\s\S]*?)\s*\};?\s*$/.exec(written)?.[1];
  if (text === undefined) return 'one of its conditions holds';
  return text
    .replace(/\s+/g, ' ')
    .replace(/^\((.*)\)$/, (whole, inner: string) => (/^[^()]*$/.test(inner) ? inner : whole));
}

/** Empty for what the engine cannot write down, such as something nested very deeply. */
function inCedar(policy: PolicyJson): string {
  try {
    const answer = withEngine((engine) => engine.policyToText(policy));
    return answer.type === 'success' ? answer.text : '';
  } catch {
    return '';
  }
}
