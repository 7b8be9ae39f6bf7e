import { BrokerError } from './errors.js';

/** A cursor that no page of this list ended with: going on from somewhere else would repeat or skip without a word. */
export function strangeCursor(): BrokerError {
  return new BrokerError('invalid_request', 'cursor: not one that this list gave.', {
    field: 'cursor',
    hint: 'Take next_cursor of the page before, with the same filters, or leave it out to begin.',
  });
}
