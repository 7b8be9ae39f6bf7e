import { LRUCache } from 'lru-cache';
import type { Decision, PolicyQuestion } from '../../core/decision.js';
import type { EngineQuestion } from './question.js';
import { type ReadPath, TAGS } from './reads.js';

/** Longer keys are not remembered: what fills the memory would be a caller's choice. */
const KEY_CHARACTERS_MAX = 8_192;

/**
 * Decisions already made, by all of their inputs. One memory belongs to one prepared bundle, so its version is not in the key;
 * everything that the evaluated policies can read is. A revocation is never looked up here: policy only says what it would allow.
 */
export class DecisionMemory {
  readonly #decisions: LRUCache<string, Decision>;

  constructor(entriesMax: number) {
    this.#decisions = new LRUCache({ max: entriesMax });
  }

  get size(): number {
    return this.#decisions.size;
  }

  /** What was decided for the same inputs, or what `decide` says now. */
  recall(key: string, decide: () => Decision): Decision {
    const known = this.#decisions.get(key);
    if (known !== undefined) return known;
    const decision = decide();
    if (isKept(decision) && key.length <= KEY_CHARACTERS_MAX) {
      this.#decisions.set(key, decision);
    }
    return decision;
  }
}

interface Asked {
  /** A copy that nobody else has. */
  question: unknown;
  decision: Decision;
}

/**
 * Questions that were asked before in the very same words, read by policies or not, with their decisions. Of those that are about the same (who,
 * what, which task) the latest is kept, and a question that is equal to it in every member needs neither the engine's form nor a text.
 */
export class QuestionMemory {
  readonly #asked: LRUCache<string, Asked>;

  constructor(entriesMax: number) {
    this.#asked = new LRUCache({ max: entriesMax });
  }

  recall(question: PolicyQuestion, decide: () => Decision): Decision {
    const subject = subjectOf(question);
    if (subject === undefined) return decide();
    const before = this.#asked.get(subject);
    if (before !== undefined && isSame(question, before.question)) return before.decision;
    const decision = decide();
    const text = isKept(decision) ? textOf(question) : undefined;
    if (text !== undefined && text.length <= KEY_CHARACTERS_MAX) {
      this.#asked.set(subject, { question: JSON.parse(text), decision });
    }
    return decision;
  }
}

/** Undefined for what is no question, which has its own refusals. */
function subjectOf({ principal, action, resource, context }: PolicyQuestion): string | undefined {
  try {
    const task = context['task'] as { id?: unknown } | undefined;
    return `${action} ${principal.type} ${principal.id} ${resource.id} ${task?.id} ${context['binding']}`;
  } catch {
    return undefined;
  }
}

/** Undefined for a question that is no JSON. */
function textOf(question: PolicyQuestion): string | undefined {
  try {
    return JSON.stringify(question);
  } catch {
    return undefined;
  }
}

/** Whether a value would be written as the JSON that was parsed again to `kept`; no wherever that is not certain. */
function isSame(value: unknown, kept: unknown): boolean {
  if (value === kept) return true;
  if (typeof value !== 'object' || typeof kept !== 'object' || value === null || kept === null) return false;
  if (Array.isArray(value) || Array.isArray(kept)) {
    if (!Array.isArray(value) || !Array.isArray(kept) || value.length !== kept.length) return false;
    return value.every((each, at) => isSame(each, kept[at]));
  }
  let left = Object.keys(kept).length;
  for (const name of Object.keys(value)) {
    const member = (value as Record<string, unknown>)[name];
    if (member === undefined) continue;
    if (!Object.hasOwn(kept, name) || !isSame(member, (kept as Record<string, unknown>)[name])) return false;
    left -= 1;
  }
  return left === 0;
}

/** A failure may pass, and a volatile decision was about one moment. */
function isKept(decision: Decision): boolean {
  return decision.errors.length === 0 && !decision.volatile;
}

/**
 * One text for all inputs of a decision under one slice of policies: the ids, the resource's parents, and every value on a path
 * that one of them reads. Two questions with the same text get the same answer from the same policies.
 */
export function keyOf(slice: number, asked: EngineQuestion, reads: ReadPath[]): string {
  const [principal, resource] = asked.entities;
  const roots = {
    principal: { ...principal?.attrs, ...(principal?.tags ? { [TAGS]: principal.tags } : {}) },
    resource: resource?.attrs,
    action: undefined,
    context: asked.context,
  };
  const values: unknown[] = [slice, asked.principal, asked.action.id, asked.resource, resource?.parents];
  for (const [variable, ...attributes] of reads) {
    let value: unknown = roots[variable];
    for (const attribute of attributes) {
      value =
        typeof value === 'object' && value !== null && Object.hasOwn(value, attribute)
          ? (value as Record<string, unknown>)[attribute]
          : undefined;
    }
    // What is not there reads as null: the engine knows no null, so nothing that is there does.
    values.push(value);
  }
  return JSON.stringify(values);
}
