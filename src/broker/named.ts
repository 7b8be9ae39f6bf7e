import { type Bundle, nearestWorkload } from '../core/bundle.js';
import { BrokerError } from '../core/errors.js';
import { isName } from '../core/identity.js';
import { type IdKind, isId, parseId } from '../core/ids.js';

/* What names somebody or something has to have the form of such a name: anything else matches nothing, and nothing found reads as clean. */

const THINGS = {
  tsk: 'a task',
  lse: 'a lease',
  rev: 'a revocation',
  lck: 'a lock',
  dec: 'a decision',
  req: 'a request',
} as const satisfies Record<IdKind, string>;

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
  const found = other ? `; that is the id of ${THINGS[other]}` : '';
  throw new BrokerError('invalid_request', `${field}: not the id of ${THINGS[kind]} (${kind}_…)${found}.`, { field });
}
