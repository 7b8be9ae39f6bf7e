import { type Bundle, nearestWorkload } from '../core/bundle.js';
import { BrokerError } from '../core/errors.js';
import { isName } from '../core/identity.js';
import { type IdKind, isId, parseId } from '../core/ids.js';

/* What names somebody or something has to have the form of such a name: anything else matches nothing, and nothing found reads as clean. */

const THINGS = {
  tsk: { is: 'a task', use: 'mayfly task' },
  lse: { is: 'a lease', use: 'mayfly lease' },
  rev: { is: 'a revocation', use: 'mayfly why' },
  lck: { is: 'a lock', use: 'mayfly lock' },
  dec: { is: 'a decision', use: 'mayfly why' },
  req: { is: 'a request', use: 'mayfly audit' },
} as const satisfies Record<IdKind, { is: string; use: string }>;

/** Of an agent, or of whoever opened a task. */
export function mustBeName(bundle: Bundle, field: string, text: string | undefined): void {
  if (text === undefined || isName(text)) return;
  const near = nearestWorkload(bundle, text);
  throw new BrokerError('invalid_request', `${field}: neither a SPIFFE ID nor <issuer>#<subject> of a person.`, {
    field,
    ...(near !== undefined && { hint: `Did you mean ${near}?` }),
  });
}

export function mustBeId(kind: IdKind, field: string, text: string | undefined): void {
  if (text === undefined || isId(kind, text)) return;
  const other = parseId(text)?.kind;
  const found = other ? `; that is the id of ${THINGS[other].is}` : '';
  throw new BrokerError('invalid_request', `${field}: not the id of ${THINGS[kind].is} (${kind}_…)${found}.`, {
    field,
  });
}

/** For the hint of a refusal: what an id is the id of, where another kind of thing is asked for. Nothing about whether there is one. */
export function otherThing(wanted: IdKind, text: string): string | undefined {
  const kind = parseId(text)?.kind;
  if (kind === undefined || kind === wanted) return undefined;
  return `That is the id of ${THINGS[kind].is}: use ${THINGS[kind].use}.`;
}

/** For the hint of a refusal: what of a text that was to be explained is not an id of something that can be. */
export function notExplained(text: string): string {
  const begun = /^([a-z]{3})_/.exec(text)?.[1];
  if (begun === 'req') return 'That is the id of a request. Its refusal names a decision_id (dec_…): explain that.';
  const whole =
    begun !== undefined && begun in THINGS ? `That is not a whole id of ${THINGS[begun as IdKind].is}. ` : '';
  return `${whole}What can be explained is dec_…, lse_…, tsk_…, ref:…, lck_…, rev_… or a token of this broker.`;
}
