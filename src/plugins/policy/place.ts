import type { AuthorizationAnswer, CheckParseAnswer, Context } from '@cedar-policy/cedar-wasm/nodejs';
import { engineNumber, withEngine } from './engine.js';
import type { Policy } from './policy-text.js';
import type { EngineQuestion } from './question.js';
import type { ReadPath } from './reads.js';
import { SLICES_MAX } from './slices.js';

/** Policies that are evaluated together. */
export interface Slice {
  /** Never the same for two slices of a bundle. */
  serial: number;
  policies: Policy[];
  reads: ReadPath[];
  /** It reads what changes by itself: the time, the count of calls. */
  volatile: boolean;
  /** Some of its policies limits single calls. */
  limitsCalls: boolean;
}

/**
 * The engine keeps prepared policies by name and never lets go of a name, so there are few names and they are used again: four
 * places, each with a schema and numbered slices, a slice being prepared at its first question. A prepared bundle whose place was taken by a newer one takes the least recently used place
 * at its next question. So the active bundle, its predecessor and a preview live side by side, and none is ever answered from
 * another's policies.
 */
export class Place {
  static readonly #owners: (Place | undefined)[] = [undefined, undefined, undefined, undefined];
  static #clock = 0;

  readonly #schema: string;
  /** What stands under each number now. */
  #held: (Slice | undefined)[] = [];
  #number = -1;
  /** The instance of the engine that holds it. */
  #engine = -1;
  #lastUsed = 0;

  constructor(schema: string) {
    this.#schema = schema;
  }

  ask(slice: Slice, asked: EngineQuestion): AuthorizationAnswer {
    if (Place.#owners[this.#number] !== this || this.#engine !== engineNumber()) this.take();
    this.#lastUsed = ++Place.#clock;
    return withEngine((engine) =>
      engine.statefulIsAuthorized({
        ...asked,
        context: asked.context as Context,
        validateRequest: true,
        preparsedSchemaName: this.#name,
        preparsedPolicySetId: this.#hold(slice),
      }),
    );
  }

  get #name(): string {
    return `place-${this.#number}`;
  }

  /** The name under which the slice is prepared. */
  #hold(slice: Slice): string {
    const at = slice.serial % SLICES_MAX;
    const name = `${this.#name}-${at}`;
    if (this.#held[at] !== slice) {
      this.#held[at] = undefined;
      const set = { staticPolicies: textsOf(slice.policies) };
      ready(withEngine((engine) => engine.preparsePolicySet(name, set)));
      this.#held[at] = slice;
    }
    return name;
  }

  take(): void {
    const used = Place.#owners.map((owner) => (owner === undefined ? -1 : owner.#lastUsed));
    const number = used.indexOf(Math.min(...used));
    // Nobody owns it until the schema is there: a failure leaves no half of two bundles.
    Place.#owners[number] = undefined;
    ready(withEngine((engine) => engine.preparseSchema(`place-${number}`, this.#schema)));
    this.#held = [];
    Place.#owners[number] = this;
    this.#number = number;
    this.#engine = engineNumber();
    this.#lastUsed = ++Place.#clock;
  }
}

function ready(answer: CheckParseAnswer): void {
  if (answer.type === 'failure') throw new Error(`policies cannot be prepared: ${answer.errors[0]?.message}`);
}

export function textsOf(policies: Policy[]): Record<string, string> {
  return Object.fromEntries(policies.map((policy) => [policy.id, policy.text]));
}
