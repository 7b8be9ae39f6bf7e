import { type IdKind, isId } from './ids.js';
import { refIn } from './task.js';

/** What things that are declared or generated are called: secrets, backends, task types, signing keys. */
export const NAME = /^[A-Za-z0-9_.-]{1,64}$/;

/**
 * What somebody wrote where an id or a name belongs, as it may stand in the record for years. What does not even have its form says nothing
 * to who reads it, and may be a password that was pasted into the wrong place: of that only the length is kept.
 */
export function asRecorded(kind: IdKind | 'name', text: string): string {
  const isOne = kind === 'name' ? NAME.test(text) : isId(kind, text) || (kind === 'tsk' && refIn(text) !== undefined);
  return isOne ? text : `(not ${kind === 'name' ? 'a name' : 'an id'}: ${text.length} characters)`;
}
