import { LRUCache } from 'lru-cache';
import type { Decision } from '../../core/decision.js';
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
    // A failure may pass, and a volatile decision was about one moment.
    if (decision.errors.length === 0 && !decision.volatile && key.length <= KEY_CHARACTERS_MAX) {
      this.#decisions.set(key, decision);
    }
    return decision;
  }
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
