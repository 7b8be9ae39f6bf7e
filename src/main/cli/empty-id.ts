import type { Command } from 'commander';
import { UsageError } from './output.js';

/** What names one thing, by its placeholder in the help. */
const IDS = /[<[](task|lease|lock|kid|about|id|uri|ref|name|who)[>\]]/;

/** An id that is empty is a variable that was never set: it is told by its argument, before anything is asked or, unnarrowed, listed. */
export function checkIds(command: Command): void {
  for (const [at, argument] of command.registeredArguments.entries()) {
    const shown = `<${argument.name()}>`;
    if (IDS.test(shown) && command.args[at] === '') throw emptyId(shown);
  }
  const given = command.optsWithGlobals<Record<string, unknown>>();
  for (const option of command.options) {
    if (IDS.test(option.flags) && [given[option.attributeName()]].flat().includes('')) throw emptyId(option.long);
  }
}

function emptyId(shown: string | null | undefined): UsageError {
  return new UsageError(`Nothing was done: ${shown} is empty.`);
}
